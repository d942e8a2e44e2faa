//! How much of a pass one user's processes may take.
//!
//! A close look reads a link for each descriptor and a file for each thread: some microseconds
//! each. Who opens and closes files all the time would have all of them read in each pass. So each
//! user has a budget that is filled up by and by, and whose processes cost more than it holds wait
//! for later passes.

use std::collections::HashMap;

use crate::discover::process::MAX_LINKS;

/// Descriptors and threads that a user's processes may cost at once: a whole host's VMs, when one
/// user runs all of them, in the first pass.
const BURST: u64 = 1 << 18;
/// And in each pass on average: some tens of milliseconds.
const A_PASS: u64 = 1 << 14;

/// What is left of each user's budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Of users who have spent some; the others' is full.
    left: HashMap<u32, u64>,
}

impl Budget {
    /// A pass begins.
    pub(super) fn refill(&mut self) {
        self.left.retain(|_, left| {
            *left += A_PASS;
            *left < BURST
        });
    }

    /// Whether a close look at a process of this many descriptors or threads is to be had now.
    pub(super) fn spend(&mut self, user: u32, size: u64) -> bool {
        let left = self.left.entry(user).or_insert(BURST);
        let cost = size.min(MAX_LINKS as u64);
        let has = cost <= *left;
        *left -= if has { cost } else { 0 };
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_a_share_of_each_pass_and_no_other_user_pays() {
        let mut budget = Budget::default();
        let mut looks = 0;
        for _ in 0..1000 {
            budget.refill();
            looks += (0..50).filter(|_| budget.spend(1000, 4000)).count() as u64;
            assert!(budget.spend(1001, 300), "an honest VM is seen at once");
        }
        assert!(looks * 4000 <= BURST + 1000 * A_PASS, "{looks}");
        assert!(looks * 4000 >= 900 * A_PASS, "{looks}");
    }

    #[test]
    fn the_largest_process_is_looked_at_in_the_end() {
        let mut budget = Budget::default();
        while budget.spend(1000, 4000) {}
        let waits = (0..100).find(|_| {
            budget.refill();
            budget.spend(1000, u64::MAX)
        });
        assert_eq!(waits, Some(3));
    }
}
