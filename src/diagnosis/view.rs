//! What [`View`] has about the host, its cores and its VMs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Cause, CauseView, Dropped, Mention, SourceView};

/// The whole view, as `/api/view` returns it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub(crate) version: String,
    pub(crate) revision: String,
    /// Name of the scenario if the host is synthetic.
    pub synthetic: Option<String>,
    /// Unix time of the latest tick, seconds.
    pub taken: f64,
    /// Age of the latest tick when the view was computed, seconds.
    pub age: f64,
    /// Number of the tick, from 1.
    pub tick: u64,
    /// Period that the rates of vCPUs and cores cover, seconds.
    pub window: f64,
    /// The host as a whole.
    pub host: HostView,
    /// NUMA nodes, ascending.
    pub nodes: Vec<NodeView>,
    /// VMs, sorted by name.
    pub vms: Vec<VmView>,
    pub(crate) sources: Vec<SourceView>,
    /// `kvm_exporter_pmu_mode`: full, host_only, software or off.
    pub pmu_mode: Option<String>,
    #[serde(rename = "blind_spots")]
    /// What the exporter cannot see of the VMs, and what it needs to see it.
    pub visibility_gaps: Vec<String>,
    /// Series dropped by the series limit.
    pub(crate) dropped: Vec<Dropped>,
}

/// The host as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu_model: Option<String>,
    pub(crate) vms: usize,
    pub(crate) vcpus: usize,
    /// Number of logical CPUs online.
    pub cpus: usize,
    /// Number of cores with a CPU online.
    pub cores: usize,
    pub(crate) packages: usize,
    /// CPU time of vCPUs, cores.
    pub time: Option<f64>,
    /// Time and delay of vCPUs, cores.
    pub demand: Option<f64>,
    /// Demand of everything on the host, cores: CPU time of VMs and of the host itself, and waits
    /// of vCPUs.
    #[serde(default)]
    pub wanted: Option<f64>,
    /// The verdict on the whole host; empty if nothing is wrong.
    #[serde(default)]
    pub verdict: String,
    /// Series in the exposition.
    pub series: usize,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    pub(crate) id: u32,
    /// Time and delay of vCPUs on the node, cores.
    pub demand: Option<f64>,
    /// Cores, sorted by package and core.
    pub cores: Vec<CoreView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreView {
    pub(crate) package: i32,
    /// Core number, unique in its package.
    pub core: i32,
    /// Id of its last-level cache.
    pub llc: Option<u32>,
    /// Time and delay of vCPUs on the core, cores.
    pub demand: Option<f64>,
    /// Lower bound of the share of time in which several threads of the core ran vCPUs; `None` if
    /// only one thread is online.
    pub smt_shared: Option<f64>,
    /// Frequency over nominal frequency.
    pub frequency: Option<f64>,
    /// Share of time in which the core or its package was throttled by heat.
    pub throttled: Option<f64>,
    /// Threads, ascending.
    pub threads: Vec<ThreadView>,
}

/// A logical CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThreadView {
    pub(crate) cpu: u32,
    pub(crate) online: bool,
    /// CPU time of vCPUs on it, cores.
    pub time: Option<f64>,
    /// Delay of vCPUs found on it, cores.
    pub delay: Option<f64>,
    /// vCPUs last found on it.
    pub(crate) vcpus: Vec<Tenant>,
}

/// A vCPU, as indices into the view: `vms[vm].vcpus[vcpu]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tenant {
    pub(crate) vm: usize,
    pub(crate) vcpu: usize,
}

/// Measurements of a vCPU, or of a VM as the sum of its vCPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// CPU time, cores.
    pub time: Option<f64>,
    /// Time runnable but waiting for a core, cores.
    pub delay: Option<f64>,
    /// Delay over the sum of time and delay.
    pub(crate) delay_ratio: Option<f64>,
    /// Cycles per instruction in the guest.
    pub cpi: Option<f64>,
    /// Cache misses per 1000 instructions in the guest.
    pub cache_mpki: Option<f64>,
    /// VM exits per second.
    pub exits: Option<f64>,
    /// Moves to another CPU per second.
    pub migrations: Option<f64>,
    /// Share of the guest's DRAM loads that went to another node.
    pub dram_remote: Option<f64>,
    /// Share of CPU time in which the counters ran; below 1, values are scaled.
    pub counted: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VmView {
    pub name: String,
    /// PID of the VMM.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Labels of `kvm_vm_info`.
    pub info: Vec<(String, String)>,
    /// vCPUs with a known thread, by index.
    pub(crate) vcpus: Vec<VcpuView>,
    /// Number of other vCPUs.
    #[serde(default)]
    pub threadless: u32,
    /// Sum of all vCPUs.
    pub numbers: Numbers,
    /// Nodes with CPU time or memory of the VM, ascending.
    pub(crate) nodes: Vec<NodeShare>,
    /// Number of nodes with at least 5 % of its CPU time.
    pub(crate) nodes_used: Option<usize>,
    /// Estimated share of remote memory accesses: from where it runs and where its memory is,
    /// weighted by distance.
    pub memory_remote: Option<f64>,
    /// The same estimate if memory were distributed over nodes as CPU time is: unavoidable for a VM
    /// that runs on several nodes.
    #[serde(default)]
    pub(crate) memory_remote_spread: Option<f64>,
    /// Mean NUMA distance of its accesses, divided by 10: 1 is all local.
    #[serde(default)]
    pub(crate) memory_distance: Option<f64>,
    /// Host devices passed through to the VM.
    pub(crate) devices: Vec<DeviceView>,
    /// How many of them are far from where it runs: `DeviceView::remote`.
    pub(crate) devices_remote: Option<usize>,
    /// Its tightest CPU quota, cores.
    pub quota: Option<f64>,
    /// Share of quota periods in which the quota was exhausted.
    pub throttled: Option<f64>,
    /// Share of runnable time in which it was throttled by quotas.
    #[serde(default)]
    pub(crate) quota_wait: Option<f64>,
    /// Delay that its quota does not explain, cores.
    #[serde(default)]
    pub(crate) contention: Option<f64>,
    /// Frequency over nominal frequency, of the cores it runs on.
    pub frequency: Option<f64>,
    /// Lower bound of the share of its CPU time in which a sibling thread was busy.
    pub smt_shared: Option<f64>,
    /// Share of time in which the packages it runs on were throttled by heat.
    pub hot: Option<f64>,
    /// CPU time of its other threads (I/O, emulator, vhost), cores.
    pub(crate) io_time: Option<f64>,
    /// CPU time of these threads on cores where its vCPUs run.
    pub(crate) io_on_its_cores: Option<f64>,
    /// Causes that may slow it down, worst first. A score of 1 or more is a problem.
    pub causes: Vec<CauseView>,
    /// The verdict in one or two sentences; empty if no cause exceeds its threshold.
    pub verdict: String,
    /// VMs named in the verdict.
    #[serde(default)]
    pub(crate) mentions: Vec<Mention>,
    /// Causes of other VMs for which this VM is responsible, worst first.
    #[serde(default)]
    pub(crate) pushes: Vec<Push>,
    /// CPU time of all its threads, by package and core.
    #[serde(skip)]
    pub(crate) core_time: HashMap<(i32, i32), f64>,
}

/// A VM that this VM slows down.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Push {
    /// Index of the victim in [`View::vms`].
    pub(crate) vm: usize,
    /// The victim's cause.
    pub(crate) cause: Cause,
    /// The victim's score, as in [`CauseView::score`].
    pub(crate) score: f64,
}

impl VmView {
    /// Number of vCPUs.
    pub(crate) fn vcpu_count(&self) -> usize {
        self.vcpus.len() + self.threadless as usize
    }
}

/// A vCPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VcpuView {
    /// Index in the VM.
    pub(crate) index: u32,
    pub(crate) tid: i32,
    /// Where it was last found.
    pub(crate) place: Option<PlaceView>,
    pub(crate) numbers: Numbers,
    /// CPU time of the VM's other threads on its core, cores.
    pub(crate) io_on_core: Option<f64>,
}

/// A logical CPU and its location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceView {
    pub(crate) cpu: u32,
    pub(crate) package: i32,
    pub(crate) core: i32,
    pub(crate) node: u32,
}

/// A VM's share of a NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeShare {
    pub(crate) node: u32,
    /// Share of the VM's CPU time.
    pub(crate) time: Option<f64>,
    /// Share of the VM's memory.
    pub(crate) memory: Option<f64>,
    /// Whether the node has CPUs online; memory-only nodes (CXL, HBM) have none.
    #[serde(default = "yes")]
    pub(crate) has_cpus: bool,
}

/// Default for exporters that do not report `has_cpus`.
fn yes() -> bool {
    true
}

/// A host device of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceView {
    /// PCI address or uuid.
    pub(crate) name: String,
    /// Device class: `gpu`, `network`, …
    pub(crate) class: Option<String>,
    pub(crate) node: Option<u32>,
    /// Share of the VM's vCPU time that is far from the device, weighted by NUMA distance; `None`
    /// if its node or where the VM runs is unknown.
    #[serde(default)]
    pub(crate) far: Option<f64>,
    /// Whether that is more than the limit: the higher of `device_remote`, and
    /// `memory_remote_over_spread` above what the VM's spread over nodes explains.
    pub(crate) remote: Option<bool>,
}

impl View {
    /// The VM that is responsible for the worst of the causes of VM `victim` that have a culprit.
    pub(crate) fn culprit(&self, victim: usize) -> Option<&VmView> {
        let pushed = |vm: &VmView| {
            let scores = vm.pushes.iter().filter(|push| push.vm == victim);
            scores.map(|push| push.score).reduce(f64::max)
        };
        let known = self.vms.iter().filter_map(|vm| Some((vm, pushed(vm)?)));
        let worst = known.max_by(|(_, a), (_, b)| a.total_cmp(b));
        worst.map(|(vm, _)| vm)
    }
}
