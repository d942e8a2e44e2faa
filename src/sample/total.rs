//! Counters that others may set back to 0.

/// One counter: what it said last, and all its increments.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Total {
    last: u64,
    sum: u64,
}

impl Total {
    /// Takes what the counter says now, and gives the sum. What it had counted before the first
    /// call is taken whole.
    pub(super) fn advance(&mut self, now: u64) -> u64 {
        // A counter that was set back has counted since from 0.
        let delta = now.checked_sub(self.last).unwrap_or(now);
        self.last = now;
        self.sum = self.sum.saturating_add(delta);
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
}
