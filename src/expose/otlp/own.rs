//! The exporter's own metrics, read from prometheus-client's registry.
//!
//! The registry exposes its values only to its own encoders: one for text, and one for protobuf
//! that needs protoc at build time. So this parses the text, a few dozen lines. It is the text of
//! `/metrics`, so pushes cannot contain anything else.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;

use crate::engine::Buckets;
use crate::metric::{Kind, Metric};
use crate::snapshot::{metrics, Labels, Row, Value, Visitor};

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

/// Also receives histograms, of the metric announced last.
pub(super) trait Histograms: Visitor {
    fn put_histogram(&mut self, row: Row<'_>, histogram: Histogram);
}

/// Passes all metrics of the registry to `visitor`.
pub(super) fn visit(registry: &Registry, visitor: &mut impl Histograms) {
    let mut text = String::new();
    // Writing to a String cannot fail; a metric that cannot be encoded is also logged by /metrics.
    if let Err(error) = encode_registry(&mut text, registry) {
        tracing::error!(%error, "cannot encode the exporter's own metrics; they are not pushed");
        return;
    }
    let mut announced = None;
    let mut histograms = Parts::default();
    for (metric, sample) in text.lines().filter_map(sample) {
        if announced != Some(metric.name) {
            histograms.give(visitor);
            visitor.metric(metric);
            announced = Some(metric.name);
        }
        match metric.kind {
            Kind::Histogram => histograms.take(metric, sample),
            _ => visitor.sample(
                Row::of_host(&sample.labels),
                &Labels::default(),
                sample.value,
            ),
        }
    }
    histograms.give(visitor);
}

struct Sample<'a> {
    name: &'a str,
    labels: Labels,
    /// Upper bound of a bucket.
    bound: Option<f64>,
    value: Value,
}

/// Parses a line of OpenMetrics as prometheus-client writes it: no timestamps, no exemplars.
fn sample(line: &str) -> Option<(&'static Metric, Sample<'_>)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let metric = metric(name)?;
    let (pairs, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = value.trim();
    let value = match value.parse() {
        Ok(n) => Value::Int(n),
        Err(_) => Value::Float(value.parse().ok()?),
    };
    let bound = pairs.iter().find(|(name, _)| *name == "le");
    let bound = bound.and_then(|(_, bound)| bound.parse().ok());
    // The metric's labels are static, as labels of a series must be.
    let named = |name: &str| metric.labels().find(|known| *known == name);
    let known = pairs.into_iter();
    let known = known.filter_map(|(name, value)| Some((named(name)?, value.into())));
    let sample = Sample {
        name,
        labels: Labels::new(known),
        bound,
        value,
    };
    Some((metric, sample))
}

/// The metric that a sample name belongs to.
fn metric(name: &str) -> Option<&'static Metric> {
    let ends = ["_bucket", "_count", "_sum"];
    metrics::find(name).or_else(|| {
        let family = ends.iter().find_map(|end| name.strip_suffix(end))?;
        metrics::find(family).filter(|metric| metric.kind == Kind::Histogram)
    })
}

/// Label pairs up to the closing brace, unescaped, and the rest of the line.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut pairs = Vec::new();
    loop {
        if let Some(value) = rest.strip_prefix('}') {
            return Some((pairs, value));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (_, c) => value.push(c),
            }
        };
        pairs.push((name.trim_start_matches(','), value));
        rest = after.get(end + 1..)?;
    }
}

/// Histograms of one metric, assembled from their lines.
#[derive(Default)]
struct Parts(BTreeMap<String, (Labels, Histogram, u64)>);

impl Parts {
    fn take(&mut self, metric: &Metric, sample: Sample<'_>) {
        let id = sample.labels.text().to_owned();
        let new = || (sample.labels, Histogram::default(), 0);
        let (_, histogram, below) = self.0.entry(id).or_insert_with(new);
        match (&sample.name[metric.name.len()..], sample.value) {
            ("_sum", value) => histogram.sum = value.as_f64(),
            ("_bucket", Value::Int(n)) => {
                // Each line includes all lower buckets.
                histogram.counts.push(n.saturating_sub(*below));
                *below = n;
                histogram
                    .bounds
                    .extend(sample.bound.filter(|bound| bound.is_finite()));
            }
            _ => {}
        }
    }

    fn give(&mut self, visitor: &mut impl Histograms) {
        for (_, (labels, histogram, _)) in std::mem::take(&mut self.0) {
            visitor.put_histogram(Row::of_host(&labels), histogram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{RequestLabels, Telemetry};
    use proptest::prelude::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Visitor for Seen {
        fn metric(&mut self, metric: &'static Metric) {
            self.0.push(metric.name.to_owned());
        }

        fn sample(&mut self, row: Row<'_>, _: &Labels, value: Value) {
            self.0
                .push(format!("  {{{}}} {value:?}", row.labels.text()));
        }

        fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
            self.put_histogram(row, buckets.into());
        }
    }

    impl Histograms for Seen {
        fn put_histogram(&mut self, row: Row<'_>, h: Histogram) {
            assert_eq!(h.bounds.len() + 1, h.counts.len());
            self.0.push(format!(
                "  {{{}}} {:?} {}",
                row.labels.text(),
                h.counts,
                h.sum
            ));
        }
    }

    #[test]
    fn every_kind_of_metric_is_read_back() {
        let (telemetry, registry) = Telemetry::new();
        telemetry.ticks.inc_by(7);
        telemetry.tick_cpu.inc_by(0.25);
        telemetry.tick_duration.observe(0.000_2);
        telemetry.tick_duration.observe(0.02);
        telemetry.tick_duration.observe(100.0);
        let labels = RequestLabels {
            path: "/metrics",
            code: 200,
        };
        telemetry.http_requests.get_or_create(&labels).inc();
        let mut seen = Seen::default();
        visit(&registry, &mut seen);
        let after = |metric: &str| {
            let at = seen.0.iter().position(|line| line == metric).unwrap();
            seen.0[at + 1].clone()
        };
        assert_eq!(after("kvm_exporter_ticks_total"), "  {} Int(7)");
        assert_eq!(
            after("kvm_exporter_tick_cpu_seconds_total"),
            "  {} Float(0.25)"
        );
        assert_eq!(
            after("kvm_exporter_http_requests_total"),
            "  {path=\"/metrics\",code=\"200\"} Int(1)"
        );
        let duration = after("kvm_exporter_tick_duration_seconds");
        assert_eq!(duration, "  {} [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1] 100.0202");
        assert!(after("kvm_exporter_build_info").ends_with("Int(1)"));
    }

    proptest! {
        #[test]
        fn escaped_values_are_read_back(value in "\\PC{0,40}") {
            let written = Labels::new([("source", value.clone().into())]);
            let line = format!("kvm_exporter_read_errors_total{{{}}} 1", written.text());
            let (_, sample) = sample(&line).unwrap();
            prop_assert_eq!(sample.labels.get("source"), Some(value.as_str()));
        }

        #[test]
        fn no_line_makes_it_panic(line in "(kvm_exporter_read_errors_total|process_open_fds)?[{}a=\",\\\\ 1n]{0,30}") {
            let _ = sample(&line);
        }
    }
}
