//! The `thermal` source: thermal throttling of cores and packages, and package temperatures.
//!
//! - `kvm_host_core_throttles_total{package,core}`, `kvm_host_package_throttles_total{package}`
//! - `kvm_host_core_throttled_seconds_total{package,core}`,
//!   `kvm_host_package_throttled_seconds_total{package}` (since Linux 5.7)
//! - `kvm_host_temperature_celsius{package}`
//!
//! Throttling: `cpuN/thermal_throttle`, Intel only (drivers/thermal/intel/therm_throt.c). Every
//! thread of a core counts the same event, so the core has the highest count of its threads. The
//! files of a CPU disappear when it goes offline; its counts are kept.
//!
//! Temperature: hwmon's `coretemp`, whose "Package id N" is die N of the machine, independent of
//! the package ID (`topology_logical_die_id`); on AMD `k10temp`, one device for each node of a
//! package in ascending PCI order (drivers/hwmon/{coretemp,k10temp}.c). A package has the
//! temperature of its hottest die. "Core N" is `core_id`, which may repeat, and is not read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::engine::total::Total;
use crate::engine::{Fact, Found, HostSource, Origin, Reason, ReasonCode, Source, SourceInfo};
use crate::host::cpu_model;
use crate::host::hwmon::{self, Chip};
use crate::host::roots::Roots;
use crate::host::topology::{Cpu, Topology};
use crate::metric::{metrics, FactValue, Keys, Label, Metric};
use crate::sources::Entry;

metrics! { METRICS of "thermal":
    CORE_THROTTLES = Metric::counter("kvm_host_core_throttles_total", Keys::Host, &["package", "core"],
        "Times the hardware throttled the core for heat; Intel only");
    CORE_THROTTLED = Metric::counter("kvm_host_core_throttled_seconds_total", Keys::Host, &["package", "core"],
        "Time the core was throttled for heat; Intel only");
    PACKAGE_THROTTLES = Metric::counter("kvm_host_package_throttles_total", Keys::Host, &["package"],
        "Times the hardware throttled the package for heat; Intel only");
    PACKAGE_THROTTLED = Metric::counter("kvm_host_package_throttled_seconds_total", Keys::Host, &["package"],
        "Time the package was throttled for heat; Intel only");
    TEMPERATURE = Metric::gauge("kvm_host_temperature_celsius", Keys::Host, &["package"],
        "Temperature of the package, the highest of its dies");
}

/// Counter files of a CPU with their metrics: of its core, and of its package.
const COUNTERS: [(&str, &Metric); 4] = [
    ("core_throttle_count", &CORE_THROTTLES),
    ("core_throttle_total_time_ms", &CORE_THROTTLED),
    ("package_throttle_count", &PACKAGE_THROTTLES),
    ("package_throttle_total_time_ms", &PACKAGE_THROTTLED),
];

/// Reads throttle counters and temperature sensors.
#[derive(Default)]
pub(super) struct Thermal {
    totals: HashMap<(u32, &'static str), Total>,
}

impl Thermal {
    fn advance(&mut self, roots: &Roots, cpu: &Cpu) {
        let dir = format!("devices/system/cpu/cpu{}/thermal_throttle", cpu.id);
        let dir = roots.sys.join(dir);
        for (file, _) in COUNTERS {
            let text = roots.read_text(&dir.join(file));
            let Some(now) = text.ok().and_then(|text| text.parse().ok()) else {
                continue;
            };
            let total = self.totals.entry((cpu.id, file)).or_default();
            total.advance(now);
        }
    }

    /// The highest count over the CPUs of each package, or of each core.
    fn highest(
        &self,
        topology: &Topology,
        file: &'static str,
    ) -> BTreeMap<(i32, Option<i32>), u64> {
        let of_core = file.starts_with("core");
        let mut highest = BTreeMap::new();
        for cpu in &topology.cpus {
            if let Some(total) = self.totals.get(&(cpu.id, file)) {
                let key = (cpu.place.package, of_core.then_some(cpu.place.core));
                let of_key = highest.entry(key).or_insert(0);
                *of_key = total.sum().max(*of_key);
            }
        }
        highest
    }

    fn throttling(&mut self, roots: &Roots, topology: &Topology) -> Vec<Fact> {
        for cpu in topology.cpus.iter().filter(|cpu| cpu.online) {
            self.advance(roots, cpu);
        }
        let mut facts = Vec::new();
        for (file, metric) in COUNTERS {
            for ((number, core), n) in self.highest(topology, file) {
                let value = if file.ends_with("_ms") {
                    FactValue::Nanoseconds(n.saturating_mul(1_000_000))
                } else {
                    FactValue::Int(n)
                };
                let core = core.map(|core| ("core", core.into()));
                let labels = std::iter::once(package(number)).chain(core);
                facts.push(Fact::new(metric, labels, value).since(Origin::Boot));
            }
        }
        facts
    }
}

fn package(number: i32) -> Label {
    ("package", number.into())
}

impl HostSource for Thermal {
    fn read(&mut self, roots: &Roots, topology: &Topology) -> Found {
        let mut facts = self.throttling(roots, topology);
        let temperatures = temperatures(&hwmon::chips(roots), topology);
        let missing = temperatures.is_empty().then(|| no_sensor(roots));
        facts.extend(temperatures.into_iter().map(|(number, millidegrees)| {
            let celsius = FactValue::Float(millidegrees as f64 / 1000.0);
            Fact::new(&TEMPERATURE, [package(number)], celsius)
        }));
        Found { facts, missing }
    }
}

/// Temperature of each package, in thousandths of a degree.
fn temperatures(chips: &[Chip], topology: &Topology) -> BTreeMap<i32, i64> {
    let packages: BTreeSet<i32> = topology.cpus.iter().map(|cpu| cpu.place.package).collect();
    let mut found = BTreeMap::new();
    let mut keep = |package: i32, millidegrees: i64| {
        let highest = found.entry(package).or_insert(millidegrees);
        *highest = millidegrees.max(*highest);
    };
    for (package, millidegrees) in of_dies(chips, topology, &packages) {
        keep(package, millidegrees);
    }
    let nodes: Vec<&Chip> = chips.iter().filter(|chip| chip.name == "k10temp").collect();
    let a_package = nodes.len() / packages.len().max(1);
    // Devices can be attributed only if every package has the same number.
    if a_package > 0 && nodes.len() % packages.len() == 0 {
        for (chips, package) in nodes.chunks(a_package).zip(&packages) {
            let hottest = chips.iter().filter_map(|chip| die_or_control(chip)).max();
            hottest.into_iter().for_each(|t| keep(*package, t));
        }
    }
    found
}

/// Package and temperature of each die reported by `coretemp`.
fn of_dies(chips: &[Chip], topology: &Topology, packages: &BTreeSet<i32>) -> Vec<(i32, i64)> {
    let chips = chips.iter().filter(|chip| chip.name == "coretemp");
    let die = |(label, millidegrees): &(String, i64)| {
        let number = label.strip_prefix("Package id ")?.trim().parse().ok()?;
        Some((number, *millidegrees))
    };
    let temperatures = chips.flat_map(|chip| &chip.temperatures);
    let temperatures: Vec<(usize, i64)> = temperatures.filter_map(die).collect();
    let dies = topology.cpus.iter();
    let dies: BTreeSet<_> = dies.map(|cpu| (cpu.place.package, cpu.ids.die)).collect();
    let dies: Vec<i32> = dies.into_iter().map(|(package, _)| package).collect();
    // A package that was offline from the start is not among the dies, but the kernel counted it:
    // then the number is that of the package, if packages are numbered from 0 and have one die
    // each.
    let all_are_known = temperatures.iter().all(|(die, _)| *die < dies.len());
    let package = |die: usize| {
        if all_are_known {
            dies.get(die).copied()
        } else {
            i32::try_from(die).ok().filter(|n| packages.contains(n))
        }
    };
    let known = temperatures.into_iter();
    known
        .filter_map(|(die, millidegrees)| Some((package(die)?, millidegrees)))
        .collect()
}

/// `Tdie` is the die's temperature; without it, `Tctl` has no offset, or an unknown one.
fn die_or_control(chip: &Chip) -> Option<i64> {
    let of = |name: &str| {
        let mut all = chip.temperatures.iter();
        all.find(|(label, _)| label == name).map(|(_, t)| *t)
    };
    of("Tdie").or_else(|| of("Tctl"))
}

fn no_sensor(roots: &Roots) -> Reason {
    let reason = |detail| ReasonCode::NoSensor.reason(detail);
    let sys = roots.sys.display();
    if cpu_model::has_flag(roots, "hypervisor") {
        reason("this machine is a VM, and its hypervisor shows no temperature".into())
    } else {
        reason(format!("no package has a temperature in {sys}/class/hwmon"))
            .with_fix("modprobe coretemp, or k10temp on AMD")
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "thermal",
        needs: "coretemp or k10temp in hwmon; throttle counters only on Intel",
        cost: "4 small files per CPU and period, plus those of hwmon",
    },
    about: "Throttling and temperature, every 15 s. Throttle counters exist on Intel; temperatures come from coretemp and k10temp.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().thermal, Thermal::default()),
};
