//! Finds descriptors of a process that are duplicates of each other.
//!
//! Several descriptors may refer to one object: Firecracker since 1.14 holds two per vCPU, and
//! crosvm holds one of the VM in each vCPU. All KVM files share one inode (fs/anon_inodes.c), so
//! only kcmp(2) can compare the open files. kcmp(2) requires CAP_SYS_PTRACE, as following the
//! descriptors does, and a kernel with CONFIG_KCMP.

use std::cmp::Ordering;

use crate::host::roots::Roots;
use crate::host::task::shows_own_pids;
use crate::sys;

/// Most descriptors of one kind to compare: two for each vCPU that KVM allows in a VM. Each costs
/// about ten calls of kcmp(2).
const MAX_COMPARED: usize = 1 << 13;

/// Compares open files of processes on this machine.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// Whether PIDs in procfs are valid in the system calls of this process.
    same_pids: bool,
}

impl OpenFiles {
    /// PIDs are not valid if a directory replaces procfs (they belong to another machine) or if
    /// procfs belongs to another pid namespace.
    pub(super) fn new(roots: &Roots) -> Self {
        Self {
            same_pids: shows_own_pids(roots),
        }
    }

    /// Groups the descriptors of a task by open file: each group ascending, groups ascending by
    /// their first descriptor. `None` if kcmp(2) failed or a descriptor was closed meanwhile.
    pub(super) fn grouped(&self, task: i32, fds: &[i32]) -> Option<Vec<Vec<i32>>> {
        if self.same_pids && fds.len() <= MAX_COMPARED {
            group(fds, |a, b| sys::compare_files(task, a, b))
        } else {
            None
        }
    }
}

fn group(fds: &[i32], compare: impl Fn(i32, i32) -> Option<Ordering>) -> Option<Vec<Vec<i32>>> {
    // Sorted in the kernel's order of files: each descriptor is compared with few groups.
    let mut groups: Vec<Vec<i32>> = Vec::new();
    for fd in fds {
        let mut unknown = false;
        let found = groups.binary_search_by(|group| {
            let order = group.first().and_then(|first| compare(*first, *fd));
            unknown |= order.is_none();
            order.unwrap_or(Ordering::Equal)
        });
        match found {
            _ if unknown => return None,
            Ok(n) => groups[n].push(*fd),
            Err(n) => groups.insert(n, vec![*fd]),
        }
    }
    groups.sort_unstable();
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn descriptors_are_grouped_by_what_they_stand_for() {
        // Descriptors 0, 3, 6 … are one file, and so on; `compare` returns an order of its own,
        // like the kernel.
        let compare = |a: i32, b: i32| Some((b % 3).cmp(&(a % 3)));
        let groups = group(&[3, 4, 5, 6, 7, 9], compare).unwrap();
        assert_eq!(groups, [vec![3, 6, 9], vec![4, 7], vec![5]]);
        assert_eq!(group(&[3, 4], |_, _| None), None);
        assert_eq!(group(&[], |_, _| None), Some(vec![]));
    }

    #[test]
    fn duplicates_of_this_process_differ_from_other_files() {
        let one = File::open("/dev/null").unwrap();
        let copy = one.try_clone().unwrap();
        let other = File::open("/dev/null").unwrap();
        let mut fds = [&one, &copy, &other].map(|file| file.as_raw_fd());
        fds.sort_unstable();
        let files = OpenFiles::new(&Roots::default());
        let me = std::process::id() as i32;
        let Some(groups) = files.grouped(me, &fds) else {
            println!("skipped: kcmp(2) is refused here");
            return;
        };
        assert_eq!(groups.len(), 2);
        let mut same = vec![one.as_raw_fd(), copy.as_raw_fd()];
        same.sort_unstable();
        assert!(groups.contains(&same), "{groups:?}");
    }

    #[test]
    fn fixtures_are_not_asked_about() {
        let dir = tempfile::tempdir().unwrap();
        let files = OpenFiles::new(&Roots::below(dir.path()));
        assert_eq!(files.grouped(std::process::id() as i32, &[0, 1]), None);
    }
}
