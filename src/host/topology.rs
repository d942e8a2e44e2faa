//! CPUs, cores, packages, NUMA nodes and last-level caches from sysfs.
//!
//! Files: Documentation/ABI/stable/sysfs-devices-system-cpu and sysfs-devices-node,
//! Documentation/ABI/testing/sysfs-devices-system-cpu (caches),
//! Documentation/ABI/testing/sysfs-bus-event_source-devices (hybrid PMUs' `cpus`).
//!
//! A core is a set of SMT siblings, a cache a set of CPUs that share it; their ids repeat on some
//! machines, so `shared` assigns unique numbers. A package is what the kernel reports: arm64 with a
//! device tree without `socket` nodes has one for all CPUs (drivers/base/arch_topology.c), and
//! sysfs has no better source; its NUMA nodes are still distinct.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cpulist;
use super::label::label_values;
use super::roots::Roots;

mod cpu;
mod shared;

use cpu::FoundCpu;

/// Location of a CPU; `package` and `core` as in node_exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// `physical_package_id`; -1 if firmware does not report it (some arm64 machines).
    pub package: i32,
    /// Core number, unique within the package: its `core_id` if no other core of the package has
    /// the same, else its lowest CPU.
    pub core: i32,
    /// NUMA node; 0 on a kernel without NUMA.
    pub numa_node: u32,
}

label_values! {
    /// The kind of core, on machines with several kinds.
    #[derive(Default)]
    pub enum CoreType {
        /// All cores are of the same kind.
        #[default]
        Uniform = "",
        /// A performance core: listed in the `cpu_core` PMU of sysfs.
        Performance = "performance",
        /// An efficiency core: listed in the `cpu_atom` or `cpu_lowpower` PMU of sysfs.
        Efficiency = "efficiency",
    }
}

/// One logical CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// CPU number, as in /proc/cpuinfo and the `processor` field of stat.
    pub id: u32,
    /// Package, core and node.
    pub place: Place,
    /// CPUs of its core that are or were online, including itself, ascending.
    pub siblings: Vec<u32>,
    /// The kernel's ids within the package.
    pub ids: Ids,
    /// Kind of core.
    pub core_type: CoreType,
    /// Number of its last-level cache, unique on the machine: the cache's id, else the lowest CPU
    /// that shares it.
    pub llc: Option<u32>,
    /// Whether it is online now.
    pub online: bool,
}

/// Ids within a package from sysfs; none is unique by itself. `None` if the kernel does not know
/// the id or the architecture does not have it: -1, or 65535 on x86 without a cluster level
/// (`BAD_APICID`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ids {
    /// `die_id`.
    pub die: Option<u32>,
    /// `cluster_id`: cores that share a resource below the last-level cache.
    pub cluster: Option<u32>,
    /// `core_id`.
    pub core: Option<u32>,
    /// Level and id of the last-level cache.
    pub cache: Option<(u32, u32)>,
}

/// All CPUs of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Ascending by id, without CPUs that are offline and were never seen online.
    pub cpus: Vec<Cpu>,
}

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub enum TopologyError {
    #[error("cannot read {path}: {error}; mount sysfs there or set --path.sysfs")]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// `text` is the first characters of the file.
    #[error("unexpected format in {path}: not a CPU list: {text:?}")]
    NotAList { path: PathBuf, text: String },
    /// The file lists no online CPU, although this code runs on one.
    #[error("{path} lists no CPU; set --path.sysfs to the host's sysfs")]
    NoCpu { path: PathBuf },
}

impl Topology {
    /// Reads the whole topology. Offline CPUs keep their facts of `before`; cores and caches keep
    /// their numbers.
    ///
    /// # Errors
    /// If the list of CPUs cannot be read; other missing files only leave out their fact.
    pub fn read(roots: &Roots, before: &Topology) -> Result<Self, TopologyError> {
        let dir = roots.sys.join("devices/system/cpu");
        let online: BTreeSet<u32> = online(roots, &dir)?.into_iter().collect();
        let nodes = node_of_cpus(roots);
        let types = core_types(roots);
        let found = |&id: &u32| {
            let dir = dir.join(format!("cpu{id}"));
            let found = FoundCpu::read(roots, &dir, id, before.cpu(id));
            found.with(nodes.get(&id).copied(), types.get(&id).copied())
        };
        let offline = before.cpus.iter().filter(|cpu| !online.contains(&cpu.id));
        let offline = offline.cloned().map(FoundCpu::offline);
        let cpus = online.iter().map(found).chain(offline).collect();
        Ok(Self {
            cpus: cpu::number(cpus, before),
        })
    }

    /// The CPU with this number.
    pub fn cpu(&self, id: u32) -> Option<&Cpu> {
        // CPU numbers are contiguous on nearly every machine: try the index first.
        match self.cpus.get(id as usize) {
            Some(cpu) if cpu.id == id => Some(cpu),
            _ => self
                .cpus
                .binary_search_by_key(&id, |cpu| cpu.id)
                .ok()
                .map(|n| &self.cpus[n]),
        }
    }

    /// Location of the CPU with this number.
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
    match cpulist::parse(&text) {
        Some(cpus) if cpus.is_empty() => Err(TopologyError::NoCpu { path }),
        Some(cpus) => Ok(cpus),
        None => Err(TopologyError::NotAList {
            path,
            text: text.chars().take(40).collect(),
        }),
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
        // Low-power E-cores (hybrid_tiny, arch/x86/events/intel/core.c).
        ("cpu_lowpower", CoreType::Efficiency),
    ]
    .into_iter()
    .filter_map(|(pmu, kind)| Some((read_list(roots, &devices.join(pmu).join("cpus"))?, kind)))
    .flat_map(|(cpus, kind)| cpus.into_iter().map(move |cpu| (cpu, kind)))
    .collect()
}

/// A list of CPUs; `None` if it is empty.
fn read_list(roots: &Roots, path: &Path) -> Option<Vec<u32>> {
    let list = cpulist::parse(&roots.read_text(path).ok()?)?;
    (!list.is_empty()).then_some(list)
}

/// Follows CPUs that go online and offline; each look reads one open file.
#[derive(Debug)]
pub struct Watch {
    roots: Arc<Roots>,
    online: File,
    seen: Vec<u8>,
    topology: Arc<Topology>,
    /// `false` after a change: the topology is read once more.
    is_settled: bool,
    /// Whether the last read failed; a failure is logged once.
    has_failed: bool,
}

impl Watch {
    /// Reads the topology and keeps `cpu/online` open.
    ///
    /// # Errors
    /// As [`Topology::read`].
    pub(crate) fn new(roots: Arc<Roots>) -> Result<Self, TopologyError> {
        let path = roots.sys.join("devices/system/cpu/online");
        let online = roots.open(&path).map_err(|error| TopologyError::Read {
            path: path.clone(),
            error,
        })?;
        // Read first, so that the next look notices a change during the topology read.
        let seen = contents(&online).unwrap_or_default();
        let topology = Arc::new(Topology::read(&roots, &Topology::default())?);
        Ok(Self {
            roots,
            online,
            seen,
            topology,
            is_settled: true,
            has_failed: false,
        })
    }

    /// The present topology: the same `Arc` unless a CPU went online or offline.
    ///
    /// A CPU's caches appear after the CPU is listed as online (`cacheinfo_cpu_online` is a later
    /// step, `CPUHP_AP_BASE_CACHEINFO_ONLINE`), so the look after a change reads again.
    pub fn refresh(&mut self) -> &Arc<Topology> {
        let now = contents(&self.online).unwrap_or_default();
        let changed = now != self.seen;
        if changed || !self.is_settled {
            let read = Topology::read(&self.roots, &self.topology);
            let had_failed = std::mem::replace(&mut self.has_failed, read.is_err());
            match read {
                Ok(topology) => {
                    if topology != *self.topology {
                        self.topology = Arc::new(topology);
                    }
                    (self.seen, self.is_settled) = (now, !changed);
                }
                Err(error) if !had_failed => {
                    tracing::warn!(%error, "cannot read the CPU topology; keeping the last one");
                }
                Err(_) => {}
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
mod machines;
#[cfg(test)]
mod tests;
