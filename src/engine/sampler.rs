//! The sampler: a thread with a fixed schedule that reads every vCPU once per tick.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustix::time::ClockId;

use crate::config::Config;
use crate::discover::Inventory;
use crate::engine::demand::Demand;
use crate::engine::descriptors::Shares;
use crate::engine::hangs::Overdue;
use crate::engine::limit::Limit;
use crate::engine::reading::{Columns, Reading};
use crate::engine::schedule::Schedule;
use crate::engine::vcpu_sampler::{VcpuKey, VcpuSampler};
use crate::engine::{Reason, SourceInfo, SourceState, VcpuSource, VmFacts};
use crate::stop::Stop;
use crate::telemetry::{Heartbeat, Telemetry};

/// A tick that takes three periods plus this time is reported as a hang.
const SLOW_TICK: Duration = Duration::from_secs(2);

/// Reads all vCPUs and keeps their totals.
pub struct Sampler {
    sources: Vec<Box<dyn VcpuSource>>,
    columns: Arc<Columns>,
    published: Published,
    inventory: Arc<Inventory>,
    facts: Vec<Arc<VmFacts>>,
    vcpu_samplers: Vec<VcpuSampler>,
    reading: Reading,
    demand: Demand,
    shares: Shares,
    limit: Limit,
    errors: Vec<u64>,
    states: Vec<(SourceInfo, SourceState)>,
    overdue: Overdue,
    heartbeat: Heartbeat,
    telemetry: Telemetry,
    ticks: u64,
}

/// Data that discovery and the background collectors publish, each at its own interval.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The latest inventory.
    pub inventory: Arc<ArcSwap<Inventory>>,
    /// The latest facts of each background collector.
    pub facts: Vec<Arc<ArcSwap<VmFacts>>>,
    /// All sources of the background collectors.
    pub sources: Vec<SourceInfo>,
}

/// The sampler's state at the end of a tick.
pub struct Sampled<'a> {
    /// Number of the tick, from 1.
    pub tick: u64,
    /// End of the tick, wall clock.
    pub taken: SystemTime,
    /// End of the tick, monotonic clock.
    pub taken_mono: Instant,
    /// The inventory used in this tick.
    pub inventory: &'a Arc<Inventory>,
    /// The latest facts of each background collector.
    pub(crate) facts: &'a [Arc<VmFacts>],
    /// Metric, labels and unit of each column.
    pub(crate) columns: &'a Arc<Columns>,
    /// All vCPUs, in inventory order.
    pub(crate) vcpu_samplers: &'a [VcpuSampler],
    /// Demand of all vCPUs for each logical CPU.
    pub(crate) demand: &'a Demand,
    /// The series limit and the detail it dropped.
    pub limit: &'a Limit,
    /// State of each source read in the tick.
    pub sources: &'a [(SourceInfo, SourceState)],
    /// State of each source whose thread hangs; it replaces the source's own state.
    pub(crate) overdue: &'a [(SourceInfo, SourceState)],
}

impl Sampler {
    /// A sampler of the VMs that `published.inventory` holds at each tick. `sources` are read in order,
    /// sched first; `columns` are those they declared.
    pub fn new(
        config: &Config,
        sources: Vec<Box<dyn VcpuSource>>,
        columns: Columns,
        published: Published,
        telemetry: Telemetry,
    ) -> Self {
        let limit = Limit::new(
            config.limits.max_series,
            config.labels.cell_ttl,
            config.labels.placement,
            &columns,
        );
        let states = sources.iter().map(|s| (s.info(), SourceState::Up));
        Self {
            errors: vec![0; sources.len()],
            states: states.collect(),
            sources,
            reading: Reading::new(&columns, Arc::default()),
            demand: Demand::new(&columns),
            shares: Shares::default(),
            columns: Arc::new(columns),
            facts: vec![Arc::default(); published.facts.len()],
            published,
            inventory: Arc::default(),
            vcpu_samplers: Vec::new(),
            limit,
            overdue: Overdue::default(),
            heartbeat: {
                let limit = config.sampling.tick * 3 + SLOW_TICK;
                telemetry.heartbeats.add("sampler", limit, true)
            },
            telemetry,
            ticks: 0,
        }
    }

    /// Limits the file descriptors held for vCPUs to `most`, independent of the process limit.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_descriptors(mut self, most: usize) -> Self {
        self.shares = Shares::limited_to(most);
        self
    }

    /// Reads every vCPU once.
    pub fn tick(&mut self) {
        let now = Instant::now();
        let newest = self.published.inventory.load_full();
        if !Arc::ptr_eq(&newest, &self.inventory) {
            self.reconcile(newest);
            self.shares
                .divide(&mut self.vcpu_samplers, &self.sources, now);
        }
        let (sources, shares) = (&mut self.sources, &mut self.shares);
        for vcpu_sampler in &mut self.vcpu_samplers {
            self.reading.clear();
            vcpu_sampler.read(sources, shares, &mut self.reading, &mut self.errors, now);
            vcpu_sampler.totals.charge(&self.reading, now);
            self.demand.charge(&self.reading);
        }
        shares.divide_if_short(&mut self.vcpu_samplers, sources, now);
        for (known, newest) in self.facts.iter_mut().zip(&self.published.facts) {
            *known = newest.load_full();
        }
        let cpus = self.inventory.topology.cpus.len();
        let facts = self.facts.iter().map(|f| f.count(&self.inventory));
        let others =
            2 * self.inventory.vms.len() + cpus + self.demand.series(cpus) + facts.sum::<usize>();
        self.limit.enforce(&mut self.vcpu_samplers, others, now);
        self.ticks += 1;
        self.count_errors();
        self.look_at_sources();
        let heartbeats = &self.telemetry.heartbeats;
        let sources = &self.published.sources;
        self.overdue.update(heartbeats, sources, &self.facts, now);
    }

    /// Adopts a new inventory and its order; vCPUs that remain keep their totals.
    fn reconcile(&mut self, inventory: Arc<Inventory>) {
        let mut known: HashMap<VcpuKey, VcpuSampler> =
            self.vcpu_samplers.drain(..).map(|s| (s.key(), s)).collect();
        for vm in &inventory.vms {
            for vcpu in &vm.vcpus {
                let new = || VcpuSampler::new(vm.clone(), *vcpu, &self.columns);
                let known = known.remove(&(vm.key, vcpu.index));
                let mut vcpu_sampler = known.unwrap_or_else(new);
                vcpu_sampler.update(vm.clone(), *vcpu);
                self.limit.apply(&mut vcpu_sampler);
                self.vcpu_samplers.push(vcpu_sampler);
            }
        }
        self.reading.topology = inventory.topology.clone();
        self.inventory = inventory;
    }

    fn count_errors(&mut self) {
        for (errors, source) in self.errors.iter_mut().zip(&self.sources) {
            let errors = std::mem::take(errors);
            self.telemetry.count_read_errors(source.info().name, errors);
        }
    }

    /// Number of file descriptors held for vCPUs.
    pub fn descriptors(&self) -> usize {
        let held = self.vcpu_samplers.iter().map(VcpuSampler::descriptors);
        held.sum()
    }

    /// The state after the last tick.
    pub fn view(&self) -> Sampled<'_> {
        Sampled {
            tick: self.ticks,
            taken: SystemTime::now(),
            taken_mono: Instant::now(),
            inventory: &self.inventory,
            facts: &self.facts,
            columns: &self.columns,
            vcpu_samplers: &self.vcpu_samplers,
            demand: &self.demand,
            limit: &self.limit,
            sources: &self.states,
            overdue: self.overdue.states(),
        }
    }

    fn look_at_sources(&mut self) {
        for (n, source) in self.sources.iter().enumerate() {
            let now = with_refusals(source.state(), &self.vcpu_samplers, n);
            let (info, before) = &mut self.states[n];
            if !now.has_code_of(before) {
                log_change(info.name, &now);
            }
            *before = now;
        }
    }

    /// Ticks on a fixed schedule until `stop`; calls `after_tick` after each tick.
    pub(crate) fn run(
        mut self,
        period: Duration,
        stop: &Stop,
        mut after_tick: impl FnMut(&Sampler),
    ) {
        let mut schedule = Schedule::new(Instant::now(), period);
        while !stop.wait_until(schedule.due()) {
            self.timed_tick(&mut schedule, &mut after_tick);
        }
    }

    /// Runs one tick of `schedule` and records its duration and CPU time, including `after_tick`.
    pub(crate) fn timed_tick(
        &mut self,
        schedule: &mut Schedule,
        mut after_tick: impl FnMut(&Sampler),
    ) {
        let (start, cpu) = (Instant::now(), thread_cpu_time());
        self.heartbeat.step("sampler");
        self.tick();
        after_tick(self);
        self.heartbeat.rest();
        let end = Instant::now();
        let t = &self.telemetry;
        t.ticks.inc();
        t.tick_duration.observe((end - start).as_secs_f64());
        let used = thread_cpu_time().saturating_sub(cpu);
        t.tick_cpu.inc_by(used.as_secs_f64());
        t.missed_ticks.inc_by(schedule.ended(end));
    }
}

/// The state of a source, degraded if it refused any vCPU.
fn with_refusals(own: SourceState, vcpu_samplers: &[VcpuSampler], source: usize) -> SourceState {
    if matches!(own, SourceState::Down(_)) {
        return own;
    }
    let refusals = vcpu_samplers.iter().filter_map(|s| s.refusal(source));
    let reason = Reason::first_of("vCPUs without data from this source", refusals);
    reason.map_or(own, SourceState::Degraded)
}

/// Logs a change of a source's state, once for all vCPUs.
pub(crate) fn log_change(source: &str, now: &SourceState) {
    match now.reason() {
        None => tracing::info!(source, "source up"),
        Some(Reason { code, detail, fix }) => {
            let fix = fix.as_deref();
            let state = match now {
                SourceState::Down(_) => "down",
                SourceState::Up | SourceState::Degraded(_) => "degraded",
            };
            let code = code.label();
            tracing::warn!(source, code, %detail, fix, "source {state}");
        }
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
