//! When to push next: on a fixed beat, and after a failure sooner or later, as the OTLP
//! specification asks: exponential backoff with jitter, and never before the receiver said.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::push::Outcome;

/// Wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// Longest wait of our own accord: a receiver that is back is found within this.
const LONGEST: Duration = Duration::from_secs(60);

/// When one endpoint's turn is.
#[derive(Debug)]
pub struct Schedule {
    interval: Duration,
    /// The beat's next time.
    beat: Instant,
    due: Instant,
    failures: u32,
    jitter: RandomState,
}

impl Schedule {
    /// The first push is due now.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            beat: now,
            due: now,
            failures: 0,
            jitter: RandomState::new(),
        }
    }

    /// When the next push is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Takes what became of the push that was due.
    pub fn follow(&mut self, outcome: &Outcome, now: Instant) {
        // Times that went by during a long push are left out.
        let late = now.saturating_duration_since(self.beat).as_nanos();
        let beats = late / self.interval.as_nanos().max(1) + 1;
        self.beat += self.interval * u32::try_from(beats).unwrap_or(u32::MAX);
        match outcome {
            Outcome::Failed { after, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = self.backoff().max(after.unwrap_or_default());
                self.due = now + wait;
            }
            // Nothing to be had before the first tick: look again soon.
            Outcome::NoSample => self.due = now + FIRST,
            Outcome::Delivered { .. } | Outcome::Refused { .. } => {
                self.failures = 0;
                self.due = self.beat;
            }
        }
    }

    /// Twice as long for each failure, and between a half and one and a half of that, so that the
    /// hosts of a fleet do not come back all at once.
    fn backoff(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
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
    fn it_does_not_come_before_it_was_told_to() {
        let now = Instant::now();
        let mut schedule = Schedule::new(S, now);
        schedule.follow(&failed(Some(120)), now);
        assert_eq!(schedule.due(), now + 120 * S);
    }
}
