//! Rates of vCPUs, other threads and VMs at one time, per second.

/// Rates of a vCPU.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct VcpuRates {
    pub(super) cpu: u32,
    /// Seconds per second on a core, and waiting for one.
    pub(super) time: f64,
    pub(super) delay: f64,
    /// Share of its time in host mode.
    pub(super) host: f64,
    pub(super) hertz: f64,
    pub(super) cpi: f64,
    pub(super) cache_mpki: f64,
    /// Share of DRAM loads from the other node.
    pub(super) remote: f64,
    /// Exits per second of its time, and additional port I/O exits of a storm.
    pub(super) exits: f64,
    pub(super) storm: f64,
    /// Share of time in which counters run.
    pub(super) running: f64,
}

/// Rates of a thread other than a vCPU.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ThreadRates {
    pub(super) cpu: u32,
    pub(super) time: f64,
    pub(super) delay: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct VmRates {
    pub(super) vcpus: Vec<VcpuRates>,
    /// CPUs that each vCPU may use.
    pub(super) allowed: Vec<Vec<u32>>,
    /// Emulator, vhost worker and I/O thread.
    pub(super) threads: [ThreadRates; 3],
    /// Share of quota periods that are throttled, and seconds lost per second.
    pub(super) throttled: [f64; 2],
    pub(super) memory_far: bool,
    pub(super) device_far: bool,
}
