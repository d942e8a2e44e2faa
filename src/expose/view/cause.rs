//! What may make a VM slow, each against the threshold from which it is trouble.
//!
//! Causes, thresholds and conditions are those of the recording rule `kvm_vm:trouble:score` in
//! alerts/, which takes five minutes where this takes seconds: what shows here and is over in a
//! minute does not alert. Peers are those on this host; Prometheus knows them on all hosts. What
//! needs a history is Prometheus' alone: `cpi_week` is not here, and cache misses are held against
//! those of peers instead of the VM's own of the hour before.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::vm::RUNS_THERE;
use super::{over, sum, verdict, CoreView, NodeShare, NodeView, VcpuView, VmView};

/// What may make a VM slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A vCPU waits for a core.
    Delay,
    /// One vCPU waits and its siblings do not.
    Starved,
    /// A CPU quota holds it back.
    Quota,
    /// Its memory is on nodes where it does not run.
    MemoryRemote,
    /// A device of it is on a node where it does not run.
    DeviceRemote,
    /// It needs more cycles per instruction than VMs of its flavor.
    CpiPeers,
    /// It misses the cache often.
    Cache,
    /// It shares cores with busy threads while others are idle.
    Smt,
    /// Its cores are too hot.
    Throttling,
    /// It leaves the guest often.
    Exits,
}

/// A cause and how bad it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseView {
    /// What it is.
    pub cause: Cause,
    /// Observed over threshold: 1 and more is trouble.
    pub score: f64,
    /// What is observed, in the unit of the threshold.
    pub observed: f64,
    /// From where on it is trouble.
    pub threshold: f64,
    /// Alert that tells of it, and name of its runbook.
    pub alert: String,
    /// What is observed, in words.
    pub text: String,
}

/// A vCPU that wants less than this of a core is idle: its delay ratio says little.
pub const MIN_DEMAND: f64 = 0.1;

/// A VM that uses fewer cores is judged by its vCPUs' delay and its quota alone.
pub const MIN_BUSY: f64 = 0.25;

/// A starved vCPU waits so many times as much of its time as its siblings do.
pub const STARVED_OVER_SIBLINGS: f64 = 3.0;

/// A CPI above its peers' mean and 2 sigma (CPI2, Zhang et al. 2013) is also so many times their
/// mean: peers that hardly differ make no outlier by a hair.
pub const CPI_OVER_PEERS: f64 = 1.5;

/// A storm of cache misses is so many times what its peers have.
pub const CACHE_OVER_PEERS: f64 = 3.0;

/// So many other VMs of a flavor make peers.
pub const MIN_PEERS: usize = 4;

impl Cause {
    /// All of them, in the order of columns.
    pub const ALL: [Self; 10] = [
        Self::Delay,
        Self::Starved,
        Self::Quota,
        Self::MemoryRemote,
        Self::DeviceRemote,
        Self::CpiPeers,
        Self::Cache,
        Self::Smt,
        Self::Throttling,
        Self::Exits,
    ];

    /// From where on it is trouble. What depends on siblings or peers is at least this.
    pub const fn threshold(self) -> f64 {
        match self {
            // Of the time it wants to run: where operators of VMware's CPU Ready begin to look.
            Self::Delay => 0.05,
            // Of the time it wants to run, or more where its siblings wait, too.
            Self::Starved => 0.1,
            // Of quota periods.
            Self::Quota => 0.25,
            // Of its memory.
            Self::MemoryRemote => 0.5,
            // Devices.
            Self::DeviceRemote => 1.0,
            // Cycles per instruction; what counts is what its peers make likely.
            Self::CpiPeers => 0.0,
            // Misses per 1000 instructions, or more where its peers miss the cache, too: at 100
            // cycles a miss, one cycle an instruction.
            Self::Cache => 10.0,
            // Of its time on a core.
            Self::Smt => 0.3,
            // Of the time.
            Self::Throttling => 0.05,
            // For each second on a core: 20 us from one exit to the next.
            Self::Exits => 50_000.0,
        }
    }

    /// The alert that tells of it, which its runbook is named after.
    pub const fn alert(self) -> &'static str {
        match self {
            Self::Delay => "KvmVcpuDelayHigh",
            Self::Starved => "KvmVcpuStarved",
            Self::Quota => "KvmVmQuotaThrottled",
            Self::MemoryRemote => "KvmVmMemoryRemote",
            Self::DeviceRemote => "KvmVmDeviceRemote",
            Self::CpiPeers => "KvmVmCpiAbovePeers",
            Self::Cache => "KvmVmCacheMissStorm",
            Self::Smt => "KvmVmSmtContention",
            Self::Throttling => "KvmPackageThrottled",
            Self::Exits => "KvmVmExitStorm",
        }
    }

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Delay => "Delay",
            Self::Starved => "Starved vCPU",
            Self::Quota => "Quota",
            Self::MemoryRemote => "Remote memory",
            Self::DeviceRemote => "Remote devices",
            Self::CpiPeers => "CPI above peers",
            Self::Cache => "Cache misses",
            Self::Smt => "SMT contention",
            Self::Throttling => "Throttling",
            Self::Exits => "Exits",
        }
    }
}

impl VmView {
    /// Causes at or over their threshold, worst first.
    pub fn trouble(&self) -> impl Iterator<Item = &CauseView> {
        self.causes.iter().filter(|cause| cause.score >= 1.0)
    }

    /// How bad the worst of its causes is; 0 where none is known.
    pub fn worst(&self) -> f64 {
        self.causes.first().map_or(0.0, |cause| cause.score)
    }

    /// The vCPU that waits most, of those that want to run.
    pub(super) fn waits_most(&self) -> Option<(&VcpuView, f64)> {
        let ratio = |vcpu: &VcpuView| waits(vcpu).unwrap_or(-1.0);
        let most = self
            .vcpus
            .iter()
            .max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        most.and_then(|vcpu| Some((vcpu, waits(vcpu)?)))
    }

    fn fact(&self, name: &str) -> Option<&str> {
        let (_, value) = self.info.iter().find(|(n, _)| n == name)?;
        Some(value)
    }
}

/// Its delay ratio, where it wants to run.
fn waits(vcpu: &VcpuView) -> Option<f64> {
    let wanted = vcpu.numbers.time? + vcpu.numbers.delay?;
    vcpu.numbers.delay_ratio.filter(|_| wanted >= MIN_DEMAND)
}

/// Fills in the causes and verdicts of all VMs.
pub(super) fn judge(vms: &mut [VmView], nodes: &[NodeView]) {
    let peers = Peers::of(vms);
    let observed: Vec<Vec<Seen>> = vms.iter().map(|vm| observe(vm, &peers, nodes)).collect();
    let judged: Vec<(Vec<CauseView>, String)> = vms
        .iter()
        .zip(observed)
        .map(|(vm, observed)| {
            let causes = rank(vm, observed, vms, nodes);
            let verdict = verdict::sentence(&causes);
            (causes, verdict)
        })
        .collect();
    for (vm, (causes, verdict)) in vms.iter_mut().zip(judged) {
        (vm.causes, vm.verdict) = (causes, verdict);
    }
}

fn rank(vm: &VmView, seen: Vec<Seen>, vms: &[VmView], nodes: &[NodeView]) -> Vec<CauseView> {
    let view = |Seen(cause, observed, threshold): Seen| CauseView {
        cause,
        score: observed / threshold,
        observed,
        threshold,
        alert: cause.alert().to_owned(),
        text: verdict::text(Seen(cause, observed, threshold), vm, vms, nodes),
    };
    let mut causes: Vec<CauseView> = seen.into_iter().map(view).collect();
    causes.sort_by(|a, b| b.score.total_cmp(&a.score));
    causes
}

/// A cause, what is observed of it, and from where on that is trouble.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen(pub(super) Cause, pub(super) f64, pub(super) f64);

/// What is known of each cause.
fn observe(vm: &VmView, peers: &Peers, nodes: &[NodeView]) -> Vec<Seen> {
    let busy = vm.numbers.time.filter(|time| *time >= MIN_BUSY);
    let of_busy = |value: Option<f64>| busy.and(value);
    // A thread held back by a quota counts as waiting: run_delay goes on while its group is
    // throttled (measured on Linux 6.1, 6.12 and 6.18).
    let free = vm
        .throttled
        .is_none_or(|ratio| ratio <= Cause::Quota.threshold());
    let most = vm.waits_most().filter(|_| free);
    let found = [
        (Cause::Delay, most.map(|(_, ratio)| ratio)),
        (Cause::Quota, vm.throttled),
        (Cause::MemoryRemote, of_busy(vm.memory_remote)),
        (
            Cause::DeviceRemote,
            of_busy(vm.devices_remote.map(|n| n as f64)),
        ),
        (Cause::Smt, busy.and_then(|time| smt(vm, time, nodes))),
        (Cause::Throttling, of_busy(vm.hot)),
        (
            Cause::Exits,
            busy.and_then(|time| over(vm.numbers.exits?, time)),
        ),
    ];
    let known = found.into_iter();
    let known = known.filter_map(|(cause, seen)| Some(Seen(cause, seen?, cause.threshold())));
    let known = known.chain(starved(vm).filter(|_| free));
    let against_peers = [peers.cpi(vm), peers.cache(vm)].into_iter().flatten();
    known
        .chain(against_peers.filter(|_| busy.is_some()))
        .collect()
}

/// The vCPU that waits most, against its siblings.
fn starved(vm: &VmView) -> Option<Seen> {
    let score = |vcpu: &VcpuView| {
        let siblings = vm.vcpus.iter().filter(|other| other.index != vcpu.index);
        let numbers = || siblings.clone().map(|sibling| &sibling.numbers);
        let delay = sum(numbers().map(|n| n.delay))?;
        let wanted = delay + sum(numbers().map(|n| n.time))?;
        let theirs = over(delay, wanted)?;
        let threshold = Cause::Starved
            .threshold()
            .max(STARVED_OVER_SIBLINGS * theirs);
        Some(Seen(Cause::Starved, waits(vcpu)?, threshold))
    };
    let all = vm.vcpus.iter().filter_map(score);
    all.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)))
}

/// Share of its time beside a busy sibling, where its nodes have the idle cores to mend that.
fn smt(vm: &VmView, time: f64, nodes: &[NodeView]) -> Option<f64> {
    let shared = vm.smt_shared?;
    let its = nodes.iter().filter(|node| {
        let here = |share: &NodeShare| share.node == node.id && share.time >= Some(RUNS_THERE);
        vm.nodes.iter().any(here)
    });
    let idle = |core: &CoreView| core.demand.map(|demand| (1.0 - demand).max(0.0));
    let idle = sum(its.flat_map(|node| &node.cores).map(idle))?;
    (idle >= shared * time).then_some(shared)
}

/// What busy VMs of each flavor measure: name, and what it is.
#[derive(Default)]
struct Peers {
    cpi: HashMap<String, Vec<(String, f64)>>,
    mpki: HashMap<String, Vec<(String, f64)>>,
}

impl Peers {
    fn of(vms: &[VmView]) -> Self {
        let mut peers = Self::default();
        for vm in vms {
            let busy = vm.numbers.time.is_some_and(|time| time >= MIN_BUSY);
            let Some(flavor) = vm.fact(FLAVOR).filter(|_| busy) else {
                continue;
            };
            let numbers = [vm.numbers.cpi, vm.numbers.cache_mpki];
            for (all, number) in [&mut peers.cpi, &mut peers.mpki].into_iter().zip(numbers) {
                let of_flavor = all.entry(flavor.to_owned()).or_default();
                of_flavor.extend(number.map(|number| (vm.name.clone(), number)));
            }
        }
        peers
    }

    /// Its CPI against what its peers make likely: their mean and 2 sigma, or a multiple of the
    /// mean.
    fn cpi(&self, vm: &VmView) -> Option<Seen> {
        let others = others(&self.cpi, vm)?;
        let mean = mean(&others);
        let squares: Vec<f64> = others.iter().map(|cpi| (cpi - mean).powi(2)).collect();
        let sigma = self::mean(&squares).sqrt();
        let limit = (mean + 2.0 * sigma).max(CPI_OVER_PEERS * mean);
        Some(Seen(Cause::CpiPeers, vm.numbers.cpi?, limit))
    }

    /// Its cache misses against those of its peers.
    fn cache(&self, vm: &VmView) -> Option<Seen> {
        let theirs = mean(&others(&self.mpki, vm)?);
        let threshold = Cause::Cache.threshold().max(CACHE_OVER_PEERS * theirs);
        Some(Seen(Cause::Cache, vm.numbers.cache_mpki?, threshold))
    }
}

/// What makes VMs comparable.
const FLAVOR: &str = "openstack_flavor";

/// What its peers measure; `None` where they are too few.
fn others(all: &HashMap<String, Vec<(String, f64)>>, vm: &VmView) -> Option<Vec<f64>> {
    let peers = all.get(vm.fact(FLAVOR)?)?.iter();
    let others = peers.filter(|(name, _)| *name != vm.name);
    let others: Vec<f64> = others.map(|(_, number)| *number).collect();
    (others.len() >= MIN_PEERS).then_some(others)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}
