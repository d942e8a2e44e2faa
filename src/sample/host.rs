//! Sources about the host as such: one file each, read by the slow lane.
//!
//! A reader says what it found and what is missing; [`Reporting`] makes a source of it that always
//! gives facts or a reason. A file that is absent is a fact that is absent.

use std::path::Path;
use std::time::Duration;

use super::slow::{Fact, FactValue, HostSource, Origin};
use super::{ReadError, Reason, SourceInfo, SourceState};
use crate::config::Periodic;
use crate::host::topology::Topology;

mod features;
mod frequency;
mod kernel_log;
mod numa;
mod parameters;
mod system;
mod thermal;
mod vulnerabilities;

pub use features::CpuFeatures;
pub use frequency::Frequency;
pub use kernel_log::Log;
pub use numa::Numa;
pub use parameters::KvmParameters;
pub use system::System;
pub use thermal::Thermal;
pub use vulnerabilities::Vulnerabilities;

/// Reads one thing about the host.
pub trait HostReader: Send {
    /// What it is, as a source.
    fn info(&self) -> SourceInfo;
    /// Reads everything anew.
    fn read(&mut self, topology: &Topology) -> Found;
}

/// What a reader found, and what it could not.
#[derive(Debug, Default)]
pub struct Found {
    /// Everything that is known.
    pub facts: Vec<Fact>,
    /// Why there is not more; without facts, why there is nothing.
    pub missing: Option<Reason>,
}

/// A source made of a reader: on its period, and with a reason whenever it lacks something.
pub struct Reporting<R> {
    reader: R,
    enabled: bool,
    period: Duration,
    state: SourceState,
}

impl<R: HostReader> Reporting<R> {
    /// The source of this reader.
    pub fn new<const SECONDS: u64>(config: &Periodic<SECONDS>, reader: R) -> Self {
        Self {
            reader,
            enabled: config.enabled,
            period: config.period,
            state: SourceState::Up,
        }
    }
}

impl<R: HostReader> HostSource for Reporting<R> {
    fn info(&self) -> SourceInfo {
        self.reader.info()
    }

    fn state(&self) -> SourceState {
        self.state.clone()
    }

    fn period(&self) -> Duration {
        self.period
    }

    fn read(&mut self, topology: &Topology) -> Result<Vec<Fact>, ReadError> {
        let found = match self.enabled {
            true => self.reader.read(topology),
            false => Found::nothing(Reason::disabled(self.info().name)),
        };
        self.state = match (found.facts.is_empty(), found.missing) {
            (true, reason) => SourceState::Down(reason.unwrap_or_else(no_data)),
            (false, Some(reason)) => SourceState::Degraded(reason),
            (false, None) => SourceState::Up,
        };
        Ok(found.facts)
    }
}

impl Found {
    fn nothing(reason: Reason) -> Self {
        Self {
            facts: Vec::new(),
            missing: Some(reason),
        }
    }
}

fn no_data() -> Reason {
    Reason {
        code: "no_data",
        detail: "this machine's kernel tells nothing of it".to_owned(),
        fix: None,
    }
}

/// A file without which nothing is known.
fn unreadable(path: &Path, error: &std::io::Error) -> Reason {
    Reason {
        code: "unreadable",
        detail: format!("{}: {error}", path.display()),
        fix: None,
    }
}

fn fact<const N: usize>(
    metric: &'static str,
    labels: [(&'static str, String); N],
    value: FactValue,
) -> Fact {
    Fact {
        metric,
        labels: labels.into(),
        value,
        origin: Origin::Exporter,
    }
}

/// The same of a counter that the kernel keeps since it started.
fn since_boot(fact: Fact) -> Fact {
    Fact {
        origin: Origin::Boot,
        ..fact
    }
}

/// Most bytes of a label value.
const MAX_LABEL: usize = 128;

/// Text of the kernel as a label value: one line, without control characters, at most
/// [`MAX_LABEL`] bytes.
fn label(text: &str) -> String {
    let mut label = String::new();
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if label.len() + c.len_utf8() > MAX_LABEL {
            break;
        }
        label.push(c);
    }
    label
}

/// The (package, core) labels.
fn core((package, core): (i32, i32)) -> [(&'static str, String); 2] {
    [("package", package.to_string()), ("core", core.to_string())]
}

#[cfg(test)]
mod tests;
