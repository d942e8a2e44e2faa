//! The `frequency` source: current frequency and frequency range of each core.
//!
//! - `kvm_host_core_frequency_hertz{package,core}`: the current frequency
//! - `kvm_host_core_frequency_{min,max,base}_hertz{package,core}`: the hardware's range, and its
//!   guaranteed frequency
//!
//! From `cpuN/cpufreq` (Documentation/admin-guide/pm/cpufreq.rst). On x86, `scaling_cur_freq` is
//! the mean between the last two timer ticks (arch/x86/kernel/cpu/aperfmperf.c): an idle thread
//! shows little of its core, so a core has the highest value of its threads. Before Linux 5.18
//! each read of a busy CPU interrupts it and waits for 10 ms.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::{Fact, Found, Reason, ReasonCode, Source, SourceInfo};
use crate::host::cpu_model;
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "frequency":
    CORE_FREQUENCY = Metric::gauge("kvm_host_core_frequency_hertz", Keys::Host, &["package", "core"],
        "Current frequency of the core, the highest of its threads");
    CORE_FREQUENCY_MIN = Metric::gauge("kvm_host_core_frequency_min_hertz", Keys::Host, &["package", "core"],
        "Lowest frequency of the core");
    CORE_FREQUENCY_MAX = Metric::gauge("kvm_host_core_frequency_max_hertz", Keys::Host, &["package", "core"],
        "Highest frequency of the core, with turbo or boost");
    CORE_FREQUENCY_BASE = Metric::gauge("kvm_host_core_frequency_base_hertz", Keys::Host, &["package", "core"],
        "Base frequency of the core, without turbo or boost");
}

/// Hertz by metric.
type Frequencies = [Option<u64>; METRICS.len()];

/// Reads cpufreq.
pub(super) fn read(roots: &Roots, topology: &Topology) -> Found {
    let dir = roots.sys.join("devices/system/cpu");
    let mut cores: BTreeMap<(i32, i32), Frequencies> = BTreeMap::new();
    for cpu in topology.cpus.iter().filter(|cpu| cpu.online) {
        let seen = of_cpu(roots, &dir.join(format!("cpu{}", cpu.id)));
        let core = cores.entry((cpu.place.package, cpu.place.core));
        for (highest, seen) in core.or_default().iter_mut().zip(seen) {
            *highest = (*highest).max(seen);
        }
    }
    let facts: Vec<Fact> = cores.into_iter().flat_map(facts_of).collect();
    let now_is_known = facts.iter().any(|fact| fact.metric == &CORE_FREQUENCY);
    Found {
        facts,
        missing: (!now_is_known).then(|| no_cpufreq(roots, &dir)),
    }
}

fn of_cpu(roots: &Roots, dir: &Path) -> Frequencies {
    let number = |file: &str| -> Option<u64> {
        let text = roots.read_text(&dir.join(file)).ok()?;
        // "0", "<unknown>" and "<unsupported>" come from drivers that do not know the value.
        text.parse().ok().filter(|n| *n > 0)
    };
    let khz = |file| number(file)?.checked_mul(1000);
    // MHz; AMD has no cpufreq file for it (drivers/acpi/cppc_acpi.c).
    let nominal = || number("acpi_cppc/nominal_freq")?.checked_mul(1_000_000);
    [
        khz("cpufreq/scaling_cur_freq"),
        khz("cpufreq/cpuinfo_min_freq"),
        khz("cpufreq/cpuinfo_max_freq"),
        khz("cpufreq/base_frequency").or_else(nominal),
    ]
}

fn facts_of(((package, core), of_core): ((i32, i32), Frequencies)) -> impl Iterator<Item = Fact> {
    let known = METRICS.iter().copied().zip(of_core);
    known.filter_map(move |(metric, hertz)| {
        let labels = [("package", package.into()), ("core", core.into())];
        Some(Fact::int(metric, labels, hertz?))
    })
}

fn no_cpufreq(roots: &Roots, dir: &Path) -> Reason {
    let reason = |detail| ReasonCode::NoCpufreq.reason(detail);
    if cpu_model::has_flag(roots, "hypervisor") {
        reason("this machine is a VM, and its hypervisor shows no CPU frequency".into())
    } else {
        reason(format!(
            "no CPU has a frequency in {}/cpuN/cpufreq",
            dir.display()
        ))
        .with_fix("modprobe acpi-cpufreq, or enable P-states and CPPC in the firmware")
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "frequency",
        needs: "a cpufreq driver (cpuN/cpufreq in sysfs)",
        cost: "4 small files per CPU and period",
    },
    about: "Frequency of each core, every 15 s. Needs a cpufreq driver.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().frequency, read),
};
