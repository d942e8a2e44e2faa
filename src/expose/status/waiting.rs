//! Where to look first: the vCPUs that waited longest for a core in the last tick.

use maud::{html, Markup};

use super::{percent, severity, NOTICEABLE};
use crate::expose::view::{VcpuView, View, VmView};

/// At most this many are named.
const MOST: usize = 10;

/// The section; nothing where no VM runs.
pub(super) fn section(view: &View) -> Markup {
    let waiting = worst(&view.vms);
    html! {
        @if !view.vms.is_empty() {
            section aria-labelledby="waiting" {
                h2 #waiting { "Waiting for a core" }
                @if waiting.is_empty() {
                    p { "No vCPU waited for " (percent(NOTICEABLE)) " of the last seconds or longer." }
                } @else {
                    ul.waiting { @for (vm, vcpu, share) in waiting { (line(vm, vcpu, share)) } }
                }
                p.note.muted {
                    "Ready to run while another thread had the core: the guest sees it as steal. These are "
                    "the last seconds; " code { "kvm_vcpu_delay_seconds_total" } " has the history."
                }
            }
        }
    }
}

fn line(vm: &VmView, vcpu: &VcpuView, share: f64) -> Markup {
    html! {
        li {
            span class={ "badge " (severity(share)) } { (percent(share)) }
            " " bdi { (vm.name) } " vCPU " (vcpu.index)
            @if let Some(place) = vcpu.place {
                span.muted { " on CPU " (place.cpu) ", node " (place.node) }
            }
        }
    }
}

/// The vCPUs that waited noticeably, longest first.
fn worst(vms: &[VmView]) -> Vec<(&VmView, &VcpuView, f64)> {
    let vcpus = vms
        .iter()
        .flat_map(|vm| vm.vcpus.iter().map(move |vcpu| (vm, vcpu)));
    let shares = vcpus.filter_map(|(vm, vcpu)| Some((vm, vcpu, vcpu.numbers.delay?)));
    let mut waiting: Vec<_> = shares
        .filter(|(_, _, share)| *share >= NOTICEABLE)
        .collect();
    waiting.sort_by(|a, b| b.2.total_cmp(&a.2));
    waiting.truncate(MOST);
    waiting
}
