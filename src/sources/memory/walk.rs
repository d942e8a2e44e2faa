//! The exact method: the page tables of guest RAM, from /proc/PID/smaps and numa_maps.
//!
//! smaps has the mappings and their page sizes, numa_maps their nodes. On a machine with one node
//! smaps suffices, except while NUMA balancing is on.
//!
//! NUMA balancing removes access to some pages for a moment, to see which CPU faults (a NUMA
//! hint). From Linux 6.1 (commit 474098edac26) to 6.5 (d74943a2f3cd and 8b9c1cc0418a, which do not
//! apply to 6.1's stable tree: Debian's 6.1.0-50 is still affected), smaps omits huge pages with
//! such a hint: `smaps_pmd_entry` in fs/proc/task_mmu.c calls `follow_trans_huge_pmd`, which finds
//! no page. numa_maps has them all. So the excess of a mapping in numa_maps is in huge pages.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};

use super::unknown::UnknownMemory;
use super::{no_memory, ram, Sample};
use crate::engine::total::add;
use crate::host::memory::numa::parse_numa_maps;
use crate::host::memory::smaps::{Mapping, Parser};
use crate::host::memory::text::{self, TextError};
use crate::host::memory::{size_name, Nodes};
use crate::host::roots::Roots;
use crate::host::task::TaskError;

/// Maximum number of mappings kept (`vm.max_map_count`).
const MAX_MAPPINGS: usize = 65_530;

/// Result of a walk, and why part of it is missing.
pub(super) type Walked = (Sample, Option<UnknownMemory>);

/// Why a process was not walked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The process ended.
    Gone,
    /// The walk used up its budget.
    Spent,
    /// Its memory is unknown.
    Unknown(UnknownMemory),
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Gone => Self::Gone,
            TaskError::Unreadable(_, error) if error.kind() == ErrorKind::PermissionDenied => {
                Self::Unknown(UnknownMemory::NoPermission)
            }
            other => Self::Unknown(UnknownMemory::Unreadable(other.to_string())),
        }
    }
}

/// NUMA properties of the host that determine how its VMs are walked.
#[derive(Debug, Clone)]
pub(super) struct Numa {
    /// Numbers of its nodes, ascending; only node 0 on a kernel without NUMA.
    pub(super) nodes: Vec<u32>,
    /// Whether the kernel moves memory to where it is used (`kernel.numa_balancing`,
    /// Documentation/admin-guide/sysctl/kernel.rst): the default on hosts with several nodes.
    balancing: bool,
}

impl Numa {
    pub(super) fn read(roots: &Roots) -> Self {
        let path = roots.proc.join("sys/kernel/numa_balancing");
        let text = text::small(roots, &path).unwrap_or_default();
        Self {
            nodes: nodes(roots),
            balancing: !matches!(text.trim_ascii(), b"" | b"0"),
        }
    }

    /// The only node, on a host where smaps suffices.
    fn only(&self) -> Option<u32> {
        match self.nodes[..] {
            [only] if !self.balancing => Some(only),
            _ => None,
        }
    }

    /// Number of files that a walk reads.
    pub(super) fn files(&self) -> u32 {
        match self.only() {
            Some(_) => 1,
            None => 2,
        }
    }
}

/// Numbers of the host's nodes, ascending; only node 0 on a kernel without NUMA.
pub(super) fn nodes(roots: &Roots) -> Vec<u32> {
    let mut nodes = crate::host::nodes::numbers(roots);
    if nodes.is_empty() {
        nodes.push(0);
    }
    nodes
}

/// Walks the guest RAM of a process. `spent` is called repeatedly and stops the walk if true;
/// `grown` is called once and returns by how many bytes the process's resident memory grew during
/// the walk.
pub(super) fn walk(
    roots: &Roots,
    pid: i32,
    numa: &Numa,
    mut spent: impl FnMut() -> bool,
    grown: impl FnOnce() -> u64,
) -> Result<Walked, Failure> {
    let ram = ram(roots, pid, &mut spent)?;
    let mut sample = Sample {
        method: "smaps",
        nodes: None,
        backing: backing(&ram),
    };
    if let Some(only) = numa.only() {
        sample.nodes = Some(Nodes::from([(only, sample.backing.values().sum())]));
        return Ok((sample, None));
    }
    sample.method = "numa_maps";
    let trouble = match on_nodes(roots, pid, &ram, &mut spent) {
        Ok(found) => {
            sample.add_huge_pages(hidden(found.not_in_smaps, grown(), huge_page(roots)));
            sample.nodes = Some(found.nodes);
            None
        }
        Err(Failure::Unknown(trouble @ UnknownMemory::NoFile(_))) => Some(trouble),
        Err(failure) => return Err(failure),
    };
    Ok((sample, trouble))
}

impl Sample {
    fn add_huge_pages(&mut self, bytes: u64) {
        add(self.backing.entry("thp".to_owned()).or_default(), bytes);
    }
}

/// The hidden part of the excess of numa_maps over smaps, which is read just before: whole huge
/// pages, less the growth of the process in between.
pub(super) fn hidden(not_in_smaps: u64, grown: u64, huge_page: u64) -> u64 {
    let hidden = not_in_smaps.saturating_sub(grown);
    hidden - hidden % huge_page
}

/// Size in bytes of a transparent huge page mapped at the PMD level.
fn huge_page(roots: &Roots) -> u64 {
    const USUAL: u64 = 2 << 20;
    let file = "kernel/mm/transparent_hugepage/hpage_pmd_size";
    let text = text::small(roots, &roots.sys.join(file)).unwrap_or_default();
    let size = std::str::from_utf8(text.trim_ascii()).ok();
    let size = size.and_then(|digits| digits.parse().ok());
    size.filter(|size| *size > 0).unwrap_or(USUAL)
}

/// The mappings that are guest RAM.
fn ram(roots: &Roots, pid: i32, spent: &mut impl FnMut() -> bool) -> Result<Vec<Mapping>, Failure> {
    let mut parser = Parser::default();
    let (mut found, mut any) = (Vec::new(), false);
    let mut keep = |mapping: Mapping| {
        any = true;
        if ram::is_candidate(&mapping) && found.len() < MAX_MAPPINGS {
            found.push(mapping);
        }
    };
    read(roots, pid, "smaps", spent, |line| {
        if let Some(mapping) = parser.line(line) {
            keep(mapping);
        }
    })?;
    if let Some(mapping) = parser.finish() {
        keep(mapping);
    }
    if parser.is_malformed() {
        return Err(unexpected_format(roots, pid, "smaps"));
    }
    let found = ram::select(found);
    if !any {
        // An exiting process has no mappings (fs/proc/task_mmu.c, `m_start`).
        Err(Failure::Gone)
    } else if found.is_empty() {
        Err(Failure::Unknown(UnknownMemory::NoRam))
    } else {
        Ok(found)
    }
}

fn backing(ram: &[Mapping]) -> BTreeMap<String, u64> {
    let mut backing = no_memory();
    let mut add = |what: String, bytes| add(backing.entry(what).or_default(), bytes);
    for mapping in ram {
        let thp = mapping.transparent_huge.min(mapping.resident);
        add("thp".to_owned(), thp);
        if mapping.hugetlb > 0 {
            let pages = format!("hugetlb_{}", size_name(mapping.page_size));
            add(pages, mapping.hugetlb);
        }
        if mapping.resident > thp {
            add(super::base_pages(), mapping.resident - thp);
        }
    }
    backing
}

/// Guest RAM in numa_maps.
#[derive(Debug, Default)]
struct OnNodes {
    nodes: Nodes,
    /// Bytes of its mappings that smaps does not have.
    not_in_smaps: u64,
}

/// Reads the nodes of the mappings.
fn on_nodes(
    roots: &Roots,
    pid: i32,
    ram: &[Mapping],
    spent: &mut impl FnMut() -> bool,
) -> Result<OnNodes, Failure> {
    let in_smaps = |m: &Mapping| m.resident.saturating_add(m.hugetlb);
    let known: HashMap<u64, u64> = ram.iter().map(|m| (m.start, in_smaps(m))).collect();
    let (mut found, mut malformed) = (OnNodes::default(), false);
    read(roots, pid, "numa_maps", spent, |line| {
        let Some(mapping) = parse_numa_maps(line) else {
            malformed = true;
            return;
        };
        let Some(in_smaps) = known.get(&mapping.start) else {
            return;
        };
        let mut all: u64 = 0;
        for (node, bytes) in mapping.nodes {
            add(&mut all, bytes);
            add(found.nodes.entry(node).or_default(), bytes);
        }
        add(&mut found.not_in_smaps, all.saturating_sub(*in_smaps));
    })?;
    if malformed {
        Err(unexpected_format(roots, pid, "numa_maps"))
    } else {
        Ok(found)
    }
}

/// The error of a file with an unexpected part: sums over the rest would be too small.
fn unexpected_format(roots: &Roots, pid: i32, name: &str) -> Failure {
    TaskError::Malformed(roots.proc.join(format!("{pid}/{name}"))).into()
}

fn read(
    roots: &Roots,
    pid: i32,
    name: &'static str,
    spent: &mut impl FnMut() -> bool,
    each: impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let dir = roots.proc.join(pid.to_string());
    let path = dir.join(name);
    let failed = |error: io::Error| match error.kind() {
        // The process existed a moment ago: if it still does, its kernel lacks the file.
        ErrorKind::NotFound if dir.exists() => Failure::Unknown(UnknownMemory::NoFile(name)),
        _ => TaskError::new(path.clone(), error).into(),
    };
    let file = text::open(roots, &path).map_err(failed)?;
    text::lines(file, spent, each).map_err(|error| match error {
        TextError::Spent => Failure::Spent,
        TextError::Io(error) => failed(error),
        TextError::TooLong => {
            let detail = format!("cannot read {}: {error}", path.display());
            Failure::Unknown(UnknownMemory::Unreadable(detail))
        }
    })
}
