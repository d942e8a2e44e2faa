//! Logs go to standard error: text for people or JSON for collectors. systemd adds the time itself,
//! but a container runtime does not, so every line carries it.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Installs the subscriber of this process; a second call changes nothing.
pub(super) fn init(log: Log) {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(filter(log.level))
        .with_target(false);
    let installed = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logs were set up before");
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
