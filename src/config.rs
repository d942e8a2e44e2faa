//! Configuration: one YAML file, parsed into a validated [`Config`]. Only this module uses
//! serde_yaml.
//!
//! Values are checked while they are parsed (see [`values`]), so an invalid value is refused with
//! its key path, line and column like a misspelled key, and every [`Config`] is valid.
//! `deploy/vcpu-exporter.yml` documents every key.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::Deserialize;

pub mod file;
pub mod otlp;
mod position;
mod raw;
mod sources;
pub mod values;

pub use otlp::Otlp;
pub use raw::{ExitReason, RawEvent, MAX_EXIT_REASONS, MAX_RAW_EVENTS};
pub use sources::{
    Cgroup, Devices, EventSet, Exits, KvmStat, Memory, Periodic, Pmu, Pt, Resctrl, Sources, Threads,
};

/// Largest configuration file (bytes): the documented example has 6 kB.
pub const MAX_FILE: u64 = 1 << 20;

/// The whole configuration, validated.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of sections")]
pub struct Config {
    /// `web`
    #[serde(deserialize_with = "values::section")]
    pub web: Web,
    /// `paths`
    #[serde(deserialize_with = "values::section")]
    pub paths: Paths,
    /// `sampling`
    #[serde(deserialize_with = "values::section")]
    pub sampling: Sampling,
    /// `labels`
    #[serde(deserialize_with = "values::section")]
    pub labels: LabelConfig,
    /// `limits`
    #[serde(deserialize_with = "values::section")]
    pub limits: Limits,
    /// `sources`
    #[serde(deserialize_with = "values::section")]
    pub sources: Sources,
    /// `otlp`
    #[serde(deserialize_with = "values::section")]
    pub otlp: Otlp,
    /// `log`
    #[serde(deserialize_with = "values::section")]
    pub log: Log,
}

/// `web`: the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Web {
    /// Address to listen on; port 0 selects a free port.
    #[serde(deserialize_with = "values::listen_address")]
    pub listen_address: SocketAddr,
}

/// `paths`: mount points of the host's file systems.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Paths {
    /// procfs
    #[serde(deserialize_with = "values::absolute_path")]
    pub procfs: PathBuf,
    /// sysfs
    #[serde(deserialize_with = "values::absolute_path")]
    pub sysfs: PathBuf,
    /// cgroup hierarchy
    #[serde(deserialize_with = "values::absolute_path")]
    pub cgroupfs: PathBuf,
    /// debugfs
    #[serde(deserialize_with = "values::absolute_path")]
    pub debugfs: PathBuf,
    /// tracefs
    #[serde(deserialize_with = "values::absolute_path")]
    pub tracefs: PathBuf,
    /// Run-time state of daemons
    #[serde(deserialize_with = "values::absolute_path")]
    pub runfs: PathBuf,
    /// Device nodes
    #[serde(deserialize_with = "values::absolute_path")]
    pub devfs: PathBuf,
}

/// `sampling`: periods.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Sampling {
    /// Period of a tick, 100 ms to 1 min.
    #[serde(deserialize_with = "values::tick")]
    pub tick: Duration,
    /// Period of an inventory pass, 1 s to 5 min.
    #[serde(deserialize_with = "values::inventory")]
    pub inventory: Duration,
}

/// `labels`: detail of locations.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct LabelConfig {
    /// Location labels of activity counters.
    pub placement: Placement,
    /// Time without activity after which a (vCPU, location) series is dropped from the exposition,
    /// 1 s to 1 d.
    #[serde(deserialize_with = "values::cell_ttl")]
    pub cell_ttl: Duration,
}

/// Location labels of activity counters, finest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// `package`, `core`, `numa_node`.
    Core,
    /// `numa_node`.
    NumaNode,
    /// No location labels.
    None,
}

/// `limits`: hard limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Limits {
    /// Most series in the exposition, 1 to 10 million.
    #[serde(deserialize_with = "values::max_series")]
    pub max_series: usize,
}

/// `log`: messages on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Log {
    /// Least important level that is written.
    pub level: LogLevel,
    /// Format of a message.
    pub format: LogFormat,
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

/// Why a configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        #[source]
        error: io::Error,
    },
    /// The file is longer than [`MAX_FILE`].
    #[error("{path} is longer than 1 MiB, the limit of a configuration file")]
    TooLong {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{path} is not UTF-8 text: invalid byte at offset {position}")]
    NotText {
        /// Path of the file.
        path: PathBuf,
        /// Offset of the first invalid byte.
        position: usize,
    },
    /// A key or value is invalid, or the text is not YAML.
    #[error("{path}: {message}")]
    Invalid {
        /// Path of the file, or `configuration` for text without a file.
        path: PathBuf,
        /// Line, column, key path and expected value.
        message: String,
    },
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
pub fn read(path: &Path) -> Result<String, ConfigError> {
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
pub fn parse_named<T: DeserializeOwned + Default>(
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

impl Default for Web {
    fn default() -> Self {
        Self {
            listen_address: SocketAddr::from(([127, 0, 0, 1], 9752)),
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            cgroupfs: "/sys/fs/cgroup".into(),
            debugfs: "/sys/kernel/debug".into(),
            tracefs: "/sys/kernel/tracing".into(),
            runfs: "/run".into(),
            devfs: "/dev".into(),
        }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            inventory: Duration::from_secs(5),
        }
    }
}

impl Default for LabelConfig {
    fn default() -> Self {
        Self {
            placement: Placement::Core,
            cell_ttl: Duration::from_secs(600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_series: 200_000,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
        }
    }
}
