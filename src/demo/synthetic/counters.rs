//! Simulated counters of the synthetic host's vCPUs.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counts::{Counted, Counts};
use super::rates::VcpuRates;
use crate::sources::pmu::counters::{
    Attr, CounterError, CounterGroup, Filter, OpenCounters, Test, Times,
};
use crate::sources::pmu::events::{PERF_TYPE_HARDWARE, PERF_TYPE_RAW, PERF_TYPE_TRACEPOINT};

/// Most events that count at once: all of the exporter's fit. A real core has three fixed counters,
/// for cycles and instructions, and four to eight others.
const COUNTERS: usize = 14;

/// Counts and rates of vCPU threads, by TID.
#[derive(Debug, Clone, Default)]
pub(super) struct Threads(Arc<Mutex<HashMap<i32, Counting>>>);

/// Counts of one thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counting {
    pub(super) counts: Counts,
    /// Seconds on a core, and seconds with counters running.
    pub(super) enabled: f64,
    pub(super) running: f64,
    pub(super) now: VcpuRates,
}

impl Threads {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<i32, Counting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCounters for Threads {
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError> {
        let refused = |event, errno| CounterError {
            event,
            error: io::Error::from_raw_os_error(errno),
        };
        let mut counted = Vec::new();
        for (n, attr) in events.iter().enumerate() {
            counted.push(what(attr).ok_or_else(|| refused(n, libc::EOPNOTSUPP))?);
        }
        if tid == 0 {
            let fits = events.len() <= COUNTERS;
            return Ok(Box::new(Probe { fits, reads: 0 }));
        }
        let known = self.lock().get(&tid).copied();
        let from = known.ok_or_else(|| refused(0, libc::ESRCH))?;
        Ok(Box::new(GroupOfThread {
            threads: self.clone(),
            tid,
            counted,
            last: from,
            from,
        }))
    }
}

/// The simulated event; `None` if this CPU does not have it.
fn what(attr: &Attr) -> Option<Counted> {
    let host = attr.exclude_guest;
    match (attr.kind, attr.words[0]) {
        (PERF_TYPE_HARDWARE, id) => {
            // Generic events in the order of `Counted::Pmu`.
            let order = [0, 1, 9, 2, 3, 5];
            let n = order.iter().position(|known| *known == id)?;
            Some(Counted::Pmu(n, host))
        }
        // Raw events have the type number of the core PMU in sysfs.
        (PERF_TYPE_RAW, 0x01d3) => Some(Counted::Pmu(6, host)),
        (PERF_TYPE_RAW, 0x02d3) => Some(Counted::Pmu(7, host)),
        // Ids of the tracepoints in tracefs, starting with kvm_exit's.
        (PERF_TYPE_TRACEPOINT, 101) => Some(attr.filter.map_or(Counted::Exits, reason)),
        (PERF_TYPE_TRACEPOINT, id @ 102..=106) => Some(Counted::Event(id as usize - 102)),
        _ => None,
    }
}

fn reason(filter: Filter) -> Counted {
    match filter.first {
        Test::Is("exit_reason", number) => Counted::Reason(number),
        _ => Counted::Exits,
    }
}

/// A group on the exporter's own thread, which it opens to test what fits.
struct Probe {
    fits: bool,
    reads: u64,
}

impl CounterGroup for Probe {
    fn read(&mut self, _: &mut [u64]) -> io::Result<Times> {
        self.reads += 1;
        let enabled = self.reads * 1_000_000;
        let running = if self.fits { enabled } else { 0 };
        Ok(Times { enabled, running })
    }

    fn descriptors(&self) -> usize {
        0
    }
}

/// A group on a vCPU's thread.
struct GroupOfThread {
    threads: Threads,
    tid: i32,
    counted: Vec<Counted>,
    /// Counts at the start and at the last read: a thread that ended no longer counts.
    from: Counting,
    last: Counting,
}

impl CounterGroup for GroupOfThread {
    fn read(&mut self, counts: &mut [u64]) -> io::Result<Times> {
        if let Some(now) = self.threads.lock().get(&self.tid) {
            self.last = *now;
        }
        for (count, counted) in counts.iter_mut().zip(&self.counted) {
            let from = counted.total(&self.from.counts) as u64;
            *count = (counted.total(&self.last.counts) as u64).saturating_sub(from);
        }
        let since = |now: f64, from: f64| nanoseconds(now).saturating_sub(nanoseconds(from));
        Ok(Times {
            enabled: since(self.last.enabled, self.from.enabled),
            running: since(self.last.running, self.from.running),
        })
    }

    fn descriptors(&self) -> usize {
        0
    }
}

/// Seconds as whole nanoseconds.
pub(super) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
