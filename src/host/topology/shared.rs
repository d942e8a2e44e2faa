//! Numbers for what CPUs share: a core or a last-level cache.
//!
//! sysfs lists the CPUs that share it and gives its id from firmware or the architecture. The list
//! defines it. The id is the number that people know and is used if it is unique; otherwise the
//! lowest CPU is the number. Known machines with repeated ids:
//!
//! - arm64 with device tree since Linux 6.0: `core_id` counts within a cluster, and the package is
//!   0 for all CPUs (drivers/base/arch_topology.c, `parse_cluster`).
//! - x86 with a level between core and package, before Linux 6.1 ("x86/topology: Fix duplicated
//!   core ID within a package"): Alder Lake-N; packages with several dies or nodes on older
//!   kernels, and QEMU guests with dies.
//!
//! An assigned number never changes, because it labels counters.

use std::collections::{BTreeMap, HashMap, HashSet};

/// One CPU and its shared core or cache.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub cpu: u32,
    /// Scope in which numbers are unique: for a core, its package.
    pub scope: i32,
    /// Online CPUs that share it, from sysfs; `None` if there is no list.
    pub list: Option<Vec<u32>>,
    /// Its id; `None` if there is none.
    pub id: Option<u32>,
    /// Its location as far as known; equal for all CPUs that share it.
    pub location: [Option<u32>; 3],
    /// Its previous number.
    pub before: Option<u32>,
}

impl Member {
    /// Without a list, the previous number, or else the id, determines the sharers.
    fn shares_unlisted(&self, other: &Self) -> bool {
        match self.before {
            Some(_) => self.before == other.before,
            None => other.list.is_none() && other.before.is_none() && self.is_alike(other),
        }
    }

    fn is_alike(&self, other: &Self) -> bool {
        self.id.is_some() && self.id == other.id && self.location == other.location
    }
}

/// Indexes of members.
type Group = Vec<usize>;

/// The number for each member, in the order of the members (ascending by CPU).
pub(super) fn numbers(members: &[Member]) -> Vec<u32> {
    let mut numbers = vec![0; members.len()];
    let mut scopes: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (n, member) in members.iter().enumerate() {
        scopes.entry(member.scope).or_default().push(n);
    }
    let last_cpu = members.last().map_or(0, |member| member.cpu);
    for scope in scopes.values() {
        let groups = groups(members, scope);
        for (group, number) in groups.iter().zip(name(members, &groups, last_cpu)) {
            for member in group {
                numbers[*member] = number;
            }
        }
    }
    numbers
}

/// The groups of a scope, each ascending by CPU.
fn groups(members: &[Member], scope: &[usize]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut of_cpu: HashMap<u32, usize> = HashMap::new();
    for &n in scope {
        let Some(list) = &members[n].list else {
            continue;
        };
        let known = list.iter().find_map(|cpu| of_cpu.get(cpu)).copied();
        join(&mut groups, known, n);
        of_cpu.insert(members[n].cpu, known.unwrap_or(groups.len() - 1));
    }
    for &n in scope.iter().filter(|n| members[**n].list.is_none()) {
        let shares = |group: &Group| {
            group
                .iter()
                .any(|m| members[n].shares_unlisted(&members[*m]))
        };
        let known = groups.iter().position(shares);
        join(&mut groups, known, n);
    }
    // A core whose known CPUs are all offline, and a new CPU at the same location: its sibling came
    // online.
    let is_gone = |group: &Group| {
        group
            .iter()
            .all(|m| members[*m].list.is_none() && members[*m].before.is_some())
    };
    let (gone, mut groups): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(is_gone);
    for group in gone {
        let is_it = |other: &&mut Group| {
            other.iter().all(|m| members[*m].before.is_none())
                && members[other[0]].is_alike(&members[group[0]])
        };
        match groups.iter_mut().find(is_it) {
            Some(other) => other.extend(group),
            None => groups.push(group),
        }
    }
    for group in &mut groups {
        group.sort_unstable();
    }
    groups.sort_unstable();
    groups
}

fn join(groups: &mut Vec<Group>, known: Option<usize>, member: usize) {
    match known {
        Some(group) => groups[group].push(member),
        None => groups.push(vec![member]),
    }
}

/// A number for each group, unique among them.
fn name(members: &[Member], groups: &[Group], last_cpu: u32) -> Vec<u32> {
    let id = |group: &Group| group.iter().find_map(|m| members[*m].id);
    let before = |group: &Group| group.iter().find_map(|m| members[*m].before);
    let mut seen = HashSet::new();
    let are_unique = groups.iter().filter_map(id).all(|id| seen.insert(id));
    let mut taken = HashSet::new();
    let kept = |group: &Group| before(group).filter(|number| taken.insert(*number));
    let mut names: Vec<Option<u32>> = groups.iter().map(kept).collect();
    // Ids first, so that a CPU without an id does not take the number of another core.
    if are_unique {
        for (name, group) in names
            .iter_mut()
            .zip(groups)
            .filter(|(name, _)| name.is_none())
        {
            *name = id(group).filter(|id| taken.insert(*id));
        }
    }
    let mut named = Vec::with_capacity(groups.len());
    for (name, group) in names.into_iter().zip(groups) {
        let lowest = members[group[0]].cpu;
        let mut free = std::iter::once(lowest).chain(last_cpu.saturating_add(1)..);
        named.push(match name {
            Some(number) => number,
            None => free.find(|number| taken.insert(*number)).unwrap_or(lowest),
        });
    }
    named
}
