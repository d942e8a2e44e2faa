//! The rates of everything at a time, per second: a function of scenario, seed and time.

use std::sync::Arc;
use std::time::Duration;

use super::cpus::{self, CpuTime};
use super::noise::{Key, Noise};
use super::places::{places, Place};
use super::rates::{ThreadRates, VcpuRates, VmRates};
use super::scenario::{node_of, Scenario, VmSpec};
use super::timeline::{influence, Influence, VmInfluence};

/// Xeon Gold 6338: base, all-core turbo and lowest frequency (Intel's ARK, product 212285).
pub(super) const BASE_HERTZ: f64 = 2.0e9;
const TURBO_HERTZ: f64 = 2.6e9;
const THROTTLED_HERTZ: f64 = 1.2e9;

/// Seconds in KVM and the kernel for one exit.
pub(super) const EXIT_SECONDS: f64 = 2.2e-6;

/// Delay of a vCPU whose CPU is free, per second of run time.
const WAKEUP_DELAY: f64 = 0.003;

/// Most time of a thread other than a vCPU on its CPU, unless a trouble increases it: low enough
/// not to delay a vCPU there.
const MOST_OF_OTHERS: f64 = 0.03;

/// Period in which demand and other rates drift.
const DRIFT: Duration = Duration::from_secs(540);

/// All rates at one time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moment {
    /// `None` for a VM that is not running.
    pub(super) vms: Vec<Option<VmRates>>,
    /// Use of each CPU.
    pub(super) cpus: Vec<CpuTime>,
    /// Core frequency of each package, hertz.
    pub(super) hertz: [f64; 2],
    /// Share of time in which each package is throttled.
    pub(super) throttled: [f64; 2],
}

/// The rates of one scenario and seed.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) scenario: Arc<Scenario>,
    noise: Noise,
    places: Vec<Vec<Place>>,
}

/// Quantities that have noise.
mod key {
    pub(super) const DEMAND: u64 = 1;
    pub(super) const DEMAND_OF_VCPU: u64 = 2;
    pub(super) const CPI: u64 = 3;
    pub(super) const MISSES: u64 = 4;
    pub(super) const EXITS: u64 = 5;
    pub(super) const HERTZ: u64 = 6;
    pub(super) const DELAY: u64 = 7;
    pub(super) const THREAD: u64 = 8;
}

impl Model {
    pub(super) fn new(scenario: Arc<Scenario>, seed: u64) -> Self {
        Self {
            places: places(&scenario),
            noise: Noise::new(seed),
            scenario,
        }
    }

    /// The rates at this time.
    pub(super) fn at(&self, at: Duration) -> Moment {
        let influence = influence(&self.scenario, at);
        let hertz = [0, 1].map(|package| self.hertz(package, &influence, at));
        let vms = self.scenario.vms.iter().enumerate().map(|(n, spec)| {
            let view = VmAtTime {
                model: self,
                n,
                spec,
                of: &influence.vms[n],
                at,
            };
            spec.runs(at).then(|| view.wants(&influence, hertz))
        });
        let mut vms: Vec<Option<VmRates>> = vms.collect();
        let cpus = cpus::share(&mut vms, &influence.processes);
        Moment {
            vms,
            cpus,
            hertz,
            throttled: influence.throttled,
        }
    }

    fn hertz(&self, package: usize, influence: &Influence, at: Duration) -> f64 {
        let clock = if influence.throttled[package] > 0.0 {
            THROTTLED_HERTZ
        } else {
            TURBO_HERTZ
        };
        clock * self.around(0.01, (key::HERTZ, package as u64), at)
    }

    /// A factor around 1 that differs from it by at most `part`.
    fn around(&self, part: f64, key: Key, at: Duration) -> f64 {
        1.0 + part * self.noise.slow(key, at, DRIFT)
    }
}

struct VmAtTime<'a> {
    model: &'a Model,
    n: usize,
    spec: &'a VmSpec,
    of: &'a VmInfluence,
    at: Duration,
}

impl VmAtTime<'_> {
    /// The VM's demand, as if it were alone on the host but for its quota.
    fn wants(&self, influence: &Influence, hertz: [f64; 2]) -> VmRates {
        let (mut vcpus, mut allowed) = (Vec::new(), Vec::new());
        for vcpu in 0..self.spec.vcpus {
            let (cpu, cpus) = self.place(vcpu);
            allowed.push(cpus);
            let time = self.demand(vcpu);
            let waking = self.model.around(0.5, self.key(key::DELAY, vcpu), self.at);
            vcpus.push(VcpuRates {
                cpu,
                time,
                delay: WAKEUP_DELAY * waking * time,
                hertz: hertz[node_of(cpu) as usize],
                running: influence.running,
                ..self.work(vcpu, cpu)
            });
        }
        let throttled = self.throttle(&mut vcpus);
        VmRates {
            threads: self.threads(&vcpus),
            vcpus,
            allowed,
            throttled,
            memory_far: self.of.memory_far,
            device_far: self.of.device_far,
        }
    }

    fn place(&self, vcpu: u32) -> (u32, Vec<u32>) {
        match &self.of.cpus {
            Some(cpus) => {
                let cpu = cpus[vcpu as usize % cpus.len()];
                (cpu, vec![cpu])
            }
            None => {
                let place = &self.model.places[self.n][vcpu as usize];
                (place.cpu(self.at), place.allowed.clone())
            }
        }
    }

    fn demand(&self, vcpu: u32) -> f64 {
        let of_one = self.of.demand_of.filter(|(n, _)| *n == vcpu);
        if let Some((_, demand)) = of_one {
            return demand;
        }
        let demand = self.of.demand.unwrap_or(self.spec.workload.demand);
        let around = |part, key| self.model.around(part, key, self.at);
        let of_vm = around(0.1, (key::DEMAND, self.n as u64));
        let of_vcpu = around(0.15, self.key(key::DEMAND_OF_VCPU, vcpu));
        (demand * of_vm * of_vcpu).min(0.98)
    }

    fn work(&self, vcpu: u32, cpu: u32) -> VcpuRates {
        let around = |part, what| self.model.around(part, self.key(what, vcpu), self.at);
        let work = &self.spec.workload;
        let usual = work.exits * around(0.1, key::EXITS);
        let exits = self.of.exits.unwrap_or(usual);
        VcpuRates {
            host: (0.01 + exits * EXIT_SECONDS).min(0.5),
            cpi: work.cpi * around(0.04, key::CPI) * self.of.cpi,
            cache_mpki: work.cache_mpki * around(0.06, key::MISSES) * self.of.misses,
            remote: self.remote(cpu),
            exits,
            storm: (exits - usual).max(0.0),
            ..VcpuRates::default()
        }
    }

    /// Share of DRAM loads that leave the package of this CPU. Loads are spread evenly over the
    /// VM's memory; some go to memory that is not the guest's.
    fn remote(&self, cpu: u32) -> f64 {
        let shares = self.spec.memory_shares(self.of.memory_far);
        let here = node_of(cpu);
        let beside = self.model.scenario.memory_node.map(|node| node.package);
        let packages = [Some(0), Some(1), beside];
        let away = shares.iter().zip(packages);
        let away = away.filter(|(_, package)| *package != Some(here));
        0.02 + 0.96 * away.map(|(share, _)| share).sum::<f64>()
    }

    fn key(&self, what: u64, vcpu: u32) -> Key {
        (what, (self.n as u64) << 16 | u64::from(vcpu))
    }

    /// Applies the quota: time that a vCPU loses becomes delay.
    fn throttle(&self, vcpus: &mut [VcpuRates]) -> [f64; 2] {
        let wanted: f64 = vcpus.iter().map(|vcpu| vcpu.time).sum();
        let Some(quota) = self.spec.quota.filter(|quota| wanted > *quota) else {
            return [0.0; 2];
        };
        for vcpu in vcpus {
            let left = vcpu.time * quota / wanted;
            vcpu.delay += vcpu.time - left;
            vcpu.time = left;
        }
        // Higher demand exhausts the quota in more periods.
        [(2.0 * (wanted / quota - 1.0)).min(0.95), wanted - quota]
    }

    fn threads(&self, vcpus: &[VcpuRates]) -> [ThreadRates; 3] {
        let busy: f64 = vcpus.iter().map(|vcpu| vcpu.time).sum();
        let thread = |n: u64, part: f64, cpu: u32| {
            let key = (key::THREAD + n, self.n as u64);
            let time = (part * busy * self.model.around(0.2, key, self.at)).min(MOST_OF_OTHERS);
            let delay = WAKEUP_DELAY * time;
            ThreadRates { cpu, time, delay }
        };
        let cpu = |n: usize| vcpus[n % vcpus.len()].cpu;
        let mut threads = [
            thread(0, 0.01, cpu(0)),
            thread(1, 0.02, cpu(1)),
            ThreadRates::default(),
        ];
        if self.spec.iothread {
            threads[2] = thread(2, 0.03, cpu(vcpus.len() - 1));
        }
        if let Some((vcpu, share)) = self.of.iothread {
            let cpu = cpu(vcpu as usize);
            threads[2] = ThreadRates {
                cpu,
                time: share,
                delay: 0.02 * share,
            };
        }
        threads
    }
}
