//! Configuration: one YAML file, parsed into a validated [`Config`]. Only this module uses
//! serde_yaml.
//!
//! Values are checked while they are parsed (see `values`), so an invalid value is refused with
//! its key path, line and column like a misspelled key, and every [`Config`] is valid.
//! `deploy/vcpu-exporter.yml` documents every key.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::Deserialize;

/// Declares a mapping of the file: each key with its default, and with the function that reads it
/// if its type accepts more than the key does.
macro_rules! mapping {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $key:ident: $type:ty = $default:expr $(, $read:literal)?;)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
        pub struct $name {
            $($(#[$doc])* $(#[serde(deserialize_with = $read)])? pub $key: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }
    };
}

/// Declares a mapping of sections. A section may be empty (`web:` without keys).
macro_rules! sections {
    ($(#[$meta:meta])* $name:ident, $expecting:literal {
        $($key:ident: $type:ty $(, $doc:literal)?;)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, expecting = $expecting)]
        pub struct $name {
            $(
                #[doc = concat!("`", stringify!($key), "`" $(, ": ", $doc)?)]
                #[serde(deserialize_with = "values::section")]
                pub $key: $type,
            )+
        }
    };
}

pub(crate) mod file;
pub mod otlp;
mod position;
mod raw;
mod sources;
pub(crate) mod values;

pub use otlp::Otlp;
pub use raw::{ExitReason, RawEvent};
pub(crate) use sources::Pt;
pub use sources::{EventSet, Exits, KvmStat, Memory, Periodic, Pmu, Sources, Threads};

/// Largest configuration file (bytes): the documented example has 6 kB.
pub const MAX_FILE: u64 = 1 << 20;

sections! {
    /// The whole configuration, validated.
    Config, "a mapping of sections" {
        web: Web;
        paths: Paths;
        sampling: Sampling;
        labels: LabelConfig;
        limits: Limits;
        sources: Sources;
        otlp: Otlp;
        log: Log;
    }
}

mapping! {
    /// `web`: the HTTP server.
    #[derive(Eq)]
    Web {
        /// Address to listen on; port 0 selects a free port.
        listen_address: SocketAddr = ([127, 0, 0, 1], 9752).into(), "values::listen_address";
    }
}

mapping! {
    /// `paths`: mount points of the host's file systems.
    #[derive(Eq)]
    #[allow(missing_docs)] // keys are named as their file systems
    Paths {
        procfs: PathBuf = "/proc".into(), "values::absolute_path";
        sysfs: PathBuf = "/sys".into(), "values::absolute_path";
        cgroupfs: PathBuf = "/sys/fs/cgroup".into(), "values::absolute_path";
        debugfs: PathBuf = "/sys/kernel/debug".into(), "values::absolute_path";
        tracefs: PathBuf = "/sys/kernel/tracing".into(), "values::absolute_path";
        /// Run-time state of daemons
        runfs: PathBuf = "/run".into(), "values::absolute_path";
        /// Device nodes
        devfs: PathBuf = "/dev".into(), "values::absolute_path";
    }
}

mapping! {
    /// `sampling`: periods.
    #[derive(Eq)]
    Sampling {
        /// Period of a tick, 100 ms to 1 min.
        tick: Duration = Duration::from_secs(1), "values::tick";
        /// Period of an inventory pass, 1 s to 5 min.
        inventory: Duration = Duration::from_secs(5), "values::inventory";
    }
}

mapping! {
    /// `labels`: detail of locations.
    #[derive(Eq)]
    LabelConfig {
        /// Location labels of activity counters.
        placement: Placement = Placement::Core;
        /// Time without activity after which a (vCPU, location) series is dropped from the
        /// exposition, 1 s to 1 d.
        cell_ttl: Duration = Duration::from_secs(600), "values::cell_ttl";
    }
}

mapping! {
    /// `limits`: hard limits.
    #[derive(Eq)]
    Limits {
        /// Most series in the exposition, 1 to 10 million.
        max_series: usize = 200_000, "values::max_series";
    }
}

mapping! {
    /// `log`: messages on standard error.
    #[derive(Copy, Eq)]
    Log {
        /// Least important level that is written.
        level: LogLevel = LogLevel::Info;
        /// Format of a message.
        format: LogFormat = LogFormat::Text;
    }
}

/// Location labels of activity counters, finest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// `package`, `core`, `numa_node`.
    Core,
    /// `numa_node` alone.
    NumaNode,
    /// No location labels.
    None,
}

/// Importance of a message, most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Format of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why a configuration could not be loaded. The path is `configuration` for text without a file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{path} is longer than 1 MiB, the limit of a configuration file")]
    TooLong { path: PathBuf },
    #[error("{path} is not UTF-8 text: invalid byte at offset {position}")]
    NotText { path: PathBuf, position: usize },
    /// A key or value is invalid, or the text is not YAML. The message has line, column, key path
    /// and expected value.
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

impl Config {
    /// Parses a configuration. Empty text gives the defaults.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with line, column, key path and expected value.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        parse_named(text, Path::new("configuration"))
    }

    /// Reads a configuration file of at most [`MAX_FILE`] bytes.
    ///
    /// # Errors
    /// As [`Config::parse`], and if the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        parse_named(&read(path)?, path)
    }
}

/// Reads a text file of at most [`MAX_FILE`] bytes.
///
/// # Errors
/// If it cannot be read, is longer, or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| ConfigError::Read {
        path: path.to_owned(),
        error,
    };
    let bytes = file::read_or_pipe(path, MAX_FILE).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| ConfigError::NotText {
        path: path.to_owned(),
        position: error.utf8_error().valid_up_to(),
    })
}

/// Parses YAML. `path` names the text in errors. Empty text gives the default.
///
/// # Errors
/// [`ConfigError::Invalid`] with line, column, key path and expected value.
pub(crate) fn parse_named<T: DeserializeOwned + Default>(
    text: &str,
    path: &Path,
) -> Result<T, ConfigError> {
    let value: Result<Option<T>, _> = serde_yaml::from_str(text);
    value
        .map(Option::unwrap_or_default)
        .map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            message: position::located(&error, text),
        })
}
