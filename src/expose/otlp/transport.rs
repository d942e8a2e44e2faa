//! Sends requests: one client for each endpoint, over gRPC or HTTP.
//!
//! Both use hyper and the same TLS configuration (rustls with ring), so certificates work the same
//! way. HTTP uses opentelemetry-otlp's client (`HyperClient`), which limits answers to 4 MiB, as
//! tonic does. Neither follows redirects, so headers go only to the configured endpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{Engine as _, BASE64_STANDARD};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::answer::Answer;
use super::secrets::Secrets;
use super::settings::Settings;
use crate::config::file;
use crate::config::otlp::{HeaderSource, Protocol};
use crate::telemetry::VERSION;

mod grpc;
mod http1;

use grpc::Grpc;
use http1::Http;

/// Largest file with a header's value or a certificate, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Uses TLS if the URL has `https`.
type Connector = HttpsConnector<HttpConnector>;

/// Why an endpoint's settings do not work.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A configured file cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// The environment variable for a header is not set.
    #[error("the environment variable {0} of a header is not set")]
    Variable(String),
    /// The value of a header is invalid.
    #[error("the value of the header {0} contains characters that are not allowed in headers")]
    Header(String),
    /// There are no root certificates.
    #[error("TLS: {0}; set tls.ca_file")]
    Tls(String),
    /// The URL is invalid.
    #[error("{0} is not a valid URL")]
    Url(String),
}

/// A client for one endpoint.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Grpc(Grpc),
    Http(Http),
}

impl Client {
    /// Creates a client and reads its certificates; it connects with the first request. Must be
    /// called and used on a tokio runtime.
    ///
    /// # Errors
    /// If a file of the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let uri = settings.url.parse();
        let uri = uri.map_err(|_| SetupError::Url(settings.url.clone()))?;
        let tls = tls(settings)?;
        Ok(Self {
            settings: settings.clone(),
            way: match settings.protocol {
                Protocol::Grpc => Way::Grpc(Grpc::new(tls, uri, settings)),
                Protocol::Http => Way::Http(Http::new(tls, uri, settings)),
            },
        })
    }

    /// Sends one request and waits for the answer, at most for the endpoint's timeout.
    pub async fn send(&self, body: Bytes) -> Answer {
        let headers = match headers(&self.settings) {
            Ok(headers) => headers,
            // The file may be missing only while it is replaced.
            Err(error) => return Answer::retry(error.to_string()),
        };
        let secrets = Secrets::from_headers(&headers);
        let timeout = self.settings.timeout;
        let answer = async {
            match &self.way {
                Way::Grpc(grpc) => grpc.send(body, headers).await,
                Way::Http(http) => http.send(body, headers, SystemTime::now()).await,
            }
        };
        let answered = tokio::time::timeout(timeout, answer).await;
        secrets.hide(answered.unwrap_or_else(|_| Answer::retry(no_answer(timeout))))
    }
}

fn no_answer(timeout: Duration) -> String {
    format!(
        "the receiver did not answer within {:.1} s",
        timeout.as_secs_f64()
    )
}

/// An error with its causes: hyper puts the actual problem there.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let all: Vec<String> = anyhow::Chain::new(error).map(ToString::to_string).collect();
    super::answer::printable(&all.join(": "))
}

/// The headers of a request. Reads their values each time, so that a key can be replaced.
fn headers(settings: &Settings) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    let agent = format!("vcpu-exporter/{VERSION}");
    let agent = HeaderValue::from_str(&agent);
    headers.extend(agent.ok().map(|agent| (http::header::USER_AGENT, agent)));
    for (name, source) in &settings.headers {
        insert(&mut headers, name, &value(source)?)?;
    }
    if let Some(auth) = &settings.basic_auth {
        let pair = format!("{}:{}", auth.username, value(&auth.password)?);
        let basic = format!("Basic {}", BASE64_STANDARD.encode(pair));
        insert(&mut headers, http::header::AUTHORIZATION.as_str(), &basic)?;
    }
    Ok(headers)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), SetupError> {
    let wrong = || SetupError::Header(name.to_owned());
    let key: HeaderName = name.parse().map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
    // Keeps the value out of libraries' logs.
    value.set_sensitive(true);
    headers.insert(key, value);
    Ok(())
}

fn value(source: &HeaderSource) -> Result<String, SetupError> {
    match source {
        HeaderSource::Value(value) => Ok(value.clone()),
        HeaderSource::Env(name) => {
            let value = std::env::var(name);
            let value = value.map_err(|_| SetupError::Variable(name.clone()))?;
            Ok(value.trim().to_owned())
        }
        HeaderSource::File(path) => {
            let text = String::from_utf8(read(path)?);
            let text = text.map_err(|_| unusable(path, "is not text"))?;
            Ok(text.trim().to_owned())
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    let bytes = file::read_regular(path, MAX_FILE).map_err(|error| unusable(path, error))?;
    if bytes.len() as u64 > MAX_FILE {
        Err(unusable(path, "is longer than 1 MiB"))
    } else {
        Ok(bytes)
    }
}

fn unusable(path: &Path, reason: impl ToString) -> SetupError {
    SetupError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Root certificates and client certificate. Reads no file unless the URL has `https`.
fn tls(settings: &Settings) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |error: rustls::Error| SetupError::Tls(error.to_string());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?;
    if !settings.url.starts_with("https://") {
        let config = config.with_root_certificates(RootCertStore::empty());
        return Ok(config.with_no_client_auth());
    }
    let own = &settings.tls;
    let config = config.with_root_certificates(roots(own.ca_file.as_deref())?);
    match (&own.cert_file, &own.key_file) {
        (Some(cert), Some(key)) => {
            let pem = PrivateKeyDer::from_pem_slice(&read(key)?);
            let secret = pem.map_err(|_| unusable(key, "has no private key in PEM form"))?;
            let certificates = certificates(cert)?;
            config
                .with_client_auth_cert(certificates, secret)
                .map_err(|error| unusable(key, error))
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca_file else {
        // Ignore system roots of a kind that rustls does not support. Environment variables name
        // their files, so read them as the caller.
        let system = file::as_caller(rustls_native_certs::load_native_certs);
        let system = system.map_err(|error| SetupError::Tls(error.to_string()))?;
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let error = system.errors.first().map(ToString::to_string);
            let error = error.unwrap_or_else(|| "the system has no root certificates".to_owned());
            return Err(SetupError::Tls(error));
        }
        return Ok(roots);
    };
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(path, error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(unusable(path, "has no certificate in PEM form")),
    }
}

/// A connector for the endpoint's protocol.
fn connector(tls: ClientConfig, protocol: Protocol, timeout: Duration) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false); // https comes through here too
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout));
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    match protocol {
        Protocol::Grpc => builder.enable_http2().wrap_connector(tcp),
        Protocol::Http => builder.enable_http1().wrap_connector(tcp),
    }
}
