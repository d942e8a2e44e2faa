//! The page at `/`: current problems and their causes, placement of VMs, state of the sources.
//!
//! The page works without a script. Its script requests the same URL every two seconds and applies
//! the differences. The page loads nothing else, and its security policy allows nothing else: style
//! and script are permitted by their hashes.
//!
//! Names of VMs are untrusted. maud escapes every value, and `<bdi>` keeps right-to-left names from
//! reordering the text around them.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use base64::prelude::{Engine, BASE64_STANDARD};
use maud::{html, Markup, PreEscaped, DOCTYPE};
use ring::digest::{digest, SHA256};

use super::html::head;
use super::query;
use super::runbooks;
use super::site::{App, NotReady};
use crate::diagnosis::{View, VmView};
use crate::telemetry::{REVISION, VERSION};
use page_state::PageState;

mod columns;
mod format;
mod map;
mod now;
mod page_state;
mod sources;
mod vms;

const STYLE: &str = include_str!("status/style.css");
const SCRIPT: &str = include_str!("status/live.js");

/// Only the page's own style and script may run, the page may connect only to this exporter, and no
/// other page may frame it.
pub(super) fn security_policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = format!(
            "default-src 'none'; style-src '{}' '{}'; script-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            hash(STYLE),
            hash(runbooks::STYLE),
            hash(SCRIPT)
        );
        // The policy is ASCII; if it were not, nothing would be allowed.
        HeaderValue::from_str(&policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// The hash of a text in the format of Content-Security-Policy.
fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", BASE64_STANDARD.encode(digest))
}

/// Renders the page in the state that `query` selects.
pub(super) fn page(app: &App, now: Instant, query: &str) -> Markup {
    let view = View::latest(&app.snapshots, now);
    let look = PageState::parse(query);
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title(view.as_ref()), STYLE))
            body {
                a.skip href="#main" { "Skip to content" }
                (top(view.as_ref()))
                p #lost.banner.down role="alert" hidden {}
                main #main { (sections(app, view.as_ref(), &look, now)) }
                (foot())
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

fn title(view: Option<&View>) -> String {
    let troubled = view.map_or(0, |view| {
        view.vms.iter().filter(|vm| vm.worst() >= 1.0).count()
    });
    let host = view.and_then(|view| view.host.name.as_deref());
    let host = host.map_or_else(String::new, |host| format!("{host} · "));
    match troubled {
        0 => format!("{host}vcpu-exporter"),
        n => format!("({n}) {host}vcpu-exporter"),
    }
}

fn sections(app: &App, view: Option<&View>, look: &PageState, now: Instant) -> Markup {
    html! {
        form #look method="get" action="/" {
            @for (name, value) in look.fields() {
                input type="hidden" name=(name) value=(value);
            }
        }
        (health(&app.readiness(now), view))
        @if let Some(view) = view {
            (now::section(view))
            (map::section(view, look))
            (vms::section(view, look))
            (sources::section(view))
            (sources::visibility_gaps(view))
            (sources::dropped(view))
        }
    }
}

fn top(view: Option<&View>) -> Markup {
    let host = view.and_then(|view| view.host.name.as_deref());
    let scenario = view.and_then(|view| view.synthetic.as_ref());
    html! {
        header {
            div.brand {
                @if let Some(host) = host {
                    h1 { bdi { (host) } }
                    p.muted { "vcpu-exporter: VMs and vCPUs of this host" }
                } @else {
                    h1 { "vcpu-exporter" }
                    p.muted { "VMs and vCPUs of this host" }
                }
            }
            nav aria-label="Endpoints" {
                a href="/metrics" { "Metrics" }
                a href="/api/view" { "JSON" }
                a href="/runbooks/" { "Runbooks" }
                a href="/readyz" { "Readiness" }
                a href="/healthz" { "Health" }
            }
        }
        @if let Some(scenario) = scenario {
            p #synthetic.banner.synthetic role="note" {
                strong { "Synthetic host." } " No VM here is real. Scenario: "
                strong { (scenario) } "."
            }
        }
    }
}

fn health(readiness: &Result<Duration, NotReady>, view: Option<&View>) -> Markup {
    html! {
        section #health aria-label="Health" {
            @match readiness {
                Ok(age) => p.health {
                    span.dot.up aria-hidden="true" {}
                    span role="status" { strong { "Sampling." } }
                    " The latest sample is " (format!("{:.1}\u{a0}s", age.as_secs_f64())) " old"
                    @if let Some(view) = view.filter(|view| view.window > 0.0) {
                        "; rates cover " (format!("{:.0}\u{a0}s", view.window))
                    }
                    "." noscript { " Reload the page to update it." }
                },
                Err(reason) => p.banner.down role="status" {
                    strong { "Not ready:" } " " (reason.to_string()) "."
                },
            }
        }
    }
}

fn foot() -> Markup {
    html! {
        footer {
            p {
                "Version " (VERSION) ", revision " (REVISION) ". "
                "Every metric is described in " a href="/metrics" { "/metrics" } " and by "
                code { "vcpu-exporter catalog" } "; " code { "vcpu-exporter check" }
                " shows which sources work and how to fix the rest."
            }
        }
    }
}

/// A VM's name with a link to its row.
fn vm_link(n: usize, name: &str) -> Markup {
    html! { a.name href={ "#vm-" (n) } { bdi { (name) } } }
}

/// A verdict; VM names in it link to their rows.
fn verdict(vm: &VmView, view: &View) -> Markup {
    let mut done = 0;
    let parts = vm.mentions.iter().filter_map(|mention| {
        let before = vm.verdict.get(done..mention.start)?;
        let name = vm.verdict.get(mention.start..mention.end)?;
        done = mention.end;
        let is_there = view.vms.get(mention.vm).is_some();
        Some((before, name, is_there.then_some(mention.vm)))
    });
    let parts: Vec<_> = parts.collect();
    html! {
        @for (before, name, vm) in &parts {
            (before)
            @match vm {
                Some(vm) => (vm_link(*vm, name)),
                None => bdi { (name) },
            }
        }
        (vm.verdict.get(done..).unwrap_or_default())
    }
}

/// The causes of VM `n` over their limits, each with a link to its runbook, whose commands act on
/// the VM and on the culprit.
fn causes(n: usize, vm: &VmView, view: &View) -> Markup {
    let culprit = view.culprit(n).map(|culprit| query::encoded(&culprit.name));
    let culprit = culprit.map(|name| format!("&neighbor={name}"));
    let query = query::encoded(&vm.name) + &culprit.unwrap_or_default();
    html! {
        p.causes {
            @for cause in vm.trouble() {
                a.cause href={ "/runbooks/" (cause.alert) "?vm=" (query) }
                    title={ "Runbook: " (cause.alert) } {
                    (cause.cause.info().title) ": " (format::number(cause.score)) "× the limit"
                }
                " "
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_load_nothing_and_end_where_they_end() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("</") && !text.contains("<!--"));
            assert!(!text.contains("http:") && !text.contains("https:"));
        }
        assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval("));
    }

    #[test]
    fn the_policy_knows_style_and_script_by_their_hashes() {
        let policy = security_policy();
        let policy = policy.to_str().unwrap();
        assert!(policy.contains(&hash(STYLE)) && policy.contains(&hash(SCRIPT)));
        assert!(!policy.contains("unsafe"));
        // Verified with `printf '' | openssl dgst -sha256 -binary | base64`.
        assert_eq!(
            hash(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }

    #[test]
    fn every_source_state_has_a_style() {
        for word in ["up", "degraded", "down", "off", "absent"] {
            let is_styled = [" ", ","]
                .iter()
                .any(|after| STYLE.contains(&format!(".{word}{after}")));
            assert!(is_styled, "{word}");
        }
    }
}
