//! Intel Processor Trace: periodic short recordings of one vCPU thread, reduced to counts.
//!
//! Feeds `kvm_vcpu_pt_*` and the two histograms `kvm_vm_pt_*`. It has its own thread, because it
//! records for milliseconds and decodes for as long. `recorder` chooses the vCPU to record,
//! within the limit of each core's `duty_cycle`; `plan` determines what this machine can trace;
//! `perf` records through the kernel and [`ring_view`] reads the rings that the kernel filled;
//! `totals` adds up the summaries of [`crate::pt`].
//!
//! # How a vCPU is recorded
//!
//! Each recording opens a new event on the vCPU's thread, on any CPU: `pid` is the thread, `cpu`
//! is -1, `inherit` is 0. The first bytes of a new event are a PSB; an event that is enabled again
//! starts between packets (pt.c resets the packet counter only when the event first starts).
//!
//! None of `exclude_user`, `exclude_kernel`, `exclude_hv`, `exclude_host` and `exclude_guest` is
//! set. pt.c reads only the first two, as the traced privilege levels of guest and host alike, and
//! ignores the others. So a recording of the guest contains both, and the packets separate them.
//!
//! The AUX area is mapped writable, so it is never overwritten and tracing stops when it is full:
//! its size bounds the cost of a recording, whatever the guest does.

use std::io;
use std::time::Duration;

use crate::engine::{Source, SourceInfo};
use crate::host::label::label_values;
use crate::host::pmu::Words;
use crate::sources::{exits, Entry};

pub(crate) mod duty_cycle;
pub(crate) mod perf;
pub(crate) mod plan;
pub(crate) mod recorder;
pub mod ring_view;
pub mod scripted;
pub(crate) mod totals;

pub(crate) use perf::PerfPt;
pub use plan::PtPlan;
use recorder::PtRecorder;
pub use ring_view::AuxTrace;

/// Name of the source.
pub(crate) const SOURCE: &str = "pt";

/// Parameters of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// `type` of perf_event_attr: the number of the PMU.
    pub kind: u32,
    /// `config` to `config3`
    pub words: Words,
    /// Duration of the recording.
    pub window: Duration,
    /// Size of the trace buffer in bytes: a power of two of pages.
    pub max_bytes: usize,
}

/// Records threads.
pub trait RecordPt: Send + Sync {
    /// Records one thread; returns at the end of the window.
    ///
    /// # Errors
    /// The step that failed, with the kernel's errno.
    fn record(&self, tid: i32, request: &Request) -> Result<Capture, RecordError>;
}

/// One recording.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// The trace, and what its records reported.
    pub trace: AuxTrace,
    /// Wall time for which the event was enabled: the window plus the wake-up delay.
    pub elapsed: Duration,
    /// Time for which the thread was on a CPU meanwhile.
    pub on_cpu: Duration,
    /// Time for which it was also traced: 0 if another program used the CPU's tracing.
    pub traced: Duration,
}

label_values! {
    /// Result of a turn: the `result` label.
    pub enum Outcome {
        /// The whole window was recorded.
        Complete = "complete",
        /// The buffer was full before the end of the window.
        Truncated = "truncated",
        /// The trace has gaps: this CPU cannot trace while VMX is on, or records were lost.
        Partial = "partial",
        /// Data of another event collided with the trace.
        Collision = "collision",
        /// The vCPU did not run.
        Idle = "idle",
        /// Another program used the tracing.
        Busy = "busy",
        /// The kernel refused the recording.
        Refused = "refused",
        /// The thread had exited.
        Gone = "gone",
    }
}

impl Capture {
    /// The result of the recording; of several that apply, the worst.
    pub fn outcome(&self) -> Outcome {
        let flag = |flag| self.trace.flags & flag != 0;
        match () {
            () if flag(ring_view::FLAG_PARTIAL) || self.trace.lost || self.trace.damaged => {
                Outcome::Partial
            }
            () if flag(ring_view::FLAG_COLLISION) => Outcome::Collision,
            () if flag(ring_view::FLAG_TRUNCATED) => Outcome::Truncated,
            () if !self.trace.bytes.is_empty() => Outcome::Complete,
            () if !self.on_cpu.is_zero() && self.traced.is_zero() => Outcome::Busy,
            () => Outcome::Idle,
        }
    }
}

/// The step at which the kernel refused.
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

/// A failed recording.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .step.text())]
pub struct RecordError {
    /// The step that failed.
    pub step: Step,
    /// The kernel's error.
    #[source]
    pub error: io::Error,
}

impl Step {
    fn text(self) -> &'static str {
        match self {
            Self::Open => "perf_event_open of intel_pt failed",
            Self::MapRecords => "cannot map the record ring",
            Self::MapTrace => "cannot map the trace buffer",
            Self::Run => "cannot run the trace",
        }
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: SOURCE,
        needs: "an Intel CPU with processor trace, CAP_PERFMON, CAP_IPC_LOCK",
        cost: "a few percent of a core's speed while one of its vCPUs is recorded (10 ms per \
               minute by default), then 2 to 100 ms of decoding",
    },
    about: include_str!("pt.md"),
    metrics: &[totals::METRICS],
    make: |with| {
        let setup = with.setup;
        Source::threaded(PtRecorder::new(
            &with.config().pt,
            setup.roots.clone(),
            setup.recorder.clone(),
            exits::vmx_reasons(&setup.roots),
            setup.inventory.clone(),
            setup.telemetry.clone(),
        ))
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(flags: u64, bytes: usize, on_cpu: u64, traced: u64) -> Capture {
        Capture {
            trace: AuxTrace {
                flags,
                bytes: vec![0; bytes],
                ..AuxTrace::default()
            },
            elapsed: Duration::from_millis(10),
            on_cpu: Duration::from_millis(on_cpu),
            traced: Duration::from_millis(traced),
        }
    }

    #[test]
    fn worst_result_is_reported() {
        for (flags, bytes, on_cpu, traced, outcome) in [
            (0, 9, 5, 5, Outcome::Complete),
            (ring_view::FLAG_TRUNCATED, 9, 5, 5, Outcome::Truncated),
            (
                ring_view::FLAG_TRUNCATED | ring_view::FLAG_COLLISION,
                9,
                5,
                5,
                Outcome::Collision,
            ),
            (
                ring_view::FLAG_TRUNCATED | ring_view::FLAG_PARTIAL,
                0,
                5,
                5,
                Outcome::Partial,
            ),
            (0, 0, 5, 0, Outcome::Busy),
            (0, 0, 0, 0, Outcome::Idle),
            // The thread was on a CPU too briefly to leave a byte.
            (0, 0, 5, 5, Outcome::Idle),
        ] {
            assert_eq!(capture(flags, bytes, on_cpu, traced).outcome(), outcome);
        }
        let mut torn = capture(0, 9, 5, 5);
        torn.trace.lost = true;
        assert_eq!(torn.outcome(), Outcome::Partial);
    }
}
