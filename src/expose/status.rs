//! The page at `/`: what is watched, what is not and why, who waits for a core. No script, nothing
//! from elsewhere.
//!
//! Names of VMs come from whoever starts VMs. maud escapes every value; `<bdi>` keeps letters that
//! run right to left from rearranging what stands beside them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use maud::{html, Markup, DOCTYPE};

use super::site::{App, NotReady};
use super::view::{View, VmView};
use crate::sample::{Reason, SourceState};
use crate::snapshot::{Snapshot, SourceRow};
use crate::telemetry::{REVISION, VERSION};

mod vcpus;
mod waiting;

/// Nothing but our own style sheet may be loaded, and no page may frame this one.
pub(super) const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// `/style.css`
pub(super) const STYLE: &str = include_str!("status/style.css");

/// Renders the page.
pub(super) fn page(app: &App, now: Instant) -> Markup {
    let snapshot = app.snapshots.load();
    let view = View::of(&app.snapshots, now);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "vcpu-exporter" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                (top())
                main {
                    (health(app.readiness(now)))
                    @if let Some(snapshot) = &snapshot {
                        (summary(snapshot))
                        @if let Some(view) = &view { (waiting::section(view)) }
                        (sources(snapshot))
                        (blind_spots(snapshot))
                        (dropped(snapshot))
                        @if let Some(view) = &view { (vcpus::table(view)) }
                    }
                }
                footer {
                    p {
                        "Version " (VERSION) ", revision " (REVISION) ". "
                        "Every metric is described in " a href="/metrics" { "/metrics" }
                        " and by " code { "vcpu-exporter catalog" } "; "
                        code { "vcpu-exporter check" } " says what each source needs. "
                        "Reload the page for the newest tick."
                    }
                }
            }
        }
    }
}

fn top() -> Markup {
    html! {
        header {
            div {
                h1 { "vcpu-exporter" }
                p { "What every vCPU of this host is doing" }
            }
            nav aria-label="Endpoints" {
                a href="/metrics" { "Metrics" }
                a href="/readyz" { "Readiness" }
                a href="/healthz" { "Health" }
            }
        }
    }
}

fn health(readiness: Result<Duration, NotReady>) -> Markup {
    html! {
        @match readiness {
            Ok(age) => p.banner.up role="status" {
                strong { "Sampling." } " The newest sample is " (seconds(age)) " old."
            },
            Err(reason) => p.banner.down role="status" {
                strong { "Not ready:" } " " (reason.to_string()) "."
            },
        }
    }
}

fn summary(snapshot: &Snapshot) -> Markup {
    let cpus = &snapshot.inventory.topology.cpus;
    let online = cpus.iter().filter(|cpu| cpu.online);
    let places = online.clone().map(|cpu| cpu.place);
    let cores: BTreeSet<_> = places.clone().map(|p| (p.package, p.core)).collect();
    let nodes: BTreeSet<_> = places.map(|p| p.numa_node).collect();
    html! {
        section aria-labelledby="host" {
            h2 #host { "Host" }
            dl.facts {
                (fact("VMs", grouped(snapshot.vms.len())))
                (fact("vCPUs", grouped(snapshot.vcpus.len())))
                (fact("CPUs online", grouped(online.clone().count())))
                (fact("Cores", grouped(cores.len())))
                (fact("NUMA nodes", grouped(nodes.len())))
                (fact("vCPUs per CPU", ratio(snapshot.vcpus.len(), online.count())))
                (fact("Series", grouped(snapshot.series)))
            }
        }
    }
}

fn fact(name: &str, value: String) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn sources(snapshot: &Snapshot) -> Markup {
    html! {
        section aria-labelledby="sources" {
            h2 #sources { "Sources" }
            ul.sources {
                @for row in &snapshot.sources {
                    @let mode = snapshot.pmu_mode.as_ref().filter(|_| row.info.name == "pmu");
                    (source(row, mode.and_then(|labels| labels.get("mode"))))
                }
            }
        }
    }
}

fn source(row: &SourceRow, pmu_mode: Option<&str>) -> Markup {
    let word = word(&row.state);
    html! {
        li {
            h3 { (row.info.name) " " span class={ "badge " (word) } { (word) } }
            div {
                @if let Some(reason) = row.reason() { (why(reason)) }
                @if let Some(mode) = pmu_mode {
                    p { "Mode " strong { (mode) } ": " (pmu_mode_means(mode)) "." }
                }
                details {
                    summary { "What it needs and costs" }
                    p { "Needs " (row.info.needs) "." }
                    p { "Costs " (row.info.cost) "." }
                }
            }
        }
    }
}

/// A source's state in a word, which is a class of the style sheet too.
fn word(state: &SourceState) -> &'static str {
    match state {
        SourceState::Up => "up",
        SourceState::Degraded(_) => "degraded",
        // As somebody wanted it: no reason to be alarmed.
        SourceState::Down(reason) if reason.code == Reason::DISABLED => "off",
        SourceState::Down(_) => "down",
    }
}

fn why(reason: &Reason) -> Markup {
    html! {
        @if reason.code == "blind_spots" {
            p { a href="#blind" { "Some things cannot be seen" } "." }
        } @else {
            p { (reason.detail) " " span.muted { "(" (reason.code) ")" } }
        }
        @if let Some(fix) = &reason.fix { p { strong { "Fix: " } (fix) } }
    }
}

/// What `kvm_exporter_pmu_mode` says, in a sentence.
fn pmu_mode_means(mode: &str) -> &'static str {
    match mode {
        "full" => "guest and host are counted apart",
        "host_only" => "only the host side is counted, guests have the counters to themselves",
        "software" => "no hardware counters here, the kernel's software events stand in",
        "off" => "nothing is counted",
        _ => "see kvm_exporter_pmu_mode",
    }
}

fn blind_spots(snapshot: &Snapshot) -> Markup {
    let spots = &snapshot.inventory.blind_spots;
    html! {
        @if !spots.is_empty() {
            section aria-labelledby="blind" {
                h2 #blind { "What the inventory could not see" }
                ul { @for spot in spots { li { (spot) } } }
            }
        }
    }
}

fn dropped(snapshot: &Snapshot) -> Markup {
    html! {
        @if !snapshot.dropped.is_empty() {
            section aria-labelledby="dropped" {
                h2 #dropped { "Left out by limits.max_series" }
                ul {
                    @for row in &snapshot.dropped {
                        li {
                            code { (row.labels.get("what").unwrap_or("unknown")) } ": "
                            (grouped(row.series)) " series"
                        }
                    }
                }
            }
        }
    }
}

/// What is known about a VM beside its name, in a line.
fn about(vm: &VmView) -> String {
    let shown = vm.info.iter();
    let shown: Vec<String> = shown
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    shown.join(" · ")
}

/// A duration of seconds, to a tenth.
fn seconds(duration: Duration) -> String {
    format!("{:.1}\u{a0}s", duration.as_secs_f64())
}

/// A share of a tick from which waiting is worth a look: at 5 % of CPU Ready operators of VMware
/// begin to look, too.
const NOTICEABLE: f64 = 0.05;

/// A share of a tick from which waiting is what makes a guest slow.
const SEVERE: f64 = 0.2;

/// How bad a share of waiting is, as a class of the style sheet.
fn severity(share: f64) -> &'static str {
    match share {
        s if s >= SEVERE => "down",
        s if s >= NOTICEABLE => "degraded",
        _ => "calm",
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", share * 100.0)
}

fn ratio(n: usize, of: usize) -> String {
    match of {
        0 => "–".to_owned(),
        of => format!("{:.1}", n as f64 / of as f64),
    }
}

/// A number with its thousands apart.
fn grouped(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push('\u{202f}'); // narrow no-break space
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(7_u64), "7");
        assert_eq!(grouped(999_u64), "999");
        assert_eq!(grouped(1_234_567_u64), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn waiting_has_three_degrees() {
        let classes = [0.0, 0.05, 0.2].map(severity);
        assert_eq!(classes, ["calm", "degraded", "down"]);
        assert_eq!(percent(0.1234), "12.3\u{a0}%");
    }

    #[test]
    fn what_is_switched_off_is_not_down() {
        let down = |code| {
            SourceState::Down(Reason {
                code,
                detail: String::new(),
                fix: None,
            })
        };
        let words = [SourceState::Up, down("disabled"), down("no_pt")].map(|state| word(&state));
        assert_eq!(words, ["up", "off", "down"]);
        assert!(words
            .iter()
            .all(|word| STYLE.contains(&format!(".{word} "))));
    }

    #[test]
    fn a_host_without_cpus_has_no_ratio() {
        assert_eq!(ratio(3, 0), "–");
        assert_eq!(ratio(3, 2), "1.5");
    }

    #[test]
    fn the_style_sheet_loads_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
