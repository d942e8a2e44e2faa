//! Chooses the vCPU to record.
//!
//! vCPUs wait in a queue; the first takes its turn and goes to the end. Each `period` has as many
//! turns as there are vCPUs, evenly spaced, so each vCPU has one. If the core of a vCPU is at its
//! limit ([`super::duty_cycle`]), the vCPU keeps its position and others go first; if cores are
//! short of time, the period stretches equally for all vCPUs on them. A vCPU that did not run since
//! its last turn costs two /proc files and is skipped. If the kernel refuses, the thread backs off,
//! twice as long each time.
//!
//! The thread runs at nice 19 and decodes at most a quarter of the time. It does not use
//! `SCHED_IDLE`: next to a busy vCPU such a thread may not run for seconds, and a recording
//! continues until the thread ends it. At nice 19 it is a few milliseconds late; the delay is
//! charged to the core.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::duty_cycle::{Core, DutyCycle};
use super::totals::{PtVcpuTotals, PtVmTotals, ReasonNames};
use super::{plan, Capture, Outcome, PtPlan, RecordPt, Request, SOURCE};
use crate::config;
use crate::discover::{Inventory, Vcpu, Vm, VmKey};
use crate::engine::sampler::{log_change, thread_cpu_time};
use crate::engine::schedule::back_off;
use crate::engine::{Fact, Reason, ReasonCode, SourceInfo, SourceState, ThreadedSource, VmFacts};
use crate::host::roots::Roots;
use crate::pt::{self, Clocks};
use crate::stop::Stop;
use crate::telemetry::Telemetry;

mod waiting;

use waiting::Waiting;

/// First and longest pause after the kernel refused.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Seconds of sleep for each second of computation: the thread computes at most a quarter of the
/// time.
const SLEEPS: u32 = 3;

/// Longest time until a change of the inventory is seen.
const LOOK: Duration = Duration::from_secs(1);

/// A turn that takes longer is reported as a hang.
const LONG: Duration = Duration::from_secs(60);

/// Lowest priority that is not `SCHED_IDLE` (sched(7)).
const NICE: i32 = 19;

/// Records vCPUs in turn.
pub(crate) struct PtRecorder {
    config: config::Pt,
    roots: Arc<Roots>,
    recorder: Arc<dyn RecordPt>,
    plan: Result<PtPlan, Reason>,
    names: ReasonNames,
    inventory: Arc<ArcSwap<Inventory>>,
    /// The inventory that `queue` is based on.
    seen: Arc<Inventory>,
    queue: VecDeque<Waiting>,
    duty: DutyCycle,
    due: Instant,
    /// When the last turn was due.
    slot: Option<Instant>,
    trouble: Option<Refusals>,
    /// Whether the last recording had gaps.
    gaps: bool,
    vms: HashMap<VmKey, VmRecordings>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// Why the kernel refuses recordings at the moment.
#[derive(Debug)]
struct Refusals {
    reason: Reason,
    /// Number of refusals in a row.
    times: u32,
    until: Instant,
}

/// Totals and facts of a VM.
#[derive(Default)]
struct VmRecordings {
    totals: PtVmTotals,
    facts: Arc<[Fact]>,
    vcpus: BTreeMap<u32, (PtVcpuTotals, Arc<[Fact]>)>,
}

/// Result of a turn.
enum Turn {
    /// The turn is over, with or without a recording.
    Over(Outcome),
    /// The core is at its limit until then.
    Blocked(Instant),
}

impl PtRecorder {
    /// A recorder for the VMs that `inventory` holds. `names` are the VMX exit reasons.
    pub(crate) fn new(
        config: &config::Pt,
        roots: Arc<Roots>,
        recorder: Arc<dyn RecordPt>,
        names: ReasonNames,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let plan = if config.enabled {
            PtPlan::read(&roots)
        } else {
            Err(plan::disabled())
        };
        let new = Self {
            duty: DutyCycle::new(config.max_duty, config.window, config.period),
            config: config.clone(),
            roots,
            recorder,
            plan,
            names,
            inventory,
            seen: Arc::default(),
            queue: VecDeque::new(),
            due: Instant::now(),
            slot: None,
            trouble: None,
            gaps: false,
            vms: HashMap::new(),
            newest: Arc::default(),
            telemetry,
        };
        new.publish();
        new
    }

    /// Whether the source delivers data now.
    fn state(&self) -> SourceState {
        match (&self.plan, &self.trouble) {
            (Err(reason), _) => SourceState::Down(reason.clone()),
            (Ok(_), Some(trouble)) => SourceState::Down(trouble.reason.clone()),
            (Ok(plan), None) => match &plan.gaps {
                Some(reason) => SourceState::Degraded(reason.clone()),
                None if self.gaps => SourceState::Degraded(plan::no_vmx_tracing()),
                None => SourceState::Up,
            },
        }
    }

    /// Time between two turns.
    fn interval(&self) -> Duration {
        let vcpus = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        self.config.period.checked_div(vcpus).unwrap_or(LOOK)
    }

    /// Updates the queue: vCPUs that ended leave it, with their totals; new ones join at its end.
    fn reconcile(&mut self, inventory: Arc<Inventory>) {
        let mut here: HashMap<(VmKey, u32), (&Arc<Vm>, Vcpu)> = HashMap::new();
        for vm in &inventory.vms {
            let vcpus = vm.vcpus.iter();
            here.extend(vcpus.map(|vcpu| ((vm.key, vcpu.index), (vm, *vcpu))));
        }
        let alive: HashSet<(VmKey, u32)> = here.keys().copied().collect();
        self.queue.retain_mut(|waiting| {
            let found = here.remove(&(waiting.vm.key, waiting.vcpu.index));
            if let Some((vm, vcpu)) = found {
                waiting.vm = vm.clone();
                if waiting.vcpu != vcpu {
                    (waiting.vcpu, waiting.run) = (vcpu, None);
                }
            }
            found.is_some()
        });
        for vm in &inventory.vms {
            for vcpu in &vm.vcpus {
                if here.contains_key(&(vm.key, vcpu.index)) {
                    self.queue.push_back(Waiting::new(vm.clone(), *vcpu));
                }
            }
        }
        self.vms.retain(|key, of_vm| {
            let vcpus = &mut of_vm.vcpus;
            vcpus.retain(|index, _| alive.contains(&(*key, *index)));
            inventory.vms.iter().any(|vm| vm.key == *key)
        });
        self.seen = inventory;
    }

    /// Gives the turn to the first vCPU in the queue that is due and whose core is below its limit.
    fn turn(&mut self, slot: Instant, now: Instant, request: &Request) {
        // Turns are a whole number of intervals apart, which may round to less than a period.
        let period = self.config.period.saturating_sub(self.interval() / 2);
        for n in 0..self.queue.len() {
            if !self.queue[n].is_due(slot, now, period) {
                continue;
            }
            let Some(mut waiting) = self.queue.remove(n) else {
                return;
            };
            match self.take(&mut waiting, now, request) {
                Turn::Blocked(until) => {
                    waiting.not_before = Some(until);
                    self.queue.insert(n, waiting);
                }
                Turn::Over(outcome) => {
                    self.note(&waiting, outcome);
                    waiting.turn = Some(waiting.turn_at(slot, self.config.period));
                    waiting.not_before = None;
                    self.queue.push_back(waiting);
                    return;
                }
            }
        }
    }

    fn take(&mut self, waiting: &mut Waiting, now: Instant, request: &Request) -> Turn {
        let Some(thread) = waiting.locate(&self.roots, &self.seen.topology) else {
            return Turn::Over(Outcome::Gone);
        };
        // 0 comes from a kernel that does not count run time.
        let ran = thread.run == 0 || waiting.run != Some(thread.run);
        if !ran {
            return Turn::Over(Outcome::Idle);
        }
        let free = self.duty.free_at(thread.core, now);
        if free > now {
            return Turn::Blocked(free);
        }
        waiting.run = Some(thread.run);
        match self.recorder.record(waiting.vcpu.tid, request) {
            Ok(capture) => {
                // If the thread exited, the recording may be of another thread that got its TID
                // before the kernel opened the event.
                if self.charge(waiting, thread.core, now, capture.elapsed) {
                    Turn::Over(self.recorded(waiting, &capture, now + capture.elapsed))
                } else {
                    Turn::Over(Outcome::Gone)
                }
            }
            Err(error) => match plan::refusal(&error, &self.roots) {
                None => Turn::Over(Outcome::Gone),
                Some(reason) => Turn::Over(self.refused(reason, now)),
            },
        }
    }

    /// Charges a recording to the core where it started and to the core where the thread is now;
    /// returns whether the thread still exists.
    fn charge(&mut self, waiting: &Waiting, core: Core, begun: Instant, length: Duration) -> bool {
        self.duty.charge(core, begun, length);
        let Some(after) = waiting.locate(&self.roots, &self.seen.topology) else {
            return false;
        };
        if after.core != core {
            self.duty.charge(after.core, begun, length);
        }
        true
    }

    /// Adds a recording to the totals.
    fn recorded(&mut self, waiting: &Waiting, capture: &Capture, now: Instant) -> Outcome {
        let outcome = capture.outcome();
        if outcome == Outcome::Busy {
            let seen = "the thread ran but was not traced";
            return self.refused(plan::busy(seen), now);
        }
        self.trouble = None;
        if outcome == Outcome::Idle {
            return outcome;
        }
        self.gaps = capture.trace.flags & super::ring_view::FLAG_PARTIAL != 0;
        if capture.trace.bytes.is_empty() {
            return outcome;
        }
        let trace = &capture.trace;
        let summary = pt::summarise(&trace.bytes, &trace.cuts, &Clocks::default());
        let of_vm = self.vms.entry(waiting.vm.key).or_default();
        of_vm.totals.add(&summary);
        let (totals, _) = of_vm.vcpus.entry(waiting.vcpu.index).or_default();
        totals.add(capture, &summary, &self.names);
        outcome
    }

    fn refused(&mut self, reason: Reason, now: Instant) -> Outcome {
        let outcome = match reason.code {
            ReasonCode::PtBusy => Outcome::Busy,
            _ => Outcome::Refused,
        };
        if outcome == Outcome::Refused {
            self.telemetry.count_read_errors(SOURCE, 1);
        }
        let before = self.trouble.as_ref().map_or(0, |trouble| trouble.times);
        let times = before.saturating_add(1);
        let (first, longest) = BACK_OFF;
        self.trouble = Some(Refusals {
            reason,
            times,
            until: now + back_off(first, longest, times),
        });
        outcome
    }

    /// Counts a turn, and renders the facts of the vCPU and its VM.
    fn note(&mut self, waiting: &Waiting, outcome: Outcome) {
        let sees_guest = self.plan.as_ref().is_ok_and(|plan| plan.gaps.is_none());
        let of_vm = self.vms.entry(waiting.vm.key).or_default();
        of_vm.facts = of_vm.totals.facts(sees_guest);
        let index = waiting.vcpu.index;
        let (totals, facts) = of_vm.vcpus.entry(index).or_default();
        totals.count(outcome);
        *facts = totals.facts(index, sees_guest);
    }

    fn publish(&self) {
        let lists = |of_vm: &VmRecordings| {
            let of_vcpus = of_vm.vcpus.values().map(|(_, facts)| facts.clone());
            std::iter::once(of_vm.facts.clone())
                .chain(of_vcpus)
                .collect()
        };
        let state = self.state();
        let newest = self.newest.load();
        let before = newest.sources.first();
        let before = before.map_or(&SourceState::Up, |(_, before)| before);
        if !before.has_code_of(&state) && self.config.enabled {
            log_change(SOURCE, &state);
        }
        self.newest.store(Arc::new(VmFacts {
            vms: self.vms.iter().map(|(key, vm)| (*key, lists(vm))).collect(),
            host: Vec::new(),
            sources: vec![(self.info(), state)],
        }));
    }
}

impl ThreadedSource for PtRecorder {
    fn info(&self) -> SourceInfo {
        super::ENTRY.info
    }

    fn is_able(&self) -> bool {
        self.plan.is_ok()
    }

    fn newest(&self) -> Arc<ArcSwap<VmFacts>> {
        self.newest.clone()
    }

    fn due(&self) -> Instant {
        self.due
    }

    fn pass(&mut self, now: Instant) {
        let Ok(plan) = &self.plan else { return };
        let request = plan.request(&self.config);
        let newest = self.inventory.load_full();
        let is_new = !Arc::ptr_eq(&newest, &self.seen);
        if is_new {
            self.reconcile(newest);
        }
        let interval = self.interval();
        if let Some(slot) = self.slot.filter(|_| is_new) {
            self.due = slot + interval;
        }
        if now < self.due {
            if is_new {
                self.publish();
            }
            return;
        }
        // Missed turns are skipped.
        let slot = if now < self.due + interval {
            self.due
        } else {
            now
        };
        (self.slot, self.due) = (Some(slot), slot + interval);
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| now < trouble.until) {
            self.due = trouble.until;
            return;
        }
        self.turn(slot, now, &request);
        self.publish();
    }

    fn run(mut self: Box<Self>, stop: &Stop) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!(%error, "cannot lower the priority of the pt thread");
        }
        let heartbeat = self.telemetry.heartbeats.add(SOURCE, LONG, false);
        let mut rested = Instant::now();
        while !stop.wait_until(self.due.min(Instant::now() + LOOK).max(rested)) {
            let before = thread_cpu_time();
            heartbeat.step(SOURCE);
            self.pass(Instant::now());
            heartbeat.rest();
            let computed = thread_cpu_time().saturating_sub(before);
            rested = Instant::now() + computed * SLEEPS;
        }
    }
}

#[cfg(test)]
mod tests;
