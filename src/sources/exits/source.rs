//! The `exits` source: opens the planned group on each vCPU thread and reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::plan::{self, ExitPlan, Feed};
use crate::config;
use crate::engine::{
    Column, ColumnId, Columns, OpenError, ReadError, Reader, Reading, Reason, ReasonCode, Scope,
    Source, SourceInfo, SourceState, Target, Unit, VcpuSource,
};
use crate::host::roots::Roots;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::pmu::counters::{CounterError, CounterGroup, OpenCounters};
use crate::sources::pmu::denied::{refusal, Gate};
use crate::sources::pmu::plan::{foreign_pid, pid_namespace};
use crate::sources::Entry;

metrics! { METRICS of "exits":
    EXITS = Metric::counter("kvm_vcpu_exits_total", Keys::Placed, &["reason"],
        "VM exits of the vCPU: one series for each reason of sources.exits.reasons, and other for the rest; the sum over reason is all exits");
    KVM_EVENTS = Metric::counter("kvm_vcpu_kvm_events_total", Keys::Placed, &["event"],
        "KVM events of the vCPU, by tracepoint name without kvm_: userspace_exit (returns to the VMM), vcpu_wakeup (halts waited out by KVM), pio and mmio (accesses), inj_virq (interrupts injected by KVM, not by the CPU), wfx (waits trapped on arm64)");
}

struct Exits {
    config: config::Exits,
    roots: Arc<Roots>,
    counters: Arc<dyn OpenCounters>,
    columns: Arc<Ids>,
    /// What is counted, or why nothing is.
    plan: Result<ExitPlan, Reason>,
    /// The plan from the last read of tracefs, before the kernel refused any of it.
    offered: Option<ExitPlan>,
    looked: Instant,
    /// [`PAUSE`], except in tests.
    pause: Duration,
}

/// Minimum time between two reads of tracefs: a tick may open thousands of vCPUs.
const PAUSE: Duration = Duration::from_secs(1);

/// The columns of everything that may be counted. The machine may show what it has only when its
/// first VM starts, and columns are fixed by then.
#[derive(Debug, Default)]
struct Ids {
    events: Vec<ColumnId>,
    /// One for each reason of the configuration, and one for all others.
    exits: Vec<ColumnId>,
}

impl Ids {
    fn declare(config: &config::Exits, columns: &mut Columns) -> Self {
        let mut add = |metric, label, value: &str| {
            columns.add(Column {
                metric,
                labels: vec![(label, value.to_owned())],
                unit: Unit::Count,
                scope: Scope::Placed,
            })
        };
        let events = plan::EVENTS.iter().map(|(name, _)| plan::label(name));
        let reasons = config.reasons.iter().map(|reason| reason.0.as_str());
        Self {
            events: events
                .map(|event| add(&KVM_EVENTS, "event", event))
                .collect(),
            exits: reasons
                .chain(["other"])
                .map(|reason| add(&EXITS, "reason", reason))
                .collect(),
        }
    }
}

impl Exits {
    /// Reads tracefs, probes the kernel, and declares the columns.
    fn new(
        config: &config::Exits,
        roots: Arc<Roots>,
        counters: Arc<dyn OpenCounters>,
        columns: &mut Columns,
    ) -> Self {
        let ids = if config.enabled {
            Ids::declare(config, columns)
        } else {
            Ids::default()
        };
        let mut exits = Self {
            config: config.clone(),
            roots,
            counters,
            columns: Arc::new(ids),
            plan: Err(Reason::disabled("exits")),
            offered: None,
            looked: Instant::now(),
            pause: PAUSE,
        };
        if config.enabled {
            exits.read_tracepoints();
        }
        exits
    }

    /// Reads the tracepoints from tracefs, and probes them on the exporter's own thread, which
    /// needs no VM. The probe is repeated only if the tracepoints changed: closing one makes the
    /// kernel wait for an RCU grace period (`tracepoint_synchronize_unregister`,
    /// kernel/trace/trace_event_perf.c).
    fn read_tracepoints(&mut self) {
        self.looked = Instant::now();
        if foreign_pid(&self.roots).is_some() {
            self.plan = Err(pid_namespace());
            return;
        }
        match ExitPlan::read(&self.config, &self.roots) {
            Err(reason) => (self.offered, self.plan) = (None, Err(reason)),
            Ok(offered) if self.plan.is_ok() && self.offered.as_ref() == Some(&offered) => {}
            Ok(offered) => {
                self.plan = Ok(offered.clone());
                self.offered = Some(offered);
                if let Err(reason) = self.open_on(0) {
                    self.plan = Err(reason);
                }
            }
        }
    }

    /// Reads tracefs again if the plan is incomplete: KVM's tracepoints appear and disappear with
    /// its modules, which may be loaded only for the first VM.
    fn refresh(&mut self) {
        let complete = matches!(&self.plan, Ok(plan) if plan.lacking.is_none());
        if !complete && self.looked.elapsed() >= self.pause {
            self.read_tracepoints();
        }
    }

    /// Opens the group on a thread. A tracepoint that the kernel refuses is dropped for all vCPUs,
    /// because each attempt costs as much as the first.
    fn open_on(&mut self, tid: i32) -> Result<VcpuReader, Reason> {
        let mut looked = tid == 0;
        loop {
            let plan = self.plan.as_ref().map_err(Reason::clone)?;
            let error = match self.counters.open(tid, &plan.attrs()) {
                Ok(group) => {
                    let feeds = plan.events.iter().map(|(feed, _)| *feed).collect();
                    return Ok(VcpuReader::new(group, feeds, self.columns.clone()));
                }
                Err(error) => error,
            };
            let taken = format!("exits take {}", plan.events.len());
            let reason = refusal(&error, &taken, || Gate::read(&self.roots));
            if reason.code != ReasonCode::Refused || is_passing(&error) {
                return Err(reason);
            }
            // The modules may have been reloaded; their tracepoints then have new numbers.
            if !std::mem::replace(&mut looked, true) {
                let before = self.offered.clone();
                self.read_tracepoints();
                if self.offered != before {
                    continue;
                }
            }
            self.plan = match &self.plan {
                Ok(plan) => plan.without(error.event, &error.error).ok_or(reason),
                Err(reason) => Err(reason.clone()),
            };
        }
    }
}

impl VcpuSource for Exits {
    fn info(&self) -> SourceInfo {
        ENTRY.info
    }

    fn state(&self) -> SourceState {
        match &self.plan {
            Err(reason) => SourceState::Down(reason.clone()),
            Ok(ExitPlan {
                lacking: Some(reason),
                ..
            }) => SourceState::Degraded(reason.clone()),
            Ok(_) => SourceState::Up,
        }
    }

    fn open(&mut self, target: &Target<'_>) -> Result<Box<dyn Reader>, OpenError> {
        if !self.config.enabled {
            return Ok(Box::new(Nothing));
        }
        self.refresh();
        match self.open_on(target.vcpu.tid) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(reason) => Err(OpenError::Refused(reason)),
        }
    }

    fn descriptors(&self) -> usize {
        self.plan.as_ref().map_or(0, |plan| plan.events.len())
    }
}

/// Whether a later attempt may succeed.
fn is_passing(error: &CounterError) -> bool {
    let errno = error.error.raw_os_error();
    matches!(
        errno,
        Some(libc::ENOMEM | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIMEDOUT)
    )
}

/// The reader of a disabled source.
struct Nothing;

impl Reader for Nothing {
    fn read(&mut self, _: &mut Reading) -> Result<(), ReadError> {
        Ok(())
    }

    fn descriptors(&self) -> usize {
        0
    }
}

/// The group of one vCPU thread, and its counts at the last read.
struct VcpuReader {
    group: Box<dyn CounterGroup>,
    feeds: Box<[Feed]>,
    columns: Arc<Ids>,
    counts: Box<[u64]>,
    before: Box<[u64]>,
    /// Exits charged so far as `other`.
    other: u64,
}

impl Reader for VcpuReader {
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError> {
        // Tracepoints need no hardware counter: they are never multiplexed, and nothing is scaled.
        let read = self.group.read(&mut self.counts);
        read.map_err(|error| {
            ReadError::Failed(format!("cannot read tracepoint counters: {error}"))
        })?;
        self.add(reading);
        self.before.copy_from_slice(&self.counts);
        Ok(())
    }

    fn descriptors(&self) -> usize {
        self.group.descriptors()
    }
}

impl VcpuReader {
    fn new(group: Box<dyn CounterGroup>, feeds: Box<[Feed]>, columns: Arc<Ids>) -> Self {
        let zeros = || vec![0; feeds.len()].into();
        Self {
            group,
            counts: zeros(),
            before: zeros(),
            feeds,
            columns,
            other: 0,
        }
    }

    fn add(&mut self, reading: &mut Reading) {
        let (mut exits, mut with_reason) = (None, 0u64);
        for (n, feed) in self.feeds.iter().enumerate() {
            let (now, was) = (self.counts[n], self.before[n]);
            let column = match feed {
                Feed::Event(n) => self.columns.events.get(*n),
                Feed::Reason(n) => {
                    with_reason = with_reason.saturating_add(now);
                    self.columns.exits.get(*n)
                }
                Feed::Exits => {
                    exits = Some(now);
                    None
                }
            };
            if let Some(column) = column {
                reading.add(*column, now.saturating_sub(was));
            }
        }
        if let (Some(exits), Some(column)) = (exits, self.columns.exits.last()) {
            reading.add(*column, self.take_other(exits.saturating_sub(with_reason)));
        }
    }

    /// New exits with other reasons. Counters advance while they are read one after the other, so
    /// the reasons may be ahead of the total; the next read corrects that.
    fn take_other(&mut self, now: u64) -> u64 {
        let new = now.saturating_sub(self.other);
        self.other = self.other.saturating_add(new);
        new
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "exits",
        needs: "KVM's tracepoints: tracefs with CAP_DAC_READ_SEARCH, perf_event_open with \
                CAP_PERFMON",
        cost: "0.2-0.5 µs per exit; six descriptors per vCPU and one per reason; one read \
               and at most one interrupt of the vCPU's core per tick",
    },
    about: "VM exits of each vCPU and how KVM handled them: tracepoints of KVM, counted on the vCPU's thread, not recorded. Needs tracefs (`CAP_DAC_READ_SEARCH`) and `CAP_PERFMON`. Each counted event costs 0.2 to 0.5 µs; an exit itself costs a microsecond or more.",
    metrics: &[METRICS],
    make: |with| {
        let (config, counters) = (&with.config().exits, with.setup.counters.clone());
        let exits = Exits::new(config, with.roots(), counters, &mut with.columns);
        Source::of_vcpus(exits)
    },
};

#[cfg(test)]
mod tests;
