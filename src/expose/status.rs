//! The page at `/`: what is wrong now and why, who runs where, what is measured and what is not.
//!
//! It works as it is, and a script of its own keeps it new: it asks for the same address every two
//! seconds and takes over what differs. Nothing comes from elsewhere, and the security policy lets
//! nothing else in: style and script are known to it by their hashes.
//!
//! Names of VMs come from whoever starts VMs. maud escapes every value; `<bdi>` keeps letters that
//! run right to left from rearranging what stands beside them.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use base64::prelude::{Engine, BASE64_STANDARD};
use maud::{html, Markup, PreEscaped, DOCTYPE};
use ring::digest::{digest, SHA256};

use super::site::{App, NotReady};
use super::view::{CauseView, View};
use look::Look;

mod columns;
mod format;
mod look;
mod map;
mod now;
mod sources;
mod vms;

const STYLE: &str = include_str!("status/style.css");
const SCRIPT: &str = include_str!("status/live.js");

/// Nothing but the page's own style and script may run, it may talk to nobody but this exporter,
/// and no page may frame it.
pub(super) fn security_policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        // It is ASCII; were it not, nothing at all is let in.
        HeaderValue::from_str(&policy)
            .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

/// A text's hash as Content-Security-Policy writes it.
fn hash(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", BASE64_STANDARD.encode(digest))
}

/// Renders the page as the address' `query` asks to look at it.
pub(super) fn page(app: &App, now: Instant, query: &str) -> Markup {
    let view = View::of(&app.snapshots, now);
    let look = Look::of(query);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(view.as_ref())) }
                style { (PreEscaped(STYLE)) }
            }
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
    match troubled {
        0 => "vcpu-exporter".to_owned(),
        n => format!("({n}) vcpu-exporter"),
    }
}

fn sections(app: &App, view: Option<&View>, look: &Look, now: Instant) -> Markup {
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
            (sources::blind_spots(view))
            (sources::dropped(view))
        }
    }
}

fn top(view: Option<&View>) -> Markup {
    let scenario = view.and_then(|view| view.synthetic.as_ref());
    html! {
        header {
            div.brand {
                h1 { "vcpu-exporter" }
                p.muted { "What every vCPU of this host is doing" }
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
                strong { "Synthetic host." } " Nothing here is real: it follows the scenario "
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
                    " The newest sample is " (seconds(*age)) " old"
                    @if let Some(view) = view.filter(|view| view.window > 0.0) {
                        "; rates are over " (format!("{:.0}\u{a0}s", view.window))
                    }
                    "." noscript { " Reload the page for the newest." }
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
                "Version " (super::view::VERSION) ", revision " (super::view::REVISION) ". "
                "Every metric is described in " a href="/metrics" { "/metrics" } " and by "
                code { "vcpu-exporter catalog" } "; " code { "vcpu-exporter check" }
                " says what each source needs."
            }
        }
    }
}

/// A cause, and the runbook that says what to do.
fn runbook_link(cause: &CauseView) -> Markup {
    html! {
        a.cause href={ "/runbooks/" (cause.alert) } title={ "Runbook: " (cause.alert) } {
            (cause.cause.title()) " " (format::number(cause.score)) "×"
        }
    }
}

/// A duration of seconds, to a tenth.
fn seconds(duration: Duration) -> String {
    format!("{:.1}\u{a0}s", duration.as_secs_f64())
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
        // As `printf '' | openssl dgst -sha256 -binary | base64` has it.
        assert_eq!(
            hash(""),
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        );
    }

    #[test]
    fn every_state_of_a_source_has_a_look() {
        for word in ["up", "degraded", "down", "off"] {
            assert!(STYLE.contains(&format!(".{word} ")), "{word}");
        }
    }
}
