//! Intel Processor Trace: now and then a short recording of one vCPU's thread, reduced to figures.
//!
//! Feeds `kvm_vcpu_pt_*` and the two histograms `kvm_vm_pt_*`. It is a lane of its own, because
//! it records for milliseconds and decodes for as long: [`lane`] says whose turn it is, within the
//! bounds that [`duty`] keeps for each core; [`plan`] says what this machine can trace, and why not
//! more; [`perf`] records through the kernel and [`image`] reads what the kernel left in memory;
//! [`totals`] adds up what [`crate::pt`] makes of it.
//!
//! # How a vCPU is recorded
//!
//! By a fresh event on its thread each time, on whatever CPU it runs: `pid` its thread, `cpu` -1,
//! `inherit` 0. A fresh event's first bytes are a PSB; one that was enabled again begins in the
//! middle of nowhere (pt.c resets the packet counter with the event's first start alone).
//!
//! None of `exclude_user`, `exclude_kernel`, `exclude_hv`, `exclude_host` and `exclude_guest` is
//! set. pt.c reads the first two only, and makes of them which privilege levels are traced, of
//! guest and host alike; the others it ignores. To see the guest is to record both and to tell them
//! apart by the packets.
//!
//! The AUX area is mapped writable, so that it is never overwritten and tracing stops when it is
//! full: its size bounds what a recording can cost, whatever the guest does.

use std::io;
use std::time::Duration;

use crate::host::pmu::Words;

pub mod duty;
pub mod image;
pub mod lane;
pub mod perf;
pub mod plan;
pub mod scripted;
pub mod totals;

pub use image::Drained;
pub use lane::PtLane;
pub use perf::PerfPt;
pub use plan::Plan;

/// The name of the source.
pub const SOURCE: &str = "pt";

/// What is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// `type` of perf_event_attr: the PMU's number.
    pub kind: u32,
    /// `config` to `config3`
    pub words: Words,
    /// For how long.
    pub window: Duration,
    /// How many bytes at most: a power of two of pages.
    pub max_bytes: usize,
}

/// Records threads.
pub trait RecordPt: Send {
    /// Records one thread, and is back when the window is over.
    ///
    /// # Errors
    /// The step that failed and the kernel's errno.
    fn record(&mut self, tid: i32, request: &Request) -> Result<Capture, RecordError>;
}

/// One recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The trace, and what its records said of it.
    pub trace: Drained,
    /// Wall time for which the event was enabled: the window, and what waking up took.
    pub elapsed: Duration,
    /// Time for which the thread was on a CPU meanwhile.
    pub on_cpu: Duration,
    /// Time for which it was also traced: 0 where another had the CPU's tracing.
    pub traced: Duration,
}

/// How a turn ended: the `result` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The whole window was recorded.
    Complete,
    /// The buffer was full before the window was over.
    Truncated,
    /// Tracing had gaps: this CPU cannot trace while VMX is on, or records were lost.
    Partial,
    /// Another's data collided with it.
    Collision,
    /// The vCPU did not run.
    Idle,
    /// Another had the tracing.
    Busy,
    /// The kernel refused.
    Refused,
    /// The thread had ended.
    Gone,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Complete,
        Self::Truncated,
        Self::Partial,
        Self::Collision,
        Self::Idle,
        Self::Busy,
        Self::Refused,
        Self::Gone,
    ];

    /// Value of the `result` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Partial => "partial",
            Self::Collision => "collision",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

impl Capture {
    /// What became of the recording. The worst that is true of it counts.
    pub fn outcome(&self) -> Outcome {
        let flag = |flag| self.trace.flags & flag != 0;
        match () {
            () if flag(image::FLAG_PARTIAL) || self.trace.lost || self.trace.damaged => {
                Outcome::Partial
            }
            () if flag(image::FLAG_COLLISION) => Outcome::Collision,
            () if flag(image::FLAG_TRUNCATED) => Outcome::Truncated,
            () if !self.trace.bytes.is_empty() => Outcome::Complete,
            () if !self.on_cpu.is_zero() && self.traced.is_zero() => Outcome::Busy,
            () => Outcome::Idle,
        }
    }
}

/// What was being done when the kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// perf_event_open(2)
    Open,
    /// mmap(2) of the records
    MapRecords,
    /// mmap(2) of the AUX area
    MapTrace,
    /// ioctl(2) and read(2) of the open event
    Run,
}

/// A recording failed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .step.text())]
pub struct RecordError {
    /// What was being done.
    pub step: Step,
    /// The kernel's answer.
    #[source]
    pub error: io::Error,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Self::Open => "perf_event_open of intel_pt",
            Self::MapRecords => "mapping the ring of records",
            Self::MapTrace => "mapping the buffer of the trace",
            Self::Run => "running the trace",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(flags: u64, bytes: usize, on_cpu: u64, traced: u64) -> Capture {
        Capture {
            trace: Drained {
                flags,
                bytes: vec![0; bytes],
                ..Drained::default()
            },
            elapsed: Duration::from_millis(10),
            on_cpu: Duration::from_millis(on_cpu),
            traced: Duration::from_millis(traced),
        }
    }

    #[test]
    fn the_worst_that_is_true_is_told() {
        for (flags, bytes, on_cpu, traced, outcome) in [
            (0, 9, 5, 5, Outcome::Complete),
            (image::FLAG_TRUNCATED, 9, 5, 5, Outcome::Truncated),
            (
                image::FLAG_TRUNCATED | image::FLAG_COLLISION,
                9,
                5,
                5,
                Outcome::Collision,
            ),
            (
                image::FLAG_TRUNCATED | image::FLAG_PARTIAL,
                0,
                5,
                5,
                Outcome::Partial,
            ),
            (0, 0, 5, 0, Outcome::Busy),
            (0, 0, 0, 0, Outcome::Idle),
            // On a CPU for too short a time to leave a byte.
            (0, 0, 5, 5, Outcome::Idle),
        ] {
            assert_eq!(capture(flags, bytes, on_cpu, traced).outcome(), outcome);
        }
        let mut torn = capture(0, 9, 5, 5);
        torn.trace.lost = true;
        assert_eq!(torn.outcome(), Outcome::Partial);
    }
}
