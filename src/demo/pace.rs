//! A fixed schedule: deadlines at equal distances on the monotonic clock, so a late wake-up does
//! not move the next.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{clock_gettime, ClockId, Timespec};

/// How far a thread may be behind the schedule and still catch up, with immediate wake-ups. If it
/// is further behind (stopped or starved), the missed deadlines are skipped and counted.
const MOST_BEHIND: Duration = Duration::from_secs(1);

/// Nanoseconds of the monotonic clock.
pub(super) fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// Deadlines a period apart.
#[derive(Debug)]
pub(super) struct Schedule {
    period: Duration,
    next: Duration,
    skipped: u64,
}

impl Schedule {
    /// A schedule whose first deadline is one period from `now`.
    pub(super) fn starting(now: Duration, period: Duration) -> Self {
        Self {
            period,
            next: now + period,
            skipped: 0,
        }
    }

    /// Sleeps until the next deadline; returns immediately if it has passed.
    pub(super) fn wait(&mut self) {
        // Seconds since the boot always fit.
        let deadline = Timespec::try_from(self.take(now())).unwrap_or_default();
        // A signal interrupts the sleep; sleep for the rest.
        while clock_nanosleep_absolute(ClockId::Monotonic, &deadline)
            == Err(rustix::io::Errno::INTR)
        {}
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The deadline to wait for at `now`.
    fn take(&mut self, now: Duration) -> Duration {
        let behind = now.saturating_sub(self.next);
        if behind > MOST_BEHIND {
            let passed = u32::try_from(behind.as_nanos() / self.period.as_nanos().max(1));
            let passed = passed.unwrap_or(u32::MAX);
            self.skipped += u64::from(passed);
            self.next += self.period * passed;
        }
        let deadline = self.next;
        self.next += self.period;
        deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(10);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn lateness_does_not_move_the_deadlines() {
        let mut schedule = Schedule::starting(ms(0), PERIOD);
        assert_eq!(schedule.take(ms(0)), ms(10));
        assert_eq!(schedule.take(ms(17)), ms(20));
        // Two deadlines late: both are caught up immediately, then the schedule is on time.
        assert_eq!(schedule.take(ms(45)), ms(30));
        assert_eq!(schedule.take(ms(45)), ms(40));
        assert_eq!(schedule.take(ms(45)), ms(50));
        assert_eq!(schedule.skipped(), 0);
    }

    #[test]
    fn a_long_stop_is_left_out_and_counted() {
        let mut schedule = Schedule::starting(ms(0), PERIOD);
        assert_eq!(schedule.take(ms(5_013)), ms(5_010));
        assert_eq!(schedule.skipped(), 500);
        assert_eq!(schedule.take(ms(5_013)), ms(5_020));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let start = now();
        let mut schedule = Schedule::starting(start, Duration::from_millis(1));
        schedule.wait();
        schedule.wait();
        assert!(now() >= start + Duration::from_millis(2));
    }
}
