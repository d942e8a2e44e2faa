//! The cheap method: the memory that the kernel accounts to a VM's own cgroup.
//!
//! A cgroup's files do not show what it contains. The group is taken as the VM's own if its
//! accounted memory equals the resident memory of the VM's process, within a sixteenth. Then it
//! does not matter what else is in the group or is accounted elsewhere (memory that another
//! process touched first, hugetlb pages without that controller, a slice of many VMs).

use std::collections::BTreeMap;
use std::path::Path;

use super::{base_pages, no_memory, Sample};
use crate::engine::total::add;
use crate::host::cgroup::{Group, Hierarchy};
use crate::host::memory::numa::NumaStat;
use crate::host::memory::{size_name, Nodes, Resident};
use crate::host::roots::Roots;

/// Number of groups tried, from the process's own upward: libvirt's VMs are two levels below
/// theirs.
const LEVELS: usize = 4;

/// The data of a VM's process that is compared with its cgroup.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryOwner<'a> {
    /// Content of its /proc/PID/cgroup.
    pub(super) cgroup: &'a str,
    pub(super) resident: Resident,
    /// Whether it holds a guest_memfd, which is accounted to its cgroup and in none of its own
    /// counters.
    pub(super) guest_memfd: bool,
}

/// The VM's memory from its cgroup; `None` if the cgroup does not match.
pub(super) fn sample(
    roots: &Roots,
    unified: &mut Hierarchy,
    process: MemoryOwner<'_>,
) -> Option<Sample> {
    let shown = unified.shown(process.cgroup)?;
    let (group, stat) = accounted(roots, unified, shown)?;
    let resident = process.resident;
    let mut kinds = Kinds {
        private: if process.guest_memfd {
            stat.guest_memfd()
        } else {
            Nodes::new()
        },
        stat,
        pools: Vec::new(),
    };
    if resident.hugetlb > 0 {
        kinds.pools = group.hugetlb().ok()?;
    }
    kinds.are_of(resident).then(|| kinds.sample())
}

/// The nearest group with its own memory accounting, from the process's group in /proc/PID/cgroup
/// upward: threaded groups, where libvirt keeps vCPUs, have none. The root group, which counts the
/// whole host, is excluded.
fn accounted<'a>(
    roots: &'a Roots,
    unified: &mut Hierarchy,
    shown: &str,
) -> Option<(Group<'a>, NumaStat)> {
    // A group that the exporter's cgroup namespace hides is located only by its whole path: a part
    // of it matches too many groups.
    let path = if shown.starts_with("/..") {
        unified.locate(roots, shown)?
    } else {
        shown.to_owned()
    };
    let groups = Path::new(&path).ancestors().take(LEVELS);
    groups.into_iter().find_map(|path| {
        let path = unified.locate(roots, path.to_str()?)?;
        let group = unified.group(roots, &path);
        let stat = group.numa_stat().ok()?.filter(|_| !path.is_empty())?;
        Some((group, stat))
    })
}

/// Memory accounted to a cgroup that may belong to a guest.
struct Kinds {
    stat: NumaStat,
    /// Pages of a guest_memfd.
    private: Nodes,
    /// Pages of hugetlbfs, by size.
    pools: Vec<(u64, Nodes)>,
}

impl Kinds {
    /// Whether the accounted memory matches a process with this resident memory.
    fn are_of(&self, resident: Resident) -> bool {
        let private = sum(&self.private);
        let accounted = sum(&self.stat.anon).saturating_add(sum(&self.stat.shmem));
        let pooled = self.pools.iter().map(|(_, nodes)| sum(nodes));
        let pooled = pooled.fold(0, u64::saturating_add);
        let all = accounted.saturating_add(pooled).saturating_add(private);
        let own = resident.anon.saturating_add(resident.shmem);
        // The memory of the guest_memfd belongs to the VM: the tolerance is relative to all of its
        // memory.
        agree(accounted, own, private)
            && agree(pooled, resident.hugetlb, 0)
            && is_small(resident.file, all)
    }

    fn sample(&self) -> Sample {
        let stat = &self.stat;
        let mut nodes = Nodes::new();
        let mut backing: BTreeMap<String, u64> = no_memory();
        let mut add_all = |what: String, of: &Nodes| {
            for (node, bytes) in of {
                add(nodes.entry(*node).or_default(), *bytes);
                add(backing.entry(what.clone()).or_default(), *bytes);
            }
        };
        add_all(base_pages(), &stat.anon);
        add_all(base_pages(), &stat.shmem);
        add_all(base_pages(), &self.private);
        for (size, of) in self.pools.iter().filter(|(_, of)| sum(of) > 0) {
            add_all(format!("hugetlb_{}", size_name(*size)), of);
        }
        let thp = sum(&stat.anon_thp).saturating_add(sum(&stat.shmem_thp));
        let base = backing.entry(base_pages()).or_default();
        *base = base.saturating_sub(thp);
        backing.insert("thp".to_owned(), thp);
        Sample {
            method: "cgroup",
            nodes: Some(nodes),
            backing,
        }
    }
}

/// Whether two totals are equal, except for what the kernel's per-CPU counters have not added yet.
fn agree(a: u64, b: u64, besides: u64) -> bool {
    a.abs_diff(b) <= a.max(b).saturating_add(besides) / 16
}

/// Whether there are no more file pages than a VMM and its libraries have. A guest restored from a
/// snapshot, or backed by a file on disk, has its memory in file pages.
fn is_small(file: u64, total: u64) -> bool {
    const PROGRAM: u64 = 64 << 20;
    file <= PROGRAM.max(total / 16)
}

fn sum(nodes: &Nodes) -> u64 {
    nodes.values().fold(0, |a: u64, b| a.saturating_add(*b))
}
