//! The host's nodes, cores and threads: what was wanted of each, how fast it is, who runs there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::known::{by_core, by_label};
use super::{over, owned, sum, CoreView, HostView, NodeView, Tenant, ThreadView, VmView};
use crate::host::topology::Cpu;
use crate::snapshot::growth::{facts_of, grown_facts, number, Growth};
use crate::snapshot::Snapshot;

/// Package and core.
pub(super) type CoreKey = (i32, i32);

/// Time and delay of a logical CPU, cores.
type Wanted = (f64, f64);

/// What is known of the machine.
pub(super) struct Machine<'a> {
    newest: &'a Snapshot,
    wanted: HashMap<u32, Wanted>,
    time: HashMap<CoreKey, f64>,
    /// Threads of each core that are online.
    threads: HashMap<CoreKey, usize>,
    /// Nodes with a CPU online.
    nodes: HashSet<u32>,
    /// Frequency now over the one a core is made for.
    frequency: HashMap<CoreKey, f64>,
    too_hot: HashMap<CoreKey, f64>,
    too_hot_packages: HashMap<i32, f64>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(newest: &'a Snapshot, growth: &Growth<'_>) -> Self {
        let wanted = wanted(growth);
        let mut time: HashMap<CoreKey, f64> = HashMap::new();
        let mut threads: HashMap<CoreKey, usize> = HashMap::new();
        let mut nodes = HashSet::new();
        for cpu in &newest.inventory.topology.cpus {
            if cpu.online {
                *threads.entry(key(cpu)).or_default() += 1;
                nodes.insert(cpu.place.numa_node);
            }
            if let Some((on_it, _)) = wanted.get(&cpu.id) {
                *time.entry(key(cpu)).or_default() += on_it;
            }
        }
        Self {
            newest,
            wanted,
            time,
            threads,
            nodes,
            frequency: frequency(newest),
            too_hot: too_hot(newest, "kvm_host_core_throttled_seconds_total", by_core),
            too_hot_packages: too_hot(newest, "kvm_host_package_throttled_seconds_total", |row| {
                by_label(row, "package")
            }),
        }
    }

    /// Whether a vCPU can run on this node; so it is taken where no node of a CPU is known.
    pub(super) fn has_cpus(&self, node: u32) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }

    /// Frequency of the core over the one it is made for.
    pub(super) fn frequency(&self, core: CoreKey) -> Option<f64> {
        self.frequency.get(&core).copied()
    }

    /// Share of the time in which the package was too hot.
    pub(super) fn package_too_hot(&self, package: i32) -> Option<f64> {
        self.too_hot_packages.get(&package).copied()
    }

    /// Share of the time in which the core or its package was too hot.
    fn too_hot(&self, core: CoreKey) -> Option<f64> {
        let package = self.package_too_hot(core.0);
        let core = self.too_hot.get(&core).copied();
        core.into_iter().chain(package).reduce(f64::max)
    }

    /// Share of the time in which several threads of the core ran vCPUs, at least. `None` of a core
    /// that has one thread online.
    fn smt_shared(&self, core: CoreKey) -> Option<f64> {
        let threads = self.threads.get(&core).filter(|threads| **threads > 1)?;
        Some(at_once(*self.time.get(&core)?, *threads))
    }

    /// Share of the time a vCPU spends on the core beside a busy sibling thread, at least.
    pub(super) fn smt_beside(&self, core: CoreKey) -> Option<f64> {
        let time = self.time.get(&core)?;
        let threads = self.threads.get(&core).map_or(1, |threads| *threads);
        over(threads as f64 * at_once(*time, threads), *time)
    }

    pub(super) fn host(&self) -> HostView {
        let cpus = &self.newest.inventory.topology.cpus;
        let online = || cpus.iter().filter(|cpu| cpu.online);
        let cores: BTreeSet<_> = online().map(key).collect();
        let packages: BTreeSet<_> = cores.iter().map(|core| core.0).collect();
        let info = facts_of(&self.newest.facts, "kvm_host_info").first();
        let info = |name| info.and_then(|row| owned(&row.labels, name));
        HostView {
            kernel: info("kernel"),
            cpu_model: info("cpu_model"),
            vms: self.newest.vms.len(),
            vcpus: self.newest.vcpus.len()
                + self
                    .newest
                    .vms
                    .iter()
                    .map(|vm| vm.threadless as usize)
                    .sum::<usize>(),
            cpus: online().count(),
            cores: cores.len(),
            packages: packages.len(),
            time: sum(self.wanted.values().map(|(time, _)| Some(*time))),
            demand: sum(self.wanted.values().map(|(time, delay)| Some(time + delay))),
            series: self.newest.series,
        }
    }

    pub(super) fn nodes(&self, vms: &[VmView]) -> Vec<NodeView> {
        let mut tenants = tenants(vms);
        let mut nodes: BTreeMap<u32, BTreeMap<CoreKey, Vec<&Cpu>>> = BTreeMap::new();
        for cpu in &self.newest.inventory.topology.cpus {
            let cores = nodes.entry(cpu.place.numa_node).or_default();
            cores.entry(key(cpu)).or_default().push(cpu);
        }
        let mut core = |(core, cpus): (CoreKey, Vec<&Cpu>)| self.core(core, &cpus, &mut tenants);
        let node = |(id, cores): (u32, BTreeMap<CoreKey, Vec<&Cpu>>)| {
            let cores: Vec<CoreView> = cores.into_iter().map(&mut core).collect();
            NodeView {
                id,
                demand: sum(cores.iter().map(|core| core.demand)),
                cores,
            }
        };
        nodes.into_iter().map(node).collect()
    }

    fn core(
        &self,
        core: CoreKey,
        cpus: &[&Cpu],
        tenants: &mut HashMap<u32, Vec<Tenant>>,
    ) -> CoreView {
        let thread = |cpu: &&Cpu| {
            let wanted = self.wanted.get(&cpu.id);
            ThreadView {
                cpu: cpu.id,
                online: cpu.online,
                time: wanted.map(|(time, _)| *time),
                delay: wanted.map(|(_, delay)| *delay),
                vcpus: tenants.remove(&cpu.id).unwrap_or_default(),
            }
        };
        let threads: Vec<ThreadView> = cpus.iter().map(thread).collect();
        let demand = |thread: &ThreadView| Some(thread.time? + thread.delay?);
        CoreView {
            package: core.0,
            core: core.1,
            llc: cpus.iter().find_map(|cpu| cpu.llc),
            demand: sum(threads.iter().map(demand)),
            smt_shared: self.smt_shared(core),
            frequency: self.frequency(core),
            throttled: self.too_hot(core),
            threads,
        }
    }
}

/// Share of the time in which several of a core's threads ran vCPUs, at least, where they ran them
/// for `time` seconds a second together. Of what is beyond one second, all threads but one make
/// the most at once; so many times this share, and the one, is what was not alone.
fn at_once(time: f64, threads: usize) -> f64 {
    match threads {
        0 | 1 => 0.0,
        _ => ((time - 1.0) / (threads - 1) as f64).clamp(0.0, 1.0),
    }
}

fn key(cpu: &Cpu) -> CoreKey {
    (cpu.place.package, cpu.place.core)
}

fn wanted(growth: &Growth<'_>) -> HashMap<u32, Wanted> {
    let seconds = growth.span().as_secs_f64();
    let rate = |ns: u64| over(ns as f64 / 1e9, seconds);
    let of_cpu = |(row, grown): (&crate::snapshot::CpuRow, crate::sample::demand::OfCpu)| {
        let cpu = row.labels.get("cpu")?.parse().ok()?;
        Some((cpu, (rate(grown.time)?, rate(grown.delay)?)))
    };
    growth.demand().filter_map(of_cpu).collect()
}

fn frequency(newest: &Snapshot) -> HashMap<CoreKey, f64> {
    let hertz = |metric| facts_of(&newest.facts, metric).iter();
    let base = hertz("kvm_host_core_frequency_base_hertz");
    let base: HashMap<CoreKey, f64> = base
        .filter_map(|row| Some((by_core(row)?, number(&row.value)?)))
        .collect();
    let now = hertz("kvm_host_core_frequency_hertz");
    let ratio = |row| {
        let core = by_core(row)?;
        Some((core, over(number(&row.value)?, *base.get(&core)?)?))
    };
    now.filter_map(ratio).collect()
}

/// Shares of the time in which something was too hot.
fn too_hot<K: std::hash::Hash + Eq>(
    newest: &Snapshot,
    metric: &str,
    key: impl Fn(&crate::snapshot::FactRow) -> Option<K>,
) -> HashMap<K, f64> {
    let grown = grown_facts(newest, metric);
    let share = |(row, grown): (_, crate::snapshot::growth::Grown)| {
        Some((key(row)?, grown.rate().min(1.0)))
    };
    grown.filter_map(share).collect()
}

/// Who was found last on each CPU.
fn tenants(vms: &[VmView]) -> HashMap<u32, Vec<Tenant>> {
    let mut tenants: HashMap<u32, Vec<Tenant>> = HashMap::new();
    for (vm, of_vm) in vms.iter().enumerate() {
        for (vcpu, of_vcpu) in of_vm.vcpus.iter().enumerate() {
            if let Some(place) = of_vcpu.place {
                let here = tenants.entry(place.cpu).or_default();
                here.push(Tenant { vm, vcpu });
            }
        }
    }
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_threads_share_what_is_beyond_one_second() {
        assert_eq!(
            [0.5, 1.0, 1.5, 2.0].map(|t| at_once(t, 2)),
            [0.0, 0.0, 0.5, 1.0]
        );
        assert_eq!([1.6, 4.0].map(|t| at_once(t, 1)), [0.0, 0.0]);
        assert_eq!([1.0, 2.5, 4.0].map(|t| at_once(t, 4)), [0.0, 0.5, 1.0]);
    }

    proptest! {
        /// Whatever part of the time so many threads of a core ran vCPUs.
        #[test]
        fn bounds_never_exceed_what_was(parts in prop::collection::vec(0.0..1.0f64, 3..10)) {
            let all: f64 = parts.iter().sum();
            prop_assume!(all > 0.0);
            let busy = parts.iter().map(|part| part / all).enumerate();
            let threads = parts.len() - 1;
            let time: f64 = busy.clone().map(|(n, part)| n as f64 * part).sum();
            let several = || busy.clone().filter(|(n, _)| *n > 1);
            let shared: f64 = several().map(|(_, part)| part).sum();
            let beside: f64 = several().map(|(n, part)| n as f64 * part).sum();
            let bound = at_once(time, threads);
            prop_assert!(bound <= shared + 1e-9, "{bound} {shared}");
            prop_assert!(threads as f64 * bound <= beside + 1e-9, "{bound} {beside}");
        }
    }
}
