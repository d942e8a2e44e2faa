//! What is pushed: every series, under which name, of which time, since when.

use super::*;

#[test]
fn what_arrives_is_what_metrics_shows() {
    let app = app(Host::named([NASTY, "web"]).snapshot());
    let snapshot = app.snapshots.load().unwrap();
    let picture = picture(&app, &snapshot);
    let shown = shown(&picture);
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
                for request in Encoder::cumulative(resource(), clock()).encode(&picture) {
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
    for metric in CATALOG {
        let kind = match metric.kind {
            Kind::Counter => otlp_series::Kind::Sum { cumulative: true },
            Kind::Gauge | Kind::Info => otlp_series::Kind::Gauge,
            Kind::Histogram => otlp_series::Kind::Histogram { cumulative: true },
        };
        let (name, unit) = (names::name(metric), names::unit(metric));
        assert_eq!(translated(&name, &unit, kind), metric.name, "{name} {unit}");
        assert!(name.contains('.'), "{name}");
        assert!(seen.insert(name), "{} is not the only one", metric.name);
        for label in metric.labels {
            // Names of attributes are not touched where they are names of labels.
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
    let picture = picture(&app, &snapshot);
    let requests = Encoder::cumulative(resource(), clock()).encode(&picture);
    let requests = requests
        .iter()
        .map(|r| prost::Message::decode(&*r.body).unwrap());
    let all: Vec<Point> = requests.flat_map(|r| points(&r)).collect();
    let mut ints = BTreeSet::new();
    for point in &all {
        let name = translated(&point.name, &point.unit, point.kind);
        let metric = catalog::find(&name).unwrap();
        let time = match metric.source {
            "self" => picture.now_unix,
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
        Encoder::cumulative(resource(), Clock::new(born)).encode(&picture(&app, &snapshot));
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
            // The usual limit of gRPC receivers.
            assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
            assert!(sizes.iter().any(|size| *size > REQUEST), "{sizes:?}");
            let all = all_points(&sink);
            assert_eq!(all.len() as u64, n);
            let pushed = series(&all);
            let snapshot = app.snapshots.load().unwrap();
            let mut shown = shown(&picture(&app, &snapshot));
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
