//! The exposition against independent implementations of the formats: prometheus-client, which
//! encodes the same snapshot, and promtool.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text;
use vcpu_exporter::metric::Buckets;
use vcpu_exporter::metric::{Kind, Metric};
use vcpu_exporter::snapshot::{ColumnRow, Labels, Row, Snapshot, Value, Visitor, CATALOG};
use vcpu_exporter::telemetry::{Registry, Telemetry};

use crate::support::oracle;
use crate::support::snapshots::{recorded, Host};

const NASTY: &str = "we\"ird\\vm\nname <b>&amp; ünï";

fn exposition(format: Format, snapshot: &Snapshot, registry: &Registry) -> String {
    let mut out = Vec::new();
    text::encode(format, snapshot, registry, snapshot.taken_mono, &mut out);
    String::from_utf8(out).unwrap()
}

/// Every metric about the exporter itself, each with a sample.
fn used_telemetry() -> Registry {
    let (telemetry, registry) = Telemetry::new();
    telemetry.ticks.inc();
    telemetry.tick_duration.observe(0.002);
    telemetry.tick_cpu.inc_by(0.25);
    let read_errors = &telemetry.read_errors;
    read_errors.get_or_create([("source", "pmu".into())]).inc();
    let request = [("path", "/metrics".into()), ("code", 200.into())];
    telemetry.http_requests.get_or_create(request).inc();
    let pushes = &telemetry.otlp.duration;
    pushes
        .get_or_create([("endpoint", NASTY.into())])
        .observe(0.25);
    telemetry.process.start_time.set(1.7e9);
    registry
}

fn sample_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn sample_lines_are_prometheus_clients_to_the_byte() {
    let snapshot = recorded(Host::named([NASTY, "web"]).snapshot());
    let own = used_telemetry();
    let theirs = oracle::encode(&snapshot, &own);
    let ours = exposition(Format::OpenMetrics, &snapshot, &own);
    let (ours, theirs) = (sample_lines(&ours), sample_lines(&theirs));
    assert_eq!(ours.len(), theirs.len());
    for (our, their) in ours.iter().zip(&theirs) {
        assert_eq!(our, their);
    }
}

#[test]
fn classic_has_the_same_samples() {
    let snapshot = recorded(Host::named([NASTY, "web"]).snapshot());
    let registry = used_telemetry();
    let open_metrics = exposition(Format::OpenMetrics, &snapshot, &registry);
    let classic = exposition(Format::Text, &snapshot, &registry);
    assert_eq!(sample_lines(&open_metrics), sample_lines(&classic));
}

#[test]
fn open_metrics_ends_once_and_classic_never() {
    let snapshot = recorded(Host::named(["web"]).snapshot());
    let registry = used_telemetry();
    let text = exposition(Format::OpenMetrics, &snapshot, &registry);
    assert!(text.ends_with("\n# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
    let text = exposition(Format::Text, &snapshot, &registry);
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    assert!(text.ends_with('\n'));
}

#[test]
fn each_family_appears_once_with_its_help_and_samples_after_it() {
    let snapshot = recorded(Host::named(["web", "db"]).snapshot());
    for format in [Format::OpenMetrics, Format::Text] {
        let text = exposition(format, &snapshot, &used_telemetry());
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(seen.insert(name), "{name} twice");
            let help = format!("# HELP {name} ");
            let help = text.lines().find(|line| line.starts_with(&help)).unwrap();
            assert!(help.ends_with('.'), "{help}");
            let begins = |line: &&str| line.starts_with(name);
            assert!(
                sample_lines(&text).iter().any(begins),
                "{name} has no sample"
            );
        }
    }
}

#[test]
fn every_metric_name_is_one_of_the_catalogue() {
    let snapshot = recorded(Host::named(["web"]).snapshot());
    let text = exposition(Format::Text, &snapshot, &used_telemetry());
    let announced: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    for line in announced {
        let name = line.split(' ').nth(2).unwrap();
        let metric = CATALOG.iter().find(|m| m.name == name);
        assert!(metric.is_some(), "{name} is not in the catalogue");
        let kind = match metric.unwrap().kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Info => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(line.split(' ').nth(3), Some(kind), "{name}");
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let snapshot = recorded(Host::named([NASTY, "web"]).snapshot());
    let text = exposition(Format::Text, &snapshot, &used_telemetry());
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("skipped: promtool is missing (Debian package prometheus)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "");
    assert!(output.status.success());
}

/// Counts the visited items and checks their order.
#[derive(Default)]
struct Count {
    metrics: Vec<&'static Metric>,
    in_metric: usize,
    about_vms: usize,
    text: String,
}

impl Visitor for Count {
    fn metric(&mut self, metric: &'static Metric) {
        assert!(
            self.metrics.is_empty() || self.in_metric > 0,
            "announced without a sample"
        );
        self.metrics.push(metric);
        self.in_metric = 0;
    }

    fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
        for n in 0..buckets.series() {
            self.sample(row, &Labels::default(), Value::Int(n as u64));
        }
    }

    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
        let metric = self.metrics.last().expect("a sample before its metric");
        self.in_metric += 1;
        self.about_vms += usize::from(metric.source != "self");
        let (row, fixed) = (row.labels.text(), fixed.text());
        writeln!(self.text, "{} {row} {fixed} {value:?}", metric.name).unwrap();
        for label in row
            .split(',')
            .chain(fixed.split(','))
            .filter(|l| !l.is_empty())
        {
            let name = label.split('=').next().unwrap();
            assert!(
                metric.labels().any(|known| known == name),
                "{} has {name}",
                metric.name
            );
        }
    }
}

fn walk(snapshot: &Snapshot) -> Count {
    let mut count = Count::default();
    snapshot.visit(
        snapshot.taken_mono + Duration::from_millis(1500),
        &mut count,
    );
    count
}

#[test]
fn series_are_counted_as_they_are_walked() {
    let mut snapshot = recorded(Host::named(["web", "db"]).snapshot());
    assert_eq!(walk(&snapshot).about_vms, snapshot.count_series());
    snapshot.series[1].known = 0b101;
    snapshot.vcpus[0].known = 0;
    snapshot.vcpus[1].placement = None;
    snapshot
        .series
        .iter_mut()
        .for_each(|series| series.known &= !0b100);
    assert_eq!(walk(&snapshot).about_vms, snapshot.count_series());
}

#[test]
fn the_walk_follows_the_catalogue_and_tells_each_metric_once() {
    let announced = walk(&recorded(Host::named(["web"]).snapshot())).metrics;
    let position = |m: &&Metric| CATALOG.iter().position(|c| c.name == m.name).unwrap();
    let positions: Vec<_> = announced.iter().map(position).collect();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn the_unknown_and_the_dropped_are_absent() {
    let mut snapshot = recorded(Host::named(["web"]).snapshot());
    let text = walk(&snapshot).text;
    assert!(text.contains("kvm_vcpu_time_seconds_total") && text.contains("mode=\"host\""));
    let hidden = |c: &ColumnRow| {
        c.metric.name == "kvm_vcpu_time_seconds_total" || c.labels.get("mode") == Some("host")
    };
    let columns = snapshot.placed.iter().enumerate();
    let hidden = columns
        .filter(|(_, c)| hidden(c))
        .fold(0, |set, (n, _)| set | 1 << n);
    snapshot
        .series
        .iter_mut()
        .for_each(|series| series.known &= !hidden);
    let text = walk(&snapshot).text;
    assert!(!text.contains("kvm_vcpu_time_seconds_total") && !text.contains("mode=\"host\""));
    assert!(text.contains("mode=\"guest\""));
}

#[test]
fn what_the_exporter_says_of_itself() {
    let snapshot = recorded(Host::named(["web"]).snapshot());
    let text = walk(&snapshot).text;
    for line in [
        "kvm_vm_vcpus vm=\"web\"  Int(2)",
        "kvm_exporter_source_up source=\"sched\",reason=\"\"  Int(1)",
        "kvm_exporter_source_up source=\"pmu\",reason=\"mediated_vpmu\"  Int(1)",
        "kvm_exporter_source_up source=\"exits\",reason=\"no_permission\"  Int(0)",
        "kvm_exporter_pmu_mode mode=\"host_only\",reason=\"mediated_vpmu\"  Int(1)",
        "kvm_exporter_sample_age_seconds   Nanoseconds(1500000000)",
        "kvm_exporter_sample_timestamp_seconds   Nanoseconds(1763900000125000000)",
        "kvm_exporter_dropped_series what=\"user_events\"  Int(12)",
        "kvm_exporter_blind_spots   Int(1)",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in\n{text}"
        );
    }
    let series = format!("kvm_exporter_series   Int({})", snapshot.count_series());
    assert!(text.contains(&series));
}

#[test]
fn an_empty_host_and_a_broken_snapshot_are_walked_too() {
    let mut snapshot = Host::named([]).snapshot();
    assert_eq!(walk(&snapshot).about_vms, 8);
    snapshot = recorded(Host::named(["web"]).snapshot());
    snapshot.series_totals.truncate(5);
    snapshot.vcpu_values.clear();
    snapshot.visit(Instant::now(), &mut Count::default());
}
