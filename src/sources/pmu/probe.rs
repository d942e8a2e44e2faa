//! Probes which events the kernel opens, on the exporter's own thread, which needs no VM.

use std::sync::Arc;

use super::counters::{Attr, CounterGroup, OpenCounters, Times};

/// Answers of a kernel: of this machine's, or of a scripted one.
pub trait Kernel {
    /// Checks that these events open as one group.
    ///
    /// # Errors
    /// The errno, or 0 if there is none.
    fn opens(&self, events: &[Attr]) -> Result<(), i32>;

    /// Whether these events also get their counters all at once, besides the current other users.
    fn runs(&self, events: &[Attr]) -> bool;
}

/// Probes by opening counters on the calling thread.
pub(crate) struct OwnThread {
    counters: Arc<dyn OpenCounters>,
}

/// How long a group is observed, in ns of enabled time. The kernel schedules a group when it is
/// enabled, and rotates after 1 ms at the earliest (`perf_event_mux_interval_ms`).
const WATCH: u64 = 100_000;

/// Maximum number of reads, in case the time does not advance.
const MAX_READS: usize = 100_000;

impl OwnThread {
    /// Probes through `counters`.
    pub(crate) fn new(counters: Arc<dyn OpenCounters>) -> Self {
        Self { counters }
    }

    fn try_open(&self, events: &[Attr]) -> Result<Box<dyn CounterGroup>, i32> {
        self.counters
            .open(0, events)
            .map_err(|error| error.error.raw_os_error().unwrap_or(0))
    }
}

impl Kernel for OwnThread {
    fn opens(&self, events: &[Attr]) -> Result<(), i32> {
        self.try_open(events).map(|_| ())
    }

    fn runs(&self, events: &[Attr]) -> bool {
        let Ok(mut group) = self.try_open(events) else {
            return false;
        };
        watch(&mut *group, events.len()).is_some_and(|Times { enabled, running }| {
            // Equal on an idle machine; other users of the counters may take turns.
            running > 0 && running >= enabled - enabled / 10
        })
    }
}

fn watch(group: &mut dyn CounterGroup, events: usize) -> Option<Times> {
    let mut counts = vec![0; events];
    let mut times = Times::default();
    for _ in 0..MAX_READS {
        times = group.read(&mut counts).ok()?;
        if times.enabled >= WATCH {
            break;
        }
    }
    Some(times)
}
