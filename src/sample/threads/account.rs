//! What the threads of one VM did, by role and place, in totals that only grow.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::discover::Role;
use crate::host::thread::SchedStat;
use crate::sample::ledger::CellKey;
use crate::sample::total::possible;

/// Totals of one role at one place, ns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) run: u64,
    pub(super) delay: u64,
    touched: Instant,
}

/// What a look found of a thread that ran since the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) tid: i32,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
    pub(super) role: Role,
    /// Whether its time is part of the process' own.
    pub(super) of_process: bool,
    pub(super) cell: CellKey,
    pub(super) sched: SchedStat,
}

/// A thread, as the last look found it.
#[derive(Debug)]
struct Known {
    seen: Seen,
    /// The look that found it.
    look: u64,
}

/// All totals of one VM.
#[derive(Debug, Default)]
pub(super) struct Account {
    threads: HashMap<i32, Known>,
    cells: BTreeMap<(Role, CellKey), Cell>,
    /// Number of the look.
    look: u64,
    born_after: u64,
    /// Whether a look was ever brought to its end.
    begun: bool,
    /// Whether the last look, and the one before, were at all threads.
    complete: bool,
    was_complete: bool,
    /// Time charged so far that is part of the process' own, ns.
    charged: u64,
    /// The process' time before its account was opened, ns, less what is charged of it.
    from: Option<u64>,
}

impl Account {
    /// A look begins. `complete` says whether it is at all threads.
    pub(super) fn begin(&mut self, born_after: u64, complete: bool) {
        self.was_complete = self.complete || !self.begun;
        self.complete = complete;
        self.born_after = born_after;
        self.look += 1;
    }

    /// The look is over: threads it did not find have ended, and their totals stay.
    pub(super) fn end(&mut self) {
        let look = self.look;
        self.threads.retain(|_, known| known.look == look);
        self.begun = true;
    }

    /// Whether a thread did nothing since the last look; it is then found in this one.
    pub(super) fn is_idle(&mut self, tid: i32, sched: SchedStat) -> bool {
        let look = self.look;
        let known = self.threads.get_mut(&tid);
        let idle = known.filter(|known| known.seen.sched == sched);
        idle.map(|known| known.look = look).is_some()
    }

    /// Charges what a thread did since the last look.
    pub(super) fn charge(&mut self, seen: Seen, now: Instant) {
        let from = self.start(&seen);
        let run = possible(seen.sched.run.saturating_sub(from.run));
        let delay = possible(seen.sched.delay.saturating_sub(from.delay));
        self.add(seen.role, seen.cell, run, delay, now);
        if seen.of_process {
            self.charged = self.charged.saturating_add(run);
        }
        let look = self.look;
        self.threads.insert(seen.tid, Known { seen, look });
    }

    /// What a thread had done when it was last seen, or before it is to be counted.
    fn start(&self, seen: &Seen) -> SchedStat {
        let known = self.threads.get(&seen.tid).map(|known| &known.seen);
        let known = known.filter(|known| known.start_time == seen.start_time);
        let is_old = !self.begun && seen.start_time < self.born_after;
        match known {
            Some(known) => known.sched,
            None if is_old => seen.sched,
            // It may have been there, and what it did is in the rest.
            None if !self.was_complete => seen.sched,
            None => SchedStat::default(),
        }
    }

    fn add(&mut self, role: Role, key: CellKey, run: u64, delay: u64, now: Instant) {
        let cell = self.cells.entry((role, key)).or_insert(Cell {
            run: 0,
            delay: 0,
            touched: now,
        });
        cell.run = cell.run.saturating_add(run);
        cell.delay = cell.delay.saturating_add(delay);
        cell.touched = now;
    }

    /// Whether the process' own time is being followed.
    pub(super) fn is_open(&self) -> bool {
        self.from.is_some()
    }

    /// Follows the process' own time from here on: `used` (ns) is no concern of this account,
    /// but for what is charged already.
    pub(super) fn open(&mut self, used: u64) {
        let charged = if used == 0 { 0 } else { self.charged };
        self.from = Some(used.saturating_sub(charged));
    }

    /// Charges what the process did by `total` (ns), read before its threads were, and none of
    /// them is seen to have done.
    ///
    /// Threads that run while they are looked at have more by then, so that this never charges
    /// what a thread is charged with too. It may come late.
    pub(super) fn charge_rest(&mut self, total: u64, now: Instant) {
        let own = total.saturating_sub(self.from.unwrap_or(u64::MAX));
        let rest = possible(own.saturating_sub(self.charged));
        if rest > 0 {
            self.add(Role::Emulator, CellKey::default(), rest, 0, now);
            self.charged = self.charged.saturating_add(rest);
        }
    }

    /// Cells where a thread is now, or something was charged within `ttl`.
    pub(super) fn visible(
        &self,
        ttl: Duration,
        now: Instant,
    ) -> impl Iterator<Item = (Role, CellKey, Cell)> + '_ {
        let seen = self.threads.values().map(|known| known.seen);
        let here: HashSet<(Role, CellKey)> = seen.map(|seen| (seen.role, seen.cell)).collect();
        let is_visible = move |key: &(Role, CellKey), cell: &Cell| {
            here.contains(key) || now.saturating_duration_since(cell.touched) < ttl
        };
        let cells = self.cells.iter();
        let visible = cells.filter(move |(key, cell)| is_visible(key, cell));
        visible.map(|((role, key), cell)| (*role, *key, *cell))
    }

    /// The role of a thread that is known.
    pub(super) fn role(&self, tid: i32) -> Option<Role> {
        self.threads.get(&tid).map(|known| known.seen.role)
    }

    /// How many threads have this role.
    pub(super) fn count(&self, role: Role) -> u64 {
        let of_role = self.threads.values().filter(|k| k.seen.role == role);
        of_role.count() as u64
    }

    /// Whether the last look was at all threads.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }
}
