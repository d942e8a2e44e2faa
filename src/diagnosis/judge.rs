//! Judges each VM: its causes, its verdict, and the VMs that it slows down.

use std::collections::HashMap;

use super::known::CoreKey;
use super::observe::{Case, Seen};
use super::peers::Peers;
use super::suspect::{Scene, Suspects};
use super::thresholds::thresholds;
use super::words::Words;
use super::{verdict, Cause, CauseView, NodeView, Push, VcpuView, VmView};
use crate::snapshot::cores::CoreUse;

/// Fills in causes, verdicts and pushes.
pub(super) fn judge(
    vms: &mut [VmView],
    nodes: &[NodeView],
    cores: &HashMap<CoreKey, CoreUse>,
    host_is_full: bool,
) {
    let peers = Peers::new(vms);
    let suspects = Scene::new(vms, nodes, cores, host_is_full).suspects();
    let all: &[VmView] = vms;
    let case = |(vm, suspects)| Case {
        vm,
        vms: all,
        nodes,
        peers: &peers,
        suspects,
    };
    let cases = all.iter().zip(&suspects).map(case);
    let judged: Vec<_> = cases.map(|case| causes(&case)).collect();
    for (vm, causes) in vms.iter_mut().zip(judged) {
        let verdict = verdict::sentence(&causes);
        (vm.verdict, vm.mentions) = (verdict.text, verdict.mentions);
        vm.causes = causes.into_iter().map(|(cause, _)| cause).collect();
    }
    push(vms, &suspects);
}

/// The known causes of a VM, worst first.
fn causes(case: &Case<'_>) -> Vec<(CauseView, Words)> {
    let view = |cause: Cause| {
        let seen = cause.seen(case)?;
        let words = (cause.info().text)(case, seen);
        let Seen { observed, limit } = seen;
        let view = CauseView {
            cause,
            score: observed / limit,
            observed,
            threshold: limit,
            alert: cause.alert().to_owned(),
            text: words.text.clone(),
        };
        Some((view, words))
    };
    let mut causes: Vec<_> = Cause::ALL.into_iter().filter_map(view).collect();
    causes.sort_by(|(a, _), (b, _)| {
        let against = |view: &CauseView| view.cause.info().against;
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| against(a).cmp(&against(b)))
    });
    causes
}

/// Lists each problem with the VM that is responsible for it.
fn push(vms: &mut [VmView], suspects: &[Suspects]) {
    for (victim, suspects) in suspects.iter().enumerate() {
        let blamed = |cause: &CauseView| {
            let push = Push {
                vm: victim,
                cause: cause.cause,
                score: cause.score,
            };
            Some((cause.cause.culprit(suspects)?, push))
        };
        let blamed: Vec<_> = vms[victim].trouble().filter_map(blamed).collect();
        for (culprit, push) in blamed {
            if let Some(vm) = vms.get_mut(culprit) {
                vm.pushes.push(push);
            }
        }
    }
    for vm in vms {
        vm.pushes.sort_by(|a, b| b.score.total_cmp(&a.score));
    }
}

impl VmView {
    /// Causes at or over their threshold, worst first.
    pub fn trouble(&self) -> impl Iterator<Item = &CauseView> {
        self.causes.iter().filter(|cause| cause.score >= 1.0)
    }

    /// What is known of a cause.
    pub(crate) fn cause(&self, cause: Cause) -> Option<&CauseView> {
        self.causes.iter().find(|known| known.cause == cause)
    }

    /// Score of a cause; `None` if unknown.
    pub(crate) fn score(&self, cause: Cause) -> Option<f64> {
        Some(self.cause(cause)?.score)
    }

    /// Whether its only problem is that its vCPUs wait.
    pub(crate) fn only_waits(&self) -> bool {
        let is_wait = |cause: Cause| cause.part_of().unwrap_or(cause) == Cause::Delay;
        self.trouble().all(|cause| is_wait(cause.cause))
    }

    /// Score of its worst cause; 0 if none is known.
    pub(crate) fn worst(&self) -> f64 {
        self.causes.first().map_or(0.0, |cause| cause.score)
    }

    /// The vCPU with the highest delay ratio, among those with enough demand.
    pub(super) fn waits_most(&self) -> Option<(&VcpuView, f64)> {
        let ratio = |vcpu: &VcpuView| vcpu.waits().unwrap_or(-1.0);
        let vcpus = self.vcpus.iter();
        let most = vcpus.max_by(|a, b| ratio(a).total_cmp(&ratio(b)))?;
        Some((most, most.waits()?))
    }
}

impl VcpuView {
    /// Its delay ratio, if it has enough demand for the ratio to be meaningful.
    pub(crate) fn waits(&self) -> Option<f64> {
        let wanted = self.numbers.time? + self.numbers.delay?;
        let ratio = self.numbers.delay_ratio;
        ratio.filter(|_| wanted >= thresholds().vcpu_wanted_cores)
    }
}
