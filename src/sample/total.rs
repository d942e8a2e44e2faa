//! Counters that others may set back to 0, and increments that cannot be.

/// What a counter may go on by at once: in nanoseconds 36 years, in cycles of a 5 GHz core 7 years,
/// in bytes an exabyte.
const IMPOSSIBLE: u64 = 1 << 60;

/// An increment, or 0 for one that cannot be: a total that took it would stand at its end for ever.
/// What the counter says next goes on from what it said.
pub(super) fn possible(increment: u64) -> u64 {
    match increment {
        IMPOSSIBLE.. => 0,
        increment => increment,
    }
}

/// One counter: what it said last, and all its increments.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Total {
    last: u64,
    sum: u64,
}

impl Total {
    /// Counts from here on: what the counter says now was counted for others, or before.
    pub(super) fn from(now: u64) -> Self {
        Self { last: now, sum: 0 }
    }

    /// Takes what the counter says now, and gives the sum. What it had counted before the first
    /// call is taken whole.
    pub(super) fn advance(&mut self, now: u64) -> u64 {
        // A counter that was set back has counted since from 0.
        let delta = now.checked_sub(self.last).unwrap_or(now);
        self.last = now;
        self.sum = self.sum.saturating_add(possible(delta));
        self.sum
    }

    /// The sum as it is.
    pub(super) fn sum(self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_was_set_back_goes_on() {
        let mut total = Total::default();
        let sums = [5, 7, 2, 2, 3].map(|now| total.advance(now));
        assert_eq!(sums, [5, 7, 9, 9, 10]);
        assert_eq!(total.sum(), 10);
    }

    #[test]
    fn counter_that_was_there_before_counts_from_here_on() {
        let mut total = Total::from(1000);
        assert_eq!([1000, 1007, 3].map(|now| total.advance(now)), [0, 7, 10]);
    }

    #[test]
    fn impossible_value_is_skipped_and_counting_goes_on() {
        let mut total = Total::default();
        let sums = [5, u64::MAX, 3, 10, u64::MAX - 1].map(|now| total.advance(now));
        assert_eq!(sums, [5, 5, 8, 15, 15]);
    }
}
