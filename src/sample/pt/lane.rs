//! Whose turn it is to be recorded.
//!
//! vCPUs stand in a queue; the front one has its turn and goes to the back. In each `period` there
//! are as many turns as vCPUs, evenly apart, so that each has one. A vCPU whose core had its part
//! ([`super::duty`]) keeps its place and others go first; where cores are short of time the period
//! stretches for all vCPUs on them alike. A vCPU that did not run since its last turn is passed
//! over for one /proc file. When the kernel refuses, the lane waits, twice as long each time.
//!
//! The thread runs at nice 19 and decodes at most a quarter of the time. Not `SCHED_IDLE`: beside a
//! busy vCPU that may not run for seconds, and a recording would go on for as long as its end is
//! not seen to. At nice 19 it is late by a few milliseconds; how late is charged to the core.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::duty::{Core, Duty};
use super::totals::{ReasonNames, VcpuTotals, VmTotals};
use super::{plan, Capture, Outcome, Plan, RecordPt, Request, SOURCE};
use crate::config;
use crate::discover::{Inventory, Vcpu, Vm, VmKey};
use crate::host::roots::Roots;
use crate::pt::{self, Clocks};
use crate::sample::sampler::log_change;
use crate::sample::slow::{Fact, VmFacts};
use crate::sample::{Reason, SourceInfo, SourceState};
use crate::stop::Stop;
use crate::telemetry::{SourceLabel, Telemetry};

mod waiting;

use waiting::Waiting;

/// First and longest wait after the kernel refused.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Part of the time the thread may compute: for each second of it, three of sleep.
const SLEEPS: u32 = 3;

/// Longest time until a change of the inventory is seen.
const LOOK: Duration = Duration::from_secs(1);

/// A turn that takes longer hangs.
const LONG: Duration = Duration::from_secs(60);

/// Weakest claim to a CPU that is not `SCHED_IDLE` (sched(7)).
const NICE: i32 = 19;

/// Records vCPUs in turn.
pub struct PtLane {
    config: config::Pt,
    roots: Arc<Roots>,
    recorder: Box<dyn RecordPt>,
    plan: Result<Plan, Reason>,
    names: ReasonNames,
    inventory: Arc<ArcSwap<Inventory>>,
    /// The inventory that `queue` was made of.
    seen: Arc<Inventory>,
    queue: VecDeque<Waiting>,
    duty: Duty,
    due: Instant,
    /// When the last turn was due.
    slot: Option<Instant>,
    trouble: Option<Trouble>,
    /// The last recording had gaps.
    gaps: bool,
    vms: HashMap<VmKey, OfVm>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// Why the kernel records nothing at the moment.
#[derive(Debug)]
struct Trouble {
    reason: Reason,
    /// Refusals in a row.
    times: u32,
    until: Instant,
}

/// What is known of a VM.
#[derive(Default)]
struct OfVm {
    totals: VmTotals,
    facts: Arc<[Fact]>,
    vcpus: BTreeMap<u32, (VcpuTotals, Arc<[Fact]>)>,
}

/// What a turn came to.
enum Turn {
    /// It is over, recorded or not.
    Over(Outcome),
    /// The core has no time left before.
    Blocked(Instant),
}

impl PtLane {
    /// A lane over whatever VMs `inventory` holds. `names` are those of VMX exit reasons.
    pub fn new(
        config: &config::Pt,
        roots: Arc<Roots>,
        recorder: Box<dyn RecordPt>,
        names: ReasonNames,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let plan = match config.enabled {
            true => Plan::read(&roots),
            false => Err(plan::disabled()),
        };
        let lane = Self {
            duty: Duty::new(config.max_duty, config.window, config.period),
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
        lane.publish();
        lane
    }

    /// Where the newest facts are found.
    pub fn newest(&self) -> Arc<ArcSwap<VmFacts>> {
        self.newest.clone()
    }

    /// Whether anything can ever be recorded: if not, the thread is not needed.
    pub fn is_able(&self) -> bool {
        self.plan.is_ok()
    }

    /// What the source is.
    pub fn info(&self) -> SourceInfo {
        info()
    }

    /// When the next turn is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether it delivers now.
    pub fn state(&self) -> SourceState {
        match (&self.plan, &self.trouble) {
            (Err(reason), _) => SourceState::Down(reason.clone()),
            (Ok(_), Some(trouble)) => SourceState::Down(trouble.reason.clone()),
            (Ok(plan), None) => match &plan.blind {
                Some(reason) => SourceState::Degraded(reason.clone()),
                None if self.gaps => SourceState::Degraded(plan::no_vmx_tracing()),
                None => SourceState::Up,
            },
        }
    }

    /// Gives one vCPU its turn, where one is due at `now`, and publishes what is known after.
    pub fn pass(&mut self, now: Instant) {
        let Some(request) = self
            .plan
            .as_ref()
            .ok()
            .map(|plan| plan.request(&self.config))
        else {
            return;
        };
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
        // Turns that were missed are not made up for.
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

    /// Time from one turn to the next.
    fn interval(&self) -> Duration {
        let vcpus = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        match vcpus {
            0 => LOOK,
            n => self.config.period / n,
        }
    }

    /// Brings the queue up to date: who is gone leaves it with its totals, who is new stands at
    /// its end.
    fn reconcile(&mut self, inventory: Arc<Inventory>) {
        let mut here: HashMap<(VmKey, u32), (&Arc<Vm>, Vcpu)> = HashMap::new();
        for vm in &inventory.vms {
            here.extend(
                vm.vcpus
                    .iter()
                    .map(|vcpu| ((vm.key, vcpu.index), (vm, *vcpu))),
            );
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
            of_vm
                .vcpus
                .retain(|index, _| alive.contains(&(*key, *index)));
            inventory.vms.iter().any(|vm| vm.key == *key)
        });
        self.seen = inventory;
    }

    /// The first in the queue that is due and whose core has time left has its turn.
    fn turn(&mut self, slot: Instant, now: Instant, request: &Request) {
        // Turns are a whole number of intervals apart, which rounding may make less than a period.
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
        let Some(thread) = waiting.look(&self.roots, &self.seen.topology) else {
            return Turn::Over(Outcome::Gone);
        };
        // 0 is what a kernel says that does not keep account.
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
                // One whose thread has ended may be of another thread, which got its TID before
                // the kernel was asked.
                match self.charge(waiting, thread.core, now, capture.elapsed) {
                    true => Turn::Over(self.recorded(waiting, &capture, now + capture.elapsed)),
                    false => Turn::Over(Outcome::Gone),
                }
            }
            Err(error) => match plan::refusal(&error, &self.roots) {
                None => Turn::Over(Outcome::Gone),
                Some(reason) => Turn::Over(self.refused(reason, now)),
            },
        }
    }

    /// Charges a recording to the core it began on, and to the one where the thread is after; says
    /// whether the thread is still there.
    fn charge(&mut self, waiting: &Waiting, core: Core, begun: Instant, length: Duration) -> bool {
        self.duty.charge(core, begun, length);
        let Some(after) = waiting.look(&self.roots, &self.seen.topology) else {
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
        match outcome {
            Outcome::Busy => {
                let seen = "the thread ran and was not traced";
                return self.refused(plan::busy(seen), now);
            }
            _ => self.trouble = None,
        }
        if outcome == Outcome::Idle {
            return outcome;
        }
        self.gaps = capture.trace.flags & super::image::FLAG_PARTIAL != 0;
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
            "pt_busy" => Outcome::Busy,
            _ => Outcome::Refused,
        };
        if outcome == Outcome::Refused {
            let errors = &self.telemetry.read_errors;
            errors.get_or_create(&SourceLabel { source: SOURCE }).inc();
        }
        let times = self.trouble.as_ref().map_or(0, |trouble| trouble.times);
        let wait = BACK_OFF
            .0
            .saturating_mul(1 << times.min(16))
            .min(BACK_OFF.1);
        self.trouble = Some(Trouble {
            reason,
            times: times.saturating_add(1),
            until: now + wait,
        });
        outcome
    }

    /// Counts a turn, and says what is known of the vCPU and its VM now.
    fn note(&mut self, waiting: &Waiting, outcome: Outcome) {
        let sees_guest = self.plan.as_ref().is_ok_and(|plan| plan.blind.is_none());
        let of_vm = self.vms.entry(waiting.vm.key).or_default();
        of_vm.facts = of_vm.totals.facts(sees_guest);
        let index = waiting.vcpu.index;
        let (totals, facts) = of_vm.vcpus.entry(index).or_default();
        totals.count(outcome);
        *facts = totals.facts(index, sees_guest);
    }

    fn publish(&self) {
        let lists = |of_vm: &OfVm| {
            let of_vcpus = of_vm.vcpus.values().map(|(_, facts)| facts.clone());
            std::iter::once(of_vm.facts.clone())
                .chain(of_vcpus)
                .collect()
        };
        let state = self.state();
        let newest = self.newest.load();
        let before = newest.sources.first().map_or("", |(_, state)| state.code());
        if before != state.code() && self.config.enabled {
            log_change(SOURCE, &state);
        }
        self.newest.store(Arc::new(VmFacts {
            vms: self.vms.iter().map(|(key, vm)| (*key, lists(vm))).collect(),
            host: Vec::new(),
            sources: vec![(info(), state)],
        }));
    }

    /// Gives turns until told to stop.
    pub fn run(mut self, stop: &Stop) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!(%error, "the thread that decodes traces keeps its priority");
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

fn info() -> SourceInfo {
    SourceInfo {
        name: SOURCE,
        needs: "an Intel CPU with processor trace, CAP_PERFMON, CAP_IPC_LOCK",
        cost: "a few per cent of a core's speed while one of its vCPUs is recorded, by default 10 \
               ms a minute, and 2 to 100 ms of decoding after it",
    }
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests;
