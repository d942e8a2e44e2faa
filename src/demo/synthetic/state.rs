//! Totals of everything: the model's rates, added up in steps of a fixed length.
//!
//! A step is a span of real time; scenario time advances by a multiple of it. Totals after a step
//! do not depend on how often they were read.

use std::time::Duration;

use super::counts::{self, Counts};
use super::cpus::CpuTime;
use super::model::{Model, Moment};
use super::rates::{ThreadRates, VcpuRates, VmRates};
use super::scenario::{node_of, CPUS};

/// Quota periods a second: the default `cpu.max` period is 100 ms.
const PERIODS: f64 = 10.0;

/// Bytes of a cache line, and lines moved to or from memory per miss, including write-backs and
/// prefetches.
const LINE: f64 = 64.0;
const TRAFFIC: f64 = 1.4;

/// Last-level cache of a package: 42 MiB, of which 5 % belong to no VM.
pub(super) const LLC_BYTES: f64 = 0.95 * 42.0 * 1024.0 * 1024.0;

/// Totals since the host was created.
#[derive(Debug)]
pub(super) struct State {
    model: Model,
    step: Duration,
    speed: f64,
    steps: u64,
    /// `None` for a VM that is not running.
    pub(super) vms: Vec<Option<VmTotals>>,
    /// Time of each CPU by mode.
    pub(super) cpus: Vec<CpuTime>,
    /// Seconds for which each package was throttled.
    pub(super) throttled: [f64; 2],
    /// The current rates.
    pub(super) now: Moment,
}

#[derive(Debug, Clone, Default)]
pub(super) struct VmTotals {
    /// The step in which it started.
    pub(super) born: u64,
    pub(super) vcpus: Vec<SyntheticTotals>,
    pub(super) threads: [ThreadTotals; 3],
    /// Periods, throttled periods, and seconds lost.
    pub(super) quota: [f64; 3],
    /// vCPU time, weighted by the share of its loads that go to another node, seconds.
    pub(super) remote: f64,
    /// Bytes of memory traffic by cache, and bytes to the cache's own node.
    pub(super) traffic: [[f64; 2]; 2],
    pub(super) rates: VmRates,
}

/// Totals of a vCPU.
#[derive(Debug, Clone, Default)]
pub(super) struct SyntheticTotals {
    pub(super) thread: ThreadTotals,
    /// Seconds in guest mode, and seconds with counters running.
    pub(super) guest: f64,
    pub(super) running: f64,
    pub(super) counts: Counts,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ThreadTotals {
    pub(super) cpu: u32,
    /// Seconds on a CPU.
    pub(super) time: f64,
    pub(super) delay: f64,
    pub(super) voluntary: f64,
    pub(super) involuntary: f64,
    pub(super) migrations: u64,
    pub(super) minor_faults: f64,
}

impl State {
    /// A state with zero totals.
    pub(super) fn new(model: Model, step: Duration, speed: f64) -> Self {
        let now = model.at(Duration::ZERO);
        let mut state = Self {
            vms: vec![None; model.scenario.vms.len()],
            cpus: vec![CpuTime::default(); CPUS as usize],
            throttled: [0.0; 2],
            model,
            step,
            speed,
            steps: 0,
            now,
        };
        state.start_and_end();
        state
    }

    /// Scenario time.
    pub(super) fn script(&self) -> Duration {
        self.script_at(self.steps as f64)
    }

    fn script_at(&self, steps: f64) -> Duration {
        self.step.mul_f64(steps * self.speed)
    }

    /// Number of steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Advances to `elapsed` since the start; returns whether anything changed.
    pub(super) fn advance(&mut self, elapsed: Duration) -> bool {
        let due = elapsed.as_nanos() / self.step.as_nanos().max(1);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let moved = self.steps < due;
        while self.steps < due {
            self.take_step();
        }
        moved
    }

    fn take_step(&mut self) {
        self.now = self.model.at(self.script_at(self.steps as f64 + 0.5));
        self.start_and_end();
        let span = self.step.as_secs_f64();
        for vm in self.vms.iter_mut().flatten() {
            vm.add(span);
        }
        for (total, rates) in self.cpus.iter_mut().zip(&self.now.cpus) {
            total.add(rates, span);
        }
        for (total, part) in self.throttled.iter_mut().zip(self.now.throttled) {
            *total += part * span;
        }
        self.steps += 1;
    }

    /// Adds and removes VMs according to who runs now.
    fn start_and_end(&mut self) {
        for (vm, rates) in self.vms.iter_mut().zip(&self.now.vms) {
            match (vm, rates) {
                (vm, None) => *vm = None,
                (Some(vm), Some(rates)) => vm.rates = rates.clone(),
                (vm, Some(rates)) => *vm = Some(VmTotals::new(self.steps, rates)),
            }
        }
    }
}

impl VmTotals {
    fn new(born: u64, rates: &VmRates) -> Self {
        let vcpu = |rates: &VcpuRates| SyntheticTotals {
            thread: ThreadTotals {
                cpu: rates.cpu,
                ..ThreadTotals::default()
            },
            ..SyntheticTotals::default()
        };
        Self {
            born,
            vcpus: rates.vcpus.iter().map(vcpu).collect(),
            rates: rates.clone(),
            ..Self::default()
        }
    }

    fn add(&mut self, span: f64) {
        for (vcpu, rates) in self.vcpus.iter_mut().zip(&self.rates.vcpus) {
            vcpu.add(rates, span);
            self.remote += rates.time * rates.remote * span;
            let bytes = misses(rates) * LINE * TRAFFIC * span;
            let [all, local] = &mut self.traffic[node_of(rates.cpu) as usize];
            *all += bytes;
            *local += bytes * (1.0 - rates.remote);
        }
        for (thread, rates) in self.threads.iter_mut().zip(&self.rates.threads) {
            thread.add(rates, 600.0, span);
        }
        let [part, lost] = self.rates.throttled;
        let more = [PERIODS, PERIODS * part, lost];
        for (total, more) in self.quota.iter_mut().zip(more) {
            *total += more * span;
        }
    }

    /// Counters of NUMA balancing: entries marked, faults on these, and pages moved to the vCPU's
    /// node.
    pub(super) fn balancing(&self) -> [u64; 3] {
        let time: f64 = self.vcpus.iter().map(|vcpu| vcpu.thread.time).sum();
        [800.0 * time, 600.0 * time, 20.0 * self.remote].map(|n| n as u64)
    }

    /// Misses per second of each last-level cache.
    pub(super) fn misses(&self) -> [f64; 2] {
        let mut all = [0.0; 2];
        for rates in &self.rates.vcpus {
            all[node_of(rates.cpu) as usize] += misses(rates);
        }
        all
    }
}

fn misses(rates: &VcpuRates) -> f64 {
    let guest = rates.time * (1.0 - rates.host);
    guest * rates.hertz / rates.cpi * rates.cache_mpki / 1000.0
}

impl SyntheticTotals {
    fn add(&mut self, rates: &VcpuRates, span: f64) {
        let thread = ThreadRates {
            cpu: rates.cpu,
            time: rates.time,
            delay: rates.delay,
        };
        self.thread.add(&thread, 900.0, span);
        let time = rates.time * span;
        self.guest += time * (1.0 - rates.host);
        self.running += time * rates.running;
        counts::add(&mut self.counts, rates, time);
    }
}

impl ThreadTotals {
    /// `sleeps` is the number per second of run time.
    fn add(&mut self, rates: &ThreadRates, sleeps: f64, span: f64) {
        if rates.cpu != self.cpu && self.time > 0.0 {
            self.migrations += 1;
        }
        self.cpu = rates.cpu;
        self.time += rates.time * span;
        self.delay += rates.delay * span;
        self.voluntary += rates.time * sleeps * span;
        // Each wait of some milliseconds ends in a preemption of another thread.
        self.involuntary += (2.0 * rates.time + 150.0 * rates.delay) * span;
        self.minor_faults += 20.0 * rates.time * span;
    }
}
