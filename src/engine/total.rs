//! Counters that may be reset, and deltas that are impossible.

/// Deltas from this value are impossible: as nanoseconds it is 36 years, as cycles of a 5 GHz core
/// 7 years, as bytes an exabyte.
const IMPOSSIBLE: u64 = 1 << 60;

/// The delta, or 0 if it is impossible: it would saturate the total for ever. The next delta
/// counts from the value just read.
pub(crate) fn possible(increment: u64) -> u64 {
    match increment {
        IMPOSSIBLE.. => 0,
        increment => increment,
    }
}

/// Adds to a sum, which stays at the maximum instead of overflowing.
pub(crate) fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// One counter: its last value, and the sum of its deltas.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Total {
    last: u64,
    sum: u64,
}

impl Total {
    /// Starts from the value `now`, which was counted before or for others.
    pub(crate) fn from(now: u64) -> Self {
        Self { last: now, sum: 0 }
    }

    /// Adds the delta up to the value `now` and returns the sum. The first call adds the whole
    /// value.
    pub(crate) fn advance(&mut self, now: u64) -> u64 {
        // A reset counter has counted from 0 since.
        let delta = now.checked_sub(self.last).unwrap_or(now);
        self.last = now;
        self.sum = self.sum.saturating_add(possible(delta));
        self.sum
    }

    /// Adds the delta of a counter that may step back slightly without a reset. A step back of at
    /// most `slack` is ignored until the counter catches up; after a larger one, counting continues
    /// from `now`.
    pub(crate) fn advance_unless_back(&mut self, now: u64, slack: u64) {
        if now < self.last && self.last - now <= slack {
            return;
        }
        let delta = possible(now.saturating_sub(self.last));
        self.last = now;
        self.sum = self.sum.saturating_add(delta);
    }

    /// The sum of all deltas.
    pub(crate) fn sum(self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_counter_continues() {
        let mut total = Total::default();
        let sums = [5, 7, 2, 2, 3].map(|now| total.advance(now));
        assert_eq!(sums, [5, 7, 9, 9, 10]);
        assert_eq!(total.sum(), 10);
    }

    #[test]
    fn existing_counter_counts_from_its_current_value() {
        let mut total = Total::from(1000);
        assert_eq!([1000, 1007, 3].map(|now| total.advance(now)), [0, 7, 10]);
    }

    #[test]
    fn small_step_back_is_ignored_and_a_large_one_restarts() {
        let mut total = Total::default();
        let sums = [100, 98, 99, 101, 40, 45, u64::MAX, 50].map(|now| {
            total.advance_unless_back(now, 10);
            total.sum()
        });
        assert_eq!(sums, [100, 100, 100, 101, 101, 106, 106, 106]);
        total.advance_unless_back(57, 10);
        assert_eq!(total.sum(), 113);
    }

    #[test]
    fn impossible_value_is_skipped_and_counting_continues() {
        let mut total = Total::default();
        let sums = [5, u64::MAX, 3, 10, u64::MAX - 1].map(|now| total.advance(now));
        assert_eq!(sums, [5, 5, 8, 15, 15]);
    }
}
