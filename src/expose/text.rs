//! The two text formats: OpenMetrics 1.0 and Prometheus text 0.0.4.
//!
//! Hand-written, because a scrape of a large host has a quarter of a million lines. Labels are
//! rendered when a row is created, so a line takes a few copies and one number. A test
//! (`tests/exposition_oracle.rs`) compares the sample lines with prometheus-client's.
//!
//! Formats: OpenMetrics specification 1.0.0, section "Text format"; Prometheus documentation,
//! "Exposition formats".

use std::time::Instant;

use super::negotiate::Format;
use crate::metric::{Buckets, Kind, Metric};
use crate::snapshot::{visit_own, Labels, Row, Snapshot, Value, Visitor};
use crate::telemetry::Registry;

/// Appends a complete exposition to `out`: the snapshot, then the exporter's own metrics.
pub fn encode(
    format: Format,
    snapshot: &Snapshot,
    registry: &Registry,
    now: Instant,
    out: &mut Vec<u8>,
) {
    let mut encoder = Encoder::new(format, out);
    snapshot.visit(now, &mut encoder);
    visit_own(registry, &mut encoder);
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}

/// Appends only the metrics of the snapshot, without the end mark.
pub fn encode_snapshot(format: Format, snapshot: &Snapshot, now: Instant, out: &mut Vec<u8>) {
    snapshot.visit(now, &mut Encoder::new(format, out));
}

/// Writes lines for the metrics and samples that it visits.
struct Encoder<'a> {
    format: Format,
    /// The metric's name, the start of each line.
    prefix: Vec<u8>,
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    fn new(format: Format, out: &'a mut Vec<u8>) -> Self {
        let prefix = Vec::with_capacity(64);
        Self {
            format,
            prefix,
            out,
        }
    }
}

impl Visitor for Encoder<'_> {
    fn metric(&mut self, metric: &'static Metric) {
        self.prefix.clear();
        self.prefix.extend_from_slice(metric.name.as_bytes());
        head(self.format, metric, self.out);
    }

    #[inline]
    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
        let (row, fixed) = (row.labels.text().as_bytes(), fixed.text().as_bytes());
        let out = &mut *self.out;
        // Reserve once for the whole line: 48 bytes for braces and the longest number.
        out.reserve(self.prefix.len() + row.len() + fixed.len() + 48);
        out.extend_from_slice(&self.prefix);
        match (row.is_empty(), fixed.is_empty()) {
            (true, true) => {}
            (false, true) => append_all(out, [b"{", row, b"}"]),
            (true, false) => append_all(out, [b"{", fixed, b"}"]),
            (false, false) => append_all(out, [b"{", row, b",", fixed, b"}"]),
        }
        out.push(b' ');
        append_value(out, value);
        out.push(b'\n');
    }

    fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
        let row = row.labels;
        let sum = Value::Nanoseconds(buckets.sum());
        self.part(b"_sum", None, row, sum);
        self.part(b"_count", None, row, Value::Int(buckets.count()));
        let mut cumulative = 0u64;
        for (bound, count) in buckets.iter() {
            cumulative = cumulative.saturating_add(count);
            // As in prometheus-client: a float, unlike the sum, so that the label is the same text
            // in every program.
            let bound = bound.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
            self.part(b"_bucket", Some(bound), row, Value::Int(cumulative));
        }
    }
}

impl Encoder<'_> {
    /// Writes one line of a histogram.
    fn part(&mut self, suffix: &[u8], bound: Option<f64>, row: &Labels, value: Value) {
        let out = &mut *self.out;
        append_all(out, [&self.prefix, suffix]);
        let row = row.text().as_bytes();
        match bound {
            None if row.is_empty() => {}
            None => append_all(out, [b"{", row, b"}"]),
            Some(bound) => {
                out.extend_from_slice(b"{le=\"");
                append_float(out, bound);
                let comma: &[u8] = if row.is_empty() { b"" } else { b"," };
                append_all(out, [b"\"", comma, row, b"}"]);
            }
        }
        out.push(b' ');
        append_value(out, value);
        out.push(b'\n');
    }
}

fn append_all<const N: usize>(out: &mut Vec<u8>, parts: [&[u8]; N]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// `# HELP`, `# TYPE` and `# UNIT`, in prometheus-client's order. OpenMetrics names the family.
/// Prometheus text has the metric's full name, no units, and no info type: info is a gauge with the
/// value 1.
fn head(format: Format, metric: &Metric, out: &mut Vec<u8>) {
    let (name, kind) = match format {
        Format::OpenMetrics => (metric.family(), metric.kind.name()),
        Format::Text if metric.kind == Kind::Info => (metric.name, "gauge"),
        Format::Text => (metric.name, metric.kind.name()),
    };
    let (name, kind, unit) = (name.as_bytes(), kind.as_bytes(), metric.unit().as_bytes());
    append_all(
        out,
        [b"# HELP ", name, b" ", metric.help.as_bytes(), b".\n"],
    );
    append_all(out, [b"# TYPE ", name, b" ", kind, b"\n"]);
    if format == Format::OpenMetrics && !unit.is_empty() {
        append_all(out, [b"# UNIT ", name, b" ", unit, b"\n"]);
    }
}

#[inline]
fn append_value(out: &mut Vec<u8>, value: Value) {
    match value {
        Value::Int(n) => out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes()),
        Value::Nanoseconds(ns) => append_seconds(out, ns),
        Value::Float(x) => append_float(out, x),
    }
}

/// Nanoseconds as exact decimal seconds, without floats, so that a counter never loses a
/// nanosecond.
#[inline]
fn append_seconds(out: &mut Vec<u8>, ns: u64) {
    const NS_PER_S: u64 = 1_000_000_000;
    out.extend_from_slice(itoa::Buffer::new().format(ns / NS_PER_S).as_bytes());
    let rest = ns % NS_PER_S;
    if rest == 0 {
        out.extend_from_slice(b".0");
        return;
    }
    // A leading 1 keeps the zeros after the point; the point replaces it.
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(rest + NS_PER_S).as_bytes();
    let zeros = digits.iter().rev().take_while(|&&d| d == b'0').count();
    let digits = digits.get(1..digits.len() - zeros).unwrap_or_default();
    out.push(b'.');
    out.extend_from_slice(digits);
}

/// Infinities and NaN in Go's notation, in both formats.
fn append_float(out: &mut Vec<u8>, x: f64) {
    if x.is_finite() {
        out.extend_from_slice(dtoa::Buffer::new().format_finite(x).as_bytes());
    } else if x.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if x > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: Value) -> String {
        let mut out = Vec::new();
        append_value(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_exact_decimals() {
        for (ns, seconds) in [
            (0, "0.0"),
            (1, "0.000000001"),
            (1_000_000_000, "1.0"),
            (1_234_567_891, "1.234567891"),
            (1_500_000_000, "1.5"),
            (10_020_000_000, "10.02"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(text(Value::Nanoseconds(ns)), seconds);
        }
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        for (value, expected) in [
            (Value::Int(u64::MAX), "18446744073709551615"),
            (Value::Float(1.0), "1.0"),
            (Value::Float(0.25), "0.25"),
            (Value::Float(f64::NAN), "NaN"),
            (Value::Float(f64::INFINITY), "+Inf"),
            (Value::Float(f64::NEG_INFINITY), "-Inf"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    proptest! {
        #[test]
        fn seconds_read_back_to_the_nearest_float(ns: u64) {
            let (whole, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
            let exact: f64 = format!("{whole}.{rest:09}").parse().unwrap();
            let ours: f64 = text(Value::Nanoseconds(ns)).parse().unwrap();
            prop_assert_eq!(ours, exact);
        }
    }
}
