//! The exporter's own process.

use std::sync::atomic::AtomicU64;

use procfs::ProcError;
use prometheus_client::metrics::gauge::Gauge;

use super::values::Registry;
use super::SecondsCounter;
use crate::metric::{metrics, Keys, Metric, Rows};

metrics! { METRICS of "self":
    CPU = Metric::counter("process_cpu_seconds_total", Keys::Exporter, &[],
        "User and system CPU time of the exporter").rows(Rows::Registry);
    RESIDENT_MEMORY = Metric::gauge("process_resident_memory_bytes", Keys::Exporter, &[],
        "Resident memory of the exporter").rows(Rows::Registry);
    VIRTUAL_MEMORY = Metric::gauge("process_virtual_memory_bytes", Keys::Exporter, &[],
        "Virtual memory of the exporter").rows(Rows::Registry);
    OPEN_FDS = Metric::gauge("process_open_fds", Keys::Exporter, &[],
        "Open file descriptors of the exporter").rows(Rows::Registry);
    MAX_FDS = Metric::gauge("process_max_fds", Keys::Exporter, &[],
        "Maximum number of open file descriptors of the exporter").rows(Rows::Registry);
    START_TIME = Metric::gauge("process_start_time_seconds", Keys::Exporter, &[],
        "Start time of the exporter since the Unix epoch").rows(Rows::Registry);
}

/// The exporter's own process metrics, under the names that Prometheus clients use. Discovery
/// refreshes them, so a scrape reads nothing.
#[derive(Debug, Clone, Default)]
pub struct Process {
    cpu: SecondsCounter,
    resident: Gauge<u64, AtomicU64>,
    virtual_memory: Gauge<u64, AtomicU64>,
    open_fds: Gauge<u64, AtomicU64>,
    max_fds: Gauge<u64, AtomicU64>,
    /// Start time in seconds since the epoch.
    pub start_time: Gauge<f64, AtomicU64>,
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
        self.resident.set(stat.rss * procfs::page_size());
        self.virtual_memory.set(stat.vsize);
        if self.start_time.get() == 0.0 {
            // Only once: reading /proc/stat takes milliseconds on a machine with many CPUs, and its
            // boot time varies by one second while the clock is being set.
            let boot = procfs::boot_time_secs()? as f64;
            self.start_time
                .set(boot + stat.starttime as f64 / per_second);
        }
        if let procfs::process::LimitValue::Value(max) = me.limits()?.max_open_files.soft_limit {
            self.max_fds.set(max);
        }
        Ok(())
    }

    pub(super) fn register(&self, all: &mut Registry) {
        all.add(&CPU, self.cpu.clone());
        all.add(&RESIDENT_MEMORY, self.resident.clone());
        all.add(&VIRTUAL_MEMORY, self.virtual_memory.clone());
        all.add(&OPEN_FDS, self.open_fds.clone());
        all.add(&MAX_FDS, self.max_fds.clone());
        all.add(&START_TIME, self.start_time.clone());
    }
}

/// Number of descriptors this process has open. The count of the procfs crate is a few too high:
/// it includes the directories that it opens to count, and up to Linux 6.1 also `.` and `..`.
fn open_descriptors() -> std::io::Result<u64> {
    const OWN: &str = "/proc/self/fd";
    // Since Linux 6.2 (commit f1f1f2569901) the size of the directory is the number of descriptors.
    Ok(match std::fs::metadata(OWN)?.len() {
        0 => std::fs::read_dir(OWN)?.count().saturating_sub(1) as u64,
        size => size,
    })
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
