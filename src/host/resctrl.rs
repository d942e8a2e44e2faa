//! Monitoring groups of resctrl: Intel RDT and AMD QoS (Documentation/filesystems/resctrl.rst).
//!
//! The root and each directory except `info` is a control group; each has monitoring groups in
//! `mon_groups`. The `tasks` and counters of a control group include those of its monitoring
//! groups.

use std::collections::{BTreeMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::roots::Roots;

/// Files in a cache's directory of `mon_data`, in the order of [`Counts`].
pub(crate) const EVENTS: [&str; 3] = ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"];

/// Bytes by event; `None` if this CPU does not count the event or the count is unavailable.
pub(crate) type Counts = [Option<u64>; EVENTS.len()];

/// A group and its threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResctrlGroup {
    /// Directory of the group.
    pub path: PathBuf,
    /// TIDs; not read for the root group, which holds all other threads.
    pub tasks: HashSet<i32>,
}

/// A control group with its monitoring groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    /// The control group itself; the root comes first.
    pub own: ResctrlGroup,
    /// Its monitoring groups, sorted by name.
    pub(crate) monitors: Vec<ResctrlGroup>,
}

/// Mount point of resctrl.
pub(crate) fn root(roots: &Roots) -> PathBuf {
    roots.sys.join("fs/resctrl")
}

/// Whether resctrl is mounted and the CPU monitors its last-level caches.
pub(crate) fn monitors(roots: &Roots) -> bool {
    root(roots).join("info/L3_MON").is_dir()
}

/// All groups, without those that are removed meanwhile.
///
/// # Errors
/// If the root cannot be listed.
pub(crate) fn groups(roots: &Roots) -> io::Result<Vec<Control>> {
    let root = root(roots);
    let mut names = roots.list(&root)?;
    names.retain(|name| !["info", "mon_groups", "mon_data"].contains(&name.as_str()));
    names.sort_unstable();
    let others = names.iter().map(|name| root.join(name));
    let others = others.filter_map(|path| Some((tasks(roots, &path)?, path)));
    let all = std::iter::once((HashSet::new(), root.clone())).chain(others);
    Ok(all
        .map(|(tasks, path)| Control {
            monitors: monitors_of(roots, &path),
            own: ResctrlGroup { path, tasks },
        })
        .collect())
}

fn monitors_of(roots: &Roots, control: &Path) -> Vec<ResctrlGroup> {
    let dir = control.join("mon_groups");
    let mut names = roots.list(&dir).unwrap_or_default();
    names.sort_unstable();
    let paths = names.iter().map(|name| dir.join(name));
    let group = |path: PathBuf| {
        let tasks = tasks(roots, &path)?;
        Some(ResctrlGroup { path, tasks })
    };
    paths.filter_map(group).collect()
}

/// TIDs of a group; `None` if the directory is not a group.
pub(crate) fn tasks(roots: &Roots, group: &Path) -> Option<HashSet<i32>> {
    let text = roots.read_text(&group.join("tasks")).ok()?;
    let tids = text.split_ascii_whitespace().map(str::parse);
    tids.collect::<Result<_, _>>().ok()
}

/// Counters of a group by id of the last-level cache.
pub(crate) fn counts(roots: &Roots, group: &Path) -> BTreeMap<u32, Counts> {
    let dir = group.join("mon_data");
    let names = roots.list(&dir).unwrap_or_default();
    let cache = |name: &String| {
        let id = name.strip_prefix("mon_L3_")?.parse().ok()?;
        let dir = dir.join(name);
        // "Unavailable", "Error" and "Unassigned" are not numbers.
        Some((id, EVENTS.map(|event| roots.number(&dir.join(event)))))
    };
    names.iter().filter_map(cache).collect()
}

/// Adds a thread to a group, which removes it from its other group of the same kind.
///
/// # Errors
/// Those of the kernel: it requires root and a thread of the group's control group. An exited
/// thread is not an error.
pub(crate) fn add_task(group: &Path, tid: i32) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(group.join("tasks"))?;
    match file.write_all(format!("{tid}\n").as_bytes()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_are_no_numbers_are_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("mon_data/mon_L3_01");
        std::fs::create_dir_all(&cache).unwrap();
        std::fs::write(cache.join("llc_occupancy"), "4096\n").unwrap();
        std::fs::write(cache.join("mbm_total_bytes"), "Unavailable\n").unwrap();
        let counts = counts(&Roots::default(), dir.path());
        assert_eq!(counts, BTreeMap::from([(1, [Some(4096), None, None])]));
    }
}
