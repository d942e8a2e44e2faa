//! A simulated host of a thousand vCPUs: some wait, some miss the cache, and one VM appears and
//! disappears on request. Its activity is constant, so that its page can be inspected.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use vcpu_exporter::engine::demand::OfCpu;
use vcpu_exporter::engine::Origin;
use vcpu_exporter::metric::FactValue;
use vcpu_exporter::snapshot::{metrics, CpuRow, FactRow, Handle, Snapshot, Subject};

use super::snapshots::{key, labels, Host};

/// A name that would be a script if it were not escaped.
pub(crate) const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// The VM that appears and disappears.
pub(crate) const VISITOR: &str = "zz-visitor";

/// Publishes the host's activity in simulated seconds.
pub(crate) struct PageHost {
    handle: Handle,
    names: Vec<String>,
    vcpus: usize,
    start: Instant,
    tick: u64,
}

impl PageHost {
    /// VMs with 8 vCPUs each, `vcpus` in total, with some seconds of history.
    pub(crate) fn new(handle: Handle, vcpus: usize) -> Self {
        let kinds = ["web", "api", "db", "ci"];
        let count = (vcpus / 8).max(2);
        let mut names: Vec<String> = (1..count)
            .map(|n| format!("{}-{n}", kinds[n % kinds.len()]))
            .collect();
        names.insert(0, HOSTILE.to_owned());
        let mut host = Self {
            handle,
            names,
            vcpus: 8.min(vcpus),
            start: Instant::now(),
            tick: 0,
        };
        for _ in 0..12 {
            host.tick();
        }
        host
    }

    /// Adds or removes the visiting VM.
    pub(crate) fn visitor(&mut self, there: bool) {
        self.names.retain(|name| name != VISITOR);
        if there {
            self.names.push(VISITOR.to_owned());
        }
    }

    /// Simulates one second.
    pub(crate) fn tick(&mut self) {
        self.tick += 1;
        self.handle.publish(Arc::new(self.snapshot()));
    }

    fn snapshot(&self) -> Snapshot {
        let host = Host {
            names: self.names.clone(),
            vcpus: self.vcpus,
            places: 1,
            cpus: 128,
        };
        let mut snapshot = host.snapshot();
        snapshot.taken += Duration::from_secs(self.tick);
        snapshot.taken_mono = self.start + Duration::from_secs(self.tick);
        snapshot.tick = self.tick;
        let mut wanted = vec![OfCpu::default(); 128];
        for n in 0..snapshot.vcpus.len() {
            let at = snapshot.vcpus[n].location.unwrap();
            let [time, delay] = self.run(&mut snapshot, n);
            // CPU totals remain when the VM that used the CPU disappears.
            if snapshot.vcpus[n].labels.get("vm") == Some(VISITOR) {
                continue;
            }
            wanted[at.cpu as usize].time += time;
            wanted[at.cpu as usize].delay += delay;
        }
        let row = |(cpu, demand): (usize, &OfCpu)| CpuRow {
            cpu: cpu as u32,
            labels: labels(&[("cpu", &cpu.to_string())]),
            demand: *demand,
        };
        snapshot.demand = wanted.iter().enumerate().map(row).collect();
        snapshot.facts = self.facts(&snapshot, self.start + Duration::from_secs(45), 45);
        snapshot.facts_before = self.facts(&snapshot, self.start, 0);
        snapshot
    }

    /// Sets a vCPU's totals since the start at its constant rates.
    fn run(&self, snapshot: &mut Snapshot, n: usize) -> [u64; 2] {
        let vm = n / self.vcpus;
        let busy = [20, 90, 120, 60, 5, 100, 110][(n * 7 + vm) % 7];
        let (waits, cpi, mpki) = match vm {
            3 => (busy * 2, 1.2, 2),
            11 => (busy / 3, 3.1, 24),
            29 => (busy / 11, 1.9, 4),
            vm => (busy / 150, 0.7 + (vm % 9) as f64 / 4.0, (vm % 5) as u64),
        };
        let instructions = 1_000_000 * busy;
        let a_second: [(&str, Option<&str>, u64); 5] = [
            ("kvm_vcpu_time_seconds_total", None, busy * 1_000_000),
            ("kvm_vcpu_delay_seconds_total", None, waits * 1_000_000),
            (
                "kvm_vcpu_cycles_total",
                Some("guest"),
                (instructions as f64 * cpi) as u64,
            ),
            ("kvm_vcpu_instructions_total", Some("guest"), instructions),
            (
                "kvm_vcpu_cache_misses_total",
                Some("guest"),
                instructions / 1000 * mpki,
            ),
        ];
        let (series, width) = (snapshot.vcpus[n].series.start, snapshot.placed.len());
        for (metric, mode, more) in a_second {
            let is = |c: &vcpu_exporter::snapshot::ColumnRow| {
                c.metric.name == metric && c.labels.get("mode") == mode
            };
            let column = snapshot.placed.iter().position(is).unwrap();
            snapshot.series_totals[series * width + column] += more * self.tick;
            snapshot.vcpu_totals[n * width + column] += more * self.tick;
        }
        [busy, waits].map(|ms| ms * 1_000_000 * self.tick)
    }

    /// Facts of background collectors at `since`, `seconds` after the start.
    fn facts(&self, snapshot: &Snapshot, since: Instant, seconds: u64) -> Arc<[FactRow]> {
        let mut rows = Vec::new();
        let mut add = |metric: &str, pairs: &[(&'static str, &str)], value: u64| {
            let labels = labels(pairs);
            let vm = labels.get("vm").map(key);
            rows.push(FactRow {
                metric: metrics::find(metric).unwrap(),
                subject: vm.map_or(Subject::Host, Subject::Vm),
                labels,
                value: FactValue::Int(value),
                origin: Origin::Exporter,
                since,
            });
        };
        for (n, vm) in snapshot.vms.iter().enumerate() {
            let name = vm.labels.get("vm").unwrap();
            for node in ["0", "1"] {
                add(
                    "kvm_vm_memory_bytes",
                    &[("vm", name), ("numa_node", node)],
                    4 << 30,
                );
            }
            let level = [("vm", name), ("level", "vm")];
            if n == 17 {
                add("kvm_vm_cpu_quota_cores", &level, 2);
                add("kvm_vm_cpu_periods_total", &level, 10 * seconds);
                add("kvm_vm_cpu_throttled_periods_total", &level, 6 * seconds);
            }
        }
        for cpu in snapshot.inventory.topology.cpus.iter().step_by(2) {
            let (package, core) = (cpu.place.package.to_string(), cpu.place.core.to_string());
            let place = [("package", package.as_str()), ("core", core.as_str())];
            let clock = if cpu.place.core == 5 {
                1_400_000_000
            } else {
                2_600_000_000
            };
            add("kvm_host_core_frequency_hertz", &place, clock);
            add("kvm_host_core_frequency_base_hertz", &place, 2_000_000_000);
        }
        let about = [
            ("kernel", "6.1.0-18-amd64"),
            ("cpu_model", "Intel(R) Xeon(R) Gold 6338"),
        ];
        add("kvm_host_info", &about, 1);
        rows.sort_by_key(|row| metrics::position(row.metric));
        rows.into()
    }
}
