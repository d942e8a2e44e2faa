//! The exact way: the page tables of guest RAM, by /proc/PID/smaps and numa_maps.
//!
//! smaps tells which mappings there are and what pages they are made of, numa_maps on which nodes
//! those lie. On a machine of one node smaps alone says it all.

use std::collections::{BTreeMap, HashSet};
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

/// Numbers of the host's NUMA nodes, ascending: node 0 alone on a kernel that knows none.
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

/// Walks guest RAM of a process. `spent` is asked again and again whether to stop.
pub(super) fn walk(
    roots: &Roots,
    pid: i32,
    nodes: &[u32],
    mut spent: impl FnMut() -> bool,
) -> Result<Walked, Failure> {
    let ram = ram(roots, pid, &mut spent)?;
    let backing = backing(&ram);
    let mut sample = Sample {
        method: "smaps",
        nodes: None,
        backing,
    };
    if let [only] = nodes {
        sample.nodes = Some(Nodes::from([(*only, sample.backing.values().sum())]));
        return Ok(Walked {
            sample,
            trouble: None,
        });
    }
    sample.method = "numa_maps";
    let trouble = match on_nodes(roots, pid, &ram, &mut spent) {
        Ok(nodes) => {
            sample.nodes = Some(nodes);
            None
        }
        Err(Failure::Absent(file)) => Some(Trouble::NoFile(file)),
        Err(failure) => return Err(failure),
    };
    Ok(Walked { sample, trouble })
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

/// On which nodes the mappings lie.
fn on_nodes(
    roots: &Roots,
    pid: i32,
    ram: &[Mapping],
    spent: &mut impl FnMut() -> bool,
) -> Result<Nodes, Failure> {
    let starts: HashSet<u64> = ram.iter().map(|m| m.start).collect();
    let mut nodes = Nodes::new();
    read(roots, pid, "numa_maps", spent, |line| {
        let mapping = parse_numa_maps(line).filter(|m| starts.contains(&m.start));
        for (node, bytes) in mapping.iter().flat_map(|m| &m.nodes) {
            let sum = nodes.entry(*node).or_default();
            *sum = sum.saturating_add(*bytes);
        }
    })?;
    Ok(nodes)
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
