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
    /// An efficiency core: listed in the `cpu_atom` PMU of sysfs.
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
            // A machine whose sysfs has no topology has one thread a core.
            core: number("topology/core_id").unwrap_or(id as i32),
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
        let topology = Arc::new(Topology::read(&roots, &Topology::default())?);
        let seen = contents(&online).unwrap_or_default();
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
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str, text: &str) {
        let path = dir.join("sys/devices/system").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Two packages of one core of two threads, a node each.
    fn host() -> (tempfile::TempDir, Arc<Roots>) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cpu/online", "0-3\n");
        for cpu in 0..4 {
            let package = cpu % 2;
            let topology = format!("cpu/cpu{cpu}/topology");
            write(
                dir.path(),
                &format!("{topology}/physical_package_id"),
                &package.to_string(),
            );
            write(dir.path(), &format!("{topology}/core_id"), "7");
            let siblings = format!("{package},{}", package + 2);
            write(
                dir.path(),
                &format!("{topology}/thread_siblings_list"),
                &siblings,
            );
            for (index, level) in [(0, 1), (3, 3)] {
                let cache = format!("cpu/cpu{cpu}/cache/index{index}");
                write(dir.path(), &format!("{cache}/level"), &level.to_string());
                write(
                    dir.path(),
                    &format!("{cache}/id"),
                    &(package + 10 * level).to_string(),
                );
            }
        }
        write(dir.path(), "node/node0/cpulist", "0,2");
        write(dir.path(), "node/node1/cpulist", "1,3");
        let roots = Arc::new(Roots::below(dir.path()));
        (dir, roots)
    }

    #[test]
    fn every_fact_of_a_cpu_is_read() {
        let (_dir, roots) = host();
        let topology = Topology::read(&roots, &Topology::default()).unwrap();
        assert_eq!(topology.cpus.len(), 4);
        assert_eq!(
            topology.cpu(3),
            Some(&Cpu {
                id: 3,
                place: Place {
                    package: 1,
                    core: 7,
                    numa_node: 1
                },
                siblings: vec![1, 3],
                core_type: CoreType::Uniform,
                llc: Some(31),
                online: true,
            })
        );
        assert_eq!(topology.cpu(4), None);
    }

    #[test]
    fn a_cpu_that_goes_offline_keeps_its_place() {
        let (dir, roots) = host();
        let mut watch = Watch::new(roots).unwrap();
        let before = watch.look().clone();
        assert!(Arc::ptr_eq(&before, watch.look()));
        std::fs::remove_dir_all(dir.path().join("sys/devices/system/cpu/cpu3")).unwrap();
        write(dir.path(), "cpu/online", "0-2\n");
        let after = watch.look().clone();
        assert!(!after.cpu(3).unwrap().online);
        assert_eq!(after.place(3), before.place(3));
    }

    #[test]
    fn a_pass_over_an_unchanged_machine_opens_nothing() {
        let (_dir, roots) = host();
        let mut watch = Watch::new(roots.clone()).unwrap();
        let opens = roots.opens();
        watch.look();
        assert_eq!(roots.opens(), opens);
    }

    #[test]
    fn hybrid_cores_are_told_apart() {
        let (dir, roots) = host();
        for (pmu, cpus) in [("cpu_core", "0,2"), ("cpu_atom", "1,3")] {
            let path = dir.path().join("sys/bus/event_source/devices").join(pmu);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("cpus"), cpus).unwrap();
        }
        let topology = Topology::read(&roots, &Topology::default()).unwrap();
        assert_eq!(topology.cpu(2).unwrap().core_type, CoreType::Performance);
        assert_eq!(topology.cpu(1).unwrap().core_type, CoreType::Efficiency);
    }

    #[test]
    fn no_sysfs_is_an_error_that_names_the_file_and_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let error = Topology::read(&Roots::below(dir.path()), &Topology::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("devices/system/cpu/online"), "{text}");
        assert!(text.contains("--path.sysfs"), "{text}");
    }

    #[test]
    fn this_machine_has_a_place_for_every_online_cpu() {
        let topology = Topology::read(&Roots::default(), &Topology::default()).unwrap();
        assert!(!topology.cpus.is_empty());
        assert!(topology
            .cpus
            .iter()
            .all(|cpu| cpu.siblings.contains(&cpu.id)));
    }
}
