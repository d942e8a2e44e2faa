//! Totals over groups that come and go.
//!
//! A group's counters begin at 0 when it is made and are lost with it. A VM may be moved, its
//! groups made anew, a vCPU plugged: the VM's own totals only grow, by what its groups counted
//! while it was in them.

use std::collections::HashMap;

use crate::sample::total::possible;

/// What one group counts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted<const N: usize> {
    /// The group's path.
    pub(super) group: String,
    /// Tells it from another of the same path.
    pub(super) inode: u64,
    /// Its counters.
    pub(super) values: [u64; N],
}

/// Sums of `N` counters of some groups.
#[derive(Debug)]
pub(super) struct Totals<const N: usize> {
    total: Option<[u64; N]>,
    last: HashMap<String, (u64, [u64; N])>,
}

impl<const N: usize> Default for Totals<N> {
    fn default() -> Self {
        Self {
            total: None,
            last: HashMap::new(),
        }
    }
}

impl<const N: usize> Totals<N> {
    /// The sums; `None` until a group was counted.
    pub(super) fn get(&self) -> Option<[u64; N]> {
        self.total
    }

    /// Whether a group was among those of the last update.
    pub(super) fn knows(&self, group: &str) -> bool {
        self.last.contains_key(group)
    }

    /// Takes what all groups count now. What they had counted before the first update is taken
    /// whole, so that the sums are the kernel's own numbers as long as the groups stay.
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

    /// What a group had counted when this VM was last seen in it: one of another path counted for
    /// others until now, as far as we know; one made anew at the same path nothing.
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
    fn the_total_is_the_kernels_as_long_as_the_groups_stay() {
        let told = totals(&[
            &[],
            &[("a", 1, 5), ("b", 2, 2)],
            &[("a", 1, 9), ("b", 2, 2)],
        ]);
        assert_eq!(told, [None, Some(7), Some(11)]);
    }

    #[test]
    fn what_another_group_had_counted_before_is_not_the_vms() {
        let told = totals(&[
            &[("a", 1, 5)],
            &[("b", 2, 1000)],
            &[("b", 2, 1001)],
            &[("a", 1, 50)],
        ]);
        assert_eq!(told, [Some(5), Some(5), Some(6), Some(6)]);
    }

    #[test]
    fn a_group_made_anew_began_at_nothing() {
        let told = totals(&[&[("a", 1, 5)], &[("a", 2, 3)], &[], &[("a", 3, 4)]]);
        assert_eq!(told, [Some(5), Some(8), Some(8), Some(8)]);
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
