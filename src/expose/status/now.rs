//! Where to look first: VMs that something is wrong with, in words, worst first.

use std::collections::HashMap;

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
                    ol.troubles { @for group in troubled.iter().take(MOST) { (line(group)) } }
                    @if troubled.len() > MOST {
                        p.note { (plural(troubled.len() - MOST, "more line")) " of this: see the table." }
                    }
                }
            }
        }
    }
}

fn line(group: &[(usize, &VmView)]) -> Markup {
    let Some((n, vm)) = group.first() else {
        return Markup::default();
    };
    let score = vm.worst();
    let severity = Severity::of(score);
    html! {
        li.trouble.(severity.class()) {
            span.score title="times of the threshold from which it is trouble" {
                (severity.mark().unwrap_or_default()) " " (number(score)) "×"
            }
            p {
                a.name href={ "#vm-" (n) } { bdi { (vm.name) } }
                @if group.len() > 1 {
                    span.muted title=(names(group)) { " and " (plural(group.len() - 1, "more VM")) }
                }
            }
            div {
                p { (vm.verdict) }
                p.causes { @for cause in vm.trouble() { (runbook_link(cause)) " " } }
            }
        }
    }
}

/// The names of VMs.
fn names(group: &[(usize, &VmView)]) -> String {
    let names: Vec<&str> = group.iter().map(|(_, vm)| vm.name.as_str()).collect();
    names.join(", ")
}

/// VMs over a threshold with their positions, worst first; those with the same trouble, such as a
/// package that is too hot for all its VMs, together.
fn worst(view: &View) -> Vec<Vec<(usize, &VmView)>> {
    let numbered = view.vms.iter().enumerate();
    let mut groups: Vec<Vec<(usize, &VmView)>> = Vec::new();
    let mut by_verdict: HashMap<&str, usize> = HashMap::new();
    for (n, vm) in numbered.filter(|(_, vm)| vm.worst() >= 1.0) {
        let group = *by_verdict.entry(&vm.verdict).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push((n, vm)),
            None => groups.push(vec![(n, vm)]),
        }
    }
    let score = |group: &[(usize, &VmView)]| group.first().map_or(0.0, |(_, vm)| vm.worst());
    groups.sort_by(|a, b| score(b).total_cmp(&score(a)));
    groups
}
