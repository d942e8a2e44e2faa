//! The exact way: the page tables of guest RAM, by /proc/PID/smaps and numa_maps.
//!
//! smaps tells which mappings there are and what pages they are made of, numa_maps on which nodes
//! those lie. On a machine of one node smaps alone says it all, except while NUMA balancing is on.
//!
//! NUMA balancing takes the access to some pages away for a moment, to see who faults (a NUMA
//! hint). From Linux 6.1 (commit 474098edac26) until 6.5 (d74943a2f3cd and 8b9c1cc0418a, which do
//! not apply to 6.1's stable tree: Debian's 6.1.0-50 still does it) smaps leaves out huge pages with
//! such a hint: `smaps_pmd_entry` in fs/proc/task_mmu.c asks `follow_trans_huge_pmd`, which finds
//! no page. numa_maps has them all. So what a mapping has more in numa_maps is in huge pages.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use super::trouble::Trouble;
use super::{is_gone, no_memory, ram, Sample};
use crate::host::memory::numa::parse_numa_maps;
use crate::host::memory::smaps::{Mapping, Parser};
use crate::host::memory::text::{self, TextError};
use crate::host::memory::{size_name, Nodes};
use crate::host::roots::Roots;

/// More mappings than this are not kept (`vm.max_map_count`).
const MAX_MAPPINGS: usize = 65_530;

/// What a walk found, and what it could not.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) sample: Sample,
    pub(super) trouble: Option<Trouble>,
}

/// Why a process was not walked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It ended.
    Gone,
    /// It may not be looked at.
    Refused,
    /// The kernel has no such file.
    Absent(&'static str),
    /// The time was up.
    Spent,
    /// None of its mappings looks like guest RAM.
    NoRam,
    /// What failed, and why.
    Other(String),
}

impl Failure {
    /// Of a file every process has.
    pub(super) fn of_process(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            _ if is_gone(error) => Self::Gone,
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::PermissionDenied => Self::Refused,
            _ => Self::Other(format!("{}: {error}", path.display())),
        }
    }
}

/// What of the host decides how its VMs are walked.
#[derive(Debug, Clone)]
pub(super) struct Numa {
    /// Numbers of its nodes, ascending: node 0 alone on a kernel that knows none.
    pub(super) nodes: Vec<u32>,
    /// The kernel moves memory to where it is used (`kernel.numa_balancing`,
    /// Documentation/admin-guide/sysctl/kernel.rst): by default on every host of several nodes.
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

    /// The only node of a host where smaps says all there is to know.
    fn only(&self) -> Option<u32> {
        match self.nodes[..] {
            [only] if !self.balancing => Some(only),
            _ => None,
        }
    }

    /// How many files a walk reads.
    pub(super) fn files(&self) -> u32 {
        match self.only() {
            Some(_) => 1,
            None => 2,
        }
    }
}

/// Numbers of the host's nodes, ascending: node 0 alone on a kernel that knows none.
pub(super) fn nodes(roots: &Roots) -> Vec<u32> {
    let names = roots.list(&roots.sys.join("devices/system/node"));
    let names = names.unwrap_or_default().into_iter();
    let mut nodes: Vec<u32> = names
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    nodes.sort_unstable();
    match nodes.is_empty() {
        true => vec![0],
        false => nodes,
    }
}

/// Walks guest RAM of a process. `spent` is asked again and again whether to stop; `grown`, once,
/// how many bytes more the process has resident at the end than it had before.
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
        return Ok(Walked {
            sample,
            trouble: None,
        });
    }
    sample.method = "numa_maps";
    let trouble = match on_nodes(roots, pid, &ram, &mut spent) {
        Ok(found) => {
            sample.add_huge_pages(hidden(found.not_in_smaps, grown(), huge_page(roots)));
            sample.nodes = Some(found.nodes);
            None
        }
        Err(Failure::Absent(file)) => Some(Trouble::NoFile(file)),
        Err(failure) => return Err(failure),
    };
    Ok(Walked { sample, trouble })
}

impl Sample {
    fn add_huge_pages(&mut self, bytes: u64) {
        let thp = self.backing.entry("thp".to_owned()).or_default();
        *thp = thp.saturating_add(bytes);
    }
}

/// Of what numa_maps has more than smaps, read a moment before: whole huge pages, less what the
/// process grew by meanwhile.
pub(super) fn hidden(not_in_smaps: u64, grown: u64, huge_page: u64) -> u64 {
    let hidden = not_in_smaps.saturating_sub(grown);
    hidden - hidden % huge_page
}

/// Size of a transparent huge page that a page table's middle level maps, in bytes.
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
    match any {
        // A process that is ending has no mappings (fs/proc/task_mmu.c, `m_start`).
        false => Err(Failure::Gone),
        true if found.is_empty() => Err(Failure::NoRam),
        true => Ok(found),
    }
}

fn backing(ram: &[Mapping]) -> BTreeMap<String, u64> {
    let mut backing = no_memory();
    let mut add = |what: String, bytes: u64| {
        let sum = backing.entry(what).or_default();
        *sum = sum.saturating_add(bytes);
    };
    for mapping in ram {
        let thp = mapping.transparent_huge.min(mapping.resident);
        add("thp".to_owned(), thp);
        if mapping.hugetlb > 0 {
            add(
                format!("hugetlb_{}", size_name(mapping.page_size)),
                mapping.hugetlb,
            );
        }
        if mapping.resident > thp {
            add(super::base_pages(), mapping.resident - thp);
        }
    }
    backing
}

/// What numa_maps says of guest RAM.
#[derive(Debug, Default)]
struct OnNodes {
    nodes: Nodes,
    /// Bytes of its mappings that smaps did not have.
    not_in_smaps: u64,
}

/// On which nodes the mappings lie.
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
            all = all.saturating_add(bytes);
            let sum = found.nodes.entry(node).or_default();
            *sum = sum.saturating_add(bytes);
        }
        let more = all.saturating_sub(*in_smaps);
        found.not_in_smaps = found.not_in_smaps.saturating_add(more);
    })?;
    match malformed {
        true => Err(unexpected_format(roots, pid, "numa_maps")),
        false => Ok(found),
    }
}

/// Sums over a text of which a part is not understood would be too small.
fn unexpected_format(roots: &Roots, pid: i32, name: &str) -> Failure {
    let path = roots.proc.join(format!("{pid}/{name}"));
    Failure::Other(format!("unexpected format in {}", path.display()))
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
        // The process was there a moment ago: if it still is, its kernel lacks the file.
        io::ErrorKind::NotFound if dir.exists() => Failure::Absent(name),
        _ => Failure::of_process(&path, &error),
    };
    let file = text::open(roots, &path).map_err(failed)?;
    text::lines(file, spent, each).map_err(|error| match error {
        TextError::Spent => Failure::Spent,
        TextError::Io(error) => failed(error),
        TextError::TooLong => Failure::Other(format!("{}: {error}", path.display())),
    })
}
