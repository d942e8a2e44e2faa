//! Nodes, cores and threads of the host: demand, frequency, and the vCPUs found on them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::known::{by_core, CoreKey};
use super::{over, owned, sum, CoreView, HostView, NodeView, Tenant, ThreadView, VmView};
use crate::host::topology::Cpu;
use crate::metric::Metric;
use crate::snapshot::cores::{core_use, CoreUse};
use crate::snapshot::delta::{fact_deltas, facts_of, number, Delta};
use crate::snapshot::Snapshot;
use crate::sources::host;

/// Time and delay on a logical CPU, cores.
type Wanted = (f64, f64);

/// Facts about the machine.
pub(super) struct HostDelta<'a> {
    newest: &'a Snapshot,
    wanted: HashMap<u32, Wanted>,
    time: HashMap<CoreKey, f64>,
    /// Number of online threads of each core.
    threads: HashMap<CoreKey, usize>,
    /// Nodes with a CPU online.
    nodes: HashSet<u32>,
    /// Frequency over nominal frequency of each core.
    frequency: HashMap<CoreKey, f64>,
    too_hot: HashMap<CoreKey, f64>,
    too_hot_packages: HashMap<i32, f64>,
    /// Use of each core by VMs and by the host itself.
    pub(super) cores: HashMap<CoreKey, CoreUse>,
    distances: HashMap<(u32, u32), f64>,
}

impl<'a> HostDelta<'a> {
    pub(super) fn new(newest: &'a Snapshot, delta: &Delta<'_>) -> Self {
        let wanted = wanted(delta);
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
            cores: core_use(newest),
            distances: distances(newest),
            too_hot: too_hot(newest, &host::CORE_THROTTLED, by_core),
            too_hot_packages: too_hot(newest, &host::PACKAGE_THROTTLED, |row| {
                row.labels.number("package")
            }),
        }
    }

    /// Whether vCPUs can run on this node; true if no CPU's node is known.
    pub(super) fn has_cpus(&self, node: u32) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }

    /// NUMA distance between two nodes; 10 is local.
    pub(super) fn distance(&self, from: u32, to: u32) -> Option<f64> {
        self.distances.get(&(from, to)).copied()
    }

    /// How remote memory of node `to` is from node `from`, by distance: 0 at the nearest node with
    /// CPUs, 1 at the farthest. Without distances, another node with CPUs is remote, and a node
    /// without CPUs is local, because no vCPU can be moved to it. Same as
    /// `kvm_host_node:near:ratio` in mixin/rules.
    pub(super) fn far(&self, from: u32, to: u32) -> f64 {
        let nodes = self.nodes.iter();
        let all = nodes.filter_map(|node| self.distance(*node, to));
        let range = all.clone().reduce(f64::min).zip(all.reduce(f64::max));
        match self.distance(from, to).zip(range) {
            Some((d, (nearest, most))) => over(d - nearest, most - nearest).unwrap_or(0.0),
            None if self.has_cpus(to) && from != to => 1.0,
            None => 0.0,
        }
    }

    /// The core's frequency over its nominal frequency.
    pub(super) fn frequency(&self, core: CoreKey) -> Option<f64> {
        self.frequency.get(&core).copied()
    }

    /// Share of time in which the package was throttled by heat.
    pub(super) fn package_too_hot(&self, package: i32) -> Option<f64> {
        self.too_hot_packages.get(&package).copied()
    }

    /// Share of time in which the core or its package was throttled by heat.
    fn too_hot(&self, core: CoreKey) -> Option<f64> {
        let package = self.package_too_hot(core.0);
        let core = self.too_hot.get(&core).copied();
        core.into_iter().chain(package).reduce(f64::max)
    }

    /// Lower bound of the share of time in which several threads of the core ran vCPUs. `None` if
    /// one thread is online.
    fn smt_shared(&self, core: CoreKey) -> Option<f64> {
        let threads = self.threads.get(&core).filter(|threads| **threads > 1)?;
        Some(at_once(*self.time.get(&core)?, *threads))
    }

    /// Lower bound of the share of a vCPU's time on the core in which a sibling thread was busy.
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
        let info = facts_of(&self.newest.facts, &host::HOST_INFO).first();
        let info = |name| info.and_then(|row| owned(&row.labels, name));
        let vms = &self.newest.vms;
        let threadless = vms.iter().map(|vm| vm.threadless as usize);
        HostView {
            name: self.newest.host_name.as_deref().map(str::to_owned),
            kernel: info("kernel"),
            cpu_model: info("cpu_model"),
            vms: vms.len(),
            vcpus: self.newest.vcpus.len() + threadless.sum::<usize>(),
            cpus: online().count(),
            cores: cores.len(),
            packages: packages.len(),
            time: sum(self.wanted.values().map(|(time, _)| Some(*time))),
            demand: sum(self.wanted.values().map(|(time, delay)| Some(time + delay))),
            wanted: None,
            verdict: String::new(),
            series: self.newest.series_count,
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

impl HostView {
    /// Computes the host's demand and its verdict.
    pub(super) fn judge(&mut self, vms: &[VmView], cores: &HashMap<CoreKey, CoreUse>) {
        let used = if cores.is_empty() {
            // Without the host's own CPU times, use those of VMs.
            sum(vms.iter().map(|vm| vm.io_time).chain([self.time]))
        } else {
            Some(cores.values().map(|core| core.busy).sum())
        };
        // A vCPU that is throttled by a quota would not use another CPU.
        let waited: f64 = vms.iter().filter_map(|vm| vm.contention).sum();
        self.wanted = used.map(|used| used + waited);
        if self.is_full() {
            let wanted = self.wanted.unwrap_or_default();
            self.verdict = format!(
                "The host wants {wanted:.0} of {} CPUs: it is full, and VMs wait for CPUs.",
                self.cpus
            );
        }
    }

    /// Whether demand exceeds the number of CPUs.
    pub(crate) fn is_full(&self) -> bool {
        self.wanted.is_some_and(|wanted| wanted > self.cpus as f64)
    }
}

/// NUMA distances, by (from, to).
fn distances(newest: &Snapshot) -> HashMap<(u32, u32), f64> {
    let rows = facts_of(&newest.facts, &host::NUMA_DISTANCE).iter();
    let rows = rows.filter_map(|row| {
        let pair = (row.labels.number("from")?, row.labels.number("to")?);
        Some((pair, number(&row.value)?))
    });
    rows.collect()
}

/// Lower bound of the share of time in which several of a core's threads ran vCPUs, if they ran for
/// `time` seconds per second in total. Time above one second overlaps. The overlap is shortest if
/// all threads are busy at once, which accounts for `threads` - 1 of it at a time.
fn at_once(time: f64, threads: usize) -> f64 {
    match threads {
        0 | 1 => 0.0,
        _ => ((time - 1.0) / (threads - 1) as f64).clamp(0.0, 1.0),
    }
}

fn key(cpu: &Cpu) -> CoreKey {
    (cpu.place.package, cpu.place.core)
}

fn wanted(delta: &Delta<'_>) -> HashMap<u32, Wanted> {
    let seconds = delta.span().as_secs_f64();
    let rate = |ns: u64| over(ns as f64 / 1e9, seconds);
    let of_cpu = |(row, increase): (&crate::snapshot::CpuRow, crate::engine::demand::OfCpu)| {
        Some((row.cpu, (rate(increase.time)?, rate(increase.delay)?)))
    };
    delta.demand().filter_map(of_cpu).collect()
}

fn frequency(newest: &Snapshot) -> HashMap<CoreKey, f64> {
    let hertz = |metric| facts_of(&newest.facts, metric).iter();
    let base = hertz(&host::CORE_FREQUENCY_BASE);
    let base: HashMap<CoreKey, f64> = base
        .filter_map(|row| Some((by_core(row)?, number(&row.value)?)))
        .collect();
    let now = hertz(&host::CORE_FREQUENCY);
    let ratio = |row| {
        let core = by_core(row)?;
        Some((core, over(number(&row.value)?, *base.get(&core)?)?))
    };
    now.filter_map(ratio).collect()
}

/// Shares of time in which something was throttled by heat.
fn too_hot<K: std::hash::Hash + Eq>(
    newest: &Snapshot,
    metric: &'static Metric,
    key: impl Fn(&crate::snapshot::FactRow) -> Option<K>,
) -> HashMap<K, f64> {
    let increase = fact_deltas(newest, metric);
    let share = |(row, increase): (_, crate::snapshot::delta::FactDelta)| {
        Some((key(row)?, increase.rate().min(1.0)))
    };
    increase.filter_map(share).collect()
}

/// The vCPUs last found on each CPU.
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
        /// For any distribution of time over the number of threads that ran vCPUs.
        #[test]
        fn bounds_never_exceed_the_actual_share(parts in prop::collection::vec(0.0..1.0f64, 3..10)) {
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
