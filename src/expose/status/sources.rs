//! States of the sources, visibility gaps, and dropped series.

use maud::{html, Markup};

use super::format::grouped;
use crate::diagnosis::{SourceView, View};

pub(super) fn section(view: &View) -> Markup {
    let count = |state: &str| view.sources.iter().filter(|s| s.state == state).count();
    let states = [
        ("up", "up"),
        ("degraded", "degraded"),
        ("down", "down"),
        ("off", "off"),
        ("absent", "not available on this machine"),
    ];
    let states = states.map(|(state, words)| (words, count(state)));
    let states = states.iter().filter(|(_, n)| *n > 0);
    let states: Vec<String> = states.map(|(words, n)| format!("{n} {words}")).collect();
    html! {
        section #sources aria-labelledby="sources-title" {
            div.head {
                h2 #sources-title { "Sources" }
                p.muted { (states.join(", ")) }
            }
            ul.sources {
                @for row in &view.sources {
                    @let mode = view.pmu_mode.as_deref().filter(|_| row.name == "pmu");
                    (source(row, mode))
                }
            }
        }
    }
}

fn source(row: &SourceView, pmu_mode: Option<&str>) -> Markup {
    html! {
        li {
            h3 { span class={ "badge " (row.state) } { (row.state) } " " (row.name) }
            div {
                (why(row))
                @if let Some(mode) = pmu_mode {
                    p { "Mode " strong { (mode) } ": " (pmu_mode_means(mode)) "." }
                }
                details #{ "source-" (row.name) } {
                    summary { "Requirements and cost" }
                    p { "Requires " (row.needs) "." }
                    p { "Costs " (row.cost) "." }
                }
            }
        }
    }
}

fn why(row: &SourceView) -> Markup {
    html! {
        @if matches!(row.reason.as_deref(), Some("blind_spots" | "blocked_reads")) {
            p { a href="#gaps" { "Some VMs or threads are not visible" } "." }
        } @else if let Some((detail, reason)) = row.detail.as_ref().zip(row.reason.as_ref()) {
            p {
                @if row.state == "absent" { "Not available on this machine: " }
                (detail) " " span.muted { "(" (reason) ")" }
            }
        }
        @if let Some(fix) = &row.fix { p { strong { "Fix: " } (fix) } }
    }
}

/// The meaning of `kvm_exporter_pmu_mode`.
fn pmu_mode_means(mode: &str) -> &'static str {
    match mode {
        "full" => "guest and host are counted separately",
        "host_only" => "only host mode is counted, because guests own the counters",
        "software" => {
            "only software events are counted, because this machine has no hardware counters"
        }
        "off" => "nothing is counted",
        _ => "see kvm_exporter_pmu_mode",
    }
}

pub(super) fn visibility_gaps(view: &View) -> Markup {
    html! {
        @if !view.visibility_gaps.is_empty() {
            section #gaps aria-labelledby="gaps-title" {
                h2 #gaps-title { "Not visible to the exporter" }
                ul.plain { @for spot in &view.visibility_gaps { li { (spot) } } }
            }
        }
    }
}

pub(super) fn dropped(view: &View) -> Markup {
    html! {
        @if !view.dropped.is_empty() {
            section #dropped aria-labelledby="dropped-title" {
                h2 #dropped-title { "Dropped: limits.max_series is reached" }
                ul.plain {
                    @for row in &view.dropped {
                        li { code { (row.what) } ": " (grouped(row.series)) " series" }
                    }
                }
            }
        }
    }
}
