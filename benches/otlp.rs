//! CPU time of a push: `cargo bench --bench otlp`.
//!
//! Results are the lowest thread CPU time of many runs, because the machine may be busy, and the
//! ratio to the official messages (opentelemetry-proto, encoded by prost), measured in the same run
//! on the same data, which is comparable between machines. Two hosts, 25 samples per vCPU.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::least;

use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{any_value, AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric as Message, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use prost::Message as _;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::otlp::{names, Clock, Encoder, Export, Request, Resource};
use vcpu_exporter::expose::text;
use vcpu_exporter::host::identity::Identity;
use vcpu_exporter::metric::Buckets;
use vcpu_exporter::metric::{Kind, Label, Metric};
use vcpu_exporter::snapshot::{Labels, Row, Snapshot, Value, Visitor};
use vcpu_exporter::telemetry::Registry;

#[path = "../tests/support/snapshots.rs"]
mod snapshots;

/// Limit of the CPU time of a push with 10,000 vCPUs, including gzip.
const BUDGET: Duration = Duration::from_millis(250);

fn main() {
    for (vcpus, runs) in [(1_000, 100), (10_000, 20)] {
        measure(vcpus, runs);
    }
}

fn measure(vcpus: usize, runs: usize) {
    let mut snapshot = snapshots::Host::of_vcpus(vcpus).snapshot();
    snapshot.taken = SystemTime::now();
    let registry = Registry::default();
    let samples = snapshot.count_series();
    let export = Export {
        snapshot: &snapshot,
        registry: &registry,
        now: snapshot.taken_mono,
        now_unix: 1_763_900_001_000_000_000,
    };
    let each = |time: Duration| time.as_nanos() as f64 / samples as f64;
    let resource = Resource::new(&Identity::default(), None, &BTreeMap::new());

    let mut encoder = Encoder::cumulative(resource.clone(), Clock::new(0));
    let mut requests = Vec::new();
    let ours = least(runs, || requests = encoder.encode(&export));
    let bytes: usize = requests.iter().map(|request| request.body.len()).sum();
    println!(
        "{vcpus} vCPUs, {samples} series, {bytes} bytes in {} requests",
        requests.len()
    );
    println!(
        "  encode             {ours:>9.2?}  {:.1} ns a point",
        each(ours)
    );

    let mut delta = Encoder::delta(resource, Clock::new(1));
    let increments = least(runs, || {
        let requests = delta.encode(&export);
        requests.into_iter().for_each(|r| delta.delivered(r));
    });
    println!(
        "  increments         {increments:>9.2?}  {:.1} ns a point",
        each(increments)
    );

    let mut text = Vec::new();
    let scrape = least(runs, || {
        text.clear();
        text::encode_snapshot(Format::Text, &snapshot, snapshot.taken_mono, &mut text);
    });
    let ratio = ours.as_secs_f64() / scrape.as_secs_f64();
    println!("  /metrics           {scrape:>9.2?}  a push is {ratio:.1} times as much");

    let theirs = least(runs.div_ceil(4), || {
        let message = messages(&snapshot);
        let _ = message.encode_to_vec();
    });
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "  opentelemetry-proto {theirs:>8.2?}  {:.1} ns a point, {ratio:.1} times ours",
        each(theirs)
    );

    let mut zipped = 0;
    let gzip = least(runs.div_ceil(4), || zipped = compressed(&requests));
    println!("  gzip level 1       {gzip:>9.2?}  to {zipped} bytes");
    let push = ours + gzip;
    let verdict = match (vcpus, push <= BUDGET) {
        (10_000, true) => format!("  within the budget of {BUDGET:?}"),
        (10_000, false) => format!("  OVER the budget of {BUDGET:?}"),
        _ => String::new(),
    };
    println!("  encode and gzip    {push:>9.2?}{verdict}");
}

fn compressed(requests: &[Request]) -> usize {
    let one = |request: &Request| {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        gzip.write_all(&request.body)
            .expect("a Vec takes everything");
        gzip.finish().expect("a Vec takes everything").len()
    };
    requests.iter().map(one).sum()
}

/// The snapshot in the official messages.
fn messages(snapshot: &Snapshot) -> ExportMetricsServiceRequest {
    #[derive(Default)]
    struct Collect(Vec<Message>);
    impl Visitor for Collect {
        fn metric(&mut self, metric: &'static Metric) {
            let data = match metric.kind {
                Kind::Counter => Data::Sum(Sum {
                    data_points: Vec::new(),
                    aggregation_temporality: 2,
                    is_monotonic: true,
                }),
                _ => Data::Gauge(Gauge::default()),
            };
            self.0.push(Message {
                name: names::name(metric),
                description: metric.help.to_owned(),
                unit: names::unit(metric).into_owned(),
                metadata: Vec::new(),
                data: Some(data),
            });
        }

        fn histogram(&mut self, _: Row<'_>, _: &Buckets) {
            unreachable!("only Intel PT has histograms, and nothing is recorded here");
        }

        fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
            let pairs = row.labels.pairs().iter().chain(fixed.pairs());
            let attribute = |(key, value): &Label| KeyValue {
                key: (*key).to_owned(),
                value: Some(AnyValue {
                    value: Some(any_value::Value::StringValue(value.to_string())),
                }),
                ..KeyValue::default()
            };
            let point = NumberDataPoint {
                attributes: pairs.map(attribute).collect(),
                start_time_unix_nano: 1,
                time_unix_nano: 2,
                value: Some(match value {
                    Value::Int(n) => Number::AsInt(n as i64),
                    value => Number::AsDouble(value.as_f64()),
                }),
                ..NumberDataPoint::default()
            };
            match self.0.last_mut().and_then(|metric| metric.data.as_mut()) {
                Some(Data::Sum(sum)) => sum.data_points.push(point),
                Some(Data::Gauge(gauge)) => gauge.data_points.push(point),
                _ => {}
            }
        }
    }
    let mut collect = Collect::default();
    snapshot.visit(snapshot.taken_mono, &mut collect);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: collect.0,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}
