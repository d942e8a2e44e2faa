//! The exporter pushes to a collector that nobody here wrote, which gets what `/metrics` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use vcpu_exporter::config::Config;
use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::otlp::{settings, Answer, Client, Clock, Encoder, Export, Resource};
use vcpu_exporter::expose::text;
use vcpu_exporter::host::identity::Identity;
use vcpu_exporter::snapshot::Snapshot;
use vcpu_exporter::telemetry::Registry;
use vcpu_exporter::telemetry::Telemetry;

use crate::alone;
use crate::exporter::{Exporter, Exposition};
use crate::micro_vm::{kvm_works, MicroVm};
use crate::otlp_series::{assert_same, exposed, series, All, Id, Point};
use crate::rotel::Rotel;
use crate::run::eventually;
use crate::snapshots::Host;
use crate::victoria::Victoria;

const STAMP: &str = "kvm_exporter_sample_timestamp_seconds";

/// Series about VMs and the host: those of the exporter's own move while it is being asked.
fn of_the_sample(all: &All) -> All {
    let mut all = all.clone();
    all.retain(|(name, _), _| !is_own(name) || name == STAMP);
    all
}

fn is_own(name: &str) -> bool {
    name.starts_with("kvm_exporter_") || name.starts_with("process_")
}

/// Which series there are, the values left out.
fn own_names(all: &All) -> BTreeSet<String> {
    let own = all.keys().filter(|(name, _)| is_own(name));
    own.map(|(name, labels)| format!("{name} {labels:?}"))
        .collect()
}

/// Pushes by the sample they are of.
fn by_sample(requests: Vec<Vec<Point>>) -> BTreeMap<u64, All> {
    let all = requests.into_iter().map(|points| series(&points));
    all.filter_map(|all| Some((stamp(&all)?, all))).collect()
}

/// The time of the sample, in nanoseconds as far as a float tells.
fn stamp(all: &All) -> Option<u64> {
    let stamp = all.get(&(STAMP.to_owned(), BTreeMap::new()));
    stamp.map(|seconds| (seconds * 1e6) as u64)
}

fn scraped(exposition: &Exposition) -> All {
    let samples = exposition.samples.iter();
    exposed(samples.map(|s| (&s.name, &s.labels, s.value)))
}

/// Scrapes until a push of the same sample has arrived; gives both.
fn both_ways(exporter: &Exporter, rotel: &Rotel) -> (All, All) {
    let mut scrapes: BTreeMap<u64, All> = BTreeMap::new();
    let found = eventually(|| {
        let all = scraped(&exporter.scrape());
        scrapes.extend(stamp(&all).map(|stamp| (stamp, all)));
        // What rotel logs is read now and then: it is long.
        if scrapes.len() % 8 != 0 {
            return None;
        }
        let pushes = by_sample(rotel.requests());
        let both = pushes.into_iter().rev().find_map(|(stamp, pushed)| {
            let shown = scrapes.get(&stamp)?;
            // The first push has no outcome of a push before it to tell of.
            let told = pushed
                .keys()
                .any(|(name, _)| name == "kvm_exporter_otlp_pushes_total");
            told.then(|| (shown.clone(), pushed))
        });
        both
    });
    found.expect("a push and a scrape of one sample")
}

#[test]
fn a_collector_gets_every_series_that_metrics_shows_of_the_same_sample() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let vms = [
        MicroVm::start("pushed-spin", Load::Spin, 2),
        MicroVm::start("pushed-halt", Load::Halt, 1),
    ];
    for (protocol, compression) in [("grpc", "none"), ("http/protobuf", "gzip")] {
        let Some(rotel) = Rotel::start() else {
            return;
        };
        let address = match protocol {
            "grpc" => &rotel.grpc,
            _ => &rotel.http,
        };
        let config = format!(
            "otlp: {{endpoints: [{{url: 'http://{address}', protocol: {protocol}, \
             compression: {compression}, interval: 1s}}]}}"
        );
        let exporter = Exporter::with(&[], &config);
        exporter.until(|e| {
            let placed = |vm: &MicroVm| {
                e.all("kvm_vcpu_placement_info", &[("vm", vm.name())])
                    .count()
            };
            vms.iter().map(placed).sum::<usize>() == 3
        });
        let (shown, pushed) = both_ways(&exporter, &rotel);
        let (sample, of_push) = (of_the_sample(&shown), of_the_sample(&pushed));
        assert!(sample.len() > 50, "{}", sample.len());
        assert!(sample
            .keys()
            .any(|(_, labels)| labels.get("vm").is_some_and(|vm| vm == vms[0].name())));
        assert_same(&sample, &of_push);
        // The scrape was between two pushes that both told the same; requests by code come as they
        // are answered.
        let ours = |names: BTreeSet<String>| -> BTreeSet<String> {
            let asked = "kvm_exporter_http_requests_total";
            names
                .into_iter()
                .filter(|name| !name.starts_with(asked))
                .collect()
        };
        assert_eq!(ours(own_names(&shown)), ours(own_names(&pushed)));
    }
}

/// A host and an exporter where nothing moves while they are looked at, so that what the exporter
/// says of itself must be equal too.
struct Still {
    snapshot: Snapshot,
    registry: Registry,
}

impl Still {
    fn new() -> Self {
        let mut snapshot = Host::named(["we\"ird\\vm <b>&amp; ünï", "web"]).snapshot();
        snapshot.taken = SystemTime::now();
        let (telemetry, registry) = Telemetry::new();
        telemetry.ticks.inc_by(7);
        telemetry.tick_duration.observe(0.002);
        telemetry.tick_cpu.inc_by(0.1);
        telemetry.process.refresh();
        Self { snapshot, registry }
    }

    fn export(&self) -> Export<'_> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Export {
            snapshot: &self.snapshot,
            registry: &self.registry,
            now: self.snapshot.taken_mono + Duration::from_millis(1500),
            now_unix: now.expect("after 1970").as_nanos() as u64,
        }
    }

    /// What `/metrics` shows.
    fn shown(&self) -> All {
        let (export, mut text) = (self.export(), Vec::new());
        let format = Format::Text;
        text::encode(
            format,
            &self.snapshot,
            &self.registry,
            export.now,
            &mut text,
        );
        scraped(&Exposition::parse(&String::from_utf8(text).expect("text")))
    }

    /// Pushes it to the only endpoint of a configuration.
    fn push(&self, endpoint: &str) {
        let yaml = format!("otlp: {{endpoints: [{endpoint}]}}");
        let config = Config::parse(&yaml).expect("a configuration");
        let endpoints = settings::resolve(&config.otlp, &|_| None).expect("endpoints");
        let resource = Resource::new(&Identity::default(), None, &BTreeMap::new());
        let mut encoder = Encoder::cumulative(resource, Clock::new(0));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let client = Client::new(&endpoints[0]).expect("a client");
            for request in encoder.encode(&self.export()) {
                let answer = client.send(request.body).await;
                assert!(matches!(answer, Answer::Delivered { .. }), "{answer:?}");
            }
        });
    }
}

#[test]
fn a_collector_gets_equal_values_of_everything() {
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let still = Still::new();
    let shown = still.shown();
    let endpoints = [
        format!("{{url: 'http://{}', protocol: grpc}}", rotel.grpc),
        format!("{{url: 'http://{}'}}", rotel.http),
    ];
    for (n, endpoint) in endpoints.iter().enumerate() {
        still.push(endpoint);
        let pushed = eventually(|| {
            let requests = rotel.requests();
            let all = requests.get(n).map(series);
            all.filter(|all| all.len() >= shown.len())
        });
        assert_same(&shown, &pushed.expect("all of it"));
    }
}

/// Somebody else's translation of names, in somebody else's database.
#[test]
fn a_database_has_the_names_labels_and_values_of_metrics() {
    let Some(victoria) = Victoria::start() else {
        return;
    };
    let still = Still::new();
    let shown = still.shown();
    still.push(&format!("{{url: '{}', compression: gzip}}", victoria.url()));
    let of_resource = [
        "job",
        "service_name",
        "service_version",
        "host_arch",
        "os_type",
    ];
    let had = eventually(|| {
        let all = victoria.all(&of_resource);
        (all.len() >= shown.len()).then_some(all)
    });
    let had = had.unwrap_or_else(|| victoria.all(&of_resource));
    let same_names = |(id, value): (&Id, &f64)| {
        // It keeps twelve decimal digits.
        let near = |shown: &&f64| (*shown - value).abs() <= value.abs() * 1e-11;
        let shown = shown.get(id).filter(near);
        (id.clone(), shown.copied().unwrap_or(*value))
    };
    assert_same(&shown, &had.iter().map(same_names).collect());
}

#[test]
fn the_standard_variables_alone_make_it_push() {
    let _alone = alone();
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    command.envs([
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &*format!("http://{}", rotel.grpc),
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=other,team=kvm,host.name=kvm-07",
        ),
        ("OTEL_SERVICE_NAME", "fleet"),
    ]);
    let _exporter = Exporter::spawn(command, &[], "otlp: {resource: {host.name: kvm-08}}");
    let log = eventually(|| {
        let log = rotel.log();
        log.contains("Metric #0").then_some(log)
    });
    let log = log.expect("a push");
    for attribute in [
        "service.name: Str(fleet)",
        "team: Str(kvm)",
        "host.name: Str(kvm-08)",
        "os.type: Str(linux)",
        "InstrumentationScope vcpu-exporter",
    ] {
        assert!(
            log.contains(attribute),
            "no {attribute} in\n{}",
            log.get(..2000).unwrap_or(&log)
        );
    }
}

#[test]
fn it_ends_with_a_last_push_of_what_it_saw_last() {
    let _alone = alone();
    let Some(rotel) = Rotel::start() else {
        return;
    };
    // The first push comes at the start, the next would in an hour.
    let config = format!(
        "otlp: {{endpoints: [{{url: 'http://{}', interval: 1h}}]}}",
        rotel.http
    );
    let exporter = Exporter::with(&[], &config);
    exporter.until(|e| e.one("kvm_exporter_otlp_pushes_total", &[]) == Some(1.0));
    let ticks = exporter.scrape_anew().one("kvm_exporter_ticks_total", &[]);
    assert_eq!(exporter.end(Signal::TERM), Some(0));
    let pushed = eventually(|| {
        let requests = rotel.requests();
        (requests.len() == 2).then(|| series(&requests[1]))
    });
    let pushed = pushed.expect("a second push");
    let id = ("kvm_exporter_ticks_total".to_owned(), BTreeMap::new());
    assert!(
        pushed.get(&id).copied() >= ticks,
        "{ticks:?} {:?}",
        pushed.get(&id)
    );
}

#[test]
fn a_receiver_that_never_answers_keeps_neither_ticks_nor_scrapes_nor_the_end() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    // Connections are taken by the kernel, and nobody reads.
    let config =
        format!("otlp: {{endpoints: [{{url: 'http://{address}', interval: 1s, timeout: 500ms}}]}}");
    let exporter = Exporter::with(&[], &config);
    let failed = [("outcome", "failed")];
    let failures = |e: &Exposition| e.one("kvm_exporter_otlp_pushes_total", &failed);
    exporter.until(|e| failures(e) >= Some(2.0));
    exporter.scrape_anew();
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}

/// `check` with this configuration and environment: its exit status and what it says.
fn check(config: &str, variables: &[(&str, &str)]) -> String {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(config.as_bytes()).expect("it takes it");
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .args(["check", "--config"])
        .arg(file.path())
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn check_says_what_each_endpoint_answered() {
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let said = check(
        &format!(
            "otlp: {{endpoints: [{{url: 'http://{}'}}, {{url: 'http://{}', protocol: grpc}}]}}",
            rotel.http, rotel.grpc
        ),
        &[],
    );
    assert_eq!(said.matches("took an empty request").count(), 2, "{said}");
    let variable = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        &*format!("http://{}", rotel.http),
    );
    let said = check("", &[variable]);
    assert_eq!(said.matches("took an empty request").count(), 1, "{said}");
    drop(rotel);
    let said = check("", &[variable]);
    assert!(said.contains("onnection refused"), "{said}");
}

#[test]
fn check_does_not_show_what_it_sends() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    // Answers as somebody who repeats what he heard.
    let echo = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        let answer =
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!";
        client.write_all(answer.as_bytes()).expect("it listens");
        String::from_utf8_lossy(&request).into_owned()
    });
    let config =
        format!("otlp: {{endpoints: [{{url: 'http://{address}', headers: {{X-Key: hunter2}}}}]}}");
    let said = check(&config, &[]);
    let request = echo.join().expect("it ends");
    assert!(request.contains("x-key: hunter2"), "{request}");
    assert!(said.contains("401 Unauthorized: no!"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
