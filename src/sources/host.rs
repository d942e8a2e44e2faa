//! Sources about the host: one file each, read by the background collector.
//!
//! Each returns what it found and what is missing ([`Found`](crate::engine::Found)).

use std::path::Path;

use crate::engine::{Reason, ReasonCode};

pub(super) mod cpu_time;
pub(super) mod features;
pub(super) mod frequency;
pub(super) mod kernel_log;
pub(super) mod ksm;
pub(super) mod numa;
pub(super) mod parameters;
pub(super) mod system;
pub(super) mod thermal;
pub(super) mod vulnerabilities;

pub(crate) use cpu_time::CORE as CORE_TIME;
pub(crate) use frequency::{CORE_FREQUENCY, CORE_FREQUENCY_BASE};
pub(crate) use numa::NUMA_DISTANCE;
pub(crate) use system::HOST_INFO;
pub(crate) use thermal::{CORE_THROTTLED, PACKAGE_THROTTLED};

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

#[cfg(test)]
mod tests;
