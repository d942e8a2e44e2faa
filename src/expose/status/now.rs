//! Where to look first: VMs that something is wrong with, in words, worst first.

use maud::{html, Markup};

use super::format::{number, plural, Severity};
use super::runbook_link;
use crate::expose::view::{View, VmView};

/// At most this many are named.
const MOST: usize = 20;

/// The section; nothing where no VM runs.
pub(super) fn section(view: &View) -> Markup {
    let troubled = worst(view);
    html! {
        @if !view.vms.is_empty() {
            section #now aria-labelledby="now-title" {
                h2 #now-title { "What is wrong now" }
                @if troubled.is_empty() {
                    p.calm-note {
                        span.mark.up aria-hidden="true" { "✓" }
                        " Nothing stands out: no VM is over the threshold of any cause that is known."
                    }
                } @else {
                    ol.troubles { @for (n, vm) in troubled.iter().take(MOST) { (line(*n, vm)) } }
                    @if troubled.len() > MOST {
                        p.note { (plural(troubled.len() - MOST, "more VM")) " further down." }
                    }
                }
            }
        }
    }
}

fn line(n: usize, vm: &VmView) -> Markup {
    let score = vm.worst();
    let severity = Severity::of(score);
    html! {
        li.trouble.(severity.class()) {
            span.score title="times of the threshold from which it is trouble" {
                (severity.mark().unwrap_or_default()) " " (number(score)) "×"
            }
            a.name href={ "#vm-" (n) } { bdi { (vm.name) } }
            div {
                p { (vm.verdict) }
                p.causes { @for cause in vm.trouble() { (runbook_link(cause)) " " } }
            }
        }
    }
}

/// VMs over a threshold with their positions, worst first.
fn worst(view: &View) -> Vec<(usize, &VmView)> {
    let numbered = view.vms.iter().enumerate();
    let mut troubled: Vec<_> = numbered.filter(|(_, vm)| vm.worst() >= 1.0).collect();
    troubled.sort_by(|(_, a), (_, b)| b.worst().total_cmp(&a.worst()));
    troubled
}
