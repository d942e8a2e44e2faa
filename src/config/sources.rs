//! `sources`: settings of each source. Most have only a switch and a period.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{raw, values, ExitReason, RawEvent};

/// `sources`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of sources")]
pub struct Sources {
    /// `pmu`
    #[serde(deserialize_with = "values::section")]
    pub pmu: Pmu,
    /// `memory`
    #[serde(deserialize_with = "values::section")]
    pub memory: Memory,
    /// `cgroup`
    #[serde(deserialize_with = "values::section")]
    pub cgroup: Cgroup,
    /// `exits`
    #[serde(deserialize_with = "values::section")]
    pub exits: Exits,
    /// `kvm_stat`
    #[serde(deserialize_with = "values::section")]
    pub kvm_stat: KvmStat,
    /// `threads`
    #[serde(deserialize_with = "values::section")]
    pub threads: Threads,
    /// `devices`
    #[serde(deserialize_with = "values::section")]
    pub devices: Devices,
    /// `pt`
    #[serde(deserialize_with = "values::section")]
    pub pt: Pt,
    /// `resctrl`
    #[serde(deserialize_with = "values::section")]
    pub resctrl: Resctrl,
    /// `host_cpu`: CPU time of each core.
    #[serde(deserialize_with = "values::section")]
    pub host_cpu: Periodic<5>,
    /// `frequency`: of each core.
    #[serde(deserialize_with = "values::section")]
    pub frequency: Periodic<15>,
    /// `thermal`: throttling and temperature.
    #[serde(deserialize_with = "values::section")]
    pub thermal: Periodic<15>,
    /// `numa`: memory and distances of the nodes.
    #[serde(deserialize_with = "values::section")]
    pub numa: Periodic<15>,
    /// `cpu_features`: features that are relevant to guests.
    #[serde(deserialize_with = "values::section")]
    pub cpu_features: Periodic<600>,
    /// `kvm_parameters`: of KVM's modules.
    #[serde(deserialize_with = "values::section")]
    pub kvm_parameters: Periodic<60>,
    /// `vulnerabilities`: of the CPU, with their mitigations.
    #[serde(deserialize_with = "values::section")]
    pub vulnerabilities: Periodic<600>,
    /// `system`: kernel, microcode, SMT and isolated CPUs.
    #[serde(deserialize_with = "values::section")]
    pub system: Periodic<60>,
    /// `kernel_log`: lines about machine checks and KVM.
    #[serde(deserialize_with = "values::section")]
    pub kernel_log: Periodic<15>,
    /// `ksm`: memory merged by the kernel.
    #[serde(deserialize_with = "values::section")]
    pub ksm: Periodic<15>,
}

/// A source with a period; by default enabled, every `SECONDS` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periodic<const SECONDS: u64> {
    /// Whether the source is read.
    pub enabled: bool,
    /// Period, 1 s to 10 min.
    pub period: Duration,
}

impl<const SECONDS: u64> Default for Periodic<SECONDS> {
    fn default() -> Self {
        Self {
            enabled: true,
            period: Duration::from_secs(SECONDS),
        }
    }
}

// Written by hand: serde derives no default from a const parameter.
impl<'de, const SECONDS: u64> Deserialize<'de> for Periodic<SECONDS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Keys::deserialize(deserializer)?;
        let default = Self::default();
        Ok(Self {
            enabled: keys.enabled.unwrap_or(default.enabled),
            period: keys.period.unwrap_or(default.period),
        })
    }
}

/// The keys of [`Periodic`] that are set.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
struct Keys {
    #[serde(deserialize_with = "values::flag")]
    enabled: Option<bool>,
    #[serde(deserialize_with = "values::slow_period")]
    period: Option<Duration>,
}

/// `sources.cgroup`: quotas, weight and pressure.
pub type Cgroup = Periodic<15>;

/// `sources.kvm_stat`: counters of whole VMs in KVM debugfs.
pub type KvmStat = Periodic<15>;

/// `sources.threads`: CPU time of all threads of a VM, by role.
pub type Threads = Periodic<5>;

/// `sources.devices`: host devices that VMs hold.
pub type Devices = Periodic<30>;

/// `sources.pmu`: hardware counters.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Pmu {
    /// Whether counters are opened.
    #[serde(deserialize_with = "values::flag")]
    pub enabled: bool,
    /// Whether host mode (the VMM and KVM for the vCPU) is counted too.
    #[serde(deserialize_with = "values::flag")]
    pub host_mode: bool,
    /// Optional event sets besides the default groups, without duplicates.
    #[serde(deserialize_with = "raw::unique")]
    pub events: Vec<EventSet>,
    /// User-defined raw events, at most [`super::MAX_RAW_EVENTS`], with different names.
    #[serde(deserialize_with = "raw::unique")]
    pub raw: Vec<RawEvent>,
}

impl Default for Pmu {
    fn default() -> Self {
        Self {
            enabled: true,
            host_mode: true,
            events: Vec::new(),
            raw: Vec::new(),
        }
    }
}

/// Optional event sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSet {
    /// Branch instructions retired.
    Branches,
    /// Data TLB load misses.
    Dtlb,
    /// Stalled cycles, frontend and backend.
    Stalled,
    /// Loads served by local and remote DRAM.
    DramLoads,
    /// Topdown slots, if the core has them.
    Topdown,
}

/// `sources.memory`: location and page sizes of guest memory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Memory {
    /// Whether the source is read.
    pub enabled: bool,
    /// Time between two reads of a VM's memory, 10 s to 1 h.
    #[serde(deserialize_with = "values::memory_period")]
    pub period: Duration,
    /// Longest walk of a VM's page tables, 0 (no walks) to 10 s.
    #[serde(deserialize_with = "values::memory_budget")]
    pub budget: Duration,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            enabled: true,
            period: Duration::from_secs(60),
            budget: Duration::from_millis(200),
        }
    }
}

/// `sources.exits`: exits and their handling by KVM, from tracepoints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Exits {
    /// Whether tracepoints are counted.
    pub enabled: bool,
    /// Separately counted exit reasons, at most [`super::MAX_EXIT_REASONS`], without duplicates.
    #[serde(deserialize_with = "raw::unique")]
    pub reasons: Vec<ExitReason>,
}

impl Default for Exits {
    fn default() -> Self {
        Self {
            enabled: true,
            reasons: Vec::new(),
        }
    }
}

/// `sources.pt`: short recordings of each vCPU with Intel Processor Trace.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Pt {
    /// Whether vCPUs are recorded.
    #[serde(deserialize_with = "values::flag")]
    pub enabled: bool,
    /// Length of a recording, 1 ms to 1 s.
    #[serde(deserialize_with = "values::pt_window")]
    pub window: Duration,
    /// Time between two recordings of a vCPU, 1 s to 1 d.
    #[serde(deserialize_with = "values::pt_period")]
    pub period: Duration,
    /// Largest recorded share of any core's time, 0.0001 to 0.5.
    #[serde(deserialize_with = "values::pt_duty")]
    pub max_duty: f64,
    /// Most bytes of one recording, a power of two from 64 KiB to 256 MiB.
    #[serde(deserialize_with = "values::pt_bytes")]
    pub max_bytes: usize,
}

impl Default for Pt {
    fn default() -> Self {
        Self {
            enabled: false,
            window: Duration::from_millis(10),
            period: Duration::from_secs(60),
            max_duty: 0.01,
            max_bytes: 4 << 20,
        }
    }
}

/// `sources.resctrl`: cache occupancy and memory bandwidth of each VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Resctrl {
    /// Whether the source is read.
    #[serde(deserialize_with = "values::flag")]
    pub enabled: bool,
    /// Period, 1 s to 10 min.
    #[serde(deserialize_with = "values::slow_period")]
    pub period: Duration,
    /// Whether to create a monitoring group for a VM without one.
    #[serde(deserialize_with = "values::flag")]
    pub create_groups: bool,
}

impl Default for Resctrl {
    fn default() -> Self {
        Self {
            enabled: true,
            period: Duration::from_secs(15),
            create_groups: false,
        }
    }
}
