//! The HTTP server.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the status page, for people; `sort`, `colour` and `open` say how it is looked at |
//! | `/api/view` | what the status page shows, as JSON ([`View`]); 503 before the first tick |
//! | `/runbooks/` | a list of what to do about each alert |
//! | `/runbooks/NAME` | the runbook of an alert, as text |
//! | `/metrics` | the newest snapshot as OpenMetrics or Prometheus text; 503 before the first tick |
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 while the newest snapshot is fresh, else 503 with the reason |
//!
//! No request reads the host, and no number of requests takes more than a fixed share of memory
//! and CPU: connections, requests being worked on and answers under way
//! are each bounded.

use std::future::{Future, IntoFuture};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, Semaphore};

use super::guard::{Guarded, Limits, Slots};
use super::metrics::metrics;
use super::site::{unavailable, App, NotReady, Scrapes, Site};
use super::view::View;
use super::{runbooks, status};
use crate::telemetry::RequestLabels;

/// Requests worked on at a time; a hypervisor's CPUs are for its guests. The runtime needs as many
/// threads for blocking work: with more, tokio starts one for each request that comes while
/// another ends, and each has an arena of the allocator to itself.
pub const WORKERS: usize = 2;

/// The routes, for [`serve`] or a server of one's own.
pub fn router(app: Arc<App>) -> Router {
    let limits = Limits::default();
    router_within(app, limits, Slots::new(&limits))
}

fn router_within(app: Arc<App>, limits: Limits, slots: Slots) -> Router {
    let site = Arc::new(Site {
        app,
        scrapes: Scrapes::default(),
        patience: limits.patience,
        workers: Arc::new(Semaphore::new(WORKERS)),
        slots,
    });
    Router::new()
        .route("/", get(status_page))
        .route("/api/view", get(view))
        .route("/runbooks", get(runbooks::list))
        .route("/runbooks/", get(runbooks::list))
        .route("/runbooks/{name}", get(runbooks::one))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&site), account))
        .with_state(site)
}

/// Serves until `stop` is ready, then lets open requests end for at most five seconds.
///
/// # Errors
/// When the listener fails for good.
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
    let (stopping, stopped) = oneshot::channel();
    let slots = Slots::new(&limits);
    let guarded = Guarded::new(listener, limits, slots.clone());
    let server = axum::serve(guarded, router_within(app, limits, slots)).with_graceful_shutdown(
        async move {
            stop.await;
            // Nobody listens only if the server has ended by itself.
            let _ = stopping.send(());
        },
    );
    let grace_over = async {
        let _ = stopped.await;
        tokio::time::sleep(limits.grace).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = grace_over => Ok(()),
    }
}

/// Counts each request and adds what every answer carries.
async fn account(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let path = known_path(request.uri().path());
    let mut response = next.run(request).await;
    let code = response.status().as_u16();
    let labels = RequestLabels { path, code };
    let requests = &site.app.telemetry.http_requests;
    requests.get_or_create(&labels).inc();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, status::security_policy());
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if site.slots.are_all_taken() {
        // Others wait for a connection: this client may queue again.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A path as a label value: what clients ask for must not make series.
fn known_path(path: &str) -> &'static str {
    const KNOWN: [&str; 5] = ["/", "/metrics", "/healthz", "/readyz", "/api/view"];
    match path.strip_prefix("/runbooks") {
        Some("") => "/runbooks/",
        Some(name) if name.starts_with('/') => "/runbooks/",
        _ => KNOWN.into_iter().find(|&p| p == path).unwrap_or("other"),
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    match site.app.readiness(Instant::now()) {
        Ok(age) => format!(
            "ready: the newest sample is {:.1} s old\n",
            age.as_secs_f64()
        )
        .into_response(),
        Err(reason) => unavailable(&format_args!("not ready: {reason}")),
    }
}

async fn status_page(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let page = move |site: &Site| {
        let query = uri.query().unwrap_or_default();
        status::page(&site.app, Instant::now(), query).into_string()
    };
    match site.work(page).await {
        Some(page) => Html(page).into_response(),
        None => unavailable(&"too many requests at once"),
    }
}

async fn view(State(site): State<Arc<Site>>) -> Response {
    let json = |site: &Site| {
        let view = View::of(&site.app.snapshots, Instant::now());
        view.map(|view| serde_json::to_vec(&view))
    };
    match site.work(json).await {
        Some(Some(Ok(json))) => {
            let format = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, format)], json).into_response()
        }
        Some(Some(Err(error))) => unavailable(&error),
        Some(None) => unavailable(&NotReady::NoSample),
        None => unavailable(&"too many requests at once"),
    }
}

async fn method_not_allowed() -> (StatusCode, &'static str) {
    let text = "this server only answers GET and HEAD\n";
    (StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn not_found() -> (StatusCode, &'static str) {
    let text = "not found; there are /, /api/view, /metrics, /runbooks/, /healthz and /readyz\n";
    (StatusCode::NOT_FOUND, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture::{empty, labels};
    use crate::snapshot::{self, Snapshot};
    use crate::telemetry::Telemetry;
    use std::io::{Read, Write};
    use std::time::Duration;

    /// A host of so many CPUs that its exposition fills any socket's buffer.
    fn large() -> Snapshot {
        let mut snapshot = empty(Instant::now(), Duration::ZERO);
        let cpu = labels(&[("cpu", &"a".repeat(100))]);
        snapshot.cpu_labels = vec![cpu; 300_000].into();
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

    /// A client that asks for everything and takes only the beginning.
    fn stuck_client(address: std::net::SocketAddr) -> std::net::TcpStream {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
        client
    }

    const LONG: Duration = Duration::from_secs(600);

    /// What clients see of a server with these limits that shows a large host.
    fn with_server<T: Send + 'static>(
        limits: Limits,
        clients: impl FnOnce(std::net::SocketAddr) -> T + Send + 'static,
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
            let server = tokio::spawn(serve_within(listener, app(large()), stopped, limits));
            let clients = tokio::task::spawn_blocking(move || clients(address));
            let seen = clients.await.unwrap();
            drop(stop);
            let ended = tokio::time::timeout(Duration::from_secs(20), server).await;
            ended.expect("the server ends").unwrap().unwrap();
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
        drop(with_server(limits, stuck_client));
    }

    #[test]
    fn an_answer_is_the_last_where_others_wait_for_a_connection() {
        let closes = |connections| {
            let limits = Limits {
                connections,
                ..Limits::default()
            };
            with_server(limits, |address| {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
                client.write_all(request).unwrap();
                let (mut answer, mut bytes) = (Vec::new(), [0; 1024]);
                while !answer.ends_with(b"ok\n") {
                    let n = client.read(&mut bytes).unwrap();
                    assert!(n > 0, "it ended early");
                    answer.extend_from_slice(&bytes[..n]);
                }
                String::from_utf8_lossy(&answer).contains("connection: close")
            })
        };
        assert!(closes(1));
        assert!(!closes(3));
    }

    #[test]
    fn stuck_clients_take_a_bounded_number_of_answers() {
        let limits = Limits {
            answer: LONG,
            patience: Duration::from_millis(50),
            grace: Duration::from_millis(50),
            ..Limits::default()
        };
        with_server(limits, |address| {
            let status = || {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                let request = b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
                client.write_all(request).unwrap();
                let mut status = [0; 12];
                client.read_exact(&mut status).unwrap();
                String::from_utf8_lossy(&status).into_owned()
            };
            let mut stuck = Vec::new();
            while status() == "HTTP/1.1 200" {
                assert!(stuck.len() < 100, "as many answers as clients like");
                stuck.push(stuck_client(address));
            }
            assert_eq!(status(), "HTTP/1.1 503");
            assert!(stuck.len() > 1, "one client must not shut out all others");
            stuck.clear();
            let deadline = Instant::now() + Duration::from_secs(20);
            while status() != "HTTP/1.1 200" {
                assert!(Instant::now() < deadline, "their places are not given back");
            }
        });
    }
}
