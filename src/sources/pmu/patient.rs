//! Opens counters on threads whose process may block that.
//!
//! perf_event_open(2) waits for a running execve(2) of the process, which waits for every holder
//! of the old program's memory ([`crate::host::readers`]). The tick must not wait for that.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::counters::{Attr, CounterError, CounterGroup, OpenCounters};
use crate::host::readers::{LateAnswers, Payer, Ticket};
use crate::host::roots::Roots;

/// How long the tick waits for one group; opening takes about 20 µs if nothing blocks it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Late counters that are not requested again within this time are closed.
const KEPT: Duration = Duration::from_secs(60);

/// Opens counters through another opener, with a time limit.
pub(crate) struct Patient {
    counters: Arc<dyn OpenCounters>,
    roots: Arc<Roots>,
    late: Mutex<Late>,
}

/// By TID and events.
type Late = LateAnswers<(i32, Vec<Attr>), Answer>;

type Answer = Result<Box<dyn CounterGroup>, CounterError>;

impl Patient {
    /// Wraps `counters`; the processes are those below `roots`.
    pub(crate) fn new(counters: Arc<dyn OpenCounters>, roots: Arc<Roots>) -> Self {
        Self {
            counters,
            roots,
            late: Mutex::new(LateAnswers::new(PATIENCE, KEPT)),
        }
    }

    fn begin(&self, tid: i32, events: &[Attr]) -> Option<Ticket<Answer>> {
        let payer = Payer::of_thread(&self.roots, tid);
        let (counters, wanted) = (Arc::clone(&self.counters), events.to_vec());
        let open = move || counters.open(tid, &wanted);
        self.roots.readers.begin(payer, open).ok()
    }
}

impl OpenCounters for Patient {
    fn open(&self, tid: i32, events: &[Attr]) -> Answer {
        if tid == 0 {
            return self.counters.open(tid, events);
        }
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.sweep();
        let opened = late.ask((tid, events.to_vec()), PATIENCE, || self.begin(tid, events));
        opened.unwrap_or_else(|_| Err(timed_out()))
    }
}

fn timed_out() -> CounterError {
    CounterError {
        event: 0,
        error: io::Error::from_raw_os_error(libc::ETIMEDOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pmu::scripted::Scripted;
    use std::sync::mpsc::{channel, Receiver};

    /// Blocks opening a counter on thread 7.
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
    fn thread_that_blocks_its_counters_is_refused_alone() {
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
    fn late_counters_are_opened_once_and_returned_to_a_retry() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Arc::new(Roots::below(dir.path()));
        let (release, held) = channel();
        let patient = Patient::new(Arc::new(Holding(Mutex::new(held))), roots);
        assert!(patient.open(7, &[]).is_err());
        // Only one call is released; opening again would wait for another release.
        release.send(()).unwrap();
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while patient.open(7, &[]).is_err() {
            assert!(std::time::Instant::now() < patience, "it never came");
            std::thread::yield_now();
        }
        assert!(patient.late.lock().unwrap().pending().next().is_none());
    }
}
