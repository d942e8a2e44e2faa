//! The exporter's own metrics, kept with prometheus-client. Each is an entry of the catalog with
//! source `self`; a test checks that both agree.

use procfs::ProcError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

pub mod heartbeats;

pub use heartbeats::{Hang, Heartbeat, Heartbeats};

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

/// Label of a push receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabel {
    /// URL of the receiver, without secrets.
    pub endpoint: String,
}

/// Labels of push results.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// URL of the receiver, without secrets.
    pub endpoint: String,
    /// `delivered`, `failed`, `rejected` or `refused`.
    pub outcome: &'static str,
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

/// Metrics of OTLP pushes.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Pushes by outcome: `delivered`, `failed`, `refused`.
    pub pushes: Family<OutcomeLabels, Counter>,
    /// Data points by outcome: `delivered`, `rejected`, `refused`.
    pub data_points: Family<OutcomeLabels, Counter>,
    /// Time of one push, from encoding to the last response.
    pub duration: Family<EndpointLabel, Histogram, fn() -> Histogram>,
    /// Time of the last delivered push, in seconds since the epoch.
    pub last_delivery: Family<EndpointLabel, Gauge<f64, AtomicU64>>,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            pushes: Family::default(),
            data_points: Family::default(),
            duration: Family::new_with_constructor(durations),
            last_delivery: Family::default(),
        }
    }
}

/// The exporter's own process metrics, under the names that Prometheus clients use. Discovery
/// refreshes them, so a scrape reads nothing.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// CPU time, user and system, in seconds.
    pub cpu: SecondsCounter,
    /// Resident memory in bytes.
    pub resident: Gauge,
    /// Virtual memory in bytes.
    pub virtual_memory: Gauge,
    /// Open file descriptors.
    pub open_fds: Gauge,
    /// Soft limit of open file descriptors.
    pub max_fds: Gauge,
    /// Start time in seconds since the epoch.
    pub start_time: Gauge<f64, AtomicU64>,
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
        let r = all.sub_registry_with_prefix("kvm_exporter");
        let build = vec![("version", VERSION), ("revision", REVISION)];
        r.register("build", "The exporter's version", Info::new(build));
        r.register("ticks", "Ticks of the sampler", self.ticks.clone());
        r.register(
            "missed_ticks",
            "Ticks that could not start in time and were skipped",
            self.missed_ticks.clone(),
        );
        r.register_with_unit(
            "tick_duration",
            "Wall time of one tick over all vCPUs",
            Unit::Seconds,
            self.tick_duration.clone(),
        );
        r.register_with_unit(
            "tick_cpu",
            "CPU time of the sampler thread",
            Unit::Seconds,
            self.tick_cpu.clone(),
        );
        r.register(
            "read_errors",
            "Failed reads of a vCPU, by source",
            self.read_errors.clone(),
        );
        r.register(
            "inventory_passes",
            "Discovery scans of the host",
            self.inventory_passes.clone(),
        );
        r.register_with_unit(
            "inventory_duration",
            "Wall time of one discovery scan",
            Unit::Seconds,
            self.inventory_duration.clone(),
        );
        r.register(
            "host_file_opens",
            "Files and directories opened below the host roots",
            self.host_file_opens.clone(),
        );
        r.register_collector(Box::new(self.heartbeats.clone()));
        r.register(
            "http_requests",
            "HTTP requests answered",
            self.http_requests.clone(),
        );
        r.register_with_unit(
            "scrape_duration",
            "Time to encode and compress one scrape",
            Unit::Seconds,
            self.scrape_duration.clone(),
        );
        self.otlp.register(r);
        self.process
            .register(all.sub_registry_with_prefix("process"));
        all
    }
}

impl Otlp {
    fn register(&self, r: &mut Registry) {
        r.register(
            "otlp_pushes",
            "OTLP pushes by outcome: delivered, failed (retried) or refused",
            self.pushes.clone(),
        );
        r.register(
            "otlp_data_points",
            "OTLP data points by outcome: delivered, rejected (by a receiver that accepted the rest), or refused",
            self.data_points.clone(),
        );
        r.register_with_unit(
            "otlp_push_duration",
            "Duration of one OTLP push, from encoding to the last response",
            Unit::Seconds,
            self.duration.clone(),
        );
        r.register_with_unit(
            "otlp_last_delivery_timestamp",
            "Unix time of the last delivered OTLP push",
            Unit::Seconds,
            self.last_delivery.clone(),
        );
    }
}

impl Process {
    /// Reads the process metrics from the exporter's own /proc/self, independent of the host roots.
    /// A value that cannot be read keeps its last reading.
    pub fn refresh(&self) {
        let _unreadable: Result<(), ProcError> = self.try_refresh();
    }

    fn try_refresh(&self) -> Result<(), ProcError> {
        // First, because the reads below open files in /proc/self themselves.
        self.open_fds.set(open_descriptors()?);
        let me = procfs::process::Process::myself()?;
        let stat = me.stat()?;
        let per_second = procfs::ticks_per_second() as f64;
        let cpu = (stat.utime + stat.stime) as f64 / per_second;
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
        self.resident.set(
            (stat.rss * procfs::page_size())
                .try_into()
                .unwrap_or(i64::MAX),
        );
        self.virtual_memory
            .set(stat.vsize.try_into().unwrap_or(i64::MAX));
        if self.start_time.get() == 0.0 {
            // Only once: reading /proc/stat takes milliseconds on a machine with many CPUs, and its
            // boot time varies by one second while the clock is being set.
            let boot = procfs::boot_time_secs()? as f64;
            self.start_time
                .set(boot + stat.starttime as f64 / per_second);
        }
        if let procfs::process::LimitValue::Value(max) = me.limits()?.max_open_files.soft_limit {
            self.max_fds.set(max.try_into().unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn register(&self, r: &mut Registry) {
        r.register_with_unit(
            "cpu",
            "User and system CPU time of the exporter",
            Unit::Seconds,
            self.cpu.clone(),
        );
        r.register_with_unit(
            "resident_memory",
            "Resident memory of the exporter",
            Unit::Bytes,
            self.resident.clone(),
        );
        r.register_with_unit(
            "virtual_memory",
            "Virtual memory of the exporter",
            Unit::Bytes,
            self.virtual_memory.clone(),
        );
        r.register(
            "open_fds",
            "Open file descriptors of the exporter",
            self.open_fds.clone(),
        );
        r.register(
            "max_fds",
            "Maximum number of open file descriptors of the exporter",
            self.max_fds.clone(),
        );
        r.register_with_unit(
            "start_time",
            "Start time of the exporter since the Unix epoch",
            Unit::Seconds,
            self.start_time.clone(),
        );
    }
}

/// Number of descriptors this process has open. The count of the procfs crate is a few too high:
/// it includes the directories that it opens to count, and up to Linux 6.1 also `.` and `..`.
fn open_descriptors() -> std::io::Result<i64> {
    const OWN: &str = "/proc/self/fd";
    // Since Linux 6.2 (commit f1f1f2569901) the size of the directory is the number of descriptors.
    let told = std::fs::metadata(OWN)?.len();
    let count = match told {
        0 => std::fs::read_dir(OWN)?.count().saturating_sub(1) as u64,
        told => told,
    };
    Ok(count.try_into().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_read_from_proc() {
        let process = Process::default();
        process.refresh();
        assert!(process.resident.get() > 1 << 20);
        assert!(process.virtual_memory.get() >= process.resident.get());
        assert!(process.open_fds.get() >= 3);
        assert!(process.start_time.get() > 1_500_000_000.0);
    }
}
