//! The `pmu` source: opens the planned groups on each vCPU thread and reads them.

use std::sync::Arc;

use crate::config;
use crate::engine::{
    Column, ColumnId, Columns, OpenError, ReadError, Reader, Reading, Reason, ReasonCode, Scope,
    SourceInfo, SourceState, Target, Unit, VcpuSource,
};
use crate::host::cpu_model::CpuModel;
use crate::host::roots::Roots;
use crate::sources::sched;

use super::counters::{CounterError, CounterGroup, OpenCounters, Times};
use super::denied::{self, Gate};
use super::events::Mode;
use super::guest::{Counted, Evidence, Guest, Silent};
use super::meter::Meter;
use super::metrics::{CYCLES, PMU_ENABLED, PMU_EVENT, PMU_RUNNING};
use super::plan::{self, Feed, GroupPlan, Machine, Plan, PmuMode};
use super::probe::OwnThread;

/// The `pmu` source.
pub struct Pmu {
    plan: Plan,
    columns: Vec<Arc<GroupColumns>>,
    /// Column of the thread's guest time, fed by the sched source.
    guest_time: Option<ColumnId>,
    silent: Arc<Silent>,
    counters: Arc<dyn OpenCounters>,
    /// What could block perf_event_open at startup.
    gate: Gate,
    roots: Arc<Roots>,
}

/// The columns that a group feeds.
struct GroupColumns {
    events: Vec<EventColumn>,
    enabled: ColumnId,
    running: ColumnId,
}

struct EventColumn {
    id: ColumnId,
    /// It counts only guest mode.
    guest: bool,
    cycles: bool,
}

impl Pmu {
    /// Reads the machine's facts, probes the kernel, and declares the columns of the planned
    /// events.
    pub(crate) fn new(
        config: &config::Pmu,
        roots: &Arc<Roots>,
        model: &CpuModel,
        counters: Arc<dyn OpenCounters>,
        columns: &mut Columns,
    ) -> Self {
        let machine = Machine::read(roots, model, config);
        let plan = plan::plan(config, &machine, &OwnThread::new(counters.clone()));
        let guest_time = columns.find_placed(&sched::GUEST);
        let columns = plan.groups.iter().map(|group| declare(group, columns));
        Self {
            guest_time,
            silent: Arc::default(),
            columns: columns.map(Arc::new).collect(),
            plan,
            counters,
            gate: machine.gate,
            roots: roots.clone(),
        }
    }

    /// The hardware counting that this host allows, and the reason code if it is not `full`: the
    /// labels of `kvm_exporter_pmu_mode`.
    pub fn mode(&self) -> (&'static str, &'static str) {
        let reason = self.plan.reason.as_ref();
        let code = reason.map_or("", |reason| reason.code.label());
        (self.plan.mode.label(), code)
    }

    /// The planned groups, and the events that cannot be counted.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn open_groups(&self, tid: i32) -> Result<Vec<GroupReader>, CounterError> {
        let groups = self.plan.groups.iter().zip(&self.columns);
        groups
            .map(|(plan, columns)| GroupReader::open(&*self.counters, tid, plan, columns.clone()))
            .collect()
    }

    /// A KVM module with a mediated vPMU that was loaded after the probe: the planned events would
    /// prevent VMs from starting.
    fn mediated_since(&self) -> Option<&'static str> {
        match self.plan.mode {
            PmuMode::Full => plan::mediated_vpmu(&self.roots),
            _ => None,
        }
    }
}

impl VcpuSource for Pmu {
    fn info(&self) -> SourceInfo {
        super::ENTRY.info
    }

    fn state(&self) -> SourceState {
        match (self.plan.mode, self.plan.reason.clone()) {
            (PmuMode::Off, Some(reason)) => SourceState::Down(reason),
            (_, Some(reason)) => SourceState::Degraded(reason),
            (_, None) => {
                let reason = self.silent.reason();
                let reason = reason.or_else(|| missing(&self.plan.missing));
                reason.map_or(SourceState::Up, SourceState::Degraded)
            }
        }
    }

    fn open(&mut self, target: &Target<'_>) -> Result<Box<dyn Reader>, OpenError> {
        if let Some(module) = self.mediated_since() {
            return Err(OpenError::Refused(plan::mediated(module)));
        }
        let groups = self.open_groups(target.vcpu.tid);
        let groups = groups
            .map_err(|error| OpenError::Refused(refusal(&error, self.descriptors(), self.gate)))?;
        Ok(Box::new(VcpuReader {
            groups,
            guest_time: self.guest_time,
            guest: Evidence::new(self.silent.clone()),
            withheld: Vec::new(),
        }))
    }

    fn descriptors(&self) -> usize {
        let parts = self.plan.groups.iter().flat_map(|group| &group.parts);
        parts.map(Vec::len).sum()
    }
}

fn declare(group: &GroupPlan, columns: &mut Columns) -> GroupColumns {
    let events = group.feeds.iter().map(|feed| event_column(feed, columns));
    let events = events.collect();
    let mut time = |metric| {
        columns.add(Column {
            metric,
            labels: vec![("group", group.name.clone())],
            unit: Unit::Nanoseconds,
            scope: Scope::Vcpu,
        })
    };
    GroupColumns {
        events,
        enabled: time(&PMU_ENABLED),
        running: time(&PMU_RUNNING),
    }
}

fn event_column(feed: &Feed, columns: &mut Columns) -> EventColumn {
    let guest = ("mode", Mode::Guest.label());
    let mut labels = feed.labels.iter().map(|(name, value)| (*name, &**value));
    let id = columns.add(Column {
        metric: feed.metric,
        labels: feed.labels.clone(),
        unit: Unit::Count,
        scope: Scope::Placed,
    });
    if let Some(n) = id.placed().filter(|_| feed.metric == &PMU_EVENT) {
        columns.user_events |= 1 << n;
    }
    EventColumn {
        guest: labels.any(|label| label == guest),
        cycles: feed.metric == &CYCLES,
        id,
    }
}

/// Why a thread's counters could not be opened, and how to fix it.
fn refusal(error: &CounterError, per_vcpu: usize, gate: Gate) -> Reason {
    if error.error.raw_os_error() == Some(libc::EBUSY) {
        return ReasonCode::Busy.reason(error.to_string()).with_fix(
            "another program holds the counters exclusively: look for perf record, a guest with a \
             mediated vPMU, or a profiler",
        );
    }
    denied::refusal(error, &format!("the counters take {per_vcpu}"), || gate)
}

fn missing(missing: &[String]) -> Option<Reason> {
    let not_counted = || format!("not counted: {}", missing.join("; "));
    (!missing.is_empty()).then(|| {
        ReasonCode::EventNotSupported
            .reason(not_counted())
            .with_fix("remove the missing events from sources.pmu.events and sources.pmu.raw")
    })
}

/// All groups of one vCPU thread.
struct VcpuReader {
    groups: Vec<GroupReader>,
    guest_time: Option<ColumnId>,
    guest: Evidence,
    /// Deltas of guest-mode events in this tick, held back until their validity is known.
    withheld: Vec<(ColumnId, u64)>,
}

impl Reader for VcpuReader {
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError> {
        self.withheld.clear();
        let mut counted = Counted {
            cycles: None,
            all: 0,
            enabled: 0,
            running: 0,
            guest_time: self.guest_time.and_then(|column| reading.get(column)),
        };
        // A group that cannot be read must not prevent reading the others.
        let mut result = Ok(());
        for group in &mut self.groups {
            result = result.and(group.read(reading, &mut self.withheld, &mut counted));
        }
        match self.guest.take(counted) {
            Guest::Counted => {
                let known = self.withheld.iter();
                known.for_each(|(column, delta)| reading.add(*column, *delta));
            }
            // All of them are 0.
            Guest::Unseen => {}
            Guest::Silent => {
                let guest = self.groups.iter().flat_map(|g| &g.columns.events);
                let guest = guest.filter(|event| event.guest);
                guest.for_each(|event| reading.withdraw(event.id));
            }
        }
        result
    }

    fn descriptors(&self) -> usize {
        self.groups.iter().map(GroupReader::descriptors).sum()
    }
}

/// One planned group on one thread: a kernel group for each type of core.
struct GroupReader {
    parts: Vec<Part>,
    meter: Meter,
    columns: Arc<GroupColumns>,
}

struct Part {
    group: Box<dyn CounterGroup>,
    times: Times,
    counts: Box<[u64]>,
}

impl GroupReader {
    fn open(
        counters: &dyn OpenCounters,
        tid: i32,
        plan: &GroupPlan,
        columns: Arc<GroupColumns>,
    ) -> Result<Self, CounterError> {
        let part = |events: &Vec<_>| -> Result<Part, CounterError> {
            Ok(Part {
                group: counters.open(tid, events)?,
                times: Times::default(),
                counts: vec![0; events.len()].into(),
            })
        };
        let parts = plan.parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            meter: Meter::new(parts.len(), plan.feeds.len(), plan.scaled),
            parts,
            columns,
        })
    }

    /// Adds host-mode deltas to `reading`, and guest-mode deltas to `withheld` and `counted`.
    fn read(
        &mut self,
        reading: &mut Reading,
        withheld: &mut Vec<(ColumnId, u64)>,
        counted: &mut Counted,
    ) -> Result<(), ReadError> {
        for part in &mut self.parts {
            part.times = part.group.read(&mut part.counts).map_err(read_error)?;
        }
        let readings = self.parts.iter().map(|part| (part.times, &*part.counts));
        let since = self.meter.take(readings);
        reading.add(self.columns.enabled, since.enabled);
        reading.add(self.columns.running, since.running);
        let events = &self.columns.events;
        self.meter.charge(|event, delta| {
            let Some(event) = events.get(event) else {
                return;
            };
            if !event.guest {
                return reading.add(event.id, delta);
            }
            withheld.push((event.id, delta));
            counted.all = counted.all.saturating_add(delta);
            if event.cycles {
                counted.cycles = Some(delta);
                (counted.enabled, counted.running) = (since.enabled, since.running);
            }
        });
        Ok(())
    }

    fn descriptors(&self) -> usize {
        self.parts.iter().map(|part| part.group.descriptors()).sum()
    }
}

fn read_error(error: std::io::Error) -> ReadError {
    match error.raw_os_error() {
        Some(libc::ESRCH) => ReadError::Gone,
        _ => ReadError::Failed(format!("cannot read counters: {error}")),
    }
}

#[cfg(test)]
mod tests;
