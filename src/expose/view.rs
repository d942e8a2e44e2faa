//! What is going on now, for people: rates and ratios of the last seconds, who runs where, and
//! what stands out. The status page, `/api/view` and `top` show it.
//!
//! It is computed from two snapshots ([`Handle::window`]) when
//! somebody looks. Slow sources are read every 15 s or less often, and what of theirs is a rate
//! (quota, throttling, I/O threads) is over the last half minute to minute.
//!
//! `None` is unknown, never 0. Ratios are 0 to 1, times are seconds a second: cores.

use std::time::{Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::snapshot::growth::Growth;
use crate::snapshot::{Handle, Labels, Snapshot};
pub use crate::telemetry::{REVISION, VERSION};

pub mod cause;
mod host;
mod known;
mod numbers;
mod sources;
mod verdict;
mod vm;

pub use cause::{Cause, CauseView};
pub use sources::{Dropped, SourceView};
pub use vm::RUNS_THERE;

/// Everything a person is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Version of the exporter.
    pub version: String,
    /// Its source's revision.
    pub revision: String,
    /// Name of the scenario where the host is not a real one.
    pub synthetic: Option<String>,
    /// Unix time of the newest tick, seconds.
    pub taken: f64,
    /// Age of the newest tick when this was made, seconds.
    pub age: f64,
    /// Counts ticks from 1.
    pub tick: u64,
    /// What the rates of vCPUs and cores are over, seconds.
    pub window: f64,
    /// The host as a whole.
    pub host: HostView,
    /// Its NUMA nodes, ascending.
    pub nodes: Vec<NodeView>,
    /// VMs, sorted by name.
    pub vms: Vec<VmView>,
    /// State of each source.
    pub sources: Vec<SourceView>,
    /// `kvm_exporter_pmu_mode`: full, host_only, software or off.
    pub pmu_mode: Option<String>,
    /// What the inventory could not see.
    pub blind_spots: Vec<String>,
    /// What the series limit took away.
    pub dropped: Vec<Dropped>,
}

/// The host as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Kernel release.
    pub kernel: Option<String>,
    /// Model of the CPU.
    pub cpu_model: Option<String>,
    /// VMs.
    pub vms: usize,
    /// vCPUs of all of them.
    pub vcpus: usize,
    /// Logical CPUs online.
    pub cpus: usize,
    /// Cores with a CPU online.
    pub cores: usize,
    /// Packages.
    pub packages: usize,
    /// Cores that vCPUs were on.
    pub time: Option<f64>,
    /// Cores that vCPUs wanted: time and delay.
    pub demand: Option<f64>,
    /// Series in the exposition.
    pub series: usize,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its number.
    pub id: u32,
    /// Cores that vCPUs on it wanted.
    pub demand: Option<f64>,
    /// Its cores, by package and core.
    pub cores: Vec<CoreView>,
}

/// A core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreView {
    /// Package.
    pub package: i32,
    /// Core, unique in the package.
    pub core: i32,
    /// Id of the last-level cache it shares.
    pub llc: Option<u32>,
    /// What vCPUs wanted of it, cores: time and delay.
    pub demand: Option<f64>,
    /// Share of the time in which several of its threads ran vCPUs, at least; `None` of a core with one thread online.
    pub smt_shared: Option<f64>,
    /// Frequency over the one it is made for.
    pub frequency: Option<f64>,
    /// Share of the time in which it or its package was too hot.
    pub throttled: Option<f64>,
    /// Its threads, ascending.
    pub threads: Vec<ThreadView>,
}

/// A logical CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThreadView {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online.
    pub online: bool,
    /// vCPUs were on it, cores.
    pub time: Option<f64>,
    /// vCPUs found on it had waited, cores.
    pub delay: Option<f64>,
    /// vCPUs that were found on it last.
    pub vcpus: Vec<Tenant>,
}

/// A vCPU by its position in the view: `vms[vm].vcpus[vcpu]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Position in [`View::vms`].
    pub vm: usize,
    /// Position in [`VmView::vcpus`].
    pub vcpu: usize,
}

/// What is measured of a vCPU, and of a VM as the sum of its vCPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Time on a core, cores.
    pub time: Option<f64>,
    /// Time runnable and waiting for a core, cores.
    pub delay: Option<f64>,
    /// Delay over time and delay.
    pub delay_ratio: Option<f64>,
    /// Cycles per instruction in the guest.
    pub cpi: Option<f64>,
    /// Cache misses per 1000 instructions in the guest.
    pub cache_mpki: Option<f64>,
    /// Exits a second.
    pub exits: Option<f64>,
    /// Moves to another CPU a second.
    pub migrations: Option<f64>,
    /// Share of DRAM loads in the guest that went to another node.
    pub dram_remote: Option<f64>,
    /// Share of the time on a core for which its counters counted; below 1 numbers are scaled.
    pub counted: Option<f64>,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmView {
    /// Its name.
    pub name: String,
    /// What else is known about it: labels of `kvm_vm_info`.
    pub info: Vec<(String, String)>,
    /// Its vCPUs whose thread is known, by index.
    pub vcpus: Vec<VcpuView>,
    /// vCPUs it has beside those.
    #[serde(default)]
    pub threadless: u32,
    /// All vCPUs together.
    pub numbers: Numbers,
    /// Nodes that have its time or its memory, ascending.
    pub nodes: Vec<NodeShare>,
    /// Nodes on which it spends 5 % of its time or more.
    pub nodes_used: Option<usize>,
    /// Share of its memory on nodes that have CPUs and where it does not run.
    pub memory_remote: Option<f64>,
    /// Host devices it holds.
    pub devices: Vec<DeviceView>,
    /// How many of them are on nodes where it does not run.
    pub devices_remote: Option<usize>,
    /// Cores its tightest CPU quota leaves to it.
    pub quota: Option<f64>,
    /// Share of quota periods in which it used the quota up.
    pub throttled: Option<f64>,
    /// Frequency of the cores it runs on over the one they are made for.
    pub frequency: Option<f64>,
    /// Share of its time on a core beside a busy sibling thread, at least.
    pub smt_shared: Option<f64>,
    /// Share of the time in which the packages it runs on were too hot.
    pub hot: Option<f64>,
    /// Time of its other threads (I/O, emulator, vhost), cores.
    pub io_time: Option<f64>,
    /// The part of it on cores where its vCPUs run.
    pub io_on_its_cores: Option<f64>,
    /// What may make it slow, worst first. Over 1 is trouble.
    pub causes: Vec<CauseView>,
    /// What is wrong with it, in a sentence or two; empty where nothing stands out.
    pub verdict: String,
}

impl VmView {
    /// How many vCPUs it has.
    pub fn vcpu_count(&self) -> usize {
        self.vcpus.len() + self.threadless as usize
    }
}

/// A vCPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VcpuView {
    /// Its index in the VM.
    pub index: u32,
    /// Host thread id.
    pub tid: i32,
    /// Where it was found last.
    pub place: Option<PlaceView>,
    /// What is measured of it.
    pub numbers: Numbers,
    /// Time of the VM's other threads on its core, cores.
    pub io_on_core: Option<f64>,
}

/// A logical CPU and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// Logical CPU.
    pub cpu: u32,
    /// Package.
    pub package: i32,
    /// Core.
    pub core: i32,
    /// NUMA node.
    pub node: u32,
}

/// What a VM has on a NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NodeShare {
    /// The node.
    pub node: u32,
    /// Share of its time on a core.
    pub time: Option<f64>,
    /// Share of its memory.
    pub memory: Option<f64>,
    /// Whether the node has CPUs online; one of memory alone (CXL, HBM) has none.
    #[serde(default = "yes")]
    pub has_cpus: bool,
}

/// What an exporter that does not say it takes for granted.
fn yes() -> bool {
    true
}

/// A host device of a VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// PCI address or uuid.
    pub name: String,
    /// What it is: `gpu`, `network`, …
    pub class: Option<String>,
    /// The node it is on.
    pub node: Option<u32>,
    /// Whether the VM does not run there; `None` where it cannot, for want of CPUs.
    pub remote: Option<bool>,
}

impl View {
    /// The view of the newest snapshot; `None` before the first tick.
    pub fn of(snapshots: &Handle, now: Instant) -> Option<Self> {
        let newest = || snapshots.load().map(|newest| (newest.clone(), newest));
        let (base, newest) = snapshots.window().or_else(newest)?;
        Some(Self::new(&base, &newest, now))
    }

    /// The view of `newest` with rates since `base`; without rates where the two are the same.
    pub fn new(base: &Snapshot, newest: &Snapshot, now: Instant) -> Self {
        let growth = Growth::new(base, newest);
        let machine = host::Machine::new(newest, &growth);
        let mut vms = vm::vms(newest, &growth, &machine);
        let nodes = machine.nodes(&vms);
        cause::judge(&mut vms, &nodes);
        let since = newest.taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        let pmu_mode = newest.pmu_mode.as_ref();
        Self {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            synthetic: newest.synthetic.as_deref().map(str::to_owned),
            taken: since.as_secs_f64(),
            age: now
                .saturating_duration_since(newest.taken_mono)
                .as_secs_f64(),
            tick: newest.tick,
            window: growth.span().as_secs_f64(),
            host: machine.host(),
            nodes,
            vms,
            sources: newest.sources.iter().map(SourceView::new).collect(),
            pmu_mode: pmu_mode.and_then(|labels| owned(labels, "mode")),
            blind_spots: newest.inventory.blind_spots.clone(),
            dropped: newest.dropped.iter().map(Dropped::new).collect(),
        }
    }
}

/// A label's value.
fn owned(labels: &Labels, name: &str) -> Option<String> {
    labels.get(name).map(str::to_owned)
}

/// A quotient; `None` of nothing.
fn over(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Sum of what is known; `None` where nothing is.
fn sum(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values.into_iter().flatten().reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests;
