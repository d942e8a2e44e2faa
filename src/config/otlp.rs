//! `otlp`: endpoints for pushes. Missing settings come from the standard `OTEL_*` variables, else
//! from the standard's defaults (`expose::otlp::settings`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{raw, values};

mod read;

pub(crate) use read::header_name;

/// Most endpoints: each visits the snapshot and keeps its own connection.
pub(crate) const MAX_ENDPOINTS: usize = 8;

mapping! {
    /// `otlp`: pushes.
    #[derive(Eq)]
    Otlp {
        /// Whether to push; `false` also overrides the environment.
        enabled: bool = true, "values::flag";
        /// Resource attributes; they override detected ones.
        resource: BTreeMap<String, String> = BTreeMap::new(), "read::attributes";
        /// Endpoints, at most `MAX_ENDPOINTS`, with different URLs.
        endpoints: Vec<Endpoint> = Vec::new(), "raw::unique";
    }
}

/// One entry of `otlp.endpoints`. `None` leaves a setting to the environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an endpoint with a url")]
pub struct Endpoint {
    /// `http://` or `https://`, host, port, and for HTTP the path before `/v1/metrics`.
    #[serde(deserialize_with = "read::url")]
    pub url: Url,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Totals or deltas.
    pub temporality: Option<Temporality>,
    /// Compression of bodies.
    pub compression: Option<Compression>,
    /// Time between pushes, 1 s to 1 h.
    #[serde(default, deserialize_with = "values::otlp_interval")]
    pub interval: Option<Duration>,
    /// Timeout of one request and its answer, 100 ms to 5 min.
    #[serde(default, deserialize_with = "values::otlp_timeout")]
    pub timeout: Option<Duration>,
    /// Headers of every request.
    #[serde(default, deserialize_with = "read::headers")]
    pub headers: BTreeMap<String, HeaderSource>,
    /// Username and password.
    pub basic_auth: Option<BasicAuth>,
    /// Certificates.
    #[serde(default, deserialize_with = "values::section")]
    pub tls: Tls,
}

/// An endpoint's URL, without user and password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Url(String);

impl Url {
    /// Accepts an `http` or `https` URL with a host and without user and query.
    pub(crate) fn new(text: &str) -> Result<Self, UrlError> {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))
            .ok_or(UrlError::NotHttp)?;
        let authority = rest.split('/').next().unwrap_or_default();
        if rest.contains('@') {
            return Err(UrlError::User);
        }
        let plain = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
        let uri: Result<http::Uri, _> = text.parse();
        match uri {
            Ok(uri)
                if uri.host().is_some_and(|host| !host.is_empty())
                    && has_port(authority)
                    && text.chars().all(plain) =>
            {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            _ => Err(UrlError::NotHttp),
        }
    }

    /// The URL without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the port, if any, is a number: `http` accepts `:` without one.
fn has_port(authority: &str) -> bool {
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    match after_host.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port > 0),
        None => true,
    }
}

/// Why a text is not the URL of an endpoint. Errors never contain the text, which may include a
/// password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// The text is not such a URL.
    #[error("expected http:// or https://, a host and a port, such as http://127.0.0.1:4317 or https://otlp.example.com/otlp")]
    NotHttp,
    /// The URL contains a user or password.
    #[error(
        "expected no user and password in the URL, because it is displayed; set basic_auth instead"
    )]
    User,
}

/// Transport protocol of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP with protobuf bodies.
    #[serde(rename = "http/protobuf")]
    Http,
}

/// What counters and histograms report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporality {
    /// Totals since the start of the series.
    Cumulative,
    /// Deltas since the last accepted push.
    Delta,
}

/// Compression of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
}

/// Source of a header's value.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// The configuration itself.
    Value(String),
    /// A file, read again for each push.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
        }
    }
}

/// `basic_auth`: the `Authorization` header of RFC 7617.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a username and a password")]
pub struct BasicAuth {
    /// Username; it has no colon.
    #[serde(deserialize_with = "read::username")]
    pub username: String,
    /// As text, or where to read it from.
    pub password: HeaderSource,
}

/// `tls`: certificates in PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Tls {
    /// Trusted certificates, instead of the system's roots.
    #[serde(deserialize_with = "values::absolute_path")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    #[serde(deserialize_with = "values::absolute_path")]
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate.
    #[serde(deserialize_with = "values::absolute_path")]
    pub key_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_host_and_no_secrets() {
        for text in [
            "http://127.0.0.1:4317",
            "https://otlp.example.com",
            "https://[::1]:4318/otlp/",
            "http://collector:4318/v1/metrics",
        ] {
            assert!(Url::new(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "127.0.0.1:4317",
            "ftp://x",
            "http://",
            "http://:4317",
            "http://x:",
            "http://x:0",
            "http://x:99999",
            "http://x/?key=1",
            "http://x/#a",
            "http://x y",
        ] {
            assert_eq!(Url::new(text), Err(UrlError::NotHttp), "{text}");
        }
        for text in ["http://user:secret@x", "https://x/@"] {
            assert_eq!(Url::new(text), Err(UrlError::User), "{text}");
        }
        assert_eq!(
            Url::new("http://x/otlp/").unwrap().as_str(),
            "http://x/otlp"
        );
    }
}
