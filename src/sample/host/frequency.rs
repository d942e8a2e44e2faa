//! The `frequency` source: how fast each core runs, and could.
//!
//! - `kvm_host_core_frequency_hertz{package,core}`: now
//! - `kvm_host_core_frequency_{min,max,base}_hertz{package,core}`: the hardware's range, and what it
//!   is guaranteed to reach
//!
//! From `cpuN/cpufreq` (Documentation/admin-guide/pm/cpufreq.rst). On x86 `scaling_cur_freq` is
//! what the CPU did between the last two timer ticks (arch/x86/kernel/cpu/aperfmperf.c): an idle
//! thread of a core tells little, so that a core has the highest of its threads. Before Linux 5.18
//! each read of a busy CPU interrupts it and waits for 10 ms.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{core, fact, Found, HostReader};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::sample::slow::{Fact, FactValue};
use crate::sample::{Reason, SourceInfo};

const METRICS: [&str; 4] = [
    "kvm_host_core_frequency_hertz",
    "kvm_host_core_frequency_min_hertz",
    "kvm_host_core_frequency_max_hertz",
    "kvm_host_core_frequency_base_hertz",
];

/// Hertz by metric.
type Frequencies = [Option<u64>; METRICS.len()];

/// Reads cpufreq.
pub struct Frequency {
    roots: Arc<Roots>,
}

impl Frequency {
    /// The reader over these roots.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { roots }
    }

    fn of_cpu(&self, dir: &Path) -> Frequencies {
        let number = |file: &str| -> Option<u64> {
            let text = self.roots.read_text(&dir.join(file)).ok()?;
            // "0", "<unknown>" and "<unsupported>" are drivers that cannot tell.
            text.parse().ok().filter(|n| *n > 0)
        };
        let khz = |file| number(file)?.checked_mul(1000);
        // MHz; it has no file in cpufreq on AMD (drivers/acpi/cppc_acpi.c).
        let nominal = || number("acpi_cppc/nominal_freq")?.checked_mul(1_000_000);
        [
            khz("cpufreq/scaling_cur_freq"),
            khz("cpufreq/cpuinfo_min_freq"),
            khz("cpufreq/cpuinfo_max_freq"),
            khz("cpufreq/base_frequency").or_else(nominal),
        ]
    }
}

impl HostReader for Frequency {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "frequency",
            needs: "a cpufreq driver (cpuN/cpufreq in sysfs)",
            cost: "4 small files a CPU and period",
        }
    }

    fn read(&mut self, topology: &Topology) -> Found {
        let dir = self.roots.sys.join("devices/system/cpu");
        let mut cores: BTreeMap<(i32, i32), Frequencies> = BTreeMap::new();
        for cpu in topology.cpus.iter().filter(|cpu| cpu.online) {
            let seen = self.of_cpu(&dir.join(format!("cpu{}", cpu.id)));
            let core = cores.entry((cpu.place.package, cpu.place.core));
            let core = core.or_default();
            for (highest, seen) in core.iter_mut().zip(seen) {
                *highest = (*highest).max(seen);
            }
        }
        let facts: Vec<Fact> = cores.iter().flat_map(facts_of).collect();
        let now_is_known = facts.iter().any(|fact| fact.metric == METRICS[0]);
        Found {
            facts,
            missing: (!now_is_known).then(|| no_cpufreq(&dir)),
        }
    }
}

fn facts_of((place, frequencies): (&(i32, i32), &Frequencies)) -> impl Iterator<Item = Fact> {
    let place = *place;
    let known = METRICS.into_iter().zip(*frequencies);
    known.filter_map(move |(metric, hertz)| Some(fact(metric, core(place), FactValue::Int(hertz?))))
}

fn no_cpufreq(dir: &Path) -> Reason {
    Reason {
        code: "no_cpufreq",
        detail: format!(
            "no CPU has a frequency in {}/cpuN/cpufreq, as in most virtual machines",
            dir.display()
        ),
        fix: Some("modprobe acpi-cpufreq, or enable P-states and CPPC in the firmware".to_owned()),
    }
}
