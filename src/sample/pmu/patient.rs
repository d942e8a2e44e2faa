//! Opening counters on a thread whose process holds that up.
//!
//! perf_event_open(2) waits for an execve(2) of the process that is under way, and that waits for
//! whoever holds the memory of the old program ([`crate::host::readers`]). The tick must not.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::counters::{Attr, CounterError, CounterGroup, OpenCounters};
use crate::host::readers::{Owner, Ticket};
use crate::host::roots::Roots;

/// How long the tick waits for one group; to open it takes some 20 µs where nobody holds it up.
const PATIENCE: Duration = Duration::from_millis(100);

/// Counters that nobody has asked for this long after they were late are closed.
const KEPT: Duration = Duration::from_secs(60);

/// Code of the reason where the answer is late. Who asks again gets it as soon as it is there: the
/// first user of a tracepoint waits until every CPU has passed by (`tracepoint_add_func`,
/// kernel/tracepoint.c), which takes longer than `PATIENCE` on a slow or busy machine.
pub const BLOCKED: &str = "blocked";

/// Opens counters as another does, and waits a moment for it.
pub struct Patient {
    counters: Arc<dyn OpenCounters>,
    roots: Arc<Roots>,
    late: Mutex<Vec<Late>>,
}

/// Counters that were not open in time.
struct Late {
    tid: i32,
    events: Vec<Attr>,
    ticket: Ticket<Answer>,
}

type Answer = Result<Box<dyn CounterGroup>, CounterError>;

impl Patient {
    /// Opens what `counters` opens, on threads of the processes below these roots.
    pub fn new(counters: Arc<dyn OpenCounters>, roots: Arc<Roots>) -> Self {
        Self {
            counters,
            roots,
            late: Mutex::default(),
        }
    }

    /// What was asked for before, if its answer was late; closes what nobody came back for.
    fn asked_before(&self, tid: i32, events: &[Attr]) -> Option<Ticket<Answer>> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let position = late.iter().position(|l| l.tid == tid && l.events == events);
        let asked = position.map(|n| late.swap_remove(n).ticket);
        late.retain(|l| l.ticket.age() < KEPT || l.ticket.wait(Duration::ZERO).is_none());
        asked
    }

    fn begin(&self, tid: i32, events: &[Attr]) -> Option<Ticket<Answer>> {
        let owner = Owner::of_thread(&self.roots, tid);
        let (counters, wanted) = (Arc::clone(&self.counters), events.to_vec());
        let open = move || counters.open(tid, &wanted);
        self.roots.readers.begin(owner, open).ok()
    }
}

impl OpenCounters for Patient {
    fn open(&self, tid: i32, events: &[Attr]) -> Answer {
        if tid == 0 {
            return self.counters.open(tid, events);
        }
        // A tick waits for the same counters once.
        let (ticket, patience) = match self.asked_before(tid, events) {
            Some(ticket) => (ticket, Duration::ZERO),
            None => (self.begin(tid, events).ok_or_else(late)?, PATIENCE),
        };
        ticket.wait(patience).unwrap_or_else(|| {
            let events = events.to_vec();
            let mut all = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Late {
                tid,
                events,
                ticket,
            });
            Err(late())
        })
    }
}

fn late() -> CounterError {
    CounterError {
        event: 0,
        error: io::Error::from_raw_os_error(libc::ETIMEDOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::pmu::scripted::Scripted;
    use std::sync::mpsc::{channel, Receiver};

    /// Holds up whoever opens a counter on thread 7.
    struct Holding(Mutex<Receiver<()>>);

    impl OpenCounters for Holding {
        fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError> {
            if tid == 7 {
                let _ = self.0.lock().unwrap().recv();
            }
            Scripted::new().open(tid, events)
        }
    }

    #[test]
    fn a_thread_that_holds_up_its_counters_is_refused_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Arc::new(Roots::below(dir.path()));
        let (release, held) = channel();
        let patient = Patient::new(Arc::new(Holding(Mutex::new(held))), roots);
        let errno = |tid| match patient.open(tid, &[]) {
            Ok(_) => None,
            Err(error) => error.error.raw_os_error(),
        };
        for _ in 0..3 {
            assert_eq!(errno(7), Some(libc::ETIMEDOUT));
        }
        assert_eq!(errno(8), None);
        assert_eq!(errno(0), None);
        drop(release);
    }

    #[test]
    fn counters_that_were_late_are_had_by_asking_again_and_opened_once() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Arc::new(Roots::below(dir.path()));
        let (release, held) = channel();
        let patient = Patient::new(Arc::new(Holding(Mutex::new(held))), roots);
        assert!(patient.open(7, &[]).is_err());
        // One answer is let through; a second opening would wait for another.
        release.send(()).unwrap();
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while patient.open(7, &[]).is_err() {
            assert!(std::time::Instant::now() < patience, "it never came");
            std::thread::yield_now();
        }
        assert!(patient.late.lock().unwrap().is_empty());
    }
}
