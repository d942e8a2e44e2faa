//! What is observed of each cause.

use super::peers::{busy, Peers};
use super::suspect::Suspects;
use super::thresholds::thresholds;
use super::vm::remote_limit;
use super::{over, sum, Cause, CoreView, NodeShare, NodeView, VcpuView, VmView};

/// A VM, and what its causes depend on.
pub(super) struct Case<'a> {
    pub(super) vm: &'a VmView,
    /// All VMs of the host.
    pub(super) vms: &'a [VmView],
    pub(super) nodes: &'a [NodeView],
    pub(super) peers: &'a Peers,
    pub(super) suspects: &'a Suspects,
}

/// An observed value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    value: f64,
    /// The value up to which it is not a problem, even if it exceeds the threshold.
    usual: f64,
}

/// An observed value and its limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) observed: f64,
    pub(super) limit: f64,
}

impl Seen {
    /// Whether it is a problem.
    pub(super) fn is_high(self) -> bool {
        self.observed >= self.limit
    }
}

impl Cause {
    /// Its value and limit; `None` if unknown, or if the VM is too idle to be judged.
    pub(super) fn seen(self, case: &Case<'_>) -> Option<Seen> {
        let Observed { value, usual } = (self.info().observe)(case)?;
        Some(Seen {
            observed: value,
            limit: self.threshold().max(usual),
        })
    }
}

impl Case<'_> {
    /// The VM's CPU time if it uses enough for causes other than waits to matter.
    fn busy(&self) -> Option<f64> {
        busy(self.vm)
    }

    /// The share of the VM's delay that its quota does not explain; `None` if the two cannot be
    /// separated, because it is often throttled for an unknown time.
    fn contended(&self) -> Option<f64> {
        match (self.vm.contention, self.vm.numbers.delay) {
            (Some(contention), Some(delay)) if delay > 0.0 => Some(contention / delay),
            (Some(_), _) => Some(1.0),
            (None, _) => None,
        }
    }
}

/// A value that is compared only with the threshold.
fn observed(value: Option<f64>) -> Option<Observed> {
    let usual = 0.0;
    value.map(|value| Observed { value, usual })
}

pub(super) fn delay(case: &Case<'_>) -> Option<Observed> {
    let (_, ratio) = case.vm.waits_most()?;
    observed(Some(ratio * case.contended()?))
}

/// The vCPU that waits most, compared with its siblings.
pub(super) fn starved(case: &Case<'_>) -> Option<Observed> {
    let vm = case.vm;
    let of_vcpu = |vcpu: &VcpuView| {
        let siblings = vm.vcpus.iter().filter(|other| other.index != vcpu.index);
        let numbers = || siblings.clone().map(|sibling| &sibling.numbers);
        let delay = sum(numbers().map(|n| n.delay))?;
        let wanted = delay + sum(numbers().map(|n| n.time))?;
        let theirs = over(delay, wanted)?;
        Some(Observed {
            value: vcpu.waits()?,
            usual: thresholds().starved_over_siblings * theirs,
        })
    };
    let score = |one: &Observed| one.value / Cause::Starved.threshold().max(one.usual);
    let all = vm.vcpus.iter().filter_map(of_vcpu);
    let worst = all.max_by(|a, b| score(a).total_cmp(&score(b)))?;
    Some(Observed {
        value: worst.value * case.contended()?,
        ..worst
    })
}

pub(super) fn quota(case: &Case<'_>) -> Option<Observed> {
    let vm = case.vm;
    let wanted = vm.numbers.time? + vm.numbers.delay?;
    let wait = vm.quota_wait;
    observed(wait.filter(|_| wanted >= thresholds().vm_busy_cores))
}

pub(super) fn memory(case: &Case<'_>) -> Option<Observed> {
    remote(case, case.vm.memory_remote)
}

pub(super) fn devices(case: &Case<'_>) -> Option<Observed> {
    let far = case.vm.devices.iter().filter_map(|device| device.far);
    remote(case, far.reduce(f64::max))
}

/// A share of time that is far from something: a VM that runs on several nodes cannot avoid it.
fn remote(case: &Case<'_>, value: Option<f64>) -> Option<Observed> {
    case.busy()?;
    Some(Observed {
        value: value?,
        usual: remote_limit(0.0, case.vm.memory_remote_spread),
    })
}

pub(super) fn cpi(case: &Case<'_>) -> Option<Observed> {
    case.busy()?;
    Some(Observed {
        value: case.vm.numbers.cpi?,
        usual: case.peers.cpi_limit(case.vm)?,
    })
}

pub(super) fn cache(case: &Case<'_>) -> Option<Observed> {
    case.busy()?;
    Some(Observed {
        value: case.vm.numbers.cache_mpki?,
        usual: thresholds().cache_over_usual * case.peers.cache_mpki(case.vm)?,
    })
}

/// Share of its time beside a busy sibling thread, if its nodes have enough idle cores to avoid
/// that.
pub(super) fn smt(case: &Case<'_>) -> Option<Observed> {
    let (time, shared) = (case.busy()?, case.vm.smt_shared?);
    let its = case.nodes.iter().filter(|node| {
        let here = |share: &NodeShare| {
            share.node == node.id && share.time >= Some(thresholds().node_time_share)
        };
        case.vm.nodes.iter().any(here)
    });
    let idle = |core: &CoreView| core.demand.map(|demand| (1.0 - demand).max(0.0));
    let idle = sum(its.flat_map(|node| &node.cores).map(idle))?;
    observed((idle >= shared * time).then_some(shared))
}

pub(super) fn throttling(case: &Case<'_>) -> Option<Observed> {
    observed(case.busy().and(case.vm.hot))
}

pub(super) fn exits(case: &Case<'_>) -> Option<Observed> {
    let time = case.busy()?;
    observed(over(case.vm.numbers.exits?, time))
}
