//! `/runbooks/`: what to do about each alert, embedded when the exporter is built, so that links in
//! alerts work wherever the exporter can be reached.

use axum::extract::Path;
use axum::http::header::{self, HeaderValue};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{html, DOCTYPE};

// RUNBOOKS: name and text of each file of docs/runbooks, by name; build.rs makes the list.
include!(concat!(env!("OUT_DIR"), "/runbooks.rs"));

/// A list of them.
pub(super) async fn list() -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Runbooks of vcpu-exporter" }
            }
            body {
                h1 { "Runbooks" }
                @if RUNBOOKS.is_empty() { p { "This build has none." } }
                ul { @for (name, _) in RUNBOOKS { li { a href={ "/runbooks/" (name) } { (name) } } } }
                p { a href="/" { "Back to the host" } }
            }
        }
    };
    Html(page.into_string()).into_response()
}

/// One of them, shown as it is.
pub(super) async fn one(Path(name): Path<String>) -> Response {
    let name = name.strip_suffix(".md").unwrap_or(&name);
    match RUNBOOKS.iter().find(|(known, _)| *known == name) {
        // Browsers show text/plain and offer text/markdown for download.
        Some((_, text)) => {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            ([(header::CONTENT_TYPE, plain)], *text).into_response()
        }
        None => {
            let text = "there is no such runbook; /runbooks/ lists them\n";
            (StatusCode::NOT_FOUND, text).into_response()
        }
    }
}
