//! Use of each host core between the last two readings of /proc/stat, and the part used by VMs.

use std::collections::HashMap;

use super::delta::fact_deltas;
use super::{FactRow, Snapshot};
use crate::host::cpu_time::BUSY;
use crate::sources::host::CORE_TIME;
use crate::sources::threads::THREAD_TIME;

/// Package ID and core ID.
pub(crate) type CoreKey = (i32, i32);

/// Use of one core, in threads: the maximum is the number of its online threads. The values are
/// averages over the 5 s to 60 s between two readings, and coarser than thread times (see
/// `host_cpu` in docs/METRICS.md).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct CoreUse {
    /// Total use: all modes except idle and iowait.
    pub busy: f64,
    /// Part of `busy` that the hypervisor below this host gave to others.
    pub steal: f64,
    /// Unused: idle and iowait.
    pub idle: f64,
    /// Used by threads of VMs, vCPUs and others; `None` without data from the `threads` source.
    pub vms: Option<f64>,
}

impl CoreUse {
    /// Used by the host itself: host processes, kernel threads and interrupts.
    pub(crate) fn host(&self) -> Option<f64> {
        Some((self.busy - self.steal - self.vms?).max(0.0))
    }
}

/// Use of each core that was read at least twice.
pub(crate) fn core_use(snapshot: &Snapshot) -> HashMap<CoreKey, CoreUse> {
    let mut cores: HashMap<CoreKey, CoreUse> = HashMap::new();
    for (row, increase) in fact_deltas(snapshot, &CORE_TIME) {
        let (Some(key), Some(mode)) = (key(row), row.labels.get("mode")) else {
            continue;
        };
        let core = cores.entry(key).or_default();
        if BUSY.contains(&mode) {
            core.busy += increase.rate()
        } else {
            core.idle += increase.rate()
        }
        if mode == "steal" {
            core.steal += increase.rate();
        }
    }
    let mut known = false;
    let mut of_vms: HashMap<CoreKey, f64> = HashMap::new();
    for (row, increase) in fact_deltas(snapshot, &THREAD_TIME) {
        known = true;
        if let Some(key) = key(row) {
            *of_vms.entry(key).or_default() += increase.rate();
        }
    }
    for (key, core) in cores.iter_mut().filter(|_| known) {
        core.vms = Some(of_vms.get(key).copied().unwrap_or(0.0));
    }
    cores
}

fn key(row: &FactRow) -> Option<CoreKey> {
    Some((row.labels.number("package")?, row.labels.number("core")?))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::metric::FactValue;
    use crate::snapshot::fixture::empty;

    const THREADS: &str = "kvm_vm_thread_time_seconds_total";

    /// Ten seconds in which one core ran in these modes, and VM threads used these rates of it.
    fn snapshot(modes: &[(&str, f64)], vms: &[f64]) -> Snapshot {
        let start = Instant::now();
        let at = |after: u64| {
            let mut snapshot = empty(start, Duration::from_secs(after));
            let seconds = |rate: f64| FactValue::Float(rate * after as f64);
            for (mode, rate) in modes {
                let labels = [
                    ("package", "1"),
                    ("core", "7"),
                    ("numa_node", "1"),
                    ("mode", mode),
                ];
                snapshot.add_fact("kvm_host_core_seconds_total", &labels, seconds(*rate));
            }
            for (vm, rate) in ["a", "b"].into_iter().zip(vms) {
                let labels = [
                    ("vm", vm),
                    ("role", "vcpu"),
                    ("package", "1"),
                    ("core", "7"),
                    ("numa_node", "1"),
                ];
                snapshot.add_fact(THREADS, &labels, seconds(*rate));
            }
            snapshot
        };
        let mut now = at(10);
        now.facts_before = at(0).facts;
        now
    }

    #[test]
    fn host_use_is_the_rest_without_vms() {
        let modes = [
            ("user", 0.5),
            ("guest", 0.6),
            ("system", 0.2),
            ("irq", 0.1),
            ("steal", 0.1),
            ("iowait", 0.2),
            ("idle", 0.3),
        ];
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let found = core_use(&snapshot(&modes, &[0.5, 0.2]))[&(1, 7)];
        assert!(near(found.busy, 1.5) && near(found.idle, 0.5), "{found:?}");
        assert!(near(found.host().unwrap(), 0.7), "{found:?}");
        let unknown = core_use(&snapshot(&modes, &[]))[&(1, 7)];
        assert_eq!((unknown.vms, unknown.host()), (None, None));
        // Ticks are sampled, thread times are exact.
        let more = core_use(&snapshot(&[("guest", 0.6)], &[0.7]))[&(1, 7)];
        assert_eq!(more.host(), Some(0.0));
        assert!(core_use(&snapshot(&[], &[0.7])).is_empty());
    }
}
