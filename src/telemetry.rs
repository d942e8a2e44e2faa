//! The exporter's own metrics, kept with prometheus-client. Each is an entry of the catalogue
//! with source `self`; a test holds the two equal.

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

/// The commit it was built from, or `unknown`; see build.rs.
pub const REVISION: &str = env!("VCPU_EXPORTER_REVISION");

/// A counter of seconds.
pub type SecondsCounter = Counter<f64, AtomicU64>;

/// Label of read errors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// The source's name.
    pub source: &'static str,
}

/// Labels of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// One of the known paths, or `other`: what a client asks for must not make series.
    pub path: &'static str,
    /// HTTP status code.
    pub code: u16,
}

/// Label of what belongs to a receiver of pushes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabel {
    /// Its URL, in which there is no secret.
    pub endpoint: String,
}

/// Labels of what became of pushes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// The receiver's URL, in which there is no secret.
    pub endpoint: String,
    /// What became of it.
    pub outcome: &'static str,
}

/// Handles to all of them; cloning shares the values.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Ticks of the sampler.
    pub ticks: Counter,
    /// Ticks left out because the one before took too long.
    pub missed_ticks: Counter,
    /// Wall time of one tick.
    pub tick_duration: Histogram,
    /// CPU time of the sampler thread.
    pub tick_cpu: SecondsCounter,
    /// Failed readings by source.
    pub read_errors: Family<SourceLabel, Counter>,
    /// Inventory passes.
    pub inventory_passes: Counter,
    /// Wall time of an inventory pass.
    pub inventory_duration: Histogram,
    /// Files and directories opened below the host roots.
    pub host_file_opens: Counter,
    /// Progress of the exporter's threads.
    pub heartbeats: Heartbeats,
    /// Answered requests.
    pub http_requests: Family<RequestLabels, Counter>,
    /// Time to encode and compress a scrape.
    pub scrape_duration: Histogram,
    /// Pushing.
    pub otlp: Otlp,
    /// `process_*`
    pub process: Process,
}

/// What became of pushes by OTLP.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Pushes by outcome: `delivered`, `failed`, `refused`.
    pub pushes: Family<OutcomeLabels, Counter>,
    /// Data points by outcome: `delivered`, `rejected`, `refused`.
    pub data_points: Family<OutcomeLabels, Counter>,
    /// Time of one push, from encoding to the last answer.
    pub duration: Family<EndpointLabel, Histogram, fn() -> Histogram>,
    /// When the last one was delivered, seconds since the epoch.
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

/// The process' own figures, as Prometheus clients name them; refreshed by the inventory lane,
/// so that a scrape reads nothing.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// CPU seconds.
    pub cpu: SecondsCounter,
    /// Resident bytes.
    pub resident: Gauge,
    /// Virtual bytes.
    pub virtual_memory: Gauge,
    /// Open descriptors.
    pub open_fds: Gauge,
    /// Descriptor limit.
    pub max_fds: Gauge,
    /// Start, seconds since the epoch.
    pub start_time: Gauge<f64, AtomicU64>,
}

/// Buckets from 100 µs to 3.2 s: a tick of one idle VM to one that overruns its second.
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
            "Ticks that could not start in time and were left out",
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
            "CPU time the sampler thread used",
            Unit::Seconds,
            self.tick_cpu.clone(),
        );
        r.register(
            "read_errors",
            "Readings of a vCPU that failed, by source",
            self.read_errors.clone(),
        );
        r.register(
            "inventory_passes",
            "Passes of the inventory over the host",
            self.inventory_passes.clone(),
        );
        r.register_with_unit(
            "inventory_duration",
            "Wall time of one inventory pass",
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
            "Pushes by OTLP: delivered, failed (tried again) or refused",
            self.pushes.clone(),
        );
        r.register(
            "otlp_data_points",
            "Data points pushed by OTLP: delivered, rejected by a receiver that took the rest, or refused",
            self.data_points.clone(),
        );
        r.register_with_unit(
            "otlp_push_duration",
            "Time of one push by OTLP, from encoding to the last answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        r.register_with_unit(
            "otlp_last_delivery_timestamp",
            "Unix time of the last push by OTLP that was delivered",
            Unit::Seconds,
            self.last_delivery.clone(),
        );
    }
}

impl Process {
    /// Reads the process' own figures from its own /proc, whatever the host's roots are. What
    /// cannot be read stays as it was.
    pub fn refresh(&self) {
        let _unreadable: Result<(), ProcError> = self.try_refresh();
    }

    fn try_refresh(&self) -> Result<(), ProcError> {
        // First: what follows opens /proc/self itself.
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
            // Once: /proc/stat is milliseconds long on a machine of many CPUs, and its boot time
            // is off by one now and then, while clocks are set.
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
            "Most file descriptors the exporter may open",
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

/// How many descriptors this process has open. procfs' own count has a few too many: the
/// directories it is made through, and up to Linux 6.1 `.` and `..`.
fn open_descriptors() -> std::io::Result<i64> {
    const OWN: &str = "/proc/self/fd";
    // Since Linux 6.2 (commit f1f1f2569901) the size of the directory is the number of them.
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
