//! Contents of a push: every series, with its name, time and start time.

use super::*;

#[test]
fn what_arrives_is_what_metrics_shows() {
    let app = app(Host::named([NASTY, "web"]).snapshot());
    let snapshot = app.snapshots.load().unwrap();
    let export = export(&app, &snapshot);
    let shown = shown(&export);
    assert!(shown.len() > 150, "{}", shown.len());
    for protocol in BOTH {
        for compression in [Compression::None, Compression::Gzip] {
            let sink = Sink::new();
            runtime(async {
                let (_server, settings) = serve(&sink, protocol);
                let settings = Settings {
                    compression,
                    ..settings
                };
                let client = Client::new(&settings).unwrap();
                for request in Encoder::cumulative(resource(), clock()).encode(&export) {
                    let answer = client.send(request.body).await;
                    assert!(
                        matches!(answer, Answer::Delivered { rejected: 0, .. }),
                        "{answer:?}"
                    );
                }
            });
            assert_same(&shown, &series(&all_points(&sink)));
        }
    }
}

#[test]
fn names_translate_back_over_the_whole_catalogue() {
    let mut seen = BTreeSet::new();
    for metric in CATALOG.iter().copied() {
        let kind = match metric.kind {
            Kind::Counter => otlp_series::Kind::Sum { cumulative: true },
            Kind::Gauge | Kind::Info => otlp_series::Kind::Gauge,
            Kind::Histogram => otlp_series::Kind::Histogram { cumulative: true },
        };
        let (name, unit) = (names::name(metric), names::unit(metric));
        assert_eq!(translated(&name, &unit, kind), metric.name, "{name} {unit}");
        assert!(name.contains('.'), "{name}");
        assert!(seen.insert(name), "{} is not the only one", metric.name);
        for label in metric.labels() {
            // Attribute names that are label names are not translated.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(
                label.chars().all(plain) && !label.starts_with("__"),
                "{label}"
            );
        }
    }
}

#[test]
fn samples_have_the_time_of_the_sample_and_the_exporters_own_have_now() {
    let app = app(Host::named(["web"]).snapshot());
    let snapshot = app.snapshots.load().unwrap();
    let export = export(&app, &snapshot);
    let requests = Encoder::cumulative(resource(), clock()).encode(&export);
    let requests = requests
        .iter()
        .map(|r| prost::Message::decode(&*r.body).unwrap());
    let all: Vec<Point> = requests.flat_map(|r| points(&r)).collect();
    let mut ints = BTreeSet::new();
    for point in &all {
        let name = translated(&point.name, &point.unit, point.kind);
        let metric = metrics::find(&name).unwrap();
        let time = match metric.source {
            "self" => export.now_unix,
            _ => unix_ns(snapshot.taken),
        };
        assert_eq!(point.time, time, "{name}");
        assert!(point.start <= point.time, "{name}");
        assert_eq!(point.help, metric.help);
        let counts = matches!(metric.kind, Kind::Counter | Kind::Histogram);
        assert_eq!(point.start > 0, counts, "{name}");
        if point.is_int {
            ints.insert(name);
        }
    }
    assert!(ints.contains("kvm_vcpu_cycles_total") && ints.contains("kvm_exporter_ticks_total"));
    assert!(!ints.contains("kvm_vcpu_time_seconds_total"));
}

/// Clock ticks since boot, some seconds ago.
fn ticks_ago(seconds: u64) -> u64 {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (up.tv_sec as u64 - seconds) * rustix::param::clock_ticks_per_second()
}

#[test]
fn each_series_begins_with_the_exporter_or_with_its_vm() {
    let host = Host::named(["old", "young"]);
    let (born, young) = (ticks_ago(100), ticks_ago(50));
    let app = app(with_starts(
        host.snapshot(),
        &[("old", ticks_ago(1000)), ("young", young)],
    ));
    let snapshot = app.snapshots.load().unwrap();
    let requests =
        Encoder::cumulative(resource(), Clock::new(born)).encode(&export(&app, &snapshot));
    let requests = requests
        .iter()
        .map(|r| prost::Message::decode(&*r.body).unwrap());
    let all: Vec<Point> = requests.flat_map(|r| points(&r)).collect();
    let start = |name: &str, vm: Option<&str>| {
        let is = |p: &&Point| p.name == name && p.attributes.get("vm").map(String::as_str) == vm;
        let starts: BTreeSet<u64> = all.iter().filter(is).map(|p| p.start).collect();
        assert_eq!(starts.len(), 1, "{name} {vm:?}: {starts:?}");
        starts.into_iter().next().unwrap()
    };
    let process = start("kvm.exporter.ticks", None);
    assert_eq!(start("kvm.vcpu.cycles", Some("old")), process);
    let later = start("kvm.vcpu.cycles", Some("young")) - process;
    assert_eq!(
        later,
        (young - born) * 1_000_000_000 / rustix::param::clock_ticks_per_second()
    );
    assert_eq!(start("kvm.vcpu.moves", Some("young")) - process, later);
}

/// Facts of background collectors with start times of their counters, all with the same total.
/// `old` is older than the exporter, `young` is not.
fn counted(total: u64) -> Vec<FactRow> {
    let row = |metric: &str, pairs: &[(&'static str, &'static str)], origin| {
        let labels = snapshots::labels(pairs);
        let vm = labels.get("vm").map(snapshots::key);
        FactRow {
            metric: metrics::find(metric).unwrap(),
            subject: vm.map_or(Subject::Host, Subject::Vm),
            labels,
            value: FactValue::Int(total),
            origin,
            since: Instant::now(),
        }
    };
    let throttled = "kvm_vm_cpu_throttled_periods_total";
    let (stat, llc) = (("stat", "exits"), ("llc", "0"));
    let (old, young) = (("vm", "old"), ("vm", "young"));
    let bandwidth = "kvm_vm_memory_bandwidth_bytes_total";
    let mut rows = vec![
        row(throttled, &[old, ("level", "vm")], Origin::Vm),
        row(throttled, &[young, ("level", "ancestor")], Origin::Boot),
        row("kvm_vm_kvm_stat_total", &[old, stat], Origin::Vm),
        row("kvm_vm_kvm_stat_total", &[young, stat], Origin::Vm),
        row(bandwidth, &[old, llc], Origin::Vm),
        row(bandwidth, &[young, llc], Origin::Exporter),
        row(
            "kvm_host_core_throttles_total",
            &[("package", "0"), ("core", "0")],
            Origin::Boot,
        ),
        row(
            "kvm_host_kernel_log_lines_total",
            &[("kind", "kvm")],
            Origin::Exporter,
        ),
    ];
    rows.sort_by_key(|row| metrics::position(row.metric));
    rows
}

/// An app with these facts on a host whose exporter started 100 s ago.
fn app_that_counted(total: u64, after: Duration) -> Arc<App> {
    let starts = [("old", ticks_ago(1000)), ("young", ticks_ago(50))];
    let mut snapshot = Host::named(["old", "young"]).snapshot();
    snapshot.facts = counted(total).into();
    let mut snapshot = with_starts(snapshot, &starts);
    snapshot.taken += after;
    app(snapshot)
}

/// Points of the facts in [`counted`], as `name vm` and the value.
fn of_facts(requests: &[Request]) -> Vec<(String, Point)> {
    let names = counted(0).into_iter().map(|row| names::name(row.metric));
    let names: BTreeSet<String> = names.collect();
    let decoded = requests
        .iter()
        .map(|r| prost::Message::decode(&*r.body).unwrap());
    let points = decoded.flat_map(|request| points(&request));
    let of_facts = points.filter(|point| names.contains(&point.name));
    let named = of_facts.map(|point| {
        let vm = point.attributes.get("vm").map_or("host", String::as_str);
        (format!("{} {vm}", point.name), point)
    });
    named.collect()
}

#[test]
fn first_increment_has_nothing_that_was_counted_before_the_exporter() {
    let mut encoder = Encoder::delta(resource(), Clock::new(ticks_ago(100)));
    let mut told = |total, after| {
        let app = app_that_counted(total, Duration::from_secs(after));
        let snapshot = app.snapshots.load().unwrap();
        let requests = encoder.encode(&export(&app, &snapshot));
        let told = of_facts(&requests);
        requests
            .into_iter()
            .for_each(|request| encoder.delivered(request));
        let told = told.into_iter().map(|(name, point)| (name, point.value));
        told.collect::<Vec<_>>()
    };
    let first = [
        ("kvm.vm.kvm_stat young", 1_000_000.0),
        ("kvm.vm.memory_bandwidth young", 1_000_000.0),
        ("kvm.host.kernel_log_lines host", 1_000_000.0),
    ];
    assert_eq!(
        told(1_000_000, 0),
        first.map(|(name, n)| (name.to_owned(), n))
    );
    let second = told(1_000_007, 10);
    assert_eq!(second.len(), counted(0).len());
    assert!(second.iter().all(|(_, n)| *n == 7.0), "{second:?}");
}

#[test]
fn totals_start_where_their_counting_began() {
    let (born, boot) = (ticks_ago(100), ticks_ago(0));
    let app = app_that_counted(5, Duration::ZERO);
    let snapshot = app.snapshots.load().unwrap();
    let mut encoder = Encoder::cumulative(resource(), Clock::new(born));
    let told = of_facts(&encoder.encode(&export(&app, &snapshot)));
    let start = |name: &str| {
        let (_, point) = told.iter().find(|(n, _)| n == name).unwrap();
        // Seconds after boot.
        let after = (point.start as f64 - unix_ns(SystemTime::now()) as f64) / 1e9;
        boot as f64 / rustix::param::clock_ticks_per_second() as f64 + after
    };
    let up = start("kvm.host.kernel_log_lines host") + 100.0;
    let expected = [
        ("kvm.host.core_throttles host", 0.0),
        ("kvm.vm.cpu_throttled_periods young", 0.0),
        ("kvm.vm.cpu_throttled_periods old", (up - 1000.0).max(0.0)),
        ("kvm.vm.memory_bandwidth old", (up - 1000.0).max(0.0)),
        ("kvm.vm.memory_bandwidth young", up - 50.0),
        ("kvm.vm.kvm_stat young", up - 50.0),
    ];
    for (name, seconds) in expected {
        let is = start(name);
        assert!((is - seconds).abs() < 2.0, "{name}: {is}, not {seconds}");
    }
}

#[test]
fn a_large_host_is_pushed_in_requests_that_receivers_take_and_nothing_is_left_out() {
    let snapshot = Host::of_vcpus(3000).snapshot();
    let app = app(snapshot);
    for protocol in BOTH {
        let sink = Sink::new();
        runtime(async {
            let (_server, settings) = serve(&sink, protocol);
            let mut watch = Watch::new(&sink, settings, &app);
            let outcome = watch.pusher.push().await;
            let Outcome::Delivered { points: n, .. } = outcome else {
                panic!("{outcome:?}");
            };
            let sizes = sink.sizes();
            assert!(sizes.len() > 2, "{sizes:?}");
            // The default limit of gRPC receivers.
            assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
            assert!(sizes.iter().any(|size| *size > REQUEST), "{sizes:?}");
            let all = all_points(&sink);
            assert_eq!(all.len() as u64, n);
            let pushed = series(&all);
            let snapshot = app.snapshots.load().unwrap();
            let mut shown = shown(&export(&app, &snapshot));
            assert!(shown.len() > 75_000);
            let of_vms = |id: &otlp_series::Id| id.0.starts_with("kvm_v");
            shown.retain(|id, _| of_vms(id));
            let mut pushed = pushed;
            pushed.retain(|id, _| of_vms(id));
            assert_same(&shown, &pushed);
        });
    }
}

#[test]
fn without_a_sample_nothing_is_pushed() {
    let app = young_app();
    let empty = Arc::new(App {
        snapshots: snapshot::Handle::default(),
        telemetry: app.telemetry.clone(),
        registry: Telemetry::new().1,
        max_age: app.max_age,
    });
    let nobody = settings("http://127.0.0.1:1/v1/metrics".to_owned(), Protocol::Http);
    let mut pusher = Pusher::new(nobody, resource(), clock(), empty);
    assert_eq!(runtime(pusher.push()), Outcome::NoSample);
}
