//! Causes that may slow down a VM, each compared with its threshold.
//!
//! Causes and conditions are those of the recording rule `kvm_vm:trouble:score` in mixin/rules, and
//! thresholds come from the same file. The rule covers five minutes, this code seconds: a problem
//! that ends within a minute appears here but does not alert. Peers are VMs on this host;
//! Prometheus compares with peers on all hosts. Only Prometheus has a history: `cpi_week` is not
//! here, and cache misses are compared with those of peers instead of the VM's own an hour before.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::host::CoreKey;
use super::suspect::{Scene, Suspects};
use super::thresholds::thresholds;
use super::vm::remote_limit;
use super::words::Words;
use super::{over, sum, verdict, CoreView, NodeShare, NodeView, Push, VcpuView, VmView};
use crate::snapshot::cores::CoreUse;

/// A cause that may slow down a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A vCPU waits for a core.
    Delay,
    /// One vCPU waits much more than the VM's other vCPUs.
    Starved,
    /// A CPU quota throttles it.
    Quota,
    /// Its memory is on nodes where it does not run.
    MemoryRemote,
    /// A device is on nodes far from where it runs.
    DeviceRemote,
    /// It needs more cycles per instruction than VMs that do the same work.
    CpiPeers,
    /// It has many cache misses.
    Cache,
    /// It shares cores with busy threads while others are idle.
    Smt,
    /// Its CPU packages are throttled by heat.
    Throttling,
    /// It exits to the host often.
    Exits,
}

/// A cause with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseView {
    /// The cause.
    pub cause: Cause,
    /// Observed value over threshold: 1 or more is a problem.
    pub score: f64,
    /// The observed value, in the unit of the threshold.
    pub observed: f64,
    /// The value from which it is a problem.
    pub threshold: f64,
    /// Name of its alert and of the alert's runbook.
    pub alert: String,
    /// The observed value in words.
    pub text: String,
}

impl Cause {
    /// All causes, in the order of columns.
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

    /// The value from which it is a problem. For causes that depend on siblings or peers, it is the
    /// minimum.
    pub fn threshold(self) -> f64 {
        let thresholds = thresholds();
        match self {
            Self::Delay => thresholds.delay,
            Self::Starved => thresholds.starved,
            Self::Quota => thresholds.quota_wait,
            Self::MemoryRemote => thresholds.memory_remote,
            Self::DeviceRemote => thresholds.device_remote,
            // The limit depends on the peers.
            Self::CpiPeers => 0.0,
            Self::Cache => thresholds.cache_mpki,
            Self::Smt => thresholds.smt_shared,
            Self::Throttling => thresholds.package_throttled,
            Self::Exits => thresholds.exits_per_cpu_second,
        }
    }

    /// The alert for this cause, which is also the name of its runbook.
    pub const fn alert(self) -> &'static str {
        match self {
            Self::Delay => "KvmVmCpuDelayHigh",
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

    /// The name for display.
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

    /// Whether its only problem is that its vCPUs wait.
    pub fn only_waits(&self) -> bool {
        let waits = |cause: &CauseView| matches!(cause.cause, Cause::Delay | Cause::Starved);
        self.trouble().all(waits)
    }

    /// Score of its worst cause; 0 if none is known.
    pub fn worst(&self) -> f64 {
        self.causes.first().map_or(0.0, |cause| cause.score)
    }

    /// The vCPU with the highest delay ratio, among those with enough demand.
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

impl VcpuView {
    /// Whether it has enough demand for its delay ratio to be meaningful.
    pub(super) fn wants_to_run(&self) -> bool {
        let wanted = self.numbers.time.zip(self.numbers.delay);
        wanted.is_some_and(|(time, delay)| time + delay >= thresholds().vcpu_wanted_cores)
    }
}

/// Its delay ratio, if it has enough demand.
fn waits(vcpu: &VcpuView) -> Option<f64> {
    vcpu.numbers.delay_ratio.filter(|_| vcpu.wants_to_run())
}

/// Fills in causes, verdicts and pushes.
pub(super) fn judge(
    vms: &mut [VmView],
    nodes: &[NodeView],
    cores: &HashMap<CoreKey, CoreUse>,
    host_is_full: bool,
) {
    let peers = Peers::of(vms);
    let suspects = Scene::new(vms, nodes, cores, host_is_full).suspects();
    let judged: Vec<(Vec<CauseView>, Words)> = vms
        .iter()
        .zip(&suspects)
        .map(|(vm, suspects)| {
            let mut causes = rank(observe(vm, &peers, nodes), vm, vms, suspects);
            causes.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
            let verdict = verdict::sentence(&causes);
            (
                causes.into_iter().map(|(cause, _)| cause).collect(),
                verdict,
            )
        })
        .collect();
    for (vm, (causes, verdict)) in vms.iter_mut().zip(judged) {
        vm.causes = causes;
        (vm.verdict, vm.mentions) = (verdict.text, verdict.mentions);
    }
    for (victim, suspects) in suspects.iter().enumerate() {
        let causes: Vec<Push> = vms[victim]
            .trouble()
            .filter(|cause| suspects.culprit(cause.cause).is_some())
            .map(|cause| Push {
                vm: victim,
                cause: cause.cause,
                score: cause.score,
            })
            .collect();
        for push in causes {
            let culprit = suspects.culprit(push.cause);
            if let Some(vm) = culprit.and_then(|culprit| vms.get_mut(culprit)) {
                vm.pushes.push(push);
            }
        }
    }
    for vm in vms {
        vm.pushes.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
}

fn rank(
    seen: Vec<Seen>,
    vm: &VmView,
    vms: &[VmView],
    suspects: &Suspects,
) -> Vec<(CauseView, Words)> {
    let view = |seen: Seen| {
        let words = verdict::text(seen, vm, vms, suspects);
        let Seen(cause, observed, threshold) = seen;
        let view = CauseView {
            cause,
            score: observed / threshold,
            observed,
            threshold,
            alert: cause.alert().to_owned(),
            text: words.text.clone(),
        };
        (view, words)
    };
    seen.into_iter().map(view).collect()
}

/// A cause, its observed value, and its threshold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen(pub(super) Cause, pub(super) f64, pub(super) f64);

/// The known causes of a VM.
fn observe(vm: &VmView, peers: &Peers, nodes: &[NodeView]) -> Vec<Seen> {
    let busy = vm
        .numbers
        .time
        .filter(|time| *time >= thresholds().vm_busy_cores);
    let of_busy = |value: Option<f64>| busy.and(value);
    let contended = contended(vm);
    let most = vm.waits_most().zip(contended);
    let most = most.map(|((vcpu, ratio), part)| (vcpu, ratio * part));
    let found = [
        (Cause::Delay, most.map(|(_, ratio)| ratio)),
        (Cause::Quota, vm.quota_wait.filter(|_| wants_to_run(vm))),
        (Cause::Smt, busy.and_then(|time| smt(vm, time, nodes))),
        (Cause::Throttling, of_busy(vm.hot)),
        (
            Cause::Exits,
            busy.and_then(|time| over(vm.numbers.exits?, time)),
        ),
    ];
    let known = found.into_iter();
    let known = known.filter_map(|(cause, seen)| Some(Seen(cause, seen?, cause.threshold())));
    let of_contention =
        |Seen(cause, ratio, limit): Seen| Some(Seen(cause, ratio * contended?, limit));
    let farthest = vm.devices.iter().filter_map(|device| device.far);
    let farthest = farthest.reduce(f64::max);
    let remote = [
        remote(Cause::MemoryRemote, vm.memory_remote, vm),
        remote(Cause::DeviceRemote, farthest, vm),
    ];
    let known = known.chain(remote.into_iter().flatten().filter(|_| busy.is_some()));
    let known = known.chain(starved(vm).and_then(of_contention));
    let against_peers = [peers.cpi(vm), peers.cache(vm)].into_iter().flatten();
    known
        .chain(against_peers.filter(|_| busy.is_some()))
        .collect()
}

/// Whether it uses enough CPU time for a quota to matter.
fn wants_to_run(vm: &VmView) -> bool {
    let wanted = vm.numbers.time.zip(vm.numbers.delay);
    wanted.is_some_and(|(time, delay)| time + delay >= thresholds().vm_busy_cores)
}

/// A remote cause, compared with what a VM that runs on several nodes cannot avoid.
fn remote(cause: Cause, observed: Option<f64>, vm: &VmView) -> Option<Seen> {
    let limit = remote_limit(cause.threshold(), vm.memory_remote_spread);
    Some(Seen(cause, observed?, limit))
}

/// Delay that its quota does not explain; `None` if the two cannot be separated, because it is
/// often throttled for an unknown time.
fn contended(vm: &VmView) -> Option<f64> {
    match (vm.contention, vm.numbers.delay) {
        (Some(contention), Some(delay)) if delay > 0.0 => Some(contention / delay),
        (Some(_), _) => Some(1.0),
        (None, _) => None,
    }
}

/// The vCPU that waits most, compared with its siblings.
fn starved(vm: &VmView) -> Option<Seen> {
    let score = |vcpu: &VcpuView| {
        let siblings = vm.vcpus.iter().filter(|other| other.index != vcpu.index);
        let numbers = || siblings.clone().map(|sibling| &sibling.numbers);
        let delay = sum(numbers().map(|n| n.delay))?;
        let wanted = delay + sum(numbers().map(|n| n.time))?;
        let theirs = over(delay, wanted)?;
        let threshold = Cause::Starved
            .threshold()
            .max(thresholds().starved_over_siblings * theirs);
        Some(Seen(Cause::Starved, waits(vcpu)?, threshold))
    };
    let all = vm.vcpus.iter().filter_map(score);
    all.max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)))
}

/// Share of its time beside a busy sibling thread, if its nodes have enough idle cores to avoid
/// that.
fn smt(vm: &VmView, time: f64, nodes: &[NodeView]) -> Option<f64> {
    let shared = vm.smt_shared?;
    let its = nodes.iter().filter(|node| {
        let here = |share: &NodeShare| {
            share.node == node.id && share.time >= Some(thresholds().node_time_share)
        };
        vm.nodes.iter().any(here)
    });
    let idle = |core: &CoreView| core.demand.map(|demand| (1.0 - demand).max(0.0));
    let idle = sum(its.flat_map(|node| &node.cores).map(idle))?;
    (idle >= shared * time).then_some(shared)
}

/// Names and values of busy VMs, by group of peers.
#[derive(Default)]
struct Peers {
    cpi: HashMap<String, Vec<(String, f64)>>,
    mpki: HashMap<String, Vec<(String, f64)>>,
}

impl Peers {
    fn of(vms: &[VmView]) -> Self {
        let mut peers = Self::default();
        for vm in vms {
            let busy = vm
                .numbers
                .time
                .is_some_and(|time| time >= thresholds().vm_busy_cores);
            let Some(group) = group(vm).filter(|_| busy) else {
                continue;
            };
            let numbers = [vm.numbers.cpi, vm.numbers.cache_mpki];
            for (all, number) in [&mut peers.cpi, &mut peers.mpki].into_iter().zip(numbers) {
                let of_group = all.entry(group.clone()).or_default();
                of_group.extend(number.map(|number| (vm.name.clone(), number)));
            }
        }
        peers
    }

    /// Its CPI compared with the limit of its peers: mean plus 2 sigma, or a multiple of the mean.
    fn cpi(&self, vm: &VmView) -> Option<Seen> {
        let others = others(&self.cpi, vm)?;
        let mean = mean(&others);
        let squares: Vec<f64> = others.iter().map(|cpi| (cpi - mean).powi(2)).collect();
        let sigma = self::mean(&squares).sqrt();
        let limit = (mean + thresholds().cpi_sigmas * sigma).max(thresholds().cpi_over_mean * mean);
        Some(Seen(Cause::CpiPeers, vm.numbers.cpi?, limit))
    }

    /// Its cache misses compared with those of its peers.
    fn cache(&self, vm: &VmView) -> Option<Seen> {
        let theirs = mean(&others(&self.mpki, vm)?);
        let threshold = Cause::Cache
            .threshold()
            .max(thresholds().cache_over_usual * theirs);
        Some(Seen(Cause::Cache, vm.numbers.cache_mpki?, threshold))
    }
}

/// VMs that do the same work, judging by their names: the name without the number at its end,
/// within a project or namespace. Same as `by: name` of `peers` in mixin/config.libsonnet. VMs of
/// the same flavor are not peers.
pub(super) fn group(vm: &VmView) -> Option<String> {
    let of_manager = [
        ("openstack_name", "openstack_project_id"),
        ("kubevirt_name", "kubevirt_namespace"),
    ];
    let named = |(name, within)| Some((vm.fact(name)?, vm.fact(within).unwrap_or_default()));
    let named: Vec<(&str, &str)> = of_manager.into_iter().filter_map(named).collect();
    let mut groups = named.iter();
    let group = groups.find_map(|(name, within)| Some(format!("{within}/{}", word(name)?)));
    let by_vm = named.is_empty() && !is_meaningless(&vm.name);
    group.or_else(|| by_vm.then(|| word(&vm.name))?.map(str::to_owned))
}

/// A name without the number at its end: `web` of `web-1`.
fn word(name: &str) -> Option<&str> {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let has_number = word.len() < name.len();
    let word = word.strip_suffix(['-', '_', '.']).unwrap_or(word);
    let names_work = word.ends_with(|c: char| c.is_ascii_alphabetic());
    (has_number && names_work).then_some(word)
}

/// Names that say nothing: nova's own (`instance-0000002a`), and those of installers (`vm-3`).
fn is_meaningless(name: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let of_nova = name.strip_prefix("instance-");
    of_nova.is_some_and(|id| id.len() == 8 && id.chars().all(is_hex))
        || word(name).is_some_and(|word| word.eq_ignore_ascii_case("vm"))
}

/// The values of its peers; `None` if there are too few.
fn others(all: &HashMap<String, Vec<(String, f64)>>, vm: &VmView) -> Option<Vec<f64>> {
    let peers = all.get(&group(vm)?)?.iter();
    let others = peers.filter(|(name, _)| *name != vm.name);
    let others: Vec<f64> = others.map(|(_, number)| *number).collect();
    (others.len() >= thresholds().cpi_peers).then_some(others)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}
