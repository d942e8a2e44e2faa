//! Whether the exporter's own threads make progress.
//!
//! A thread says when it begins a step and when it waits for its turn. A step that takes longer
//! than the thread's limit hangs: in the kernel, behind a lock, or in a loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// The heartbeats of all threads; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<Vec<Heartbeat>>>);

/// The heartbeat of one thread; cloning shares it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Inner>);

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

/// A thread that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hang {
    /// The thread's name.
    pub thread: &'static str,
    /// What it is doing: a source's name where it reads one.
    pub step: &'static str,
    /// For how long.
    pub age: Duration,
    /// Whether the exporter is of no use without the thread.
    pub vital: bool,
}

impl std::fmt::Display for Hang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let age = self.age.as_secs_f64();
        write!(f, "the {} thread hangs", self.thread)?;
        if self.step != self.thread {
            write!(f, " in {}", self.step)?;
        }
        write!(f, " for {age:.1} s")
    }
}

impl Heartbeats {
    /// A thread whose steps take no longer than `limit`. Without a `vital` one the exporter is not
    /// ready, and its supervisor is not told that it is well.
    pub fn add(&self, thread: &'static str, limit: Duration, vital: bool) -> Heartbeat {
        let heartbeat = Heartbeat(Arc::new(Inner {
            thread,
            limit,
            vital,
            step: Mutex::default(),
        }));
        self.lock().push(heartbeat.clone());
        heartbeat
    }

    /// The threads that hang.
    pub fn hangs(&self, now: Instant) -> Vec<Hang> {
        let all = self.lock();
        all.iter().filter_map(|one| one.hang(now)).collect()
    }

    /// The first vital thread that hangs.
    pub fn vital_hang(&self, now: Instant) -> Option<Hang> {
        let all = self.lock();
        let mut hangs = all.iter().filter_map(|one| one.hang(now));
        hangs.find(|hang| hang.vital)
    }

    /// What a thread is doing now, and since when.
    pub fn doing(&self, thread: &str, now: Instant) -> Option<Hang> {
        let all = self.lock();
        let mut of_thread = all.iter().filter(|one| one.0.thread == thread);
        of_thread.find_map(|one| one.doing(now))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Heartbeat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds each thread has been at its step; of several of one name, the longest.
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
    /// A step begins.
    pub fn step(&self, name: &'static str) {
        let since = Instant::now();
        self.set(Some(Step { name, since }));
    }

    /// The thread waits for its turn.
    pub fn rest(&self) {
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

    fn hang(&self, now: Instant) -> Option<Hang> {
        self.doing(now).filter(|at| at.age > self.0.limit)
    }
}

impl Collector for Heartbeats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ages = self.ages(Instant::now());
        if ages.is_empty() {
            return Ok(()); // a family without samples is none
        }
        let mut family = encoder.encode_descriptor(
            "thread_busy",
            "How long a thread of the exporter has been at its current step, 0 while it waits for its turn",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (thread, age) in ages {
            let labels = [("thread", thread)];
            ConstGauge::new(age).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
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
            "the slow thread hangs in memory for 20.0 s",
            "the inventory thread hangs for 20.0 s",
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
    fn threads_of_one_name_have_the_age_of_the_one_that_is_at_it_longest() {
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
