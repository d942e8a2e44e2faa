//! Opening counters on a thread whose process holds that up.
//!
//! perf_event_open(2) waits for an execve(2) of the process that is under way, and that waits for
//! whoever holds the memory of the old program ([`crate::host::readers`]). The tick must not.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{Attr, CounterError, CounterGroup, OpenCounters};
use crate::host::readers::Owner;
use crate::host::roots::Roots;

/// How long the tick waits for one group; to open it takes some 20 µs.
const PATIENCE: Duration = Duration::from_millis(100);

/// Opens counters as another does, and waits a moment for it.
pub struct Patient {
    counters: Arc<dyn OpenCounters>,
    roots: Arc<Roots>,
}

impl Patient {
    /// Opens what `counters` opens, on threads of the processes below these roots.
    pub fn new(counters: Arc<dyn OpenCounters>, roots: Arc<Roots>) -> Self {
        Self { counters, roots }
    }
}

impl OpenCounters for Patient {
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError> {
        if tid == 0 {
            return self.counters.open(tid, events);
        }
        let owner = Owner::of_thread(&self.roots, tid);
        let (counters, wanted) = (Arc::clone(&self.counters), events.to_vec());
        let open = move || counters.open(tid, &wanted);
        let ticket = self.roots.readers.begin(owner, open);
        let late = || Err(late());
        ticket.map_or_else(
            |_| late(),
            |ticket| ticket.wait(PATIENCE).unwrap_or_else(late),
        )
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
    use std::sync::Mutex;

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
        // The third is not even begun.
        for _ in 0..3 {
            assert_eq!(errno(7), Some(libc::ETIMEDOUT));
        }
        assert_eq!(errno(8), None);
        assert_eq!(errno(0), None);
        drop(release);
    }
}
