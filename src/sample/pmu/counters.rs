//! The seam between the exporter and perf_event_open: what a counter group is asked to count,
//! and how it is opened and read.

use std::fmt;
use std::io;

/// One event as the kernel is asked for it: the fields of `perf_event_attr` that the exporter
/// sets (linux/perf_event.h). Everything else is 0, but for `size`, `read_format` and, on the
/// leader, `disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attr {
    /// `type`: `PERF_TYPE_HARDWARE`, `PERF_TYPE_RAW`, or a PMU's number from sysfs.
    pub kind: u32,
    /// `config`; for generic events of a hybrid PMU its number is in the upper 32 bits.
    pub config: u64,
    /// `config1`
    pub config1: u64,
    /// `config2`
    pub config2: u64,
    /// `config3`
    pub config3: u64,
    /// Do not count while the host runs: counts the guest alone.
    pub exclude_host: bool,
    /// Do not count while the guest runs: counts the host side alone.
    pub exclude_guest: bool,
    /// Of a tracepoint: which of its hits count. Not a field of the attributes; it is set on the
    /// open event (`PERF_EVENT_IOC_SET_FILTER`, perf_event_open(2)).
    pub filter: Option<Filter>,
}

/// A hit of a tracepoint counts only where this holds of its fields. Shown as the kernel reads it
/// (Documentation/trace/events.rst, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Filter {
    /// What must hold.
    pub first: Test,
    /// What must hold besides.
    pub second: Option<Test>,
}

/// Compares a field of a tracepoint with a number.
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
    /// Opens `events` as one group on one thread (0: the calling thread), on any CPU, counting
    /// from now on. Never pinned, never inherited.
    ///
    /// # Errors
    /// The kernel's errno in an [`io::Error`] and which of the events it was about.
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError>;
}

/// An open group.
pub trait CounterGroup: Send {
    /// Reads all counters with one system call. `counts` has one element for each event.
    fn read(&mut self, counts: &mut [u64]) -> io::Result<Times>;
    /// File descriptors held.
    fn descriptors(&self) -> usize;
}

/// How long a group wanted to count, and how long it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// `time_enabled`, ns: the thread was on a CPU and the group enabled.
    pub enabled: u64,
    /// `time_running`, ns: the group also had its counters.
    pub running: u64,
}

/// The kernel refused an event.
#[derive(Debug, thiserror::Error)]
#[error("perf_event_open of event {event}: {error}")]
pub struct CounterError {
    /// Index of the event in the group.
    pub event: usize,
    /// The kernel's answer.
    #[source]
    pub error: io::Error,
}
