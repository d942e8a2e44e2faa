//! Bounds the cost of a pass and decides which processes come first.
//!
//! Examining a process reads a link per descriptor (3 µs) and files per thread (10 µs), nearly all
//! of it in the kernel. Any user can change 20,000 of these per pass, and one person has 65,536
//! users in a user namespace. Therefore the pass as a whole has a budget, and processes take turns:
//!
//! - New processes, processes that run another program, and changed VMMs come before processes that
//!   were examined before and keep changing.
//! - Among those, users take turns by their recent cost, so that a user without recent cost does
//!   not wait for the others (self-clocked fair queueing: the turn of a process is at the sum of
//!   its user's costs before it). Root's cost counts a quarter.
//! - Of one user, the process examined longest ago comes first, then the cheapest.
//!
//! The first process that exceeds the remaining budget ends the pass: the budget is refilled, and
//! the process gets its turn later.

use std::collections::HashMap;

use crate::discover::process::{MAX_THREADS, THREAD};
use crate::host::fds::MAX_DESCRIPTORS;

/// Links that a pass may read on average: 0.1 s, or 2 % of a CPU with a pass every 5 s.
const A_PASS: i64 = 1 << 15;
/// Most budget saved by quiet passes: the largest process, or about a hundred VMs that start
/// together.
const BURST: i64 = MAX_DESCRIPTORS as i64 + MAX_THREADS as i64 * THREAD as i64 + A_PASS;
/// Budget of the first pass, which finds all VMs of a host: about a thousand.
const FIRST: i64 = 1 << 20;
/// Passes that count as recent.
const LATELY: u64 = 16;

/// A process to examine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<T> {
    pub(super) pid: i32,
    pub(super) user: u32,
    /// Whether it may have a new VM or vCPU.
    pub(super) news: bool,
    /// The last pass that examined it; 0 for none.
    pub(super) examined: u64,
    /// Estimated cost, in links.
    pub(super) cost: u64,
    pub(super) what: T,
}

/// The remaining budget of this pass and the recent cost of each user.
#[derive(Debug)]
pub(super) struct Budget {
    left: i64,
    /// Whether this is the first pass, whose cost is not charged to users.
    first: bool,
    /// Recent cost of each user, in links.
    lately: HashMap<u32, u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: FIRST,
            first: true,
            lately: HashMap::new(),
        }
    }
}

impl Budget {
    /// Sorts the processes by turn.
    pub(super) fn order<T>(&self, turns: &mut [Turn<T>]) {
        let rank = |turn: &Turn<T>| (turn.user, !turn.news, turn.examined, turn.cost, turn.pid);
        turns.sort_unstable_by_key(rank);
        let mut sums = self.lately.clone();
        let mut at: HashMap<i32, u64> = HashMap::new();
        for turn in turns.iter() {
            let sum = sums.entry(turn.user).or_default();
            *sum += turn.cost;
            at.insert(turn.pid, if turn.user == 0 { *sum / 4 } else { *sum });
        }
        turns.sort_by_key(|turn| (!turn.news, at.get(&turn.pid).copied()));
    }

    /// Whether the budget is sufficient for this process; otherwise the pass ends.
    pub(super) fn affords<T>(&self, turn: &Turn<T>) -> bool {
        i64::try_from(turn.cost).is_ok_and(|cost| cost <= self.left)
    }

    /// Charges the actual cost.
    pub(super) fn spend(&mut self, user: u32, cost: u64) {
        self.left = self.left.saturating_sub_unsigned(cost);
        if !self.first {
            *self.lately.entry(user).or_default() += cost;
        }
    }

    /// Ends the pass and refills the budget.
    pub(super) fn refill(&mut self) {
        self.first = false;
        self.left = (self.left + A_PASS).min(BURST);
        self.lately.retain(|_, cost| {
            *cost -= cost.div_ceil(LATELY);
            *cost > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(pid: i32, user: u32, cost: u64) -> Turn<()> {
        Turn {
            pid,
            user,
            news: false,
            examined: 0,
            cost,
            what: (),
        }
    }

    /// For passes in which all of these want a turn: the PIDs that had one in each.
    fn passes(mut turns: Vec<Turn<()>>, passes: u64) -> Vec<Vec<i32>> {
        let mut budget = Budget::default();
        budget.refill();
        budget.left = A_PASS;
        let pass = |pass| {
            budget.order(&mut turns);
            let mut had = Vec::new();
            for turn in &mut turns {
                if !budget.affords(turn) {
                    break;
                }
                budget.spend(turn.user, turn.cost);
                turn.examined = pass;
                had.push(turn.pid);
            }
            budget.refill();
            had
        };
        (1..=passes).map(pass).collect()
    }

    #[test]
    fn many_users_together_cost_no_more_than_a_pass_has() {
        let many = (0..500).map(|n| turn(n, 1000 + n as u32, 1000)).collect();
        let had = passes(many, 100);
        let cost: usize = had.iter().map(|had| had.len() * 1000).sum();
        assert!(cost <= 101 * A_PASS as usize, "{cost}");
        assert!(cost >= 90 * A_PASS as usize, "{cost}");
    }

    #[test]
    fn user_who_costs_little_comes_before_those_who_cost_much() {
        let mut turns: Vec<_> = (0..20).map(|n| turn(n, 1000 + n as u32, 4000)).collect();
        turns.push(turn(99, 64055, 500));
        for (n, had) in passes(turns, 100).iter().enumerate() {
            assert_eq!(had.first(), Some(&99), "pass {n}");
        }
    }

    #[test]
    fn news_come_before_what_keeps_changing() {
        let mut turns: Vec<_> = (0..20).map(|n| turn(n, 1000 + n as u32, 400)).collect();
        let news = true;
        turns.push(Turn {
            news,
            ..turn(99, 1000, 5000)
        });
        assert_eq!(passes(turns, 1)[0][0], 99);
    }

    #[test]
    fn processes_of_a_user_take_turns() {
        let turns = (0..50).map(|n| turn(n, 1000, 4000)).collect();
        let had = passes(turns, 10).concat();
        assert!((0..50).all(|pid| had.contains(&pid)), "{had:?}");
    }

    #[test]
    fn largest_process_has_its_turn_beside_smaller_ones_of_another_user() {
        let largest = MAX_DESCRIPTORS as u64 + MAX_THREADS as u64 * THREAD;
        let mut turns: Vec<_> = (0..50).map(|n| turn(n, 1000, 4000)).collect();
        turns.push(turn(99, 1001, largest));
        let had = passes(turns, 20);
        assert!(had.iter().any(|had| had.contains(&99)), "{had:?}");
    }

    #[test]
    fn first_pass_counts_against_no_owner() {
        let mut budget = Budget::default();
        budget.spend(64055, 300_000);
        budget.refill();
        assert_eq!(budget.lately, HashMap::new());
        assert!(budget.affords(&turn(1, 64055, BURST as u64)));
    }
}
