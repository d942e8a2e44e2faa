//! Values of the exporter's own metrics. Outputs read them like the rows of a snapshot.
//!
//! Counters and gauges are prometheus-client's. Its families, histograms and registry can be read
//! only as text, so these are ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::metric::{Buckets, FactValue, Label, Metric};

/// Receives series: labels and value.
pub(crate) type Put<'a> = &'a mut dyn FnMut(Vec<Label>, FactValue);

/// The series of one metric.
pub trait Values: Send + Sync {
    /// Passes each series to `put`.
    fn read(&self, put: Put<'_>);
}

/// All metrics of the exporter itself, in exposition order.
#[derive(Default)]
pub struct Registry(Vec<(&'static Metric, Box<dyn Values>)>);

impl Registry {
    pub(super) fn add(&mut self, metric: &'static Metric, values: impl Values + 'static) {
        self.0.push((metric, Box::new(values)));
    }

    /// The metrics and their series.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, &dyn Values)> {
        self.0.iter().map(|(metric, values)| (*metric, &**values))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(m, _)| m)).finish()
    }
}

/// Values by labels; a clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Family<const N: usize, V>(Arc<Mutex<BTreeMap<[Label; N], V>>>);

impl<const N: usize, V: Clone + Default> Family<N, V> {
    /// The value with these labels; a new one is 0.
    pub fn get_or_create(&self, labels: [Label; N]) -> V {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.entry(labels).or_default().clone()
    }
}

impl<const N: usize, V: Values> Values for Family<N, V> {
    fn read(&self, put: Put<'_>) {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in &*values {
            value.read(&mut |_, value| put(labels.to_vec(), value));
        }
    }
}

/// A histogram of durations; a clone shares it.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Mutex<Buckets>>);

impl Default for Histogram {
    /// Buckets from 100 µs (a tick over one idle VM) to 3 s (a tick that overruns its second).
    fn default() -> Self {
        const US: u64 = 1000;
        const MS: u64 = 1_000_000;
        const BOUNDS: &[u64] = &[
            100 * US,
            300 * US,
            MS,
            3 * MS,
            10 * MS,
            30 * MS,
            100 * MS,
            300 * MS,
            1000 * MS,
            3000 * MS,
        ];
        Self(Arc::new(Mutex::new(Buckets::new(BOUNDS, &[], 0))))
    }
}

impl Histogram {
    /// Adds a duration in seconds.
    pub fn observe(&self, seconds: f64) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.add((seconds * 1e9).round() as u64);
    }
}

impl Values for Histogram {
    fn read(&self, put: Put<'_>) {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        put(Vec::new(), FactValue::Histogram(Arc::new(buckets.clone())));
    }
}

impl Values for Counter {
    fn read(&self, put: Put<'_>) {
        put(Vec::new(), FactValue::Int(self.get()));
    }
}

impl Values for Counter<f64, AtomicU64> {
    fn read(&self, put: Put<'_>) {
        put(Vec::new(), FactValue::Float(self.get()));
    }
}

impl Values for Gauge<u64, AtomicU64> {
    fn read(&self, put: Put<'_>) {
        put(Vec::new(), FactValue::Int(self.get()));
    }
}

impl Values for Gauge<f64, AtomicU64> {
    fn read(&self, put: Put<'_>) {
        put(Vec::new(), FactValue::Float(self.get()));
    }
}
