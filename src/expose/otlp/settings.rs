//! What is known of each endpoint: the configuration, then the standard variables
//! (OpenTelemetry specification, "OpenTelemetry Protocol Exporter"), then defaults.
//!
//! The variables describe one endpoint. They make one where the configuration names none, and
//! fill in what the only one leaves out. Where it names several, what they say of headers and
//! certificates is for none of these: a key for one service must not be sent to another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_COMPRESSION, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS,
    OTEL_EXPORTER_OTLP_METRICS_COMPRESSION, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
    OTEL_EXPORTER_OTLP_METRICS_HEADERS, OTEL_EXPORTER_OTLP_METRICS_PROTOCOL,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, OTEL_EXPORTER_OTLP_METRICS_TIMEOUT,
    OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL_GRPC,
    OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF, OTEL_EXPORTER_OTLP_TIMEOUT,
    OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
};

use crate::config::otlp::{
    BasicAuth, Compression, Endpoint, HeaderSource, Otlp, Protocol, Temporality, Tls, Url,
};

/// From one push to the next, unless told otherwise: what most Prometheus servers scrape by. (The
/// SDKs' minute loses what happens between.)
const INTERVAL: Duration = Duration::from_secs(15);

/// Variables that opentelemetry-otlp has no names for.
const EXPORT_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
const METRICS_EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const CLIENT_CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
];
const CLIENT_KEY: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

/// The path that OTLP over HTTP has for metrics.
const PATH: &str = "/v1/metrics";

/// Everything about one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where requests go; without user and password, so that it can be shown.
    pub url: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Totals or increments.
    pub temporality: Temporality,
    /// How bodies are compressed.
    pub compression: Compression,
    /// From one push to the next.
    pub interval: Duration,
    /// For one request and its answer.
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: BTreeMap<String, HeaderSource>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// Certificates.
    pub tls: Tls,
}

/// A variable that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct WrongVariable {
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it. Its value is never shown: it may be a secret.
    pub reason: String,
}

/// The environment, as a function for tests.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All endpoints to push to; none where pushing is switched off or nothing names one.
///
/// # Errors
/// When a variable that is needed cannot be followed.
pub fn resolve(config: &Otlp, env: Env<'_>) -> Result<Vec<Settings>, WrongVariable> {
    let env = Variables(env);
    if !config.enabled || env.switch_off() {
        return Ok(Vec::new());
    }
    match config.endpoints.as_slice() {
        [] => Ok(env.endpoint()?.into_iter().collect()),
        [only] => Ok(vec![env.complete(only, true)?]),
        several => several.iter().map(|e| env.complete(e, false)).collect(),
    }
}

struct Variables<'a>(Env<'a>);

impl Variables<'_> {
    /// A variable's value; one that is empty is not set (specification, "SDK environment
    /// variables").
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// The first of several that is set.
    fn first<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, String)> {
        let mut all = names.into_iter();
        all.find_map(|name| Some((name, self.get(name)?)))
    }

    fn switch_off(&self) -> bool {
        let is = |name, word| self.get(name).is_some_and(|v| v.eq_ignore_ascii_case(word));
        is(SDK_DISABLED, "true") || is(METRICS_EXPORTER, "none")
    }

    /// The endpoint of the variables alone.
    fn endpoint(&self) -> Result<Option<Settings>, WrongVariable> {
        let names = [
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT,
            OTEL_EXPORTER_OTLP_ENDPOINT,
        ];
        let Some((name, text)) = self.first(names) else {
            return Ok(None);
        };
        let url = Url::new(&text).map_err(|error| wrong(name, error))?;
        let endpoint = Endpoint {
            url,
            protocol: None,
            temporality: None,
            compression: None,
            interval: None,
            timeout: None,
            headers: BTreeMap::new(),
            basic_auth: None,
            tls: Tls::default(),
        };
        let mut settings = self.complete(&endpoint, true)?;
        if name == OTEL_EXPORTER_OTLP_METRICS_ENDPOINT && settings.protocol == Protocol::Http {
            // This one is the whole URL.
            settings.url = endpoint.url.as_str().to_owned();
        }
        Ok(Some(settings))
    }

    /// An endpoint of the configuration, with what it leaves out. `only`: there is no other.
    fn complete(&self, endpoint: &Endpoint, only: bool) -> Result<Settings, WrongVariable> {
        let Endpoint {
            url,
            protocol,
            temporality,
            compression,
            interval,
            timeout,
            headers,
            basic_auth,
            tls,
        } = endpoint.clone();
        let protocol = match protocol {
            Some(protocol) => protocol,
            None => self.protocol(&url)?,
        };
        let own_auth = basic_auth.is_some() || !headers.is_empty();
        let headers = match only && !own_auth {
            true => self.headers()?,
            false => headers,
        };
        let tls = match only && tls == Tls::default() {
            true => self.tls(),
            false => tls,
        };
        Ok(Settings {
            url: request_url(&url, protocol),
            protocol,
            temporality: match temporality {
                Some(temporality) => temporality,
                None => self.temporality()?,
            },
            compression: match compression {
                Some(compression) => compression,
                None => self.compression()?,
            },
            interval: match interval {
                Some(interval) => interval,
                None => self.milliseconds([EXPORT_INTERVAL])?.unwrap_or(INTERVAL),
            },
            timeout: match timeout {
                Some(timeout) => timeout,
                None => self.timeout()?,
            },
            headers,
            basic_auth,
            tls,
        })
    }

    fn protocol(&self, url: &Url) -> Result<Protocol, WrongVariable> {
        let names = [
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL,
            OTEL_EXPORTER_OTLP_PROTOCOL,
        ];
        match self.first(names) {
            Some((_, word)) if word == OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
            Some((_, word)) if word == OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => {
                Ok(Protocol::Http)
            }
            Some((name, _)) => Err(wrong(name, "expected grpc or http/protobuf")),
            // The port that is registered for OTLP over gRPC.
            None if url.as_str().ends_with(":4317") => Ok(Protocol::Grpc),
            None => Ok(Protocol::Http),
        }
    }

    fn temporality(&self) -> Result<Temporality, WrongVariable> {
        let name = OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE;
        let Some(word) = self.get(name) else {
            return Ok(Temporality::Cumulative);
        };
        match word.to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Temporality::Cumulative),
            // lowmemory is delta for what the SDK observes synchronously; there is no such here.
            "delta" | "lowmemory" => Ok(Temporality::Delta),
            _ => Err(wrong(name, "expected cumulative, delta or lowmemory")),
        }
    }

    fn compression(&self) -> Result<Compression, WrongVariable> {
        let names = [
            OTEL_EXPORTER_OTLP_METRICS_COMPRESSION,
            OTEL_EXPORTER_OTLP_COMPRESSION,
        ];
        match self.first(names) {
            None => Ok(Compression::None),
            Some((_, word)) if word == "none" => Ok(Compression::None),
            Some((name, word)) => match word.parse() {
                Ok(opentelemetry_otlp::Compression::Gzip) => Ok(Compression::Gzip),
                _ => Err(wrong(name, "expected gzip or none")),
            },
        }
    }

    fn timeout(&self) -> Result<Duration, WrongVariable> {
        let names = [
            OTEL_EXPORTER_OTLP_METRICS_TIMEOUT,
            OTEL_EXPORTER_OTLP_TIMEOUT,
        ];
        let given = self.milliseconds(names)?;
        Ok(given.unwrap_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT))
    }

    fn milliseconds<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Option<Duration>, WrongVariable> {
        let Some((name, text)) = self.first(names) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(n @ 100..=3_600_000) => Ok(Some(Duration::from_millis(n))),
            _ => Err(wrong(name, "expected milliseconds from 100 to 3600000")),
        }
    }

    /// `key=value,key=value`, each percent-encoded (specification, "Specifying headers via
    /// environment variables").
    fn headers(&self) -> Result<BTreeMap<String, HeaderSource>, WrongVariable> {
        let names = [
            OTEL_EXPORTER_OTLP_METRICS_HEADERS,
            OTEL_EXPORTER_OTLP_HEADERS,
        ];
        let Some((name, text)) = self.first(names) else {
            return Ok(BTreeMap::new());
        };
        let pairs = text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let key = crate::config::otlp::header_name(&percent_decoded(key.trim())?)?;
            let value = percent_decoded(value.trim())?;
            Some((key, HeaderSource::Value(value)))
        });
        pairs
            .collect::<Option<_>>()
            .ok_or_else(|| wrong(name, "expected name=value pairs with commas between them"))
    }

    fn tls(&self) -> Tls {
        let path = |names| self.first(names).map(|(_, path)| PathBuf::from(path));
        Tls {
            ca_file: path(CERTIFICATE),
            cert_file: path(CLIENT_CERTIFICATE),
            key_file: path(CLIENT_KEY),
        }
    }
}

fn wrong(name: &'static str, reason: impl ToString) -> WrongVariable {
    let reason = reason.to_string();
    WrongVariable { name, reason }
}

/// The base with the path for metrics, which may be there already; gRPC has paths of its own.
fn request_url(url: &Url, protocol: Protocol) -> String {
    let base = url.as_str();
    match protocol {
        Protocol::Http if !base.ends_with(PATH) => format!("{base}{PATH}"),
        _ => base.to_owned(),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
