//! The exporter's own metrics, kept with prometheus-client.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{self, Registry, Unit};
use std::sync::atomic::AtomicU64;

use crate::metric::{metrics, Keys, Metric, Rows};

pub mod heartbeats;
pub(crate) mod otlp;
pub(crate) mod process;

pub use heartbeats::{Hang, Heartbeat, Heartbeats};
pub use otlp::{EndpointLabel, Otlp, OutcomeLabels};
pub use process::Process;

metrics! { METRICS of "self":
    BUILD_INFO = Metric::info("kvm_exporter_build_info", Keys::Exporter, &["version", "revision"],
        "The exporter's version").rows(Rows::Registry);
    TICKS = Metric::counter("kvm_exporter_ticks_total", Keys::Exporter, &[],
        "Ticks of the sampler").rows(Rows::Registry);
    MISSED_TICKS = Metric::counter("kvm_exporter_missed_ticks_total", Keys::Exporter, &[],
        "Ticks that could not start in time and were skipped").rows(Rows::Registry);
    TICK_DURATION = Metric::histogram("kvm_exporter_tick_duration_seconds", Keys::Exporter, &[],
        "Wall time of one tick over all vCPUs").rows(Rows::Registry);
    TICK_CPU = Metric::counter("kvm_exporter_tick_cpu_seconds_total", Keys::Exporter, &[],
        "CPU time of the sampler thread").rows(Rows::Registry);
    READ_ERRORS = Metric::counter("kvm_exporter_read_errors_total", Keys::Exporter, &["source"],
        "Failed reads of a vCPU, by source").rows(Rows::Registry);
    INVENTORY_PASSES = Metric::counter("kvm_exporter_inventory_passes_total", Keys::Exporter, &[],
        "Discovery scans of the host").rows(Rows::Registry);
    INVENTORY_DURATION = Metric::histogram("kvm_exporter_inventory_duration_seconds", Keys::Exporter, &[],
        "Wall time of one discovery scan").rows(Rows::Registry);
    HOST_FILE_OPENS = Metric::counter("kvm_exporter_host_file_opens_total", Keys::Exporter, &[],
        "Files and directories opened below the host roots").rows(Rows::Registry);
}

metrics! { REQUESTS of "self":
    HTTP_REQUESTS = Metric::counter("kvm_exporter_http_requests_total", Keys::Exporter, &["path", "code"],
        "HTTP requests answered").rows(Rows::Registry);
    SCRAPE_DURATION = Metric::histogram("kvm_exporter_scrape_duration_seconds", Keys::Exporter, &[],
        "Time to encode and compress one scrape").rows(Rows::Registry);
}

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, or `unknown`; see build.rs.
pub const REVISION: &str = env!("VCPU_EXPORTER_REVISION");

/// A counter in seconds.
pub type SecondsCounter = Counter<f64, AtomicU64>;

/// Label of failed reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Name of the source.
    pub source: &'static str,
}

/// Labels of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// One of the known paths, or `other`: a client must not be able to create series.
    pub path: &'static str,
    /// HTTP status code.
    pub code: u16,
}

/// Handles to all metrics; a clone shares the values.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Ticks of the sampler, skipped ticks not included.
    pub ticks: Counter,
    /// Ticks skipped because an earlier tick took too long.
    pub missed_ticks: Counter,
    /// Wall time of one tick, in seconds.
    pub tick_duration: Histogram,
    /// CPU time of the sampler thread, in seconds.
    pub tick_cpu: SecondsCounter,
    /// Failed reads, by source.
    pub read_errors: Family<SourceLabel, Counter>,
    /// Discovery scans.
    pub inventory_passes: Counter,
    /// Wall time of one discovery scan, in seconds.
    pub inventory_duration: Histogram,
    /// Files and directories opened below the host roots.
    pub host_file_opens: Counter,
    /// Current step of each of the exporter's threads.
    pub heartbeats: Heartbeats,
    /// Answered HTTP requests.
    pub http_requests: Family<RequestLabels, Counter>,
    /// Time to encode and compress one scrape, in seconds.
    pub scrape_duration: Histogram,
    /// Metrics of OTLP pushes.
    pub otlp: Otlp,
    /// The `process_*` metrics.
    pub process: Process,
}

/// Buckets from 100 µs (a tick over one idle VM) to 3 s (a tick that overruns its second).
fn durations() -> Histogram {
    Histogram::new([
        0.0001, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0,
    ])
}

impl Telemetry {
    /// Creates all metrics and the registry that encodes them.
    pub fn new() -> (Self, Registry) {
        let telemetry = Self {
            ticks: Counter::default(),
            missed_ticks: Counter::default(),
            tick_duration: durations(),
            tick_cpu: SecondsCounter::default(),
            read_errors: Family::default(),
            inventory_passes: Counter::default(),
            inventory_duration: durations(),
            host_file_opens: Counter::default(),
            heartbeats: Heartbeats::default(),
            http_requests: Family::default(),
            scrape_duration: durations(),
            otlp: Otlp::default(),
            process: Process::default(),
        };
        let registry = telemetry.register();
        (telemetry, registry)
    }

    fn register(&self) -> Registry {
        let mut all = Registry::default();
        let r = group(&mut all);
        let build = vec![("version", VERSION), ("revision", REVISION)];
        register(r, &BUILD_INFO, Info::new(build));
        register(r, &TICKS, self.ticks.clone());
        register(r, &MISSED_TICKS, self.missed_ticks.clone());
        register(r, &TICK_DURATION, self.tick_duration.clone());
        register(r, &TICK_CPU, self.tick_cpu.clone());
        register(r, &READ_ERRORS, self.read_errors.clone());
        register(r, &INVENTORY_PASSES, self.inventory_passes.clone());
        register(r, &INVENTORY_DURATION, self.inventory_duration.clone());
        register(r, &HOST_FILE_OPENS, self.host_file_opens.clone());
        r.register_collector(Box::new(self.heartbeats.clone()));
        register(r, &HTTP_REQUESTS, self.http_requests.clone());
        register(r, &SCRAPE_DURATION, self.scrape_duration.clone());
        self.otlp.register(r);
        self.process.register(group(&mut all));
        all
    }
}

/// A part of the registry: it exposes its metrics before its collectors, and all of them before
/// the next part.
fn group(registry: &mut Registry) -> &mut Registry {
    registry.sub_registry_with_labels(std::iter::empty())
}

/// Registers the values of a metric under its name, unit and help.
fn register(registry: &mut Registry, metric: &Metric, values: impl registry::Metric) {
    let (stem, unit) = stem_and_unit(metric);
    match unit {
        Some(unit) => registry.register_with_unit(stem, metric.help, unit, values),
        None => registry.register(stem, metric.help, values),
    }
}

/// The name without the unit and type that prometheus-client appends.
fn stem_and_unit(metric: &Metric) -> (&'static str, Option<Unit>) {
    let name = metric.family();
    let without = |end: &str| name.strip_suffix(end).unwrap_or(name);
    match metric.unit() {
        "seconds" => (without("_seconds"), Some(Unit::Seconds)),
        "bytes" => (without("_bytes"), Some(Unit::Bytes)),
        _ => (name, None),
    }
}
