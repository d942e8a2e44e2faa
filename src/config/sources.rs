//! `sources`: settings of each source. Most have only a switch and a period.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{raw, values, ExitReason, RawEvent};

sections! {
    /// `sources`
    Sources, "a mapping of sources" {
        pmu: Pmu;
        memory: Memory;
        cgroup: Cgroup;
        exits: Exits;
        kvm_stat: KvmStat;
        threads: Threads;
        devices: Devices;
        pt: Pt;
        resctrl: Resctrl;
        host_cpu: Periodic<5>, "CPU time of each core.";
        frequency: Periodic<15>, "of each core.";
        thermal: Periodic<15>, "throttling and temperature.";
        numa: Periodic<15>, "memory and distances of the nodes.";
        cpu_features: Periodic<600>, "features that are relevant to guests.";
        kvm_parameters: Periodic<60>, "of KVM's modules.";
        vulnerabilities: Periodic<600>, "of the CPU, with their mitigations.";
        system: Periodic<60>, "kernel, microcode, SMT and isolated CPUs.";
        kernel_log: Periodic<15>, "lines about machine checks and KVM.";
        ksm: Periodic<15>, "memory merged by the kernel.";
    }
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
pub(crate) type Cgroup = Periodic<15>;

/// `sources.threads`: CPU time of all threads of a VM, by role.
pub type Threads = Periodic<5>;

/// `sources.devices`: host devices that VMs hold.
pub(crate) type Devices = Periodic<30>;

mapping! {
    /// `sources.pmu`: hardware counters.
    Pmu {
        /// Whether counters are opened.
        enabled: bool = true, "values::flag";
        /// Whether host mode (the VMM and KVM for the vCPU) is counted too.
        host_mode: bool = true, "values::flag";
        /// Optional event sets besides the default groups, without duplicates.
        events: Vec<EventSet> = Vec::new(), "raw::unique";
        /// User-defined raw events, at most `MAX_RAW_EVENTS`, with different names.
        raw: Vec<RawEvent> = Vec::new(), "raw::unique";
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

mapping! {
    /// `sources.memory`: location and page sizes of guest memory.
    #[derive(Eq)]
    Memory {
        /// Whether the source is read.
        enabled: bool = true;
        /// Time between two reads of a VM's memory, 10 s to 1 h.
        period: Duration = Duration::from_secs(60), "values::memory_period";
        /// Longest walk of a VM's page tables, 0 (no walks) to 10 s.
        budget: Duration = Duration::from_millis(200), "values::memory_budget";
    }
}

mapping! {
    /// `sources.exits`: exits and their handling by KVM, from tracepoints.
    #[derive(Eq)]
    Exits {
        /// Whether tracepoints are counted.
        enabled: bool = true;
        /// Separately counted exit reasons, at most `MAX_EXIT_REASONS`, without
        /// duplicates.
        reasons: Vec<ExitReason> = Vec::new(), "raw::unique";
    }
}

mapping! {
    /// `sources.pt`: short recordings of each vCPU with Intel Processor Trace.
    Pt {
        /// Whether vCPUs are recorded.
        enabled: bool = false, "values::flag";
        /// Length of a recording, 1 ms to 1 s.
        window: Duration = Duration::from_millis(10), "values::pt_window";
        /// Time between two recordings of a vCPU, 1 s to 1 d.
        period: Duration = Duration::from_secs(60), "values::pt_period";
        /// Largest recorded share of any core's time, 0.0001 to 0.5.
        max_duty: f64 = 0.01, "values::pt_duty";
        /// Most bytes of one recording, a power of two from 64 KiB to 256 MiB.
        max_bytes: usize = 4 << 20, "values::pt_bytes";
    }
}

mapping! {
    /// `sources.kvm_stat`: KVM's own statistics.
    #[derive(Copy, Eq)]
    KvmStat {
        /// Whether the source is read.
        enabled: bool = true, "values::flag";
        /// Period, 1 s to 10 min.
        period: Duration = Duration::from_secs(15), "values::slow_period";
        /// Whether each vCPU has series of its own.
        vcpus: bool = false, "values::flag";
    }
}

mapping! {
    /// `sources.resctrl`: cache occupancy and memory bandwidth of each VM.
    #[derive(Copy, Eq)]
    Resctrl {
        /// Whether the source is read.
        enabled: bool = true, "values::flag";
        /// Period, 1 s to 10 min.
        period: Duration = Duration::from_secs(15), "values::slow_period";
        /// Whether to create a monitoring group for a VM without one.
        create_groups: bool = false, "values::flag";
    }
}
