//! A client that reads an exporter's view: `GET /api/view`, JSON, plain HTTP.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{to_bytes, Body};
use http::{StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

use super::NoView;
use crate::diagnosis::View;

/// Path of the view below the exporter's address.
const PATH: &str = "/api/view";

/// An exporter answers from memory: a slower answer means a problem.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer, in bytes. A vCPU takes about 500, so this is about 60,000 vCPUs.
const MOST: usize = 32 << 20;

/// Address of an exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Address {
    view: Uri,
    /// As displayed: without the path of the view.
    shown: String,
}

impl Address {
    /// Parses a command-line argument.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected http://HOST:PORT";
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let shown = with_scheme.trim_end_matches('/').to_owned();
        let uri: Uri = shown.parse().map_err(|_| expected.to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(format!("{expected}; https is not supported")),
            _ => return Err(expected.to_owned()),
        }
        if uri.query().is_some() || uri.authority().is_none_or(|a| a.as_str().contains('@')) {
            return Err(expected.to_owned());
        }
        let view = format!("{shown}{PATH}");
        let view = view.parse().map_err(|_| expected.to_owned())?;
        Ok(Self { view, shown })
    }

    /// The address at which to reach an exporter on this host that listens on `listens`.
    pub(super) fn local(listens: SocketAddr) -> Self {
        let ip = match listens.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let shown = format!("http://{}", SocketAddr::new(ip, listens.port()));
        // A numeric address always parses.
        let view = format!("{shown}{PATH}").parse().unwrap_or_default();
        Self { view, shown }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

pub(in super::super) struct Exporter {
    address: Address,
    client: Client<HttpConnector, Body>,
    runtime: Runtime,
}

impl Exporter {
    /// A client; connects at the first request.
    pub(super) fn new(address: Address) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut client = Client::builder(TokioExecutor::new());
        // An idle connection takes one of the exporter's 256, and the exporter may close it.
        client.pool_max_idle_per_host(0);
        Ok(Self {
            address,
            client: client.build_http(),
            runtime,
        })
    }

    /// Requests the view once.
    pub(super) fn ask(&self) -> Result<View, NoView> {
        let answer = async { tokio::time::timeout(TIMEOUT, self.answer()).await };
        self.runtime.block_on(answer).unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(self.not_yet(&format!("did not answer within {seconds} s")))
        })
    }

    async fn answer(&self) -> Result<View, NoView> {
        let answer = self.client.get(self.address.view.clone()).await;
        let answer = answer.map_err(|error| {
            if error.is_connect() {
                NoView::NoAnswer {
                    address: self.address.to_string(),
                    reason: root(&error),
                }
            } else {
                self.not_yet(&format!("did not answer: {}", root(&error)))
            }
        })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let what = format!("has no {PATH}: not a vcpu-exporter, or an older version");
                return Err(self.useless(&what));
            }
            status if status.is_server_error() => {
                return Err(self.not_yet(&format!("answered {status}")))
            }
            status => return Err(self.useless(&format!("answered {status}"))),
        }
        let body = to_bytes(Body::new(answer.into_body()), MOST).await;
        let body = body.map_err(|error| {
            self.not_yet(&format!("sent an incomplete answer: {}", root(&error)))
        })?;
        serde_json::from_slice(&body).map_err(|_| {
            self.useless("sent an unknown format; use the same version of top and exporter")
        })
    }

    fn not_yet(&self, what: &str) -> NoView {
        NoView::NotYet(format!("{} {what}", self.address))
    }

    fn useless(&self, what: &str) -> NoView {
        NoView::Useless(format!("{} {what}", self.address))
    }
}

/// The root cause: "Connection refused" instead of "client error".
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests;
