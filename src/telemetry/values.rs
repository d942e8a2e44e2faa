//! Values of the exporter's own metrics. Outputs read them like the rows of a snapshot.
//!
//! Counters and gauges are prometheus-client's. Its families, histograms and registry can be read
//! only as text, so these are ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::metric::{Buckets, FactValue, Label, Metric};

/// Receives series: labels and value.
pub type Put<'a> = &'a mut dyn FnMut(Vec<Label>, FactValue);

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

/// The labels of a series in a [`Family`].
pub trait LabelSet: Ord + Clone + Send + Sync {
    /// Names and values.
    fn labels(&self) -> Vec<Label>;
}

/// Values by label; a clone shares them.
#[derive(Debug)]
pub struct Family<L, V> {
    values: Arc<RwLock<BTreeMap<L, V>>>,
    new: fn() -> V,
}

impl<L: LabelSet, V: Clone> Family<L, V> {
    pub(super) fn new(new: fn() -> V) -> Self {
        let values = Arc::default();
        Self { values, new }
    }

    /// The value with these labels; a new one is 0.
    pub fn get_or_create(&self, labels: &L) -> V {
        let known = self.values.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known.get(labels) {
            return value.clone();
        }
        drop(known);
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        values
            .entry(labels.clone())
            .or_insert_with(self.new)
            .clone()
    }
}

impl<L: LabelSet, V: Clone + Default> Default for Family<L, V> {
    fn default() -> Self {
        Self::new(V::default)
    }
}

impl<L, V> Clone for Family<L, V> {
    fn clone(&self) -> Self {
        let (values, new) = (self.values.clone(), self.new);
        Self { values, new }
    }
}

impl<L: LabelSet, V: Values> Values for Family<L, V> {
    fn read(&self, put: Put<'_>) {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, value) in &*values {
            value.read(&mut |_, value| put(labels.labels(), value));
        }
    }
}

/// A histogram of durations; a clone shares it.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Mutex<Buckets>>);

impl Histogram {
    /// An empty histogram with these bounds (nanoseconds, ascending).
    pub(super) fn new(bounds: &'static [u64]) -> Self {
        Self(Arc::new(Mutex::new(Buckets::new(bounds, &[], 0))))
    }

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

impl Values for Gauge {
    fn read(&self, put: Put<'_>) {
        let n = self.get().try_into().unwrap_or(0);
        put(Vec::new(), FactValue::Int(n));
    }
}

impl Values for Gauge<f64, AtomicU64> {
    fn read(&self, put: Put<'_>) {
        put(Vec::new(), FactValue::Float(self.get()));
    }
}

/// Facts in labels.
pub(super) struct Info(pub(super) Vec<Label>);

impl Values for Info {
    fn read(&self, put: Put<'_>) {
        put(self.0.clone(), FactValue::Int(1));
    }
}
