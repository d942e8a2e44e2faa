//! The `host_cpu` source: CPU time of each core by mode, including all work of the host.
//!
//! - `kvm_host_core_seconds_total{package,core,numa_node,mode}`, from /proc/stat, summed over the
//!   CPUs of a core
//!
//! All modes together gain one second per second and online CPU. The counters here never decrease,
//! whatever /proc/stat does: proc_stat(5) warns that `iowait` may decrease, `idle` is not exact on
//! a tickless CPU, and before Linux 6.8 both restart when a CPU comes back online (removal of
//! `idle_sleeptime`, kernel/time/tick-sched.c).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::unreadable;
use crate::config::Placement;
use crate::engine::ledger::SeriesKey;
use crate::engine::total::Total;
use crate::engine::{Fact, Found, HostSource, Origin, Reason, ReasonCode, Source, SourceInfo};
use crate::host::cpu_time::{self, MODES};
use crate::host::roots::Roots;
use crate::host::thread::ns_per_clock_tick;
use crate::host::topology::{Place, Topology};
use crate::metric::{metrics, FactValue, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "host_cpu":
    CORE = Metric::counter("kvm_host_core_seconds_total", Keys::Host, &["package", "core", "numa_node", "mode"],
        "CPU time of the core, summed over its threads, by mode: user (without guest), guest (vCPUs in guest mode), system, irq, softirq, steal (used by the hypervisor below this host), iowait, idle");
}

/// A decrease by more than this is a reset; a smaller one is ignored until the counter catches up.
const MOST_BACK: Duration = Duration::from_secs(3);

/// Counters of one CPU in nanoseconds, in the order of [`MODES`].
type Modes = [Total; MODES.len()];

/// Reads /proc/stat.
#[derive(Default)]
pub(super) struct CpuTime {
    cpus: HashMap<u32, Modes>,
    has_read: bool,
}

impl CpuTime {
    fn advance(&mut self, line: &cpu_time::CpuTime) {
        let tick = ns_per_clock_tick();
        let now = line.modes.map(|ticks| ticks.saturating_mul(tick));
        // A CPU that comes online later has counted hours that are no increase of its core.
        let begin = |now| {
            if self.has_read {
                Total::from(now)
            } else {
                Total::default()
            }
        };
        let modes = self.cpus.entry(line.cpu);
        let modes = modes.or_insert_with(|| now.map(begin));
        for (total, now) in modes.iter_mut().zip(now) {
            total.advance_unless_back(now, MOST_BACK.as_nanos() as u64);
        }
    }

    fn facts(&self, topology: &Topology) -> Vec<Fact> {
        let mut cores: BTreeMap<Place, [u64; MODES.len()]> = BTreeMap::new();
        for cpu in &topology.cpus {
            let Some(modes) = self.cpus.get(&cpu.id) else {
                continue;
            };
            let core = cores.entry(cpu.place).or_default();
            for (sum, mode) in core.iter_mut().zip(modes) {
                *sum = sum.saturating_add(mode.sum());
            }
        }
        let of_core = |(place, sums): (Place, [u64; MODES.len()])| {
            let modes = MODES.into_iter().zip(sums);
            modes.map(move |(mode, sum)| of_mode(place, mode, sum))
        };
        cores.into_iter().flat_map(of_core).collect()
    }
}

fn of_mode(place: Place, mode: &'static str, nanoseconds: u64) -> Fact {
    let place = SeriesKey::new(Some(place), Placement::Core);
    let labels = place.labels().chain([("mode", mode.into())]);
    let value = FactValue::Nanoseconds(nanoseconds);
    Fact::new(&CORE, labels, value).since(Origin::Boot)
}

impl HostSource for CpuTime {
    fn read(&mut self, roots: &Roots, topology: &Topology) -> Found {
        let lines = match cpu_time::read(roots) {
            Ok(lines) => lines,
            Err(error) => {
                return Found {
                    facts: self.facts(topology),
                    missing: Some(unreadable(&cpu_time::path(roots), &error)),
                };
            }
        };
        for line in &lines {
            if topology.cpu(line.cpu).is_some() {
                self.advance(line);
            }
        }
        self.has_read = true;
        let online = topology.cpus.iter().filter(|cpu| cpu.online);
        let unknown = online
            .filter(|cpu| !self.cpus.contains_key(&cpu.id))
            .count();
        Found {
            facts: self.facts(topology),
            missing: (unknown > 0).then(|| no_line(roots, unknown)),
        }
    }
}

fn no_line(roots: &Roots, cpus: usize) -> Reason {
    ReasonCode::NoCpuLine
        .reason(format!(
            "{} has no line for {cpus} of the online CPUs",
            cpu_time::path(roots).display()
        ))
        .with_fix(
            "set --path.procfs=DIR to the host's procfs: a container's may list only its own \
             CPUs (lxcfs)",
        )
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "host_cpu",
        needs: "/proc/stat of the host",
        cost: "one file per period, which the kernel sums over all CPUs and interrupts",
    },
    about: include_str!("cpu_time.md"),
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().host_cpu, CpuTime::default()),
};
