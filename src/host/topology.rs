//! CPUs, cores, packages, NUMA nodes and last-level caches, from sysfs.
//!
//! Files: Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node,
//! Documentation/ABI/testing/sysfs-devices-system-cpu (caches),
//! Documentation/ABI/testing/sysfs-bus-event_source-devices (hybrid PMUs' `cpus`).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cpulist;
use super::roots::Roots;

/// Where a thread runs; `package` and `core` as node_exporter names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// `physical_package_id`; -1 where firmware does not tell (some arm64 machines).
    pub package: i32,
    /// `core_id`, unique within the package.
    pub core: i32,
    /// NUMA node; 0 on a kernel without NUMA.
    pub numa_node: u32,
}

/// The kind of core, on machines that have more than one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CoreType {
    /// All cores are alike.
    #[default]
    Uniform,
    /// A performance core: listed in the `cpu_core` PMU of sysfs.
    Performance,
    /// An efficiency core: listed in the `cpu_atom` or `cpu_lowpower` PMU of sysfs.
    Efficiency,
}

impl CoreType {
    /// Value of the `core_type` label; empty where all cores are alike.
    pub fn label(self) -> &'static str {
        match self {
            CoreType::Uniform => "",
            CoreType::Performance => "performance",
            CoreType::Efficiency => "efficiency",
        }
    }
}

/// One logical CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// Its number, as in /proc/cpuinfo and the stat file's `processor` field.
    pub id: u32,
    /// Package, core and node.
    pub place: Place,
    /// SMT siblings, itself among them, ascending.
    pub siblings: Vec<u32>,
    /// Kind of core.
    pub core_type: CoreType,
    /// Id of the last-level cache it shares, where sysfs tells.
    pub llc: Option<u32>,
    /// Whether it is online now.
    pub online: bool,
}

/// All CPUs of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Ascending by id; CPUs that are offline and were never seen online are missing.
    pub cpus: Vec<Cpu>,
}

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file or directory could not be read.
    #[error("cannot read {path}: {error}; is sysfs mounted there (--path.sysfs)?")]
    Read {
        /// The file.
        path: PathBuf,
        /// Its error.
        #[source]
        error: io::Error,
    },
    /// A file says something unexpected.
    #[error("{path} is not a CPU list: {text:?}")]
    NotAList {
        /// The file.
        path: PathBuf,
        /// Its first characters.
        text: String,
    },
}

impl Topology {
    /// Reads the whole topology. CPUs that are offline keep the place `before` knew.
    ///
    /// # Errors
    /// When the list of CPUs cannot be read; single files that are missing leave their fact out.
    pub fn read(roots: &Roots, before: &Topology) -> Result<Self, TopologyError> {
        let dir = roots.sys.join("devices/system/cpu");
        let online = online(roots, &dir)?;
        let nodes = node_of_cpus(roots);
        let types = core_types(roots);
        let mut cpus: Vec<Cpu> = online
            .iter()
            .map(|&id| read_cpu(roots, &dir, id, &nodes, types.get(&id).copied()))
            .collect();
        let offline = before.cpus.iter().filter(|cpu| !online.contains(&cpu.id));
        cpus.extend(offline.map(|cpu| Cpu {
            online: false,
            ..cpu.clone()
        }));
        cpus.sort_by_key(|cpu| cpu.id);
        cpus.dedup_by_key(|cpu| cpu.id);
        Ok(Self { cpus })
    }

    /// The CPU of this number.
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        // Numbers have no gaps on nearly every machine: look there first.
        match self.cpus.get(id as usize) {
            Some(cpu) if cpu.id == id => Some(cpu),
            _ => self
                .cpus
                .binary_search_by_key(&id, |cpu| cpu.id)
                .ok()
                .map(|n| &self.cpus[n]),
        }
    }

    /// Where the CPU of this number lies.
    pub fn place(&self, id: u32) -> Option<Place> {
        self.cpu(id).map(|cpu| cpu.place)
    }
}

fn online(roots: &Roots, dir: &Path) -> Result<Vec<u32>, TopologyError> {
    let path = dir.join("online");
    let text = roots
        .read_text(&path)
        .map_err(|error| TopologyError::Read {
            path: path.clone(),
            error,
        })?;
    cpulist::parse(&text).ok_or_else(|| TopologyError::NotAList {
        path,
        text: text.chars().take(40).collect(),
    })
}

fn read_cpu(
    roots: &Roots,
    dir: &Path,
    id: u32,
    nodes: &HashMap<u32, u32>,
    core_type: Option<CoreType>,
) -> Cpu {
    let dir = dir.join(format!("cpu{id}"));
    let number = |file: &str| read_number(roots, &dir.join(file));
    let siblings = read_list(roots, &dir.join("topology/thread_siblings_list"));
    Cpu {
        id,
        place: Place {
            package: number("topology/physical_package_id").unwrap_or(0),
            // Where sysfs has no topology, or firmware tells it nothing (-1), each CPU is a core.
            core: number("topology/core_id")
                .filter(|core| *core >= 0)
                .unwrap_or(id as i32),
            numa_node: nodes.get(&id).copied().unwrap_or(0),
        },
        siblings: siblings.unwrap_or_else(|| vec![id]),
        core_type: core_type.unwrap_or_default(),
        llc: last_level_cache(roots, &dir.join("cache")),
        online: true,
    }
}

/// The id of the cache of the highest level. Where the kernel gives caches no id (many arm64
/// machines), the first CPU that shares it stands for it.
fn last_level_cache(roots: &Roots, dir: &Path) -> Option<u32> {
    let caches = roots.list(dir).ok()?;
    let (_, index) = caches
        .iter()
        .filter(|name| name.starts_with("index"))
        .filter_map(|name| Some((read_number(roots, &dir.join(name).join("level"))?, name)))
        .max()?;
    let dir = dir.join(index);
    match read_number(roots, &dir.join("id")) {
        Some(id) => u32::try_from(id).ok(),
        None => read_list(roots, &dir.join("shared_cpu_list"))?
            .first()
            .copied(),
    }
}

fn node_of_cpus(roots: &Roots) -> HashMap<u32, u32> {
    let dir = roots.sys.join("devices/system/node");
    let names = roots.list(&dir).unwrap_or_default();
    let nodes = names.iter().filter_map(|name| {
        let node: u32 = name.strip_prefix("node")?.parse().ok()?;
        Some((node, read_list(roots, &dir.join(name).join("cpulist"))?))
    });
    nodes
        .flat_map(|(node, cpus)| cpus.into_iter().map(move |cpu| (cpu, node)))
        .collect()
}

fn core_types(roots: &Roots) -> HashMap<u32, CoreType> {
    let devices = roots.sys.join("bus/event_source/devices");
    [
        ("cpu_core", CoreType::Performance),
        ("cpu_atom", CoreType::Efficiency),
        // The low-power E-cores beside them (hybrid_tiny, arch/x86/events/intel/core.c).
        ("cpu_lowpower", CoreType::Efficiency),
    ]
    .into_iter()
    .filter_map(|(pmu, kind)| Some((read_list(roots, &devices.join(pmu).join("cpus"))?, kind)))
    .flat_map(|(cpus, kind)| cpus.into_iter().map(move |cpu| (cpu, kind)))
    .collect()
}

fn read_number(roots: &Roots, path: &Path) -> Option<i32> {
    roots.read_text(path).ok()?.trim().parse().ok()
}

fn read_list(roots: &Roots, path: &Path) -> Option<Vec<u32>> {
    cpulist::parse(&roots.read_text(path).ok()?)
}

/// Follows CPUs that go online and offline, at the cost of one read of a kept file a look.
#[derive(Debug)]
pub struct Watch {
    roots: Arc<Roots>,
    online: File,
    seen: Vec<u8>,
    topology: Arc<Topology>,
}

impl Watch {
    /// Reads the topology and keeps `cpu/online` open.
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub fn new(roots: Arc<Roots>) -> Result<Self, TopologyError> {
        let path = roots.sys.join("devices/system/cpu/online");
        let online = roots.open(&path).map_err(|error| TopologyError::Read {
            path: path.clone(),
            error,
        })?;
        // First: what changes while the topology is read is noticed at the next look.
        let seen = contents(&online).unwrap_or_default();
        let topology = Arc::new(Topology::read(&roots, &Topology::default())?);
        Ok(Self {
            roots,
            online,
            seen,
            topology,
        })
    }

    /// The topology now: the same `Arc` while no CPU went on- or offline.
    pub fn look(&mut self) -> &Arc<Topology> {
        let now = contents(&self.online).unwrap_or_default();
        if now != self.seen {
            match Topology::read(&self.roots, &self.topology) {
                Ok(topology) => {
                    self.topology = Arc::new(topology);
                    self.seen = now;
                }
                Err(error) => tracing::warn!(%error, "keeping the CPU topology as it was"),
            }
        }
        &self.topology
    }
}

fn contents(file: &File) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    let n = file.read_at(&mut buffer, 0)?;
    Ok(buffer[..n].to_vec())
}

#[cfg(test)]
mod tests;
