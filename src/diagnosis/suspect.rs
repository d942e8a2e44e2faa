//! Finds the VM that causes another VM's problem. A VM is a suspect only for a resource that it
//! shares with the victim (core, last-level cache), of which it used more than `worth_naming` and
//! more than the victim. So a VM that used nothing is never blamed, and VMs do not blame each other
//! in a circle.

use std::collections::HashMap;

use super::known::CoreKey;
use super::thresholds::thresholds;
use super::{NodeView, VcpuView, VmView};
use crate::snapshot::cores::CoreUse;

/// Other use of a vCPU's core from which it explains a wait, cores.
const MATTERS: f64 = 0.1;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Why {
    /// Demand exceeds the CPUs of the host.
    HostIsFull,
    /// I/O threads of the same VM use this much of its core.
    OwnThreads(f64),
    /// This many vCPUs of the same VM were found on its CPU.
    OwnVcpus(usize),
    /// Host processes, not VMs, use this much of its core.
    HostProcesses(f64),
    /// Another VM uses most of its core; `others` use less.
    Vm { vm: usize, used: f64, others: usize },
    /// It shares its core with these VMs, but uses most of the core itself.
    Shared(Vec<usize>),
}

/// Suspects for the problems of one VM.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Suspects {
    pub(super) delay: Option<Why>,
    /// The VM with most misses in a cache that this VM uses.
    pub(super) cache: Option<usize>,
    /// The VM that runs most on sibling threads of its cores.
    pub(super) smt: Option<usize>,
}

impl Suspects {
    /// The VM responsible for a wait for a core.
    pub(super) fn of_core(&self) -> Option<usize> {
        match self.delay {
            Some(Why::Vm { vm, .. }) => Some(vm),
            _ => None,
        }
    }
}

/// VMs and how much each used of a resource.
type Users = Vec<(usize, f64)>;

/// Use of all shared resources.
pub(super) struct Scene<'a> {
    vms: &'a [VmView],
    host: &'a HashMap<CoreKey, CoreUse>,
    host_is_full: bool,
    /// Use of each core, in cores.
    cores: HashMap<CoreKey, Users>,
    /// Misses per second in each last-level cache.
    caches: HashMap<u32, Users>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        vms: &'a [VmView],
        nodes: &[NodeView],
        host: &'a HashMap<CoreKey, CoreUse>,
        host_is_full: bool,
    ) -> Self {
        let cores = nodes.iter().flat_map(|node| &node.cores);
        let cache_of = cores.filter_map(|core| Some(((core.package, core.core), core.llc?)));
        let cache_of: HashMap<CoreKey, u32> = cache_of.collect();
        let mut cores: HashMap<CoreKey, Users> = HashMap::new();
        let mut caches: HashMap<u32, Users> = HashMap::new();
        for (n, vm) in vms.iter().enumerate() {
            let mut in_cache: HashMap<u32, f64> = HashMap::new();
            for (core, used) in &vm.core_time {
                if is_worth(*used) {
                    cores.entry(*core).or_default().push((n, *used));
                }
                if let Some(cache) = cache_of.get(core) {
                    *in_cache.entry(*cache).or_default() += used;
                }
            }
            for (cache, used) in in_cache.into_iter().filter(|(_, used)| is_worth(*used)) {
                caches.entry(cache).or_default().push((n, misses(vm, used)));
            }
        }
        Self {
            vms,
            host,
            host_is_full,
            cores,
            caches,
        }
    }

    pub(super) fn suspects(&self) -> Vec<Suspects> {
        let of = |n: usize| Suspects {
            delay: self.why(n),
            cache: self.cache(n),
            smt: self.smt(n),
        };
        let mut all: Vec<Suspects> = (0..self.vms.len()).map(of).collect();
        let delay = circles(&all, Suspects::of_core);
        let cache = circles(&all, |one| one.cache);
        for (n, one) in all.iter_mut().enumerate() {
            if delay[n] {
                let others = one.of_core();
                one.delay = Some(Why::Shared(others.into_iter().collect()));
            }
            if cache[n] {
                one.cache = None;
            }
        }
        all
    }

    fn why(&self, n: usize) -> Option<Why> {
        if self.host_is_full {
            return Some(Why::HostIsFull);
        }
        let vm = self.vms.get(n)?;
        let (vcpu, _) = vm.waits_most()?;
        if let Some(used) = vcpu.io_on_core.filter(|used| *used >= MATTERS) {
            return Some(Why::OwnThreads(used));
        }
        let core = core_of(vcpu)?;
        let by_host = self.host.get(&core).and_then(CoreUse::host);
        let by_host = by_host.filter(|used| *used >= MATTERS);
        let others = self.others(n, vcpu, core);
        let Some((other, used)) = others.first().copied() else {
            let cpu = vcpu.place.map(|place| place.cpu);
            let of_cpu = |vcpu: &&VcpuView| vcpu.place.map(|place| place.cpu) == cpu;
            let own = vm.vcpus.iter().filter(of_cpu).count();
            return match by_host {
                Some(used) => Some(Why::HostProcesses(used)),
                None => (own > 1).then_some(Why::OwnVcpus(own)),
            };
        };
        Some(match by_host {
            Some(by_host) if by_host > used => Why::HostProcesses(by_host),
            _ if used > used_of(vm, core) + thresholds().worth_naming => Why::Vm {
                vm: other,
                used,
                others: others.len() - 1,
            },
            _ => Why::Shared(others.into_iter().map(|(other, _)| other).collect()),
        })
    }

    /// Other VMs that used the core, most first: those found on the same CPU, else all.
    fn others(&self, n: usize, vcpu: &VcpuView, core: CoreKey) -> Users {
        let cpu = vcpu.place.map(|place| place.cpu);
        let users = self.cores.get(&core).into_iter().flatten().copied();
        let mut used: Users = users.filter(|(other, _)| *other != n).collect();
        let on_cpu = |other: usize| {
            let mut vcpus = self.vms[other].vcpus.iter();
            vcpus.any(|vcpu| vcpu.place.map(|place| place.cpu) == cpu)
        };
        if used.iter().any(|(other, _)| on_cpu(*other)) {
            used.retain(|(other, _)| on_cpu(*other));
        }
        used.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        used
    }

    /// The other VM with most misses in a cache that this VM uses, if they exceed this VM's own
    /// there.
    fn cache(&self, n: usize) -> Option<usize> {
        let worst = |users: &Users| {
            let (_, mine) = users.iter().find(|(user, _)| *user == n)?;
            let others = users.iter().filter(|(other, _)| *other != n);
            let most = others.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
            (most.1 > *mine).then_some(*most)
        };
        let worst = self.caches.values().filter_map(worst);
        let most = worst.max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map(|(other, _)| other)
    }

    /// The other VM that runs most on the cores where this VM runs.
    fn smt(&self, n: usize) -> Option<usize> {
        let mut beside: HashMap<usize, f64> = HashMap::new();
        for (core, mine) in &self.vms.get(n)?.core_time {
            for (other, used) in self.cores.get(core).into_iter().flatten() {
                *beside.entry(*other).or_default() += mine.min(*used);
            }
        }
        beside.remove(&n);
        let most = beside.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        most.map(|(other, _)| other)
    }
}

fn is_worth(used: f64) -> bool {
    used > thresholds().worth_naming
}

fn core_of(vcpu: &VcpuView) -> Option<CoreKey> {
    vcpu.place.map(|place| (place.package, place.core))
}

/// Cores that threads of a VM used of a core.
fn used_of(vm: &VmView, core: CoreKey) -> f64 {
    vm.core_time.get(&core).copied().unwrap_or(0.0)
}

/// A VM's guest misses in a cache, where it used `here` cores, in a unit that is comparable between
/// VMs: instructions are proportional to time over CPI.
fn misses(vm: &VmView, here: f64) -> f64 {
    let numbers = &vm.numbers;
    let known = numbers.time.zip(numbers.cpi).zip(numbers.cache_mpki);
    known.map_or(0.0, |((time, cpi), mpki)| mpki * here.min(time) / cpi)
}

/// Which VMs are part of a circle of blame.
fn circles(all: &[Suspects], blames: impl Fn(&Suspects) -> Option<usize>) -> Vec<bool> {
    let next = |n: usize| blames(all.get(n)?);
    let is_in_circle = |n: usize| {
        let path = std::iter::successors(next(n), |at| next(*at));
        path.take(all.len()).any(|at| at == n)
    };
    (0..all.len()).map(is_in_circle).collect()
}
