//! A histogram of durations in powers of two.

#![forbid(unsafe_code)]

/// Durations, counted by the smallest power of two of nanoseconds that is not below them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Histogram::BUCKETS],
    sum: u64,
}

impl Histogram {
    /// Number of buckets: `le` 2^0 ns to 2^39 ns (9 minutes), the last without a bound.
    pub(crate) const BUCKETS: usize = 41;

    /// Counts one duration, in nanoseconds.
    pub fn observe(&mut self, nanoseconds: u64) {
        let bucket = match nanoseconds {
            0 | 1 => 0,
            n => (u64::BITS - (n - 1).leading_zeros()) as usize,
        };
        let bucket = &mut self.counts[bucket.min(Self::BUCKETS - 1)];
        *bucket = bucket.saturating_add(1);
        self.sum = self.sum.saturating_add(nanoseconds);
    }

    /// Counts of the buckets, not cumulative: bucket `i` counts durations above 2^(i-1) ns and up
    /// to 2^i ns, the last one all longer ones.
    pub fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Sum of the durations in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Self) {
        let Self { counts, sum } = other;
        for (mine, theirs) in self.counts.iter_mut().zip(counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.sum = self.sum.saturating_add(*sum);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; Self::BUCKETS],
            sum: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut histogram = Histogram::default();
        for n in [0, 1, 2, 3, 4, 5, 1024, 1025, u64::MAX] {
            histogram.observe(n);
        }
        let filled = histogram.counts().iter().enumerate();
        let filled: Vec<_> = filled
            .filter(|(_, n)| **n > 0)
            .map(|(i, n)| (i, *n))
            .collect();
        assert_eq!(
            filled,
            [(0, 2), (1, 1), (2, 2), (3, 1), (10, 1), (11, 1), (40, 1)]
        );
        assert_eq!(histogram.count(), 9);
        assert_eq!(histogram.sum(), u64::MAX);
    }
}
