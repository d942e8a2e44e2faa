//! A vCPU in the queue: when it is due, and where its thread is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::{Vcpu, Vm};
use crate::host::roots::Roots;
use crate::host::thread::{parse_schedstat, parse_stat, KeptFile, BUFFER};
use crate::host::topology::Topology;
use crate::sample::pt::duty::Core;

/// A vCPU in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) vm: Arc<Vm>,
    pub(super) vcpu: Vcpu,
    /// When it had its last turn.
    pub(super) turn: Option<Instant>,
    /// Its core has no time left before.
    pub(super) not_before: Option<Instant>,
    /// Its time on a CPU at the last turn, ns.
    pub(super) run: Option<u64>,
}

/// Where a vCPU's thread is and what it did.
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

    /// When this turn counts to have been: late by a few slots, as when it had to let others go
    /// first, it does not make the next one later.
    pub(super) fn turn_at(&self, slot: Instant, period: Duration) -> Instant {
        let meant = self.turn.map(|turn| turn + period);
        let meant = meant.filter(|meant| slot < *meant + period / 2);
        meant.unwrap_or(slot).min(slot)
    }

    pub(super) fn is_due(&self, slot: Instant, now: Instant, period: Duration) -> bool {
        let again = self.turn.is_none_or(|turn| turn + period <= slot);
        again && self.not_before.is_none_or(|at| at <= now)
    }

    /// Where the thread is now; `None` when it has ended.
    pub(super) fn look(&self, roots: &Roots, topology: &Topology) -> Option<Now> {
        let mut buffer = [0; BUFFER];
        let (pid, Vcpu { tid, .. }) = (self.vm.key.pid, self.vcpu);
        let mut read = |name| {
            let file = KeptFile::open(roots, pid, tid, name).ok()?;
            let text = file.read(&mut buffer).ok()?;
            Some(text.to_vec())
        };
        let stat = parse_stat(&read("stat")?)?;
        if stat.start_time != self.vcpu.start_time {
            return None;
        }
        let schedstat = read("schedstat").and_then(|text| parse_schedstat(&text));
        let place = topology.place(stat.cpu);
        // A CPU of no known place is a core of its own; -1 is a package where firmware tells none.
        let alone = (i32::MIN, i32::try_from(stat.cpu).unwrap_or(i32::MAX));
        Some(Now {
            core: place.map_or(alone, |place| (place.package, place.core)),
            run: schedstat.map_or(0, |stat| stat.run),
        })
    }
}
