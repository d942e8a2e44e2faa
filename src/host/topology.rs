//! CPUs, cores, packages, NUMA nodes and last-level caches.

/// Where a thread runs; `package` and `core` as node_exporter names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// `physical_package_id`.
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
