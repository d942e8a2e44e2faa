//! A histogram of durations, as in Prometheus classic histograms.

/// Durations counted by the smallest bound that they do not exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    bounds: &'static [u64],
    counts: Box<[u64]>,
    sum: u64,
}

impl Buckets {
    /// A histogram of `counts`, one for each of `bounds` (nanoseconds, ascending) and a last one
    /// for longer durations; the counts are not cumulative. Missing counts are 0; surplus counts
    /// are added to the last bucket. `sum` is in nanoseconds.
    pub fn new(bounds: &'static [u64], counts: &[u64], sum: u64) -> Self {
        let mut own = vec![0u64; bounds.len() + 1];
        for (n, count) in counts.iter().enumerate() {
            let bucket = &mut own[n.min(bounds.len())];
            *bucket = bucket.saturating_add(*count);
        }
        Self {
            bounds,
            counts: own.into(),
            sum,
        }
    }

    /// A histogram of counts by power of two: number n has durations of at most 2^n nanoseconds. All
    /// bounds are powers of two.
    pub(crate) fn from_powers(bounds: &'static [u64], counts: &[u64], sum: u64) -> Self {
        let mut own = vec![0u64; bounds.len() + 1];
        for (power, count) in (0..).zip(counts) {
            let longest = 1u64.checked_shl(power).unwrap_or(u64::MAX);
            let bucket = &mut own[bounds.partition_point(|bound| *bound < longest)];
            *bucket = bucket.saturating_add(*count);
        }
        Self {
            bounds,
            counts: own.into(),
            sum,
        }
    }

    /// Adds a duration (nanoseconds).
    pub fn add(&mut self, duration: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < duration);
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
    }

    /// Upper bound of each bucket in nanoseconds (`None` for the last), with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Sum of the durations in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Number of series: one per bucket, plus sum and count.
    pub fn series(&self) -> usize {
        self.counts.len() + 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_than_all_bounds_is_in_the_last_bucket() {
        let buckets = Buckets::new(&[10, 20], &[1, 2, 3, 4], 77);
        let all: Vec<_> = buckets.iter().collect();
        assert_eq!(all, [(Some(10), 1), (Some(20), 2), (None, 7)]);
        assert_eq!(
            (buckets.count(), buckets.sum(), buckets.series()),
            (10, 77, 5)
        );
    }

    #[test]
    fn durations_are_added_to_the_first_bucket_that_holds_them() {
        let mut buckets = Buckets::new(&[10, 20], &[], 0);
        [0, 10, 11, 21].into_iter().for_each(|ns| buckets.add(ns));
        assert_eq!(buckets, Buckets::new(&[10, 20], &[2, 1, 1], 42));
    }

    #[test]
    fn missing_counts_are_0() {
        let buckets = Buckets::new(&[10], &[], 0);
        assert_eq!(
            buckets.iter().collect::<Vec<_>>(),
            [(Some(10), 0), (None, 0)]
        );
    }
}
