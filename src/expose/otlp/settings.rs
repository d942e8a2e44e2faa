//! The settings of each endpoint: the configuration, then the standard variables (OpenTelemetry
//! specification, "OpenTelemetry Protocol Exporter"), then defaults.
//!
//! The variables describe one endpoint. They define it if the configuration has none, and complete
//! it if the configuration has exactly one. With several, variables for headers and certificates
//! are ignored: a key for one service must not be sent to another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
    OTEL_EXPORTER_OTLP_PROTOCOL_GRPC, OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF,
    OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
};
use percent_encoding::percent_decode_str;

use crate::config::otlp::{
    BasicAuth, Compression, Endpoint, HeaderSource, Otlp, Protocol, Temporality, Tls, Url,
};

/// Default interval: the one of most Prometheus servers. (The SDKs' default of one minute hides
/// shorter events.)
const INTERVAL: Duration = Duration::from_secs(15);

/// Path of metrics in OTLP over HTTP.
const PATH: &str = "/v1/metrics";

/// The settings of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// URL of requests, without user and password, so it may be logged.
    pub url: String,
    /// Protocol of the transport.
    pub protocol: Protocol,
    /// Cumulative totals or deltas.
    pub temporality: Temporality,
    /// Compression of request bodies.
    pub compression: Compression,
    /// Time between two pushes.
    pub interval: Duration,
    /// Time for one request and its answer.
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: BTreeMap<String, HeaderSource>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// Certificates.
    pub tls: Tls,
}

/// An invalid environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct WrongVariable {
    /// The variable's name.
    pub name: String,
    /// The problem. Never contains the value, which may be secret.
    pub reason: String,
}

/// Reads an environment variable; a function, so that tests can replace it.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All endpoints; none if pushing is disabled or no endpoint is configured.
///
/// # Errors
/// If a variable that is needed is invalid.
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

/// Name and value.
type Variable = (String, String);

struct Variables<'a>(Env<'a>);

impl Variables<'_> {
    /// A variable; an empty one counts as unset (specification, "SDK environment variables").
    fn get(&self, name: impl Into<String>) -> Option<Variable> {
        let name = name.into();
        let value = (self.0)(&name).filter(|value| !value.is_empty())?;
        Some((name, value))
    }

    /// The variable of a setting for metrics, else for all signals.
    fn setting(&self, what: &str) -> Option<Variable> {
        self.get(format!("OTEL_EXPORTER_OTLP_METRICS_{what}"))
            .or_else(|| self.get(format!("OTEL_EXPORTER_OTLP_{what}")))
    }

    fn switch_off(&self) -> bool {
        let is = |name, word| {
            let variable = self.get(name);
            variable.is_some_and(|(_, value)| value.eq_ignore_ascii_case(word))
        };
        is("OTEL_SDK_DISABLED", "true") || is("OTEL_METRICS_EXPORTER", "none")
    }

    /// The endpoint that the variables describe.
    fn endpoint(&self) -> Result<Option<Settings>, WrongVariable> {
        let Some((name, text)) = self.setting("ENDPOINT") else {
            return Ok(None);
        };
        let url = Url::new(&text).map_err(|error| wrong(name.clone(), error))?;
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
            // This variable is the complete URL.
            settings.url = endpoint.url.as_str().to_owned();
        }
        Ok(Some(settings))
    }

    /// An endpoint of the configuration, completed from the variables. `only`: it is the only one.
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
        let protocol = protocol.map_or_else(|| self.protocol(&url), Ok)?;
        let own_auth = basic_auth.is_some() || !headers.is_empty();
        let headers = if only && !own_auth {
            self.headers()?
        } else {
            headers
        };
        let tls = if only && tls == Tls::default() {
            self.tls()
        } else {
            tls
        };
        Ok(Settings {
            url: request_url(&url, protocol),
            protocol,
            temporality: temporality.map_or_else(|| self.temporality(), Ok)?,
            compression: compression.map_or_else(|| self.compression(), Ok)?,
            interval: match interval {
                Some(interval) => interval,
                None => milliseconds(self.get("OTEL_METRIC_EXPORT_INTERVAL"), INTERVAL)?,
            },
            timeout: match timeout {
                Some(timeout) => timeout,
                None => milliseconds(self.setting("TIMEOUT"), OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT)?,
            },
            headers,
            basic_auth,
            tls,
        })
    }

    fn protocol(&self, url: &Url) -> Result<Protocol, WrongVariable> {
        match self.setting("PROTOCOL") {
            Some((_, word)) if word == OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
            Some((_, word)) if word == OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => {
                Ok(Protocol::Http)
            }
            Some((name, _)) => Err(wrong(name, "expected grpc or http/protobuf")),
            // The registered port of OTLP over gRPC.
            None if url.as_str().ends_with(":4317") => Ok(Protocol::Grpc),
            None => Ok(Protocol::Http),
        }
    }

    fn temporality(&self) -> Result<Temporality, WrongVariable> {
        let variable = self.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE);
        let Some((name, word)) = variable else {
            return Ok(Temporality::Cumulative);
        };
        match word.to_ascii_lowercase().as_str() {
            "cumulative" => Ok(Temporality::Cumulative),
            // lowmemory means delta for synchronous instruments; the exporter has no others.
            "delta" | "lowmemory" => Ok(Temporality::Delta),
            _ => Err(wrong(name, "expected cumulative, delta or lowmemory")),
        }
    }

    fn compression(&self) -> Result<Compression, WrongVariable> {
        match self.setting("COMPRESSION") {
            None => Ok(Compression::None),
            Some((_, word)) if word == "none" => Ok(Compression::None),
            Some((name, word)) => match word.parse() {
                Ok(opentelemetry_otlp::Compression::Gzip) => Ok(Compression::Gzip),
                _ => Err(wrong(name, "expected gzip or none")),
            },
        }
    }

    /// `key=value,key=value`, each percent-encoded (specification, "Specifying headers via
    /// environment variables").
    fn headers(&self) -> Result<BTreeMap<String, HeaderSource>, WrongVariable> {
        let Some((name, text)) = self.setting("HEADERS") else {
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
        let path = |what| self.setting(what).map(|(_, path)| PathBuf::from(path));
        Tls {
            ca_file: path("CERTIFICATE"),
            cert_file: path("CLIENT_CERTIFICATE"),
            key_file: path("CLIENT_KEY"),
        }
    }
}

fn milliseconds(variable: Option<Variable>, default: Duration) -> Result<Duration, WrongVariable> {
    let Some((name, text)) = variable else {
        return Ok(default);
    };
    match text.parse() {
        Ok(n @ 100..=3_600_000) => Ok(Duration::from_millis(n)),
        _ => Err(wrong(name, "expected milliseconds from 100 to 3600000")),
    }
}

fn wrong(name: String, reason: impl ToString) -> WrongVariable {
    let reason = reason.to_string();
    WrongVariable { name, reason }
}

/// The base URL with the path for metrics, unless it has the path already. gRPC needs none.
fn request_url(url: &Url, protocol: Protocol) -> String {
    let base = url.as_str();
    match protocol {
        Protocol::Http if !base.ends_with(PATH) => format!("{base}{PATH}"),
        _ => base.to_owned(),
    }
}

/// `None` if a `%` is not followed by two hexadecimal digits; the library would keep it.
fn percent_decoded(text: &str) -> Option<String> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    let is_valid = bytes.len() + 2 * text.matches('%').count() == text.len();
    String::from_utf8(bytes).ok().filter(|_| is_valid)
}

#[cfg(test)]
mod tests;
