//! The interface between the exporter and perf_event_open: the attributes of a counter group, and
//! how it is opened and read.

use std::fmt;
use std::io;

use crate::host::pmu::Words;

/// Attributes of one event: the fields of `perf_event_attr` that the exporter sets
/// (linux/perf_event.h). All others are 0, except `size`, `read_format` and, on the group leader,
/// `disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attr {
    /// `type`: `PERF_TYPE_HARDWARE`, `PERF_TYPE_RAW`, or the number of a PMU in sysfs.
    pub kind: u32,
    /// `config` to `config3`; for generic events of a hybrid PMU the upper 32 bits of `config` hold
    /// the PMU's number.
    pub words: Words,
    /// Counts only while the guest runs.
    pub exclude_host: bool,
    /// Counts only while the host runs.
    pub exclude_guest: bool,
    /// Filter of a tracepoint's hits. It is not part of the attributes but set on the open event
    /// (`PERF_EVENT_IOC_SET_FILTER`, perf_event_open(2)).
    pub(crate) filter: Option<Filter>,
}

/// A condition on the fields of a tracepoint hit; only hits that meet it count. `Display` writes
/// the kernel's syntax (Documentation/trace/events.rst, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    /// The condition.
    pub first: Test,
    /// A second condition that must hold too.
    pub second: Option<Test>,
}

/// Comparison of a tracepoint field with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Test {
    /// The field has this value.
    Is(&'static str, u32),
    /// The field has another value.
    IsNot(&'static str, u32),
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(field, value) => write!(f, "{field}=={value}"),
            Self::IsNot(field, value) => write!(f, "{field}!={value}"),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.second {
            Some(second) => write!(f, "{}&&{second}", self.first),
            None => self.first.fmt(f),
        }
    }
}

/// Opens counter groups on threads.
pub trait OpenCounters: Send + Sync {
    /// Opens `events` as one group on one thread (0: the calling thread), on any CPU, and starts
    /// counting. Never pinned, never inherited.
    ///
    /// # Errors
    /// The kernel's errno in an [`io::Error`], with the index of the event it refused.
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError>;
}

/// An open counter group.
pub trait CounterGroup: Send {
    /// Reads all counters with one system call; `counts` has one element per event.
    fn read(&mut self, counts: &mut [u64]) -> io::Result<Times>;
    /// Number of file descriptors held.
    fn descriptors(&self) -> usize;
}

/// How long a group was enabled, and how long it counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// `time_enabled`, ns: the thread ran on a CPU and the group was enabled.
    pub enabled: u64,
    /// `time_running`, ns: the group also had its hardware counters.
    pub running: u64,
}

/// The kernel refused an event.
#[derive(Debug, thiserror::Error)]
#[error("perf_event_open failed for event {event}: {error}")]
pub struct CounterError {
    /// Index of the event in the group.
    pub event: usize,
    /// The kernel's error.
    #[source]
    pub error: io::Error,
}
