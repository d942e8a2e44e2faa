//! Progress of the exporter's own threads.
//!
//! A thread reports when it starts a step and when it waits for its turn. A step that takes longer
//! than the thread's limit is a hang: in the kernel, behind a lock, or in a loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::values::{Put, Values};
use crate::metric::{metrics, FactValue, Keys, Metric, Rows};

metrics! { METRICS of "self":
    THREAD_BUSY = Metric::gauge("kvm_exporter_thread_busy_seconds", Keys::Exporter, &["thread"],
        "Time since a thread of the exporter began its current step, 0 while it waits").rows(Rows::Registry);
}

/// The heartbeats of all threads; a clone shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<Vec<Heartbeat>>>);

/// The heartbeat of one thread; a clone shares it.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    thread: &'static str,
    limit: Duration,
    vital: bool,
    step: Mutex<Option<Step>>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    since: Instant,
}

/// A thread at its current step; from [`Heartbeats::hangs`], one that exceeds its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hang {
    pub(crate) thread: &'static str,
    /// Name of the step; the source's name if the thread reads a source.
    pub(crate) step: &'static str,
    pub(crate) age: Duration,
    /// Whether the exporter cannot work without this thread.
    pub(crate) vital: bool,
}

impl std::fmt::Display for Hang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let age = self.age.as_secs_f64();
        write!(f, "the {} thread has been stuck", self.thread)?;
        if self.step != self.thread {
            write!(f, " in step {}", self.step)?;
        }
        write!(f, " for {age:.1} s")
    }
}

impl Heartbeats {
    /// Registers a thread whose steps take at most `limit`. If a `vital` thread hangs, `/readyz`
    /// answers 503 and the systemd watchdog is not fed.
    pub(crate) fn add(&self, thread: &'static str, limit: Duration, vital: bool) -> Heartbeat {
        let heartbeat = Heartbeat(Arc::new(Inner {
            thread,
            limit,
            vital,
            step: Mutex::default(),
        }));
        self.lock().push(heartbeat.clone());
        heartbeat
    }

    /// The threads whose current step exceeds its limit.
    pub(crate) fn hangs(&self, now: Instant) -> Vec<Hang> {
        let all = self.lock();
        all.iter().filter_map(|one| one.hang(now)).collect()
    }

    /// The first vital thread whose current step exceeds its limit.
    pub(crate) fn vital_hang(&self, now: Instant) -> Option<Hang> {
        self.hangs(now).into_iter().find(|hang| hang.vital)
    }

    /// The current step of a thread; `None` while it waits for its turn.
    pub(crate) fn doing(&self, thread: &str, now: Instant) -> Option<Hang> {
        let all = self.lock();
        let mut of_thread = all.iter().filter(|one| one.0.thread == thread);
        of_thread.find_map(|one| one.doing(now))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Heartbeat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since each thread started its step; of threads with the same name, the longest.
    fn ages(&self, now: Instant) -> Vec<(&'static str, f64)> {
        let mut ages: Vec<(&'static str, f64)> = Vec::new();
        for one in self.lock().iter() {
            let age = one.doing(now).map_or(0.0, |at| at.age.as_secs_f64());
            match ages.iter_mut().find(|(thread, _)| *thread == one.0.thread) {
                Some((_, known)) => *known = known.max(age),
                None => ages.push((one.0.thread, age)),
            }
        }
        ages
    }
}

impl Heartbeat {
    /// Marks the start of a step.
    pub(crate) fn step(&self, name: &'static str) {
        let since = Instant::now();
        self.set(Some(Step { name, since }));
    }

    /// Marks that the thread waits for its turn.
    pub(crate) fn rest(&self) {
        self.set(None);
    }

    fn set(&self, step: Option<Step>) {
        *self.0.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn doing(&self, now: Instant) -> Option<Hang> {
        let step = *self.0.step.lock().unwrap_or_else(PoisonError::into_inner);
        step.map(|step| Hang {
            thread: self.0.thread,
            step: step.name,
            age: now.saturating_duration_since(step.since),
            vital: self.0.vital,
        })
    }

    /// The thread's step if it exceeds the limit.
    pub(crate) fn hang(&self, now: Instant) -> Option<Hang> {
        self.doing(now).filter(|at| at.age > self.0.limit)
    }
}

impl Values for Heartbeats {
    fn read(&self, put: Put<'_>) {
        for (thread, age) in self.ages(Instant::now()) {
            put(vec![("thread", thread.into())], FactValue::Float(age));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_step_that_takes_longer_than_its_limit_hangs() {
        let all = Heartbeats::default();
        let (slow, inventory) = (
            all.add("slow", LIMIT, false),
            all.add("inventory", LIMIT, true),
        );
        slow.step("memory");
        inventory.step("inventory");
        let now = Instant::now();
        assert_eq!(all.hangs(now + LIMIT / 2), []);
        let later = now + 2 * LIMIT;
        let hangs: Vec<String> = all.hangs(later).iter().map(Hang::to_string).collect();
        let expected = [
            "the slow thread has been stuck in step memory for 20.0 s",
            "the inventory thread has been stuck for 20.0 s",
        ];
        assert_eq!(hangs, expected);
        assert_eq!(
            all.vital_hang(later).map(|hang| hang.thread),
            Some("inventory")
        );
        inventory.rest();
        assert_eq!(all.vital_hang(later), None);
        assert_eq!(all.hangs(later).len(), 1);
    }

    #[test]
    fn threads_of_one_name_report_the_longest_age() {
        let all = Heartbeats::default();
        let [idle, busy] = [(); 2].map(|()| all.add("otlp", LIMIT, false));
        assert_eq!(all.ages(Instant::now()), [("otlp", 0.0)]);
        busy.step("push");
        let ages = all.ages(Instant::now() + LIMIT);
        assert!(ages.len() == 1 && ages[0].1 >= 9.9, "{ages:?}");
        idle.step("push");
        assert!(all.ages(Instant::now() + LIMIT)[0].1 >= 9.9);
    }
}
