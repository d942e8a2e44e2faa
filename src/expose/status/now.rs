//! "What is wrong now": VMs over a threshold with their verdicts, worst first.

use std::collections::HashMap;

use maud::{html, Markup};

use super::format::{number, plural, Severity};
use super::{causes, verdict};
use crate::diagnosis::{View, VmView};
use crate::expose::runbooks::Runbook;

/// Most lines.
const MOST: usize = 20;

/// Most names of VMs that wait because the host is full.
const NAMED: usize = 12;

/// The section; empty if no VM runs.
pub(super) fn section(view: &View) -> Markup {
    let is_full = view.host.is_full();
    let troubled = worst(view, |vm| !(is_full && vm.only_waits()));
    html! {
        @if !view.vms.is_empty() {
            section #now aria-labelledby="now-title" {
                h2 #now-title { "What is wrong now" }
                @if troubled.is_empty() && !is_full {
                    p.calm-note {
                        span.mark.up aria-hidden="true" { "✓" }
                        " No VM exceeds a threshold."
                    }
                } @else {
                    ol.troubles {
                        @if is_full { (host(view)) }
                        @for group in troubled.iter().take(MOST) { (line(view, group)) }
                    }
                    @if troubled.len() > MOST {
                        p.note { (plural(troubled.len() - MOST, "more line")) ": see the table." }
                    }
                }
            }
        }
    }
}

/// The verdict on a full host, and the VMs that only wait.
fn host(view: &View) -> Markup {
    const ALERT: &str = "KvmHostCpuSaturated";
    let host = &view.host;
    let waits = |vm: &VmView| vm.worst() >= 1.0 && vm.only_waits();
    let vms = view.vms.iter().enumerate();
    let mut waits: Vec<(usize, &VmView)> = vms.filter(|(_, vm)| waits(vm)).collect();
    waits.sort_by(|(_, a), (_, b)| b.worst().total_cmp(&a.worst()));
    let over = host.wanted.map(|wanted| wanted / host.cpus.max(1) as f64);
    html! {
        li.trouble.down {
            span.score title="CPUs wanted over CPUs online" {
                "!! " (number(over.unwrap_or_default())) "×"
            }
            p { a.name href="#host" { "Host" } }
            div {
                p {
                    (host.verdict)
                    @if !waits.is_empty() {
                        " " (plural(waits.len(), "VM")) " with no other problem: "
                        @for (n, (position, vm)) in waits.iter().take(NAMED).enumerate() {
                            @if n > 0 { ", " }
                            (super::vm_link(*position, &vm.name))
                        }
                        @if waits.len() > NAMED { " and " (waits.len() - NAMED) " more" }
                        "."
                    }
                }
                @if Runbook::find(ALERT).is_some() {
                    p.causes { a.cause href={ "/runbooks/" (ALERT) } { "What to do" } }
                }
            }
        }
    }
}

fn line(view: &View, group: &[(usize, &VmView)]) -> Markup {
    let Some((n, vm)) = group.first() else {
        return Markup::default();
    };
    let score = vm.worst();
    let severity = Severity::from_score(score);
    html! {
        li.trouble.(severity.class()) {
            span.score title="multiple of the limit" {
                (severity.mark().unwrap_or_default()) " " (number(score)) "×"
            }
            p {
                (super::vm_link(*n, &vm.name))
                @if group.len() > 1 {
                    span.muted title=(names(group)) { " and " (plural(group.len() - 1, "more VM")) }
                }
            }
            div {
                p { (verdict(vm, view)) }
                (causes(*n, vm, view))
            }
        }
    }
}

/// The names of the VMs, separated by commas.
fn names(group: &[(usize, &VmView)]) -> String {
    let names: Vec<&str> = group.iter().map(|(_, vm)| vm.name.as_str()).collect();
    names.join(", ")
}

/// VMs over a threshold with their positions, worst first. VMs with the same verdict, for example
/// in a package that is throttled by heat, are one group.
fn worst(view: &View, is_shown: impl Fn(&VmView) -> bool) -> Vec<Vec<(usize, &VmView)>> {
    let numbered = view.vms.iter().enumerate();
    let mut groups: Vec<Vec<(usize, &VmView)>> = Vec::new();
    let mut by_verdict: HashMap<&str, usize> = HashMap::new();
    for (n, vm) in numbered.filter(|(_, vm)| vm.worst() >= 1.0 && is_shown(vm)) {
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
