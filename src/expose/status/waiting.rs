//! Where to look first: the vCPUs that waited longest for a core in the last tick.

use maud::{html, Markup};

use super::{percent, severity, NOTICEABLE};
use crate::snapshot::{Snapshot, VcpuRow};

/// At most this many are named.
const MOST: usize = 10;

/// The section; nothing where no VM runs.
pub(super) fn section(snapshot: &Snapshot) -> Markup {
    let waiting = worst(&snapshot.vcpus);
    html! {
        @if !snapshot.vcpus.is_empty() {
            section aria-labelledby="waiting" {
                h2 #waiting { "Waiting for a core" }
                @if waiting.is_empty() {
                    p { "No vCPU waited for " (percent(NOTICEABLE)) " of the last tick or longer." }
                } @else {
                    ul.waiting { @for (vcpu, share) in waiting { (line(vcpu, share)) } }
                }
                p.note.muted {
                    "Ready to run while another thread had the core: the guest sees it as steal. This is one "
                    "tick; " code { "kvm_vcpu_delay_seconds_total" } " has the history."
                }
            }
        }
    }
}

fn line(vcpu: &VcpuRow, share: f64) -> Markup {
    html! {
        li {
            span class={ "badge " (severity(share)) } { (percent(share)) }
            " " bdi { (vcpu.labels.get("vm").unwrap_or("?")) } " vCPU " (vcpu.index)
            @if let Some(w) = vcpu.whereabouts {
                span.muted { " on CPU " (w.cpu) ", node " (w.place.numa_node) }
            }
        }
    }
}

/// The vCPUs that waited noticeably, longest first.
fn worst(vcpus: &[VcpuRow]) -> Vec<(&VcpuRow, f64)> {
    let shares = vcpus
        .iter()
        .filter_map(|vcpu| Some((vcpu, vcpu.last_tick?.delay_share())));
    let mut waiting: Vec<_> = shares.filter(|(_, share)| *share >= NOTICEABLE).collect();
    waiting.sort_by(|a, b| b.1.total_cmp(&a.1));
    waiting.truncate(MOST);
    waiting
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::snapshot::LastTick;

    fn vcpu(index: u32, delay: Option<u64>) -> VcpuRow {
        VcpuRow {
            labels: Default::default(),
            placement: None,
            whereabouts: None,
            index,
            tid: 1,
            cells: 0..0,
            known: 0,
            last_tick: delay.map(|ms| LastTick {
                span: Duration::from_secs(1),
                time: Duration::ZERO,
                delay: Duration::from_millis(ms),
            }),
        }
    }

    #[test]
    fn those_that_waited_longest_come_first_and_few_are_named() {
        let delays = [Some(49), Some(50), None, Some(900), Some(300)];
        let vcpus: Vec<_> = (0..).zip(delays).map(|(n, d)| vcpu(n, d)).collect();
        let indices = |vcpus| {
            worst(vcpus)
                .iter()
                .map(|(v, _)| v.index)
                .collect::<Vec<_>>()
        };
        assert_eq!(indices(&vcpus), [3, 4, 1]);
        let many: Vec<_> = (0..1000).map(|n| vcpu(n, Some(500))).collect();
        assert_eq!(indices(&many).len(), MOST);
    }
}
