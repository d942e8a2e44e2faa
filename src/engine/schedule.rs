//! A fixed schedule: ticks are due at whole periods after the start, independent of their
//! duration. And the pause after failures.

use std::time::{Duration, Instant};

/// A schedule of ticks.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    period: Duration,
    due: Instant,
}

impl Schedule {
    /// A schedule whose first tick is due at `start`. `period` is at least 1 ms.
    pub(crate) fn new(start: Instant, period: Duration) -> Self {
        Self {
            period: period.max(Duration::from_millis(1)),
            due: start,
        }
    }

    /// When the next tick is due; in the past if it is late.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Ends a tick: advances to the first tick that can still start in time, and returns the number
    /// of ticks skipped. Skipping is better than catching up: a burst of ticks would load a host
    /// that is already short of time, and measure almost nothing.
    pub(crate) fn ended(&mut self, now: Instant) -> u64 {
        self.due += self.period;
        let late = now.saturating_duration_since(self.due);
        let missed = late.as_nanos().div_ceil(self.period.as_nanos());
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.due += self.period * missed;
        u64::from(missed)
    }
}

/// Pause after this many failures in a row: `first`, then twice as long each time, at most `most`.
pub(crate) fn back_off(first: Duration, most: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tick_in_time_is_followed_by_the_next_period() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, SECOND);
        assert_eq!(schedule.due(), start);
        assert_eq!(schedule.ended(start + SECOND / 2), 0);
        assert_eq!(schedule.due(), start + SECOND);
        assert_eq!(schedule.ended(start + 2 * SECOND), 0);
        assert_eq!(schedule.due(), start + 2 * SECOND);
    }

    #[test]
    fn late_ticks_are_skipped_and_counted() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, SECOND);
        assert_eq!(schedule.ended(start + SECOND * 7 / 2), 3);
        assert_eq!(schedule.due(), start + 4 * SECOND);
    }

    proptest! {
        #[test]
        fn every_period_is_either_ticked_or_missed(durations in prop::collection::vec(0u64..5_000, 1..50)) {
            let start = Instant::now();
            let mut schedule = Schedule::new(start, SECOND);
            let (mut now, mut periods) = (start, 0);
            for ms in durations {
                now = now.max(schedule.due()) + Duration::from_millis(ms);
                periods += 1 + schedule.ended(now);
                prop_assert_eq!(schedule.due(), start + SECOND * periods as u32);
                prop_assert!(schedule.due() >= now);
            }
        }
    }
}
