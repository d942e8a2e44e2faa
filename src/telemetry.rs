//! The exporter's own metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;

use crate::metric::{metrics, Keys, Label, Metric, Rows};

pub mod heartbeats;
pub(crate) mod otlp;
pub(crate) mod process;
pub mod values;

pub use heartbeats::{Hang, Heartbeat, Heartbeats};
pub use otlp::{EndpointLabel, Otlp, OutcomeLabels};
pub use process::Process;
pub use values::Registry;

use values::{Family, Histogram, Info, LabelSet};

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLabel {
    /// Name of the source.
    pub source: &'static str,
}

impl LabelSet for SourceLabel {
    fn labels(&self) -> Vec<Label> {
        vec![("source", self.source.into())]
    }
}

/// Labels of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestLabels {
    /// One of the known paths, or `other`: a client must not be able to create series.
    pub path: &'static str,
    /// HTTP status code.
    pub code: u16,
}

impl LabelSet for RequestLabels {
    fn labels(&self) -> Vec<Label> {
        vec![
            ("path", self.path.into()),
            ("code", i32::from(self.code).into()),
        ]
    }
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
    const US: u64 = 1000;
    const MS: u64 = 1_000_000;
    Histogram::new(&[
        100 * US,
        300 * US,
        MS,
        3 * MS,
        10 * MS,
        30 * MS,
        100 * MS,
        300 * MS,
        1000 * MS,
        3000 * MS,
    ])
}

impl Telemetry {
    /// Creates all metrics and the registry that reads them.
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
        let build = [("version", VERSION), ("revision", REVISION)];
        let build = build.map(|(name, value)| (name, value.into()));
        all.add(&BUILD_INFO, Info(build.into()));
        all.add(&TICKS, self.ticks.clone());
        all.add(&MISSED_TICKS, self.missed_ticks.clone());
        all.add(&TICK_DURATION, self.tick_duration.clone());
        all.add(&TICK_CPU, self.tick_cpu.clone());
        all.add(&READ_ERRORS, self.read_errors.clone());
        all.add(&INVENTORY_PASSES, self.inventory_passes.clone());
        all.add(&INVENTORY_DURATION, self.inventory_duration.clone());
        all.add(&HOST_FILE_OPENS, self.host_file_opens.clone());
        all.add(&heartbeats::THREAD_BUSY, self.heartbeats.clone());
        all.add(&HTTP_REQUESTS, self.http_requests.clone());
        all.add(&SCRAPE_DURATION, self.scrape_duration.clone());
        self.otlp.register(&mut all);
        self.process.register(&mut all);
        all
    }
}
