//! Sources about the host: one file each, read by the background collector.
//!
//! A reader returns what it found and what is missing; [`Reporting`] turns it into a source that
//! always has facts or a reason. A missing file is a missing fact.

use std::path::Path;
use std::time::Duration;

use crate::config::Periodic;
use crate::engine::background::{Fact, HostSource};
use crate::engine::{ReadError, Reason, ReasonCode, SourceInfo, SourceState};
use crate::host::topology::Topology;
use crate::metric::Label;

mod cpu_time;
mod features;
mod frequency;
mod kernel_log;
mod ksm;
mod numa;
mod parameters;
mod system;
mod thermal;
mod vulnerabilities;

pub use cpu_time::CpuTime;
pub use features::CpuFeatures;
pub use frequency::Frequency;
pub use kernel_log::Log;
pub use numa::Numa;
pub use parameters::KvmParameters;
pub use system::System;
pub use thermal::Thermal;
pub use vulnerabilities::Vulnerabilities;

pub(crate) use cpu_time::CORE as CORE_TIME;
pub(crate) use frequency::{CORE_FREQUENCY, CORE_FREQUENCY_BASE};
pub(crate) use numa::NUMA_DISTANCE;
pub(crate) use system::HOST_INFO;
pub(crate) use thermal::{CORE_THROTTLED, PACKAGE_THROTTLED};
pub(crate) use {
    cpu_time::ENTRY as CPU_TIME, features::ENTRY as CPU_FEATURES, frequency::ENTRY as FREQUENCY,
    kernel_log::ENTRY as KERNEL_LOG, ksm::ENTRY as KSM, numa::ENTRY as NUMA,
    parameters::ENTRY as KVM_PARAMETERS, system::ENTRY as SYSTEM, thermal::ENTRY as THERMAL,
    vulnerabilities::ENTRY as VULNERABILITIES,
};

/// Reads one kind of data about the host.
pub trait HostReader: Send {
    /// Name, requirements and cost.
    fn info(&self) -> SourceInfo;
    /// Reads all data again.
    fn read(&mut self, topology: &Topology) -> Found;
}

/// The facts a reader found, and the reason for missing ones.
#[derive(Debug, Default)]
pub struct Found {
    /// All facts that are known.
    pub facts: Vec<Fact>,
    /// Why some facts are missing; without facts, why all are.
    pub missing: Option<Reason>,
}

/// A source made of a reader, with a period and a state.
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
    ReasonCode::NoData.reason("this machine's kernel reports no such data")
}

/// The reason for a required file that cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> Reason {
    ReasonCode::Unreadable.reason(format!("cannot read {}: {error}", path.display()))
}

/// Maximum number of bytes in a label value.
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

/// The `package` and `core` labels.
fn core((package, core): (i32, i32)) -> [Label; 2] {
    [("package", package.into()), ("core", core.into())]
}

#[cfg(test)]
mod tests;
