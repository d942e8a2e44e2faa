//! A scenario as it is written: YAML, with nothing checked but its form.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A scenario file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a mapping of about, extends, workloads, vms and troubles"
)]
pub(super) struct RawScenario {
    pub(super) about: String,
    pub(super) extends: Option<String>,
    pub(super) workloads: BTreeMap<String, RawWorkload>,
    pub(super) vms: Vec<RawVm>,
    pub(super) troubles: Vec<RawTrouble>,
}

/// What a guest's vCPUs do.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a mapping of demand, cpi, cache_mpki and exits"
)]
pub(super) struct RawWorkload {
    pub(super) demand: f64,
    pub(super) cpi: f64,
    pub(super) cache_mpki: f64,
    pub(super) exits: f64,
}

/// A VM, or several alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mapping that describes a VM")]
pub(super) struct RawVm {
    pub(super) name: String,
    pub(super) workload: String,
    pub(super) flavor: String,
    pub(super) vcpus: u32,
    pub(super) memory_gib: u64,
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

/// Where each vCPU may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// On one CPU.
    Cpu,
    /// On both threads of one core; it moves between them now and then.
    Core,
    /// On all CPUs of the VM; it moves among them now and then.
    Float,
}

/// A trouble; which keys it takes depends on its kind.
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

/// The kinds of trouble.
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
}

/// An alert that a trouble leads to.
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
