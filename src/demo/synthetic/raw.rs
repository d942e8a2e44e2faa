//! A scenario as parsed from YAML; only its structure is checked.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A scenario file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a mapping of about, extends, names, memory_node, workloads, vms and troubles"
)]
pub(super) struct RawScenario {
    pub(super) about: String,
    pub(super) extends: Option<String>,
    pub(super) names: Option<Names>,
    pub(super) memory_node: Option<RawMemoryNode>,
    pub(super) workloads: BTreeMap<String, Workload>,
    pub(super) vms: Vec<RawVm>,
    pub(super) troubles: Vec<RawTrouble>,
}

/// Activity of each vCPU of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping of demand, cpi, cache_mpki and exits"
)]
pub(super) struct Workload {
    /// Share of a core that a vCPU wants, 0 to 1.
    pub(super) demand: f64,
    /// Cycles per instruction of the guest.
    pub(super) cpi: f64,
    /// Last-level cache misses per 1000 instructions of the guest.
    pub(super) cache_mpki: f64,
    /// Exits per second of vCPU time.
    pub(super) exits: f64,
}

/// How libvirt names the VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Names {
    /// As in the scenario.
    #[default]
    Plain,
    /// As nova does: `instance-0000002a` and so on. The scenario's name is nova's display name.
    Nova,
}

/// A third NUMA node with memory and without CPUs.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping of gib and package")]
pub(super) struct RawMemoryNode {
    pub(super) gib: u64,
    pub(super) package: u32,
}

/// One VM, or several identical ones.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping that describes a VM")]
pub(super) struct RawVm {
    pub(super) name: String,
    pub(super) workload: String,
    pub(super) flavor: String,
    pub(super) vcpus: u32,
    pub(super) memory_gib: u64,
    pub(super) memory_nodes: Option<BTreeMap<u32, f64>>,
    pub(super) cpus: String,
    pub(super) pin: Pin,
    #[serde(default = "one")]
    pub(super) count: u32,
    #[serde(default = "one")]
    pub(super) first: u32,
    pub(super) quota_cores: Option<f64>,
    #[serde(default)]
    pub(super) device: bool,
    #[serde(default)]
    pub(super) iothread: bool,
    pub(super) starts_after: Option<String>,
    pub(super) ends_after: Option<String>,
}

/// Placement of vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pin {
    /// Each on one CPU.
    Cpu,
    /// Each on both threads of one core; it moves between them from time to time.
    Core,
    /// Each on all CPUs of the VM; it moves among them from time to time.
    Float,
}

/// A trouble; its keys depend on its kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping that describes a trouble")]
pub(super) struct RawTrouble {
    pub(super) name: String,
    pub(super) kind: RawKind,
    pub(super) start: String,
    pub(super) length: String,
    pub(super) vm: Option<String>,
    pub(super) victims: Option<Vec<String>>,
    pub(super) vcpu: Option<u32>,
    pub(super) package: Option<u32>,
    pub(super) cpus: Option<String>,
    pub(super) demand: Option<f64>,
    pub(super) cpi: Option<f64>,
    pub(super) misses: Option<f64>,
    pub(super) exits: Option<f64>,
    pub(super) share: Option<f64>,
    #[serde(default)]
    pub(super) expect: Vec<RawExpect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawKind {
    NoisyNeighbour,
    MemoryRemote,
    SharedCores,
    Quota,
    IothreadOnCore,
    PackageThrottled,
    ExitStorm,
    DeviceRemote,
    Multiplexed,
    HostProcess,
    Steady,
}

/// An alert that a trouble causes.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping of alert, labels and within"
)]
pub(super) struct RawExpect {
    pub(super) alert: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) within: String,
}

fn one() -> u32 {
    1
}
