//! The series that an OTLP receiver got, in the form of Prometheus.
//!
//! The names are translated here by the standard's rules, independently of the exporter, to check
//! its translation. Source: OpenTelemetry specification, "Prometheus and OpenMetrics
//! Compatibility", "OTLP Metric points to Prometheus"; the order of steps is that of Prometheus's
//! otlptranslator 1.0 (its UnderscoreEscapingWithSuffixes).
#![allow(dead_code, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{any_value, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;

/// A series: its name and labels, without empty labels, because Prometheus treats them as absent.
pub(crate) type Id = (String, BTreeMap<String, String>);

/// Values by series.
pub(crate) type All = BTreeMap<Id, f64>;

/// The kind of a data point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    /// Monotonic, and whether it is cumulative.
    Sum {
        cumulative: bool,
    },
    Histogram {
        cumulative: bool,
    },
}

/// One data point from any receiver.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) start: u64,
    pub(crate) time: u64,
    pub(crate) value: f64,
    pub(crate) is_int: bool,
    /// For a histogram: the count of each bucket, not cumulative.
    pub(crate) counts: Vec<u64>,
    pub(crate) bounds: Vec<f64>,
}

/// The Prometheus name of an OTLP metric.
pub(crate) fn translated(name: &str, unit: &str, kind: Kind) -> String {
    let separator = |c: char| !c.is_ascii_alphanumeric() && c != ':';
    let mut tokens: Vec<&str> = name.split(separator).filter(|t| !t.is_empty()).collect();
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    assert_eq!(per, "", "{name}: no metric here is a rate");
    let main = match main.trim() {
        braced if braced.contains(['{', '}']) => "",
        "s" => "seconds",
        "By" => "bytes",
        "Hz" => "hertz",
        "Cel" => "celsius",
        // A gauge's would become _ratio.
        "1" => panic!("{name} has the unit 1"),
        "" => "",
        other => panic!("{name}: the unit {other} is not one of those that are known here"),
    };
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if matches!(kind, Kind::Sum { .. }) {
        tokens.retain(|token| *token != "total");
        tokens.push("total");
    }
    let joined = tokens.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{joined}")
    } else {
        joined
    }
}

impl Point {
    /// Adds its series in Prometheus to `into`.
    pub(crate) fn series(&self, into: &mut All) {
        let name = translated(&self.name, &self.unit, self.kind);
        let mut put = |suffix: &str, more: Option<(&str, String)>, value: f64| {
            let labels = self.attributes.iter();
            let labels = labels.map(|(k, v)| (k.clone(), v.clone()));
            let labels = labels.chain(more.map(|(k, v)| (k.to_owned(), v)));
            let labels = labels.filter(|(_, value)| !value.is_empty());
            let id = (format!("{name}{suffix}"), labels.collect());
            let before = into.insert(id.clone(), value);
            assert_eq!(before, None, "{id:?} was there");
        };
        if !matches!(self.kind, Kind::Histogram { .. }) {
            return put("", None, self.value);
        }
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut below = 0;
        for (count, bound) in self.counts.iter().zip(bounds) {
            below += count;
            put("_bucket", Some(("le", bound.to_string())), below as f64);
        }
        put("_count", None, below as f64);
        put("_sum", None, self.value);
    }
}

/// All series of these points, each of which must occur once.
pub(crate) fn series<'a>(points: impl IntoIterator<Item = &'a Point>) -> All {
    let mut all = All::new();
    for point in points {
        point.series(&mut all);
    }
    all
}

/// The series of an exposition in the same form: names, labels and values of its samples.
pub(crate) fn exposed<'a>(
    samples: impl IntoIterator<Item = (&'a String, &'a BTreeMap<String, String>, f64)>,
) -> All {
    let mut all = All::new();
    for (name, labels, value) in samples {
        let mut labels = labels.clone();
        labels.retain(|_, value| !value.is_empty());
        if let Some(le) = labels.get_mut("le") {
            let bound: f64 = le.parse().expect("a bound");
            *le = bound.to_string();
        }
        all.insert((name.clone(), labels), value);
    }
    all
}

/// Fails with the first few series that differ.
pub(crate) fn assert_same(shown: &All, pushed: &All) {
    let mut wrong = Vec::new();
    for (id, value) in shown {
        match pushed.get(id) {
            None => wrong.push(format!("not pushed: {id:?}")),
            Some(other) if other != value => wrong.push(format!("{id:?}: {value} and {other}")),
            Some(_) => {}
        }
    }
    let only_pushed = pushed.keys().filter(|id| !shown.contains_key(id));
    wrong.extend(only_pushed.map(|id| format!("not shown: {id:?}")));
    let few = wrong.iter().take(10).cloned().collect::<Vec<_>>();
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        few.join("\n")
    );
}

/// All data points of a request.
pub(crate) fn points(request: &ExportMetricsServiceRequest) -> Vec<Point> {
    let mut all = Vec::new();
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics);
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        let bare = Point {
            name: metric.name.clone(),
            unit: metric.unit.clone(),
            help: metric.description.clone(),
            kind: Kind::Gauge,
            attributes: BTreeMap::new(),
            start: 0,
            time: 0,
            value: 0.0,
            is_int: false,
            counts: Vec::new(),
            bounds: Vec::new(),
        };
        // AGGREGATION_TEMPORALITY_DELTA is 1, _CUMULATIVE 2.
        let cumulative = |temporality| match temporality {
            1 => false,
            2 => true,
            other => panic!("{}: temporality {other}", bare.name),
        };
        match metric.data.as_ref().expect("a metric has data") {
            Data::Gauge(gauge) => {
                all.extend(gauge.data_points.iter().map(|p| number(&bare, p)));
            }
            Data::Sum(sum) => {
                assert!(sum.is_monotonic, "{}", bare.name);
                let cumulative = cumulative(sum.aggregation_temporality);
                let kind = Kind::Sum { cumulative };
                let bare = Point { kind, ..bare };
                all.extend(sum.data_points.iter().map(|p| number(&bare, p)));
            }
            Data::Histogram(histogram) => {
                let cumulative = cumulative(histogram.aggregation_temporality);
                all.extend(histogram.data_points.iter().map(|p| {
                    let counted: u64 = p.bucket_counts.iter().sum();
                    assert_eq!(p.count, counted);
                    Point {
                        kind: Kind::Histogram { cumulative },
                        attributes: attributes(&p.attributes),
                        start: p.start_time_unix_nano,
                        time: p.time_unix_nano,
                        value: p.sum.expect("a sum"),
                        counts: p.bucket_counts.clone(),
                        bounds: p.explicit_bounds.clone(),
                        ..bare.clone()
                    }
                }));
            }
            other => panic!("{other:?}"),
        }
    }
    all
}

fn number(bare: &Point, point: &NumberDataPoint) -> Point {
    let (value, is_int) = match point.value.expect("a point has a value") {
        Value::AsInt(n) => (n as f64, true),
        Value::AsDouble(x) => (x, false),
    };
    Point {
        attributes: attributes(&point.attributes),
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        value,
        is_int,
        ..bare.clone()
    }
}

pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|v| v.value.as_ref());
        match value {
            Some(any_value::Value::StringValue(text)) => (pair.key.clone(), text.clone()),
            other => panic!("{}: {other:?}", pair.key),
        }
    };
    let all: BTreeMap<_, _> = pairs.iter().map(text).collect();
    assert_eq!(all.len(), pairs.len(), "duplicate attribute");
    all
}
