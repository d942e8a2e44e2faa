//! Totals of the threads of one VM, by role and location. They never decrease.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::discover::Role;
use crate::engine::ledger::SeriesKey;
use crate::engine::total::possible;
use crate::host::thread::SchedStat;

/// Totals of one role at one location, in ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeriesTotals {
    pub(super) run: u64,
    pub(super) delay: u64,
    touched: Instant,
}

/// A thread that ran since the last pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) tid: i32,
    /// In clock ticks since boot.
    pub(super) start_time: u64,
    pub(super) role: Role,
    /// Whether its time is part of the process's CPU time.
    pub(super) of_process: bool,
    pub(super) series: SeriesKey,
    pub(super) sched: SchedStat,
}

/// A thread at the last pass that found it.
#[derive(Debug)]
struct Known {
    seen: Seen,
    /// Number of that pass.
    look: u64,
}

/// All totals of one VM.
#[derive(Debug, Default)]
pub(super) struct ThreadTotals {
    threads: HashMap<i32, Known>,
    series: BTreeMap<(Role, SeriesKey), SeriesTotals>,
    /// Number of the current pass.
    look: u64,
    born_after: u64,
    /// Whether any pass was completed.
    begun: bool,
    /// Whether the last pass, and (below) the one before, covered all threads.
    complete: bool,
    was_complete: bool,
    /// Time charged so far that is part of the process's CPU time, ns.
    charged: u64,
    /// The process's CPU time before the totals was opened, in ns, less the part already charged.
    from: Option<u64>,
}

impl ThreadTotals {
    /// Starts a pass. `complete` is whether it covers all threads.
    pub(super) fn begin(&mut self, born_after: u64, complete: bool) {
        self.was_complete = self.complete || !self.begun;
        self.complete = complete;
        self.born_after = born_after;
        self.look += 1;
    }

    /// Ends the pass: threads that it did not find have exited; their totals remain.
    pub(super) fn end(&mut self) {
        let look = self.look;
        self.threads.retain(|_, known| known.look == look);
        self.begun = true;
    }

    /// Whether a thread did nothing since the last pass; if so, marks it as found in this one.
    pub(super) fn is_idle(&mut self, tid: i32, sched: SchedStat) -> bool {
        let look = self.look;
        let known = self.threads.get_mut(&tid);
        let idle = known.filter(|known| known.seen.sched == sched);
        idle.map(|known| known.look = look).is_some()
    }

    /// Adds the thread's activity since the last pass.
    pub(super) fn charge(&mut self, seen: Seen, now: Instant) {
        let from = self.start(&seen);
        let run = possible(seen.sched.run.saturating_sub(from.run));
        let delay = possible(seen.sched.delay.saturating_sub(from.delay));
        self.add(seen.role, seen.series, run, delay, now);
        if seen.of_process {
            self.charged = self.charged.saturating_add(run);
        }
        let look = self.look;
        self.threads.insert(seen.tid, Known { seen, look });
    }

    /// The values of a thread from which its activity counts.
    fn start(&self, seen: &Seen) -> SchedStat {
        let known = self.threads.get(&seen.tid).map(|known| &known.seen);
        let known = known.filter(|known| known.start_time == seen.start_time);
        let is_old = !self.begun && seen.start_time < self.born_after;
        match known {
            Some(known) => known.sched,
            None if is_old => seen.sched,
            // The thread may have existed before, with its time already in the rest.
            None if !self.was_complete => seen.sched,
            None => SchedStat::default(),
        }
    }

    fn add(&mut self, role: Role, key: SeriesKey, run: u64, delay: u64, now: Instant) {
        let series = self.series.entry((role, key)).or_insert(SeriesTotals {
            run: 0,
            delay: 0,
            touched: now,
        });
        series.run = series.run.saturating_add(run);
        series.delay = series.delay.saturating_add(delay);
        series.touched = now;
    }

    /// Whether the process's CPU time is tracked.
    pub(super) fn is_open(&self) -> bool {
        self.from.is_some()
    }

    /// Starts tracking the process's CPU time: `used` (ns) is excluded, except for what is already
    /// charged.
    pub(super) fn open(&mut self, used: u64) {
        let charged = if used == 0 { 0 } else { self.charged };
        self.from = Some(used.saturating_sub(charged));
    }

    /// Charges the process's CPU time up to `total` (ns) that no thread accounts for. `total` is
    /// read before the threads.
    ///
    /// Threads that run during the pass have more time by then, so this never charges time that is
    /// also charged to a thread. The charge may be late.
    pub(super) fn charge_rest(&mut self, total: u64, now: Instant) {
        let own = total.saturating_sub(self.from.unwrap_or(u64::MAX));
        let rest = possible(own.saturating_sub(self.charged));
        if rest > 0 {
            self.add(Role::Emulator, SeriesKey::default(), rest, 0, now);
            self.charged = self.charged.saturating_add(rest);
        }
    }

    /// The series where a thread runs now, or that were charged within `ttl`.
    pub(super) fn visible(
        &self,
        ttl: Duration,
        now: Instant,
    ) -> impl Iterator<Item = (Role, SeriesKey, SeriesTotals)> + '_ {
        let seen = self.threads.values().map(|known| known.seen);
        let here: HashSet<(Role, SeriesKey)> = seen.map(|seen| (seen.role, seen.series)).collect();
        let is_visible = move |key: &(Role, SeriesKey), series: &SeriesTotals| {
            here.contains(key) || now.saturating_duration_since(series.touched) < ttl
        };
        let series = self.series.iter();
        let visible = series.filter(move |(key, series)| is_visible(key, series));
        visible.map(|((role, key), series)| (*role, *key, *series))
    }

    /// The role of a known thread.
    pub(super) fn role(&self, tid: i32) -> Option<Role> {
        self.threads.get(&tid).map(|known| known.seen.role)
    }

    /// Number of threads with this role.
    pub(super) fn count(&self, role: Role) -> u64 {
        let of_role = self.threads.values().filter(|k| k.seen.role == role);
        of_role.count() as u64
    }

    /// Whether the last pass covered all threads.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}
