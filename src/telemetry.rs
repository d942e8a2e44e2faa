//! The exporter's own metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;

use crate::metric::{metrics, Keys, Metric, Rows};

pub(crate) mod heartbeats;
pub(crate) mod otlp;
pub(crate) mod process;
pub(crate) mod values;

pub(crate) use heartbeats::{Hang, Heartbeat, Heartbeats};
pub use otlp::Otlp;
pub use process::Process;
pub use values::Registry;

use values::{Family, Histogram};

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
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, or `unknown`; see build.rs.
pub(crate) const REVISION: &str = env!("VCPU_EXPORTER_REVISION");

pub(crate) type SecondsCounter = Counter<f64, AtomicU64>;

/// Handles to all metrics; a clone shares the values.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Ticks of the sampler, skipped ticks not included.
    pub ticks: Counter,
    pub(crate) missed_ticks: Counter,
    /// Wall time of one tick, in seconds.
    pub tick_duration: Histogram,
    /// CPU time of the sampler thread, in seconds.
    pub tick_cpu: SecondsCounter,
    /// Failed reads, by source.
    pub read_errors: Family<1, Counter>,
    pub(crate) inventory_passes: Counter,
    pub(crate) inventory_duration: Histogram,
    pub(crate) host_file_opens: Counter,
    pub(crate) heartbeats: Heartbeats,
    /// Answered HTTP requests, by path and code.
    pub http_requests: Family<2, Counter>,
    pub(crate) scrape_duration: Histogram,
    /// Metrics of OTLP pushes.
    pub otlp: Otlp,
    /// The `process_*` metrics.
    pub process: Process,
}

impl Telemetry {
    /// Creates all metrics and the registry that reads them.
    pub fn new() -> (Self, Registry) {
        let telemetry = Self::default();
        let registry = telemetry.register();
        (telemetry, registry)
    }

    /// Counts failed reads of a source, which has a series from its first one on.
    pub(crate) fn count_read_errors(&self, source: &'static str, errors: u64) {
        if errors > 0 {
            let labels = [("source", source.into())];
            self.read_errors.get_or_create(labels).inc_by(errors);
        }
    }

    fn register(&self) -> Registry {
        let mut all = Registry::default();
        let build = Family::<2, Counter>::default();
        let labels = [("version", VERSION.into()), ("revision", REVISION.into())];
        build.get_or_create(labels).inc();
        all.add(&BUILD_INFO, build);
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
