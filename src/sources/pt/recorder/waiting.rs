//! A vCPU in the queue: when it is due, and where its thread runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::{Vcpu, Vm};
use crate::host::roots::Roots;
use crate::host::thread::{parse_schedstat, parse_stat};
use crate::host::topology::Topology;
use crate::sources::pt::duty_cycle::Core;

/// A vCPU in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) vm: Arc<Vm>,
    pub(super) vcpu: Vcpu,
    /// Time of its last turn.
    pub(super) turn: Option<Instant>,
    /// Its core is at its limit until then.
    pub(super) not_before: Option<Instant>,
    /// Its run time on a CPU at the last turn, ns.
    pub(super) run: Option<u64>,
}

/// Core and run time of a vCPU thread.
pub(super) struct Now {
    pub(super) core: Core,
    pub(super) run: u64,
}

impl Waiting {
    pub(super) fn new(vm: Arc<Vm>, vcpu: Vcpu) -> Self {
        Self {
            vm,
            vcpu,
            turn: None,
            not_before: None,
            run: None,
        }
    }

    /// The time at which this turn counts as taken. A turn that is late by less than half a period,
    /// such as one that let others go first, does not delay the next.
    pub(super) fn turn_at(&self, slot: Instant, period: Duration) -> Instant {
        let meant = self.turn.map(|turn| turn + period);
        let meant = meant.filter(|meant| slot < *meant + period / 2);
        meant.unwrap_or(slot).min(slot)
    }

    pub(super) fn is_due(&self, slot: Instant, now: Instant, period: Duration) -> bool {
        let again = self.turn.is_none_or(|turn| turn + period <= slot);
        again && self.not_before.is_none_or(|at| at <= now)
    }

    /// Core and run time of the thread now; `None` if it exited.
    pub(super) fn locate(&self, roots: &Roots, topology: &Topology) -> Option<Now> {
        let thread = self.vcpu.thread(self.vm.key);
        // `stat` is read last because it shows that both are of this thread.
        let schedstat = thread.read(roots, "schedstat").ok();
        let schedstat = schedstat.and_then(|text| parse_schedstat(&text));
        let stat = parse_stat(&thread.stat(roots).ok()?)?;
        let place = topology.place(stat.cpu);
        // A CPU of unknown location is its own core, in package i32::MIN: firmware may report
        // package -1.
        let alone = (i32::MIN, i32::try_from(stat.cpu).unwrap_or(i32::MAX));
        Some(Now {
            core: place.map_or(alone, |place| (place.package, place.core)),
            run: schedstat.map_or(0, |stat| stat.run),
        })
    }
}
