//! The cheap way: what the kernel accounts to a VM's cgroup, where that cgroup is its own.
//!
//! Nothing in a cgroup's files says for whom it is. It is taken for the VM's own when what is
//! accounted to it is what the VM's process has resident, within a sixteenth: then whatever else
//! is in there, or is accounted elsewhere (memory another process touched first, hugetlb pages
//! where that controller is off, a slice of many VMs), does not matter.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{base_pages, no_memory, Sample};
use crate::host::memory::numa::{
    hugetlb_page_size, parse_hugetlb_numa_stat, parse_numa_stat, NumaStat,
};
use crate::host::memory::{size_name, text, Nodes, Resident};
use crate::host::roots::Roots;

/// A cgroup's own parents are asked no further up: libvirt's VMs are two levels below theirs.
const LEVELS: usize = 4;

/// The VM's memory by its cgroup; `None` where that does not tell.
pub(super) fn look(roots: &Roots, pid: i32, resident: Resident) -> Option<Sample> {
    let (dir, stat) = stat(roots, pid)?;
    let mut huge = Vec::new();
    if resident.hugetlb > 0 {
        huge = hugetlb(roots, &dir).ok()?;
    }
    let sum = |nodes: &Nodes| nodes.values().fold(0, |a: u64, b| a.saturating_add(*b));
    let total = |all: &[&Nodes]| all.iter().fold(0, |a: u64, b| a.saturating_add(sum(b)));
    let accounted = total(&[&stat.anon, &stat.shmem]);
    let pooled = huge.iter().map(|(_, nodes)| sum(nodes)).sum();
    let own = agree(accounted, resident.anon.saturating_add(resident.shmem))
        && agree(pooled, resident.hugetlb)
        && is_small(resident.file, accounted.saturating_add(pooled));
    own.then(|| sample(&stat, &huge))
}

/// Whether two totals are the same but for what the kernel's per-CPU counters have not yet added.
fn agree(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / 16
}

/// Whether file pages are no more than those of a VMM and its libraries. A guest restored from a
/// snapshot, or in a file on disk, has its memory there.
fn is_small(file: u64, total: u64) -> bool {
    const PROGRAM: u64 = 64 << 20;
    file <= PROGRAM.max(total / 16)
}

/// The nearest cgroup of the process with memory of its own accounting, in the unified hierarchy:
/// threaded cgroups, where libvirt keeps vCPUs, have none.
fn stat(roots: &Roots, pid: i32) -> Option<(PathBuf, NumaStat)> {
    let own = text::small(roots, &roots.proc.join(format!("{pid}/cgroup"))).ok()?;
    let path = own
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"0::/"))?;
    let path = Path::new(std::str::from_utf8(path).ok()?);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return None; // the root, or outside of our cgroup namespace
    }
    // On hybrid hosts systemd mounts the unified hierarchy below the others.
    let mounts = [roots.cgroup.clone(), roots.cgroup.join("unified")];
    let parents = path
        .ancestors()
        .take(LEVELS)
        .filter(|p| !p.as_os_str().is_empty());
    parents.into_iter().find_map(|path| {
        mounts.iter().find_map(|mount| {
            let dir = mount.join(path);
            let text = text::small(roots, &dir.join("memory.numa_stat")).ok()?;
            Some((dir, parse_numa_stat(&text)?))
        })
    })
}

/// Huge pages accounted to a cgroup, by size.
fn hugetlb(roots: &Roots, dir: &Path) -> io::Result<Vec<(u64, Nodes)>> {
    let mut found = Vec::new();
    for name in roots.list(dir)? {
        if let Some(size) = hugetlb_page_size(&name) {
            let text = text::small(roots, &dir.join(name))?;
            found.extend(parse_hugetlb_numa_stat(&text).map(|nodes| (size, nodes)));
        }
    }
    Ok(found)
}

fn sample(stat: &NumaStat, huge: &[(u64, Nodes)]) -> Sample {
    let mut nodes = Nodes::new();
    let mut backing: BTreeMap<String, u64> = no_memory();
    let mut add = |what: String, of: &Nodes| {
        for (node, bytes) in of {
            let at = nodes.entry(*node).or_default();
            *at = at.saturating_add(*bytes);
            let kind = backing.entry(what.clone()).or_default();
            *kind = kind.saturating_add(*bytes);
        }
    };
    add(base_pages(), &stat.anon);
    add(base_pages(), &stat.shmem);
    for (size, of) in huge.iter().filter(|(_, of)| of.values().any(|b| *b > 0)) {
        add(format!("hugetlb_{}", size_name(*size)), of);
    }
    let thp = stat.anon_thp.values().chain(stat.shmem_thp.values());
    let thp = thp.fold(0u64, |a, b| a.saturating_add(*b));
    let base = backing.entry(base_pages()).or_default();
    *base = base.saturating_sub(thp);
    backing.insert("thp".to_owned(), thp);
    Sample {
        method: "cgroup",
        nodes: Some(nodes),
        backing,
    }
}
