//! OTLP pushes to scripted receivers with the official messages: pushed series equal those of
//! `/metrics`, and a failing receiver loses only its own data.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vcpu_exporter::config::otlp::{Compression, HeaderSource, Protocol, Temporality, Tls};
use vcpu_exporter::engine::Origin;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::otlp::{
    names, Answer, Client, Clock, Encoder, Export, Outcome, Pusher, Request, Resource, Schedule,
    Settings, REQUEST,
};
use vcpu_exporter::expose::{text, App};
use vcpu_exporter::host::identity::Identity;
use vcpu_exporter::metric::{FactValue, Kind};
use vcpu_exporter::snapshot::{self, metrics, FactRow, Snapshot, Subject, CATALOG};
use vcpu_exporter::telemetry::Telemetry;

use crate::support::otlp_series;
use crate::support::otlp_sink;
use crate::support::snapshots;

mod contents;
mod failures;

use crate::support::exposition::Exposition;
use crate::support::otlp_series::{assert_same, exposed, points, series, translated, All, Point};
use crate::support::otlp_sink::{Does, Sink};
use crate::support::run::{eventually, loopback, DEADLINE};
use crate::support::snapshots::Host;

const NASTY: &str = "we\"ird\\vm\nname <b>&amp; ünï";

fn runtime<T>(job: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(job)
}

/// The exporter's state, with every metric about the exporter itself in use.
fn app(snapshot: Snapshot) -> Arc<App> {
    let (telemetry, registry) = Telemetry::new();
    telemetry.ticks.inc();
    telemetry.tick_duration.observe(0.002);
    telemetry.tick_duration.observe(7.0);
    telemetry.tick_cpu.inc_by(0.25);
    let source = [("source", "pmu".into())];
    telemetry.read_errors.get_or_create(source).inc();
    let labels = [("path", "/metrics".into()), ("code", 200.into())];
    telemetry.http_requests.get_or_create(labels).inc();
    telemetry.process.refresh();
    let snapshots = snapshot::Handle::default();
    snapshots.publish(Arc::new(snapshot));
    Arc::new(App {
        snapshots,
        telemetry,
        registry,
        max_age: Duration::from_secs(10),
    })
}

fn settings(url: String, protocol: Protocol) -> Settings {
    Settings {
        url,
        protocol,
        temporality: Temporality::Cumulative,
        compression: Compression::None,
        interval: Duration::from_secs(15),
        timeout: DEADLINE,
        headers: BTreeMap::new(),
        basic_auth: None,
        tls: Tls::default(),
    }
}

fn resource() -> Resource {
    let host = Identity {
        name: Some("kvm-07".to_owned()),
        ..Identity::default()
    };
    Resource::new(&host, None, &BTreeMap::new())
}

fn clock() -> Clock {
    Clock::new(0)
}

fn unix_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// The snapshot with an age of 1.5 s.
fn export<'a>(app: &'a App, snapshot: &'a Snapshot) -> Export<'a> {
    let age = Duration::from_millis(1500);
    Export {
        snapshot,
        registry: &app.registry,
        now: snapshot.taken_mono + age,
        now_unix: unix_ns(snapshot.taken + age),
    }
}

/// `/metrics` for the same snapshot.
fn shown(export: &Export<'_>) -> All {
    let mut out = Vec::new();
    text::encode(
        Format::Text,
        export.snapshot,
        export.registry,
        export.now,
        &mut out,
    );
    let text = String::from_utf8(out).unwrap();
    let samples = Exposition::parse(&text).samples;
    exposed(samples.iter().map(|s| (&s.name, &s.labels, s.value)))
}

fn all_points(sink: &Sink) -> Vec<Point> {
    sink.taken().iter().flat_map(points).collect()
}

const BOTH: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

/// A server for this protocol, and the settings to reach it.
fn serve(sink: &Sink, protocol: Protocol) -> (otlp_sink::Server, Settings) {
    serve_at(sink, protocol, &SocketAddr::new(loopback(), 0).to_string())
}

fn serve_at(sink: &Sink, protocol: Protocol, at: &str) -> (otlp_sink::Server, Settings) {
    let server = match protocol {
        Protocol::Http => sink.http(at),
        Protocol::Grpc => sink.grpc(at),
    };
    let url = match protocol {
        Protocol::Http => format!("http://{}/v1/metrics", server.address),
        Protocol::Grpc => format!("http://{}", server.address),
    };
    (server, settings(url, protocol))
}

/// The snapshot with VMs whose processes and threads started at these times.
fn with_starts(mut snapshot: Snapshot, starts: &[(&str, u64)]) -> Snapshot {
    let mut facts = snapshot.facts.to_vec();
    for (name, start_time) in starts {
        let vms = &mut snapshot.vms;
        let vm = vms.iter_mut().find(|vm| vm.labels.get("vm") == Some(name));
        let vm = vm.unwrap();
        let before = vm.key;
        vm.key.start_time = *start_time;
        for fact in &mut facts {
            if fact.subject.vm() == Some(before) {
                fact.subject = Subject::Vm(vm.key);
            }
        }
        for vcpu in &mut snapshot.vcpus[vm.vcpus.clone()] {
            (vcpu.vm, vcpu.vcpu.start_time) = (vm.key, *start_time);
        }
    }
    snapshot.facts = facts.into();
    // After the clocks that are created next.
    snapshot.taken = SystemTime::now() + Duration::from_secs(5);
    snapshot
}

/// A pusher, and the resulting series of its receiver: each push updates those of the last.
struct Watch {
    app: Arc<App>,
    pusher: Pusher,
    sink: Sink,
    has: All,
}

impl Watch {
    fn new(sink: &Sink, settings: Settings, app: &Arc<App>) -> Self {
        Self {
            pusher: Pusher::new(settings, resource(), clock(), Arc::clone(app)),
            app: Arc::clone(app),
            sink: sink.clone(),
            has: All::new(),
        }
    }

    async fn push(&mut self) -> Outcome {
        let outcome = self.pusher.push().await;
        for point in all_points(&self.sink) {
            let mut one = All::new();
            point.series(&mut one);
            let cumulative = !matches!(
                point.kind,
                otlp_series::Kind::Sum { cumulative: false }
                    | otlp_series::Kind::Histogram { cumulative: false }
            );
            for (id, value) in one {
                let before = self.has.entry(id).or_insert(0.0);
                *before = if cumulative { value } else { *before + value };
            }
        }
        outcome
    }

    /// Publishes a snapshot in which everything has advanced.
    fn go_on(&self, by: u64) {
        let newest = self.app.snapshots.load().unwrap();
        let mut snapshot = Host::named(["a", "b"]).snapshot();
        snapshot.inventory = newest.inventory.clone();
        snapshot.taken = newest.taken + Duration::from_secs(1);
        snapshot.series_totals = newest.series_totals.iter().map(|n| n + by).collect();
        snapshot.vcpu_values = newest.vcpu_values.iter().map(|n| n + by).collect();
        self.app.snapshots.publish(Arc::new(snapshot));
    }

    /// Fails unless the receiver has the totals of the latest snapshot.
    #[track_caller]
    fn assert_totals(&self) {
        let snapshot = self.app.snapshots.load().unwrap();
        let mut shown = shown(&export(&self.app, &snapshot));
        let totals =
            |id: &otlp_series::Id| id.0.starts_with("kvm_vcpu_") && id.0.ends_with("_total");
        shown.retain(|id, _| totals(id));
        assert!(shown.len() > 50);
        for (id, value) in &shown {
            // Sums of deltas in seconds are floats.
            let has = self.has.get(id).copied().unwrap_or(f64::NAN);
            assert!(
                (has - value).abs() <= value * 1e-12,
                "{id:?}: {has}, not {value}"
            );
        }
    }

    fn outcomes(&self, word: &str) -> u64 {
        let pushes = &self.app.telemetry.otlp.pushes;
        let endpoint = self.pusher.settings().url.clone().into();
        let labels = [("endpoint", endpoint), ("outcome", word.to_owned().into())];
        pushes.get_or_create(labels).get()
    }
}

/// An app whose VMs started after the exporter.
fn young_app() -> Arc<App> {
    app(with_starts(Host::named(["a", "b"]).snapshot(), &[]))
}

const OVER: Temporality = Temporality::Delta;
