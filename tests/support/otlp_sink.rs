//! An OTLP receiver over gRPC and HTTP with scripted behavior.
#![allow(dead_code, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::future::{pending, Future, IntoFuture};
use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{to_bytes, Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{header, HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::Router;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic_types::{ErrorDetails, StatusExt};

use super::run::DEADLINE;

/// Behavior for one request.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Accepts it.
    Takes,
    /// Accepts it and reports this number of rejected points.
    Rejects(i64),
    /// Refuses it: the HTTP status, and its gRPC counterpart.
    Refuses(u16),
    /// Asks the client to retry after this number of seconds.
    Throttles(u64),
    /// Never answers.
    Hangs,
    /// Accepts it and sends an answer above any sensible size.
    Floods,
    /// Refuses it and repeats the request's headers.
    Echoes,
    /// Answers 200 with a sign-in page; refuses over gRPC.
    ShowsPage,
    /// Redirects the client; refuses over gRPC.
    Redirects(String),
}

#[derive(Debug, Default)]
struct Inner {
    /// Behavior for the next requests; later ones are accepted.
    does: VecDeque<Does>,
    /// Accepted requests in order, with their decoded sizes.
    taken: Vec<(ExportMetricsServiceRequest, usize)>,
    /// Headers of the last request.
    headers: Vec<(String, String)>,
    /// Number of received requests.
    seen: usize,
    /// Number of requests that were abandoned: their deadline passed, or the client disconnected.
    abandoned: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Sink(Arc<Mutex<Inner>>);

/// A running server on its own runtime; dropping it kills it with all its connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    fn start(serve: impl FnOnce() -> (SocketAddr, BoxFuture)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let entered = runtime.enter();
        let (address, server) = serve();
        drop(entered);
        runtime.spawn(server);
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// Stops it and waits for the end.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().expect("it runs");
        let end = move || runtime.shutdown_timeout(DEADLINE);
        let ended = tokio::task::spawn_blocking(end);
        ended.await.expect("it ends");
    }
}

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Sink {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the behavior for the next requests.
    pub(crate) fn then(&self, does: &[Does]) {
        self.inner().does = does.iter().cloned().collect();
    }

    /// Requests accepted since the last call.
    pub(crate) fn taken(&self) -> Vec<ExportMetricsServiceRequest> {
        let taken = std::mem::take(&mut self.inner().taken);
        taken.into_iter().map(|(request, _)| request).collect()
    }

    /// Decoded sizes of the accepted requests.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.inner().taken.iter().map(|(_, size)| *size).collect()
    }

    pub(crate) fn abandoned(&self) -> usize {
        self.inner().abandoned
    }

    pub(crate) fn seen(&self) -> usize {
        self.inner().seen
    }

    /// A header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let inner = self.inner();
        let found = inner.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    }

    fn next(&self, headers: &HeaderMap) -> Does {
        let mut inner = self.inner();
        inner.seen += 1;
        inner.headers = headers
            .iter()
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect();
        inner.does.pop_front().unwrap_or(Does::Takes)
    }

    fn take(&self, request: ExportMetricsServiceRequest, size: usize) {
        self.inner().taken.push((request, size));
    }

    /// Listens for HTTP.
    pub(crate) fn http(&self, address: &str) -> Server {
        let router = Router::new()
            .route("/v1/metrics", post(receive))
            .with_state(self.clone());
        Server::start(|| {
            let listener = std::net::TcpListener::bind(address).expect("an address");
            listener.set_nonblocking(true).expect("a socket");
            let address = listener.local_addr().expect("an address");
            let listener = TcpListener::from_std(listener).expect("a socket");
            let server = axum::serve(listener, router).into_future();
            (address, Box::pin(async move { drop(server.await) }))
        })
    }

    /// Listens for gRPC.
    pub(crate) fn grpc(&self, address: &str) -> Server {
        let address: SocketAddr = address.parse().expect("an address");
        let service =
            MetricsServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
        Server::start(|| {
            let incoming = TcpIncoming::bind(address).expect("an address");
            let address = incoming.local_addr().expect("an address");
            let server = tonic::transport::Server::builder().add_service(service);
            let server = server.serve_with_incoming(incoming);
            (address, Box::pin(async move { drop(server.await) }))
        })
    }
}

fn answer(rejected: i64) -> ExportMetricsServiceResponse {
    ExportMetricsServiceResponse {
        partial_success: (rejected > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: rejected,
            error_message: "not to my liking".to_owned(),
        }),
    }
}

async fn receive(State(sink): State<Sink>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.expect("a whole body");
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    let body = match encoding.map(|e| e.as_bytes()) {
        None => body,
        Some(b"gzip") => unzipped(&body),
        Some(other) => panic!("{other:?}"),
    };
    assert_eq!(
        parts.headers[header::CONTENT_TYPE],
        "application/x-protobuf"
    );
    let does = sink.next(&parts.headers);
    let ok = |rejected| {
        let body = answer(rejected).encode_to_vec();
        ([(header::CONTENT_TYPE, "application/x-protobuf")], body).into_response()
    };
    let take = || {
        let request = ExportMetricsServiceRequest::decode(&*body).expect("OTLP");
        sink.take(request, body.len());
    };
    match does {
        Does::Takes => take(),
        Does::Rejects(n) => {
            take();
            return ok(n);
        }
        Does::Refuses(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return (status, "I will not").into_response();
        }
        Does::Throttles(seconds) => {
            let later = [(header::RETRY_AFTER, seconds.to_string())];
            return (StatusCode::TOO_MANY_REQUESTS, later).into_response();
        }
        Does::Hangs => pending().await,
        Does::Floods => {
            take();
            return Body::from(vec![0; 16 << 20]).into_response();
        }
        Does::Echoes => {
            let text = format!("{:?}", sink.inner().headers);
            return (StatusCode::UNAUTHORIZED, text).into_response();
        }
        Does::ShowsPage => {
            return axum::response::Html("<html>Sign in</html>").into_response();
        }
        Does::Redirects(to) => {
            let location = [(header::LOCATION, to)];
            return (StatusCode::TEMPORARY_REDIRECT, location).into_response();
        }
    }
    ok(0)
}

fn unzipped(body: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(body);
    gzip.read_to_end(&mut plain).expect("gzip");
    plain.into()
}

/// Work on a request that ends only when it is dropped.
struct Work<'a>(&'a Sink);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.inner().abandoned += 1;
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        let size = request.encoded_len();
        match self.next(&headers) {
            Does::Takes | Does::Floods => self.take(request, size),
            Does::Rejects(n) => {
                self.take(request, size);
                return Ok(tonic::Response::new(answer(n)));
            }
            Does::Refuses(status) => {
                let code = match status {
                    401 => tonic::Code::Unauthenticated,
                    503 => tonic::Code::Unavailable,
                    _ => tonic::Code::InvalidArgument,
                };
                return Err(tonic::Status::new(code, "I will not"));
            }
            Does::Throttles(seconds) => {
                let mut details = ErrorDetails::new();
                details.set_retry_info(Some(Duration::from_secs(seconds)));
                let code = tonic::Code::ResourceExhausted;
                return Err(tonic::Status::with_error_details(code, "busy", details));
            }
            Does::Hangs => {
                let _work = Work(self);
                pending().await
            }
            Does::Echoes => {
                let text = format!("{:?}", self.inner().headers);
                return Err(tonic::Status::unauthenticated(text));
            }
            Does::ShowsPage | Does::Redirects(_) => {
                return Err(tonic::Status::unknown("I will not"));
            }
        }
        Ok(tonic::Response::new(answer(0)))
    }
}
