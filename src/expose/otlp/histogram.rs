//! Histograms as OTLP has them.

use super::protobuf::{bytes, fixed64, head};
use crate::metric::Buckets;
use crate::snapshot::Value;

/// A classic histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram {
    /// Upper bounds of the buckets without infinity.
    pub(super) bounds: Vec<f64>,
    /// Count of each bucket, not cumulative; the last bucket has no bound.
    pub(super) counts: Vec<u64>,
    /// Sum of all observations.
    pub(super) sum: f64,
}

impl From<&Buckets> for Histogram {
    fn from(buckets: &Buckets) -> Self {
        let bounds = buckets.iter().filter_map(|(bound, _)| bound);
        Self {
            bounds: bounds.map(|ns| ns as f64 / 1e9).collect(),
            counts: buckets.iter().map(|(_, count)| count).collect(),
            sum: Value::Nanoseconds(buckets.sum()).as_f64(),
        }
    }
}

impl Histogram {
    /// Appends a `HistogramDataPoint` with these encoded attributes, as a data point of `Histogram`.
    pub(super) fn append(&self, attributes: &[u8], [start, time]: [u64; 2], out: &mut Vec<u8>) {
        let mut point = Vec::with_capacity(256);
        point.extend_from_slice(attributes);
        fixed64(&mut point, 2, start);
        fixed64(&mut point, 3, time);
        fixed64(&mut point, 4, self.counts.iter().sum());
        fixed64(&mut point, 5, self.sum.to_bits());
        // Packed: bucket_counts are fixed64, explicit_bounds double.
        let packed = |out: &mut Vec<u8>, field, words: &mut dyn ExactSizeIterator<Item = u64>| {
            head(out, field, 8 * words.len());
            words.for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        };
        packed(&mut point, 6, &mut self.counts.iter().copied());
        packed(&mut point, 7, &mut self.bounds.iter().map(|x| x.to_bits()));
        bytes(out, 1, &point);
    }
}
