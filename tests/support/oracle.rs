//! prometheus-client's encoding of a snapshot: slower, but independent of ours.
#![allow(dead_code, clippy::expect_used)]

use std::collections::HashMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use vcpu_exporter::metric::Buckets;
use vcpu_exporter::metric::{Kind, Metric};
use vcpu_exporter::snapshot::{visit_own, Labels, Row, Snapshot, Value, Visitor};
use vcpu_exporter::telemetry;

/// The snapshot and the exporter's own metrics as prometheus-client encodes them, without an age.
pub(crate) fn encode(snapshot: &Snapshot, own: &telemetry::Registry) -> String {
    let mut text = String::new();
    encode_into(&registry(snapshot, own), &mut text);
    text
}

/// A registry that encodes the snapshot and these metrics.
pub(crate) fn registry(snapshot: &Snapshot, own: &telemetry::Registry) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Oracle(families(snapshot, own))));
    registry
}

pub(crate) fn encode_into(registry: &Registry, text: &mut String) {
    prometheus_client::encoding::text::encode(text, registry).expect("a String takes everything");
}

/// A family and its samples.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    samples: Vec<(Pairs, Value)>,
    histograms: Vec<(Pairs, Buckets)>,
}

/// Exemplars of a histogram's buckets: none.
type Exemplars = HashMap<usize, Exemplar<[(&'static str, &'static str); 0], f64>>;

/// Label pairs, unrendered.
#[derive(Debug)]
struct Pairs(Vec<(&'static str, String)>);

impl EncodeLabelSet for Pairs {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_slice().encode(encoder)
    }
}

fn families(snapshot: &Snapshot, own: &telemetry::Registry) -> Vec<Family> {
    struct Collect(Vec<Family>);
    impl Visitor for Collect {
        fn metric(&mut self, metric: &'static Metric) {
            self.0.push(Family {
                metric,
                samples: Vec::new(),
                histograms: Vec::new(),
            });
        }
        fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
            let pairs = row.labels.pairs().iter();
            let pairs = pairs.map(|(name, value)| (*name, value.to_string()));
            let histogram = (Pairs(pairs.collect()), buckets.clone());
            let family = self.0.last_mut().expect("announced");
            family.histograms.push(histogram);
        }
        fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
            let pairs = row.labels.pairs().iter().chain(fixed.pairs());
            let pairs = pairs.map(|(name, value)| (*name, value.to_string()));
            let sample = (Pairs(pairs.collect()), value);
            self.0.last_mut().expect("announced").samples.push(sample);
        }
    }
    let mut collect = Collect(Vec::new());
    snapshot.visit(snapshot.taken_mono, &mut collect);
    visit_own(own, &mut collect);
    collect.0
}

#[derive(Debug)]
struct Oracle(Vec<Family>);

impl Collector for Oracle {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0
            .iter()
            .try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Metric { kind, help, .. } = *self.metric;
        let unit = self.metric.unit();
        // prometheus-client appends the unit itself.
        let name = self.metric.family();
        let name = name
            .strip_suffix(unit)
            .unwrap_or(name)
            .trim_end_matches('_');
        let unit = (!unit.is_empty()).then(|| Unit::Other(unit.to_owned()));
        let counter = ConstCounter::new(0_u64);
        let gauge = ConstGauge::new(0_i64);
        let kind_of = match kind {
            Kind::Counter => counter.metric_type(),
            Kind::Histogram => MetricType::Histogram,
            _ => gauge.metric_type(),
        };
        // The samples of an info are those of a gauge with the suffix.
        let name = if kind == Kind::Info {
            self.metric.name
        } else {
            name
        };
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind_of)?;
        for (pairs, buckets) in &self.histograms {
            let seconds = |ns: u64| ns as f64 / 1e9;
            let each = buckets.iter();
            let each = each.map(|(bound, n)| (bound.map_or(f64::INFINITY, seconds), n));
            let no_exemplars: Option<&Exemplars> = None;
            let (sum, count): (f64, _) = (seconds(buckets.sum()), buckets.count());
            let each: Vec<_> = each.collect();
            if pairs.0.is_empty() {
                // As below.
                family.encode_histogram(sum, count, &each, no_exemplars)?;
                continue;
            }
            let mut sample = family.encode_family(pairs)?;
            sample.encode_histogram(sum, count, &each, no_exemplars)?;
        }
        for (pairs, value) in &self.samples {
            if pairs.0.is_empty() {
                // Like a family with one series without labels: no empty braces.
                number(*value, kind, family)?;
                break;
            }
            number(*value, kind, family.encode_family(pairs)?)?;
        }
        Ok(())
    }
}

fn number(value: Value, kind: Kind, sample: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match (kind, value) {
        (Kind::Counter, Value::Int(n)) => ConstCounter::new(n).encode(sample),
        (Kind::Counter, value) => ConstCounter::new(value.as_f64()).encode(sample),
        (_, Value::Int(n)) => ConstGauge::new(n as i64).encode(sample),
        (_, value) => ConstGauge::new(value.as_f64()).encode(sample),
    }
}
