//! The HTTP server.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the status page; `sort`, `colour` and `open` select its state |
//! | `/api/view` | the data of the status page as JSON ([`View`]); 503 before the first tick |
//! | `/runbooks/` | the list of runbooks |
//! | `/runbooks/NAME` | a runbook: HTML for a browser, else text; `vm`, `host`, … fill in commands |
//! | `/metrics` | the latest snapshot, OpenMetrics or Prometheus text; 503 before the first tick |
//! | `/healthz` | 200 while the server and its workers work |
//! | `/readyz` | 200 while the latest snapshot is fresh, else 503 with the reason |
//!
//! No request reads the host. Connections, requests in progress and bodies in memory are bounded,
//! so memory and CPU time are too. A client that holds one of them without using it loses it to a
//! client that needs it. Only HTTP/1 is supported.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;

use super::bodies::Made;
use super::guard::{Client, Limits, Table};
use super::metrics::{metrics, values};
use super::runbooks::Runbook;
use super::site::{unavailable, App, NotReady, Site};
use super::{negotiate, runbooks, server, status};
use crate::diagnosis::View;

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/api/view", get(view))
        .route("/runbooks", get(runbook_list))
        .route("/runbooks/", get(runbook_list))
        .route("/runbooks/{name}", get(runbook))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), account))
        .with_state(site)
}

/// Serves until `stop` resolves, then gives open requests at most two seconds to finish.
///
/// # Errors
/// If the encoding threads cannot be started.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(listener, app, stop, Limits::default()).await
}

async fn serve_within(
    listener: TcpListener,
    app: Arc<App>,
    stop: impl Future<Output = ()> + Send + 'static,
    limits: Limits,
) -> io::Result<()> {
    let table = Table::new(limits.connections);
    let site = Site::new(app, limits.patience, table.clone())?;
    server::serve(listener, router(Arc::new(site)), table, limits, stop).await;
    Ok(())
}

/// Counts each request, and adds the headers that all answers have.
async fn account(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let path = known_path(request.uri().path());
    let mut response = next.run(request).await;
    let code = response.status().as_u16();
    let labels = [("path", path.into()), ("code", i32::from(code).into())];
    let requests = &site.app.telemetry.http_requests;
    requests.get_or_create(labels).inc();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, status::security_policy());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if site.table.is_full() {
        // All connections are in use: close this one, the client can connect again.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The path as a label value. Other paths are one value, so that clients cannot create series.
fn known_path(path: &str) -> &'static str {
    const KNOWN: [&str; 5] = ["/", "/metrics", "/healthz", "/readyz", "/api/view"];
    match path.strip_prefix("/runbooks") {
        Some(name) if name.is_empty() || name.starts_with('/') => "/runbooks/",
        _ => KNOWN.into_iter().find(|&p| p == path).unwrap_or("other"),
    }
}

async fn healthz(State(site): State<Arc<Site>>) -> Response {
    let now = Instant::now();
    if site.scrapes.places.worker.is_alive(now) && site.pages.places.worker.is_alive(now) {
        "ok\n".into_response()
    } else {
        unavailable(&"a worker thread hangs; see the log of the exporter")
    }
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    match site.app.readiness(Instant::now()) {
        Ok(age) => {
            let age = age.as_secs_f64();
            format!("ready: the newest sample is {age:.1} s old\n").into_response()
        }
        Err(reason) => unavailable(&format_args!("not ready: {reason}")),
    }
}

async fn status_page(
    State(site): State<Arc<Site>>,
    Extension(client): Extension<Arc<Client>>,
    uri: Uri,
) -> Response {
    let page = render(Arc::clone(&site), move |site| {
        let query = uri.query().unwrap_or_default();
        let page = status::page(&site.app, Instant::now(), query);
        Ok(page.into_string().into_bytes())
    });
    answer(&site, client, HTML, page).await
}

async fn view(
    State(site): State<Arc<Site>>,
    Extension(client): Extension<Arc<Client>>,
) -> Response {
    let Some(newest) = site.app.snapshots.load() else {
        return unavailable(&NotReady::NoSample);
    };
    let json = site.pages.view.get(&newest, || {
        render(Arc::clone(&site), |site| {
            let view = View::latest(&site.app.snapshots, Instant::now());
            let view = view.ok_or_else(|| NotReady::NoSample.to_string())?;
            serde_json::to_vec(&view).map_err(|error| error.to_string())
        })
    });
    answer(&site, client, "application/json", json).await
}

async fn runbook_list(
    State(site): State<Arc<Site>>,
    Extension(client): Extension<Arc<Client>>,
    uri: Uri,
) -> Response {
    let page = render(Arc::clone(&site), move |_| {
        let list = runbooks::list(uri.query().unwrap_or_default());
        Ok(list.into_string().into_bytes())
    });
    answer(&site, client, HTML, page).await
}

async fn runbook(
    State(site): State<Arc<Site>>,
    Extension(client): Extension<Arc<Client>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let Some(runbook) = Runbook::find(&name) else {
        let text = "no such runbook; /runbooks/ lists all\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let is_html = negotiate::html(values(&headers, header::ACCEPT));
    let page = render(Arc::clone(&site), move |_| {
        let query = uri.query().unwrap_or_default();
        Ok(if is_html {
            runbook.page(query).into_string().into_bytes()
        } else {
            runbook.plain(query).into_bytes()
        })
    });
    let format = if is_html {
        HTML
    } else {
        // Browsers display text/plain, but download text/markdown.
        "text/plain; charset=utf-8"
    };
    let answer = answer(&site, client, format, page).await;
    ([(header::VARY, "accept")], answer).into_response()
}

const HTML: &str = "text/html; charset=utf-8";

async fn render(
    site: Arc<Site>,
    job: impl FnOnce(&Site) -> Result<Vec<u8>, String> + Send + 'static,
) -> Made {
    let shown = Arc::clone(&site);
    site.pages.places.make(move || job(&shown)).await
}

/// Waits for a page and sends it.
async fn answer(
    site: &Site,
    client: Arc<Client>,
    format: &'static str,
    page: impl Future<Output = Made>,
) -> Response {
    let page = tokio::time::timeout(site.patience, page).await;
    match page.ok().flatten() {
        Some(Ok(body)) => ([(header::CONTENT_TYPE, format)], body.send(client)).into_response(),
        Some(Err(reason)) => unavailable(&reason),
        None => unavailable(&"too many requests at once"),
    }
}

async fn method_not_allowed() -> (StatusCode, &'static str) {
    let text = "method not allowed; use GET or HEAD\n";
    (StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn not_found() -> (StatusCode, &'static str) {
    let text = "not found; try /, /api/view, /metrics, /runbooks/, /healthz or /readyz\n";
    (StatusCode::NOT_FOUND, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture::{empty, labels};
    use crate::snapshot::{self, Snapshot};
    use crate::telemetry::Telemetry;
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::sync::oneshot;

    /// A host with enough CPUs that its exposition exceeds any socket buffer.
    fn large() -> Snapshot {
        let mut snapshot = empty(Instant::now(), Duration::ZERO);
        let cpu = labels(&[("cpu", &"a".repeat(100))]);
        snapshot.cpu_labels = vec![cpu; 50_000].into();
        snapshot
    }

    fn app(snapshot: Snapshot) -> Arc<App> {
        let (telemetry, registry) = Telemetry::new();
        let snapshots = snapshot::Handle::default();
        snapshots.publish(Arc::new(snapshot));
        Arc::new(App {
            snapshots,
            telemetry,
            registry,
            max_age: Duration::from_secs(10),
        })
    }

    /// A client that asks for everything and reads only the beginning.
    fn stuck_client(address: SocketAddr) -> std::net::TcpStream {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
        client
    }

    const LONG: Duration = Duration::from_secs(600);

    /// Runs a client against a server with these limits and a large host.
    fn with_server<T: Send + 'static>(
        limits: Limits,
        clients: impl FnOnce(SocketAddr, &App) -> T + Send + 'static,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            let stopped = async { drop(stopped.await) };
            let app = app(large());
            let server = tokio::spawn(serve_within(listener, Arc::clone(&app), stopped, limits));
            let clients = tokio::task::spawn_blocking(move || clients(address, &app));
            let seen = clients.await.unwrap();
            drop(stop);
            let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
            ended.expect("the server did not end").unwrap().unwrap();
            seen
        })
    }

    #[test]
    fn a_stuck_client_does_not_hold_up_the_end() {
        let limits = Limits {
            answer: LONG,
            grace: Duration::from_millis(50),
            ..Limits::default()
        };
        // The client stays connected until the server has ended.
        drop(with_server(limits, |address, _| stuck_client(address)));
    }

    #[test]
    fn connection_closes_after_the_answer_if_others_wait() {
        let closes = |connections| {
            let limits = Limits {
                connections,
                ..Limits::default()
            };
            with_server(limits, |address, _| {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
                client.write_all(request).unwrap();
                let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
                while !answer.ends_with(b"ok\n") {
                    let n = client.read(&mut bytes).unwrap();
                    assert!(n > 0, "the answer ended early");
                    answer.extend_from_slice(&bytes[..n]);
                }
                String::from_utf8_lossy(&answer).contains("connection: close")
            })
        };
        assert!(closes(1));
        assert!(!closes(3));
    }

    /// The status of a scrape whose body is not read.
    fn status(address: SocketAddr) -> String {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let request = b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status).into_owned()
    }

    #[test]
    fn stuck_clients_do_not_lock_out_others() {
        let limits = Limits {
            answer: LONG,
            stall: LONG,
            grace: Duration::from_millis(50),
            ..Limits::default()
        };
        with_server(limits, |address, app| {
            let mut stuck = Vec::new();
            // More bodies than slots, each held by its own client.
            for _ in 0..12 {
                app.snapshots.publish(Arc::new(large()));
                stuck.push(stuck_client(address));
                assert_eq!(status(address), "HTTP/1.1 200");
            }
        });
    }
}
