//! Totals over groups that are created and removed.
//!
//! A group's counters start at 0 and are lost with it. A VM may be moved, its groups recreated, a
//! vCPU plugged: the VM's totals never decrease, and include what its groups counted while the VM
//! was in them.

use std::collections::HashMap;

use crate::engine::total::possible;

/// Current counters of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted<const N: usize> {
    /// Path of the group.
    pub(super) group: String,
    /// Inode, which identifies a recreated group of the same path.
    pub(super) inode: u64,
    /// Its counters.
    pub(super) values: [u64; N],
}

/// Sums of `N` counters over some groups.
#[derive(Debug, Default)]
pub(super) struct Totals<const N: usize> {
    total: Option<[u64; N]>,
    last: HashMap<String, (u64, [u64; N])>,
}

impl<const N: usize> Totals<N> {
    /// The sums; `None` until a group was counted.
    pub(super) fn get(&self) -> Option<[u64; N]> {
        self.total
    }

    /// Whether the group was in the last update.
    pub(super) fn knows(&self, group: &str) -> bool {
        self.last.contains_key(group)
    }

    /// Adds the current counters of all groups. The first update adds the whole values, so the sums
    /// are the kernel's own numbers as long as the groups stay.
    pub(super) fn update(&mut self, now: Vec<Counted<N>>) {
        if now.is_empty() && self.total.is_none() {
            return;
        }
        let first = self.total.is_none();
        let mut total = self.total.unwrap_or([0; N]);
        for counted in &now {
            let before = self.before(counted, first);
            for (total, (now, before)) in total.iter_mut().zip(counted.values.iter().zip(before)) {
                *total = total.saturating_add(possible(now.saturating_sub(before)));
            }
        }
        self.total = Some(total);
        let last = now.into_iter().map(|c| (c.group, (c.inode, c.values)));
        self.last = last.collect();
    }

    /// Value of a group when this VM was last seen in it. A group with a new path is assumed to
    /// have counted for others until now; one recreated at the same path started at 0.
    fn before(&self, counted: &Counted<N>, first: bool) -> [u64; N] {
        match self.last.get(&counted.group) {
            Some((inode, values)) if *inode == counted.inode => *values,
            Some(_) => [0; N],
            None if first => [0; N],
            None => counted.values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(group: &str, inode: u64, value: u64) -> Counted<1> {
        Counted {
            group: group.to_owned(),
            inode,
            values: [value],
        }
    }

    /// The total after each of these updates.
    fn totals(updates: &[&[(&str, u64, u64)]]) -> Vec<Option<u64>> {
        let mut totals = Totals::default();
        let after = |update: &&[(&str, u64, u64)]| {
            totals.update(update.iter().map(|(g, i, v)| counted(g, *i, *v)).collect());
            totals.get().map(|[n]| n)
        };
        updates.iter().map(after).collect()
    }

    #[test]
    fn total_equals_the_kernels_while_groups_stay() {
        let reported = totals(&[
            &[],
            &[("a", 1, 5), ("b", 2, 2)],
            &[("a", 1, 9), ("b", 2, 2)],
        ]);
        assert_eq!(reported, [None, Some(7), Some(11)]);
    }

    #[test]
    fn earlier_counts_of_a_new_group_are_excluded() {
        let reported = totals(&[
            &[("a", 1, 5)],
            &[("b", 2, 1000)],
            &[("b", 2, 1001)],
            &[("a", 1, 50)],
        ]);
        assert_eq!(reported, [Some(5), Some(5), Some(6), Some(6)]);
    }

    #[test]
    fn recreated_group_starts_at_0() {
        let reported = totals(&[&[("a", 1, 5)], &[("a", 2, 3)], &[], &[("a", 3, 4)]]);
        assert_eq!(reported, [Some(5), Some(8), Some(8), Some(8)]);
    }

    proptest! {
        #[test]
        fn totals_never_decrease(updates in prop::collection::vec(
            prop::collection::vec(("[ab]", 1u64..3, any::<u64>()), 0..3), 0..10)
        ) {
            let mut totals = Totals::default();
            let mut last = None;
            for update in updates {
                totals.update(update.iter().map(|(g, i, v)| counted(g, *i, *v)).collect());
                prop_assert!(totals.get() >= last);
                last = totals.get();
            }
        }
    }
}
