//! Encodes a snapshot as OTLP requests (opentelemetry-proto 1.x, `ExportMetricsServiceRequest`).
//!
//! Hand-written, because the SDK does not support a sample's own time, a start time for each
//! series, or an unlimited number of series. Attributes are rendered once for each row and kept, so
//! a data point takes a few copies, like a line of `/metrics`.

use std::time::Instant;

use bytes::Bytes;
use prost::encoding::{encode_varint, uint64};

use super::delta::{Id, Ledger, PendingDelta};
use super::histogram::Histogram;
use super::protobuf::{attribute, bytes, fixed64, head, with_head};
use super::starts::Clock;
use super::{names, Resource};
use crate::engine::Origin;
use crate::metric::{Buckets, Kind, Label, Metric};
use crate::snapshot::visit::unix_ns;
use crate::snapshot::{visit_own, Labels, Row, Snapshot, Value, Visitor};
use crate::telemetry::Registry;

/// Bytes of data points after which a new request starts. gRPC receivers accept 4 MiB by default,
/// counted after decompression.
pub const REQUEST: usize = 2 << 20;

/// A part of the snapshot.
#[derive(Debug)]
pub struct Request {
    /// The encoded `ExportMetricsServiceRequest`.
    pub body: Bytes,
    /// Number of data points.
    pub points: u64,
    /// Totals that the receiver has once this request has arrived.
    pub(super) pending_deltas: Vec<PendingDelta>,
}

/// What to push.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// The newest when the push starts.
    pub snapshot: &'a Snapshot,
    /// The exporter's own metrics.
    pub registry: &'a Registry,
    /// The time of the push, for the age of the sample.
    pub now: Instant,
    /// The same time in nanoseconds since the Unix epoch: the timestamp of the exporter's own
    /// metrics.
    pub now_unix: u64,
}

/// Encodes snapshots for one receiver, and reuses its buffers.
#[derive(Debug)]
pub struct Encoder {
    resource: Resource,
    clock: Clock,
    /// What was delivered, if deltas are pushed.
    ledger: Option<Ledger>,
    points: Vec<u8>,
    metrics: Vec<u8>,
}

impl Encoder {
    /// An encoder of cumulative totals.
    pub fn cumulative(resource: Resource, clock: Clock) -> Self {
        Self {
            resource,
            clock,
            ledger: None,
            points: Vec::new(),
            metrics: Vec::new(),
        }
    }

    /// An encoder of deltas.
    pub fn delta(resource: Resource, clock: Clock) -> Self {
        Self {
            ledger: Some(Ledger::new(clock.process())),
            ..Self::cumulative(resource, clock)
        }
    }

    /// Encodes the whole snapshot, in requests of a size that every receiver accepts.
    pub fn encode(&mut self, export: &Export<'_>) -> Vec<Request> {
        let snapshot = export.snapshot;
        let mut writer = Writer {
            resource: &self.resource,
            clock: self.clock,
            taken: unix_ns(snapshot.taken),
            now: export.now_unix,
            ledger: self.ledger.as_mut(),
            metric: None,
            points: &mut self.points,
            metrics: &mut self.metrics,
            in_request: 0,
            pending_deltas: Vec::new(),
            requests: Vec::new(),
        };
        snapshot.visit(export.now, &mut writer);
        visit_own(export.registry, &mut writer);
        writer.end_metric();
        writer.end_request();
        if let Some(ledger) = writer.ledger {
            ledger.end_round(snapshot.vms.iter().map(|vm| vm.key));
        }
        writer.requests
    }

    /// Records that a request has arrived.
    pub fn delivered(&mut self, request: Request) {
        if let Some(ledger) = &mut self.ledger {
            ledger.deliver(request.pending_deltas);
        }
    }
}

struct Writer<'a> {
    resource: &'a Resource,
    clock: Clock,
    taken: u64,
    now: u64,
    ledger: Option<&'a mut Ledger>,
    metric: Option<&'static Metric>,
    /// Data points of the current metric.
    points: &'a mut Vec<u8>,
    /// Metrics of the current request.
    metrics: &'a mut Vec<u8>,
    in_request: u64,
    pending_deltas: Vec<PendingDelta>,
    requests: Vec<Request>,
}

impl Visitor for Writer<'_> {
    fn metric(&mut self, metric: &'static Metric) {
        self.end_metric();
        self.metric = Some(metric);
    }

    #[inline]
    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
        self.point(row, fixed, value, Origin::Exporter);
    }

    fn fact(&mut self, row: Row<'_>, value: Value, origin: Origin) {
        self.point(row, &Labels::default(), value, origin);
    }

    fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
        let Some(metric) = self.metric else {
            return;
        };
        let mut histogram = Histogram::from(buckets);
        let (time, none) = (self.time(metric), Labels::default());
        // The exporter counts in all histograms.
        let begun = self.clock.start(row.subject, Origin::Exporter).min(time);
        let mut start = begun;
        let buckets = histogram.counts.len();
        let promised = self.pending_deltas.len();
        for part in 0..=buckets {
            let id = Id {
                metric,
                row,
                fixed: &none,
                part,
                start: begun,
            };
            let total = match histogram.counts.get(part) {
                Some(count) => Value::Int(*count),
                None => Value::Float(histogram.sum),
            };
            // All parts were delivered together, so either all are sent or none.
            let Some((value, since)) = self.sent(id, time, total) else {
                self.pending_deltas.truncate(promised);
                return;
            };
            start = since;
            match (histogram.counts.get_mut(part), value) {
                (Some(count), Value::Int(n)) => *count = n,
                (_, sum) => histogram.sum = sum.as_f64(),
            }
        }
        let attributes = attributes(9, row.labels.pairs()); // HistogramDataPoint.attributes
        histogram.append(&attributes, [start, time], self.points);
        self.end_point();
    }
}

impl Writer<'_> {
    #[inline]
    fn point(&mut self, row: Row<'_>, fixed: &Labels, value: Value, origin: Origin) {
        let Some(metric) = self.metric else {
            return;
        };
        let mut point = Point {
            start: 0,
            time: self.time(metric),
            value,
        };
        if metric.kind == Kind::Counter {
            point.start = self.clock.start(row.subject, origin).min(point.time);
            let id = Id {
                metric,
                row,
                fixed,
                part: 0,
                start: point.start,
            };
            let Some((value, start)) = self.sent(id, point.time, value) else {
                return;
            };
            (point.value, point.start) = (value, start);
        }
        let fixed = fixed.kept(number_attributes);
        point.append(row.labels.kept(number_attributes), fixed, self.points);
        self.end_point();
    }

    /// The exporter's own metrics have the current time, all others the time of the sample.
    fn time(&self, metric: &Metric) -> u64 {
        match metric.source {
            "self" => self.now,
            _ => self.taken,
        }
    }

    /// The value and start time to send: the total itself, or its delta.
    #[inline]
    fn sent(&mut self, id: Id<'_>, time: u64, total: Value) -> Option<(Value, u64)> {
        let Some(ledger) = &mut self.ledger else {
            return Some((total, id.start));
        };
        let (increment, start, pending) = ledger.increment(id, time, total)?;
        self.pending_deltas.push(pending);
        Some((increment, start))
    }

    #[inline]
    fn end_point(&mut self) {
        self.in_request += 1;
        if self.points.len() + self.metrics.len() >= REQUEST {
            // The metric continues in the next request.
            self.end_metric();
            self.end_request();
        }
    }

    /// Appends the current metric to the request, unless it has no points.
    fn end_metric(&mut self) {
        let Some(metric) = self.metric.filter(|_| !self.points.is_empty()) else {
            return;
        };
        let temporality = match self.ledger {
            Some(_) => DELTA,
            None => CUMULATIVE,
        };
        append_metric(metric, temporality, self.points, self.metrics);
        self.points.clear();
    }

    fn end_request(&mut self) {
        if self.metrics.is_empty() {
            return;
        }
        self.requests.push(Request {
            body: self.resource.request(self.metrics).into(),
            points: std::mem::take(&mut self.in_request),
            pending_deltas: std::mem::take(&mut self.pending_deltas),
        });
        self.metrics.clear();
    }
}

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: u64 = 2;

/// Appends a `Metric` with these data points.
fn append_metric(metric: &Metric, temporality: u64, points: &[u8], out: &mut Vec<u8>) {
    let mut own = Vec::with_capacity(256);
    bytes(&mut own, 1, names::name(metric).as_bytes());
    bytes(&mut own, 2, metric.help.as_bytes());
    bytes(&mut own, 3, names::unit(metric).as_bytes());
    // The fields after the data points in Sum and Histogram; a Gauge has none.
    let mut tail = Vec::with_capacity(4);
    let field = match metric.kind {
        Kind::Gauge | Kind::Info => 5,
        Kind::Counter => {
            uint64::encode(2, &temporality, &mut tail);
            uint64::encode(3, &1, &mut tail); // is_monotonic
            7
        }
        Kind::Histogram => {
            uint64::encode(2, &temporality, &mut tail);
            9
        }
    };
    let data = points.len() + tail.len();
    head(out, 2, own.len() + with_head(data)); // ScopeMetrics.metrics
    out.extend_from_slice(&own);
    head(out, field, data);
    out.extend_from_slice(points);
    out.extend_from_slice(&tail);
}

/// `NumberDataPoint.attributes` is field 7.
fn number_attributes(pairs: &[Label]) -> Box<[u8]> {
    attributes(7, pairs)
}

fn attributes(field: u32, pairs: &[Label]) -> Box<[u8]> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        attribute(&mut out, field, name, &value.to_string());
    }
    out.into()
}

/// One `NumberDataPoint`.
struct Point {
    start: u64,
    time: u64,
    value: Value,
}

impl Point {
    /// A fixed field: one byte of tag and eight of value.
    const FIELD: usize = 9;

    #[inline]
    fn append(&self, row: &[u8], fixed: &[u8], out: &mut Vec<u8>) {
        let fields = if self.start == 0 { 2 } else { 3 };
        let len = row.len() + fixed.len() + fields * Self::FIELD;
        // Reserve once for the whole point.
        out.reserve(len + 8);
        out.push(1 << 3 | 2); // data_points, the first field of Gauge and Sum
        encode_varint(len as u64, out);
        if self.start != 0 {
            fixed64(out, 2, self.start);
        }
        fixed64(out, 3, self.time);
        out.extend_from_slice(row);
        out.extend_from_slice(fixed);
        match self.value {
            // as_int is signed; a larger number is sent as a float, as in Prometheus.
            Value::Int(n) if i64::try_from(n).is_ok() => fixed64(out, 6, n),
            value => fixed64(out, 4, value.as_f64().to_bits()),
        }
    }
}
