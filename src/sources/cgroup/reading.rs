//! Reads the groups of a VM: all files first, then the totals, so that a failed read changes
//! nothing.

use std::collections::HashSet;
use std::io;

use super::balancing::Balancing;
use super::levels::{Branch, Levels, LocatedVm};
use super::totals::{Counted, Totals};
use crate::engine::{Fact, Origin};
use crate::host::cgroup::files::{Pressure, Quota, Throttling};
use crate::host::cgroup::{Group, Hierarchy, Resource};
use crate::host::label::label_values;
use crate::host::roots::Roots;
use crate::metric::{metrics, FactValue, Keys, Metric};

metrics! { METRICS of "cgroup":
    CPU_QUOTA_CORES = Metric::gauge("kvm_vm_cpu_quota_cores", Keys::Vm, &["level"],
        "Tightest CPU quota on the VM's cgroups in cores, by level: vcpu (sum over the vCPUs' own groups), vm, or ancestor (possibly shared with other VMs); absent without a quota");
    CPU_PERIODS = Metric::counter("kvm_vm_cpu_periods_total", Keys::Vm, &["level"],
        "Quota periods in which the VM's cgroups of this level were runnable; absent until a quota is set there");
    CPU_THROTTLED_PERIODS = Metric::counter("kvm_vm_cpu_throttled_periods_total", Keys::Vm, &["level"],
        "Quota periods in which the VM's cgroups of this level used up their quota; absent until a quota is set there");
    CPU_THROTTLED = Metric::counter("kvm_vm_cpu_throttled_seconds_total", Keys::Vm, &["level"],
        "Time the VM's cgroups of this level were throttled by their quota, summed over CPUs; absent until a quota is set there");
    CPU_WEIGHT = Metric::gauge("kvm_vm_cpu_weight", Keys::Vm, &[],
        "CPU weight of the VM's cgroup relative to its siblings, 1 to 10000 as in cgroup v2 (default 100, 0 for idle time only); v1's cpu.shares times 100/1024; absent if the cpu controller is off");
    CPUSET_CPUS = Metric::gauge("kvm_vm_cpuset_cpus", Keys::Vm, &[],
        "Online CPUs the VM's cgroup may use; absent if no cpuset controller is on");
    PRESSURE = Metric::counter("kvm_vm_pressure_seconds_total", Keys::Vm, &["resource", "kind"],
        "Time in which some or all (full) tasks of the VM's cgroup waited for a resource (cpu, memory, io); absent without a cgroup v2 hierarchy, with pressure switched off, or if the VM has no group");
}

label_values! {
    /// Where a quota is set, innermost first: the `level` label.
    enum Level {
        Vcpu = "vcpu",
        Vm = "vm",
        Ancestor = "ancestor",
    }
}

impl Level {
    /// A group above the VM's is older than the VM and has counted for others.
    fn origin(self) -> Origin {
        match self {
            Level::Vcpu | Level::Vm => Origin::Vm,
            Level::Ancestor => Origin::Boot,
        }
    }
}

/// State of a VM between two reads.
#[derive(Debug, Default)]
pub(super) struct CgroupTotals {
    /// Periods, throttled periods and throttled nanoseconds of each [`Level`].
    throttling: [Totals<3>; 3],
    /// Nanoseconds of some and full for each [`Resource`], and whether full exists.
    pressure: [(Totals<2>, bool); 3],
    balancing: Balancing,
}

/// Values of one level in one read.
#[derive(Debug, Default)]
struct LevelReading {
    /// Cores that the level allows the VM; `None` without a quota.
    cores: Option<f64>,
    throttling: Vec<Counted<3>>,
}

impl CgroupTotals {
    /// Reads all groups of the VM and returns its facts.
    pub(super) fn read(
        &mut self,
        roots: &Roots,
        cpu: &LocatedVm,
        cpuset: &LocatedVm,
        unified: &LocatedVm,
    ) -> io::Result<Vec<Fact>> {
        let mut facts = Vec::new();
        let levels = match cpu {
            Some((hierarchy, levels)) => {
                let own = levels.vm().map(|vm| hierarchy.group(roots, vm));
                let weight = own.map_or(Ok(None), |own| own.weight())?;
                facts.extend(weight.map(|w| int(&CPU_WEIGHT, &[], w)));
                self.read_levels(roots, hierarchy, levels)?
            }
            None => Default::default(),
        };
        if let Some((hierarchy, levels)) = cpuset {
            let cpus = cpuset_cpus(roots, hierarchy, levels)?;
            facts.extend(cpus.map(|cpus| int(&CPUSET_CPUS, &[], cpus)));
        }
        let pressure = match unified {
            Some((hierarchy, levels)) => read_pressure(roots, hierarchy, levels)?,
            None => Default::default(),
        };
        let balancing = self.balancing.read(roots, unified)?;
        facts.extend(tightest(&levels));
        facts.extend(self.add_throttling(levels));
        facts.extend(self.add_pressure(pressure));
        facts.extend(self.balancing.add(balancing));
        Ok(facts)
    }

    fn read_levels(
        &self,
        roots: &Roots,
        hierarchy: &Hierarchy,
        levels: &Levels,
    ) -> io::Result<[LevelReading; 3]> {
        let [of_vcpus, of_vm, of_ancestors] = &self.throttling;
        let reader = |known| Reader {
            roots,
            hierarchy,
            known,
        };
        Ok([
            reader(of_vcpus).branches(&levels.branches)?,
            reader(of_vm).chain(&levels.own)?,
            reader(of_ancestors).chain(&levels.above)?,
        ])
    }

    fn add_throttling(&mut self, levels: [LevelReading; 3]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for ((totals, reading), level) in self.throttling.iter_mut().zip(levels).zip(Level::ALL) {
            totals.update(reading.throttling);
            let Some([periods, throttled_periods, throttled]) = totals.get() else {
                continue;
            };
            let labels = [("level", level.label())];
            let origin = level.origin();
            let counted = [
                int(&CPU_PERIODS, &labels, periods),
                int(&CPU_THROTTLED_PERIODS, &labels, throttled_periods),
                seconds(&CPU_THROTTLED, &labels, throttled),
            ];
            facts.extend(counted.map(|fact| fact.since(origin)));
        }
        facts
    }

    fn add_pressure(&mut self, now: [Option<Stalled>; 3]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for ((slot, now), resource) in self.pressure.iter_mut().zip(now).zip(Resource::ALL) {
            let (totals, has_full) = slot;
            *has_full |= now.as_ref().is_some_and(|stalled| stalled.has_full);
            totals.update(now.into_iter().map(|stalled| stalled.counted).collect());
            let Some([some, full]) = totals.get() else {
                continue;
            };
            let kinds = [("some", some), ("full", full)];
            for (kind, total) in kinds.into_iter().take(if *has_full { 2 } else { 1 }) {
                let labels = [("resource", resource.label()), ("kind", kind)];
                facts.push(seconds(&PRESSURE, &labels, total));
            }
        }
        facts
    }
}

/// Reads the groups of one level.
struct Reader<'a> {
    roots: &'a Roots,
    hierarchy: &'a Hierarchy,
    known: &'a Totals<3>,
}

impl Reader<'_> {
    /// Nested groups: the tightest quota applies.
    fn chain(&self, groups: &[String]) -> io::Result<LevelReading> {
        let mut level = LevelReading::default();
        for group in groups {
            let quota = self.group(group, &mut level.throttling)?;
            level.cores = tighter(level.cores, quota.map(Quota::cores));
        }
        Ok(level)
    }

    /// Sibling groups: quotas add up, and a vCPU without one may use a whole core.
    fn branches(&self, branches: &[Branch]) -> io::Result<LevelReading> {
        let mut level = LevelReading::default();
        let (mut cores, mut bounded) = (0.0, false);
        let mut seen: HashSet<&str> = HashSet::new();
        for branch in branches {
            let mut own = LevelReading::default();
            for group in &branch.groups {
                // One group may contain several branches; it counts once.
                let is_new = seen.insert(group);
                let mut counted = Vec::new();
                let quota = self.group(group, &mut counted)?;
                own.throttling
                    .extend(counted.into_iter().filter(|_| is_new));
                own.cores = tighter(own.cores, quota.map(Quota::cores));
            }
            bounded |= own.cores.is_some();
            cores += own.cores.unwrap_or(branch.threads as f64);
            level.throttling.extend(own.throttling);
        }
        level.cores = bounded.then_some(cores);
        Ok(level)
    }

    /// The group's quota. Its statistics are read only if it has a quota or had one: for v2 the
    /// kernel flushes the statistics of all CPUs for that file.
    fn group(&self, path: &str, counted: &mut Vec<Counted<3>>) -> io::Result<Option<Quota>> {
        let group = self.hierarchy.group(self.roots, path);
        let quota = group.quota()?;
        if quota.is_some() || self.known.knows(path) {
            counted.extend(throttling(&group, path)?);
        }
        Ok(quota)
    }
}

fn throttling(group: &Group<'_>, path: &str) -> io::Result<Option<Counted<3>>> {
    let Some(inode) = group.inode()? else {
        return Ok(None);
    };
    let counted = |t: Throttling| Counted {
        group: path.to_owned(),
        inode,
        values: [t.periods, t.throttled_periods, t.throttled],
    };
    Ok(group.throttling()?.map(counted))
}

fn tighter(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// The tightest quota of all levels; of two equal ones the inner, which is found first.
fn tightest(levels: &[LevelReading; 3]) -> Option<Fact> {
    let cores = levels.iter().map(|level| level.cores);
    let known = Level::ALL.into_iter().zip(cores);
    let known = known.filter_map(|(level, cores)| Some((level, cores?)));
    let (level, cores) = known.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let labels = [("level", level.label())];
    Some(fact(&CPU_QUOTA_CORES, &labels, FactValue::Float(cores)))
}

/// The CPUs of the VM's own group; if its controller is off, those of the nearest group above.
fn cpuset_cpus(roots: &Roots, hierarchy: &Hierarchy, levels: &Levels) -> io::Result<Option<u64>> {
    let above = levels.above.iter().map(String::as_str);
    for group in levels.vm().into_iter().chain(above) {
        let cpus = hierarchy.group(roots, group).cpuset_cpus()?;
        if cpus.is_some() {
            return Ok(cpus);
        }
    }
    Ok(None)
}

/// Pressure of one resource.
#[derive(Debug)]
struct Stalled {
    counted: Counted<2>,
    has_full: bool,
}

/// The pressure of the VM's own group. The root group has that of the host.
fn read_pressure(
    roots: &Roots,
    hierarchy: &Hierarchy,
    levels: &Levels,
) -> io::Result<[Option<Stalled>; 3]> {
    let mut all = [None, None, None];
    let Some(path) = levels.vm() else {
        return Ok(all);
    };
    let group = hierarchy.group(roots, path);
    let Some(inode) = group.inode()? else {
        return Ok(all);
    };
    let stalled = |pressure: Pressure| Stalled {
        has_full: pressure.full.is_some(),
        counted: Counted {
            group: path.to_owned(),
            inode,
            values: [pressure.some, pressure.full.unwrap_or(0)],
        },
    };
    for (slot, resource) in all.iter_mut().zip(Resource::ALL) {
        *slot = group.pressure(resource)?.map(stalled);
    }
    Ok(all)
}

/// Label names and words.
type Words<'a> = &'a [(&'static str, &'static str)];

fn int(metric: &'static Metric, labels: Words<'_>, value: u64) -> Fact {
    fact(metric, labels, FactValue::Int(value))
}

fn seconds(metric: &'static Metric, labels: Words<'_>, nanoseconds: u64) -> Fact {
    fact(metric, labels, FactValue::Nanoseconds(nanoseconds))
}

fn fact(metric: &'static Metric, labels: Words<'_>, value: FactValue) -> Fact {
    let labels = labels.iter().map(|(name, word)| (*name, (*word).into()));
    Fact::new(metric, labels, value).since(Origin::Vm)
}
