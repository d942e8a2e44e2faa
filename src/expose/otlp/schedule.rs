//! When to push next: at a fixed interval; after a failure with exponential backoff and jitter, and
//! never before the time that the receiver requested (OTLP specification).

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::push::Outcome;
use crate::engine::schedule::back_off;

/// Delay after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// Longest delay, unless the receiver requests more. A receiver that recovered is found within it.
const LONGEST: Duration = Duration::from_secs(60);

/// The schedule of one endpoint.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    /// The next regular time.
    beat: Instant,
    due: Instant,
    failures: u32,
    jitter: RandomState,
}

impl Schedule {
    /// A schedule whose first push is due now.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            beat: now,
            due: now,
            failures: 0,
            jitter: RandomState::new(),
        }
    }

    /// Time of the next push.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Schedules the next push after this outcome.
    pub fn follow(&mut self, outcome: &Outcome, now: Instant) {
        // Skip the times that passed during a long push.
        let late = now.saturating_duration_since(self.beat).as_nanos();
        let beats = late / self.interval.as_nanos().max(1) + 1;
        self.beat += self.interval * u32::try_from(beats).unwrap_or(u32::MAX);
        match outcome {
            Outcome::Failed { after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = self.backoff().max(after.unwrap_or_default());
                self.due = now + wait;
            }
            // No snapshot before the first tick: check again soon.
            Outcome::NoSample => self.due = now + FIRST,
            Outcome::Delivered { .. } | Outcome::Refused { .. } => {
                self.failures = 0;
                self.due = self.beat;
            }
        }
    }

    /// Doubles with each failure, times a random factor of 0.5 to 1.5, so that the hosts of a fleet
    /// do not return at the same moment.
    fn backoff(&self) -> Duration {
        let wait = back_off(FIRST, LONGEST, self.failures);
        let random = self.jitter.hash_one((self.failures, self.due)) % 1024;
        wait / 2 + wait * random as u32 / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(after: Option<u64>) -> Outcome {
        Outcome::Failed {
            reason: String::new(),
            after: after.map(Duration::from_secs),
        }
    }

    fn delivered() -> Outcome {
        Outcome::Delivered {
            points: 1,
            rejected: 0,
        }
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_keeps_the_beat_whatever_a_push_takes() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(15 * S, begun);
        assert_eq!(schedule.due(), begun);
        schedule.follow(&delivered(), begun + 2 * S);
        assert_eq!(schedule.due(), begun + 15 * S);
        schedule.follow(&delivered(), begun + 50 * S);
        assert_eq!(schedule.due(), begun + 60 * S);
        let refused = Outcome::Refused {
            reason: String::new(),
        };
        schedule.follow(&refused, begun + 61 * S);
        assert_eq!(schedule.due(), begun + 75 * S);
    }

    #[test]
    fn failures_back_off_to_a_minute_and_one_success_forgets_them() {
        let begun = Instant::now();
        let mut now = begun;
        let mut schedule = Schedule::new(15 * S, now);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            schedule.follow(&failed(None), now);
            let wait = schedule.due() - now;
            let expected = expected * S;
            assert!(
                wait >= expected / 2 && wait <= expected * 3 / 2,
                "{wait:?} {expected:?}"
            );
            now = schedule.due();
        }
        schedule.follow(&delivered(), now);
        let beat = (schedule.due() - begun).as_millis() % 15_000;
        assert_eq!(beat, 0, "the beat goes on");
        schedule.follow(&failed(None), now);
        assert!(schedule.due() - now <= 2 * S);
    }

    #[test]
    fn jitter_sets_hosts_apart() {
        let now = Instant::now();
        let waits: std::collections::BTreeSet<Duration> = (0..32)
            .map(|_| {
                let mut schedule = Schedule::new(15 * S, now);
                schedule.follow(&failed(None), now);
                schedule.due() - now
            })
            .collect();
        assert!(waits.len() > 8, "{waits:?}");
    }

    #[test]
    fn retry_waits_as_long_as_the_receiver_requested() {
        let now = Instant::now();
        let mut schedule = Schedule::new(S, now);
        schedule.follow(&failed(Some(120)), now);
        assert_eq!(schedule.due(), now + 120 * S);
    }
}
