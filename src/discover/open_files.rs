//! Which descriptors of a process are duplicates of each other.
//!
//! A descriptor is not an object: Firecracker since 1.14 holds two of each vCPU, crosvm one of the
//! VM in each vCPU. All files of KVM share one inode (fs/anon_inodes.c), so that only kcmp(2) tells
//! which are the same open file. It takes what following the descriptors takes (CAP_SYS_PTRACE),
//! and a kernel with CONFIG_KCMP.

use std::cmp::Ordering;

use crate::host::roots::Roots;
use crate::sys;

/// Descriptors of one kind that are compared, at most: two for each vCPU that KVM gives a VM. Each
/// takes some ten calls of kcmp(2).
const MAX_COMPARED: usize = 1 << 13;

/// Asks the kernel about processes of this machine.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// Whether the numbers in procfs are pids for the system calls of this process.
    same_pids: bool,
}

impl OpenFiles {
    /// A directory that stands in for procfs shows processes of another machine, and a procfs of
    /// another pid namespace numbers them otherwise.
    pub(super) fn new(roots: &Roots) -> Self {
        let status = roots.read_text(&roots.proc.join("self/status"));
        let id = std::process::id();
        Self {
            same_pids: status.is_ok_and(|status| is_own_namespace(&status, id)),
        }
    }

    /// The descriptors of a task by open file: each group ascending, and the groups by their first.
    /// `None` where the kernel does not tell, or a descriptor was closed meanwhile.
    pub(super) fn grouped(&self, task: i32, fds: &[i32]) -> Option<Vec<Vec<i32>>> {
        match self.same_pids && fds.len() <= MAX_COMPARED {
            true => group(fds, |a, b| sys::compare_files(task, a, b)),
            false => None,
        }
    }
}

/// Whether the `status` of this process in a procfs has its own pid and no other: `NSpid` lists
/// its pids from procfs' namespace down to its own (proc_pid_status(5)).
fn is_own_namespace(status: &str, pid: u32) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| pids.trim() == pid.to_string())
}

fn group(fds: &[i32], compare: impl Fn(i32, i32) -> Option<Ordering>) -> Option<Vec<Vec<i32>>> {
    // In the kernel's order of files, so that each descriptor is compared with few.
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
        // Descriptors 0, 3, 6 … are one file, and so on; the kernel's order is its own.
        let compare = |a: i32, b: i32| Some((b % 3).cmp(&(a % 3)));
        let groups = group(&[3, 4, 5, 6, 7, 9], compare).unwrap();
        assert_eq!(groups, [vec![3, 6, 9], vec![4, 7], vec![5]]);
        assert_eq!(group(&[3, 4], |_, _| None), None);
        assert_eq!(group(&[], |_, _| None), Some(vec![]));
    }

    #[test]
    fn duplicates_of_this_process_are_told_from_other_files() {
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
    fn other_namespaces_and_fixtures_are_not_asked_about() {
        assert!(is_own_namespace("Pid:\t7\nNSpid:\t7\nNSpgid:\t7\n", 7));
        assert!(!is_own_namespace("Pid:\t900\nNSpid:\t900\t7\n", 7));
        assert!(!is_own_namespace("NSpid:\t900\n", 7));
        assert!(!is_own_namespace("Pid:\t7\n", 7));
        let dir = tempfile::tempdir().unwrap();
        let files = OpenFiles::new(&Roots::below(dir.path()));
        assert_eq!(files.grouped(std::process::id() as i32, &[0, 1]), None);
    }
}
