//! KVM debugfs: `kvm/<task>-<fd>/vcpu<id>/pid`.
//!
//! The directory name has the TID of the task that created the VM, which can be any thread of the
//! VMM, and the VM's descriptor number at that time (virt/kvm/kvm_main.c, `kvm_create_vm_debugfs`).
//! `pid` exists since Linux 5.19 and is 0 until the vCPU first runs. TIDs are those of the initial
//! pid namespace: an exporter in another namespace finds none of them. Under kernel lockdown the
//! directories can be listed, but the files cannot be read.

use std::collections::{HashMap, HashSet};

use super::process::{KvmFds, MAX_VMS_OF_FDS};
use crate::host::roots::Roots;

/// One VM in debugfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DebugVm {
    /// The task that created the VM.
    pub(super) creator: i32,
    /// The VM's descriptor in that process.
    pub(super) fd: i32,
    /// KVM's vCPU ids, ascending, each with its thread if known.
    pub(super) vcpus: Vec<(u32, Option<i32>)>,
}

/// The VMs in debugfs, read at most once per pass, on first use.
#[derive(Debug, Default)]
pub(super) struct Debugfs {
    /// Descriptors by creator.
    listed: Option<HashMap<i32, Vec<i32>>>,
    /// VMs whose creator exited.
    orphans: Option<Vec<DebugVm>>,
}

impl Debugfs {
    /// The VMs that these tasks created, ascending by descriptor.
    pub(super) fn created_by(
        &mut self,
        roots: &Roots,
        tasks: impl Iterator<Item = i32>,
    ) -> Vec<DebugVm> {
        let listed = self.listed.get_or_insert_with(|| index(roots));
        let mut vms: Vec<DebugVm> = tasks
            .filter_map(|task| Some((task, listed.get(&task)?)))
            .flat_map(|(task, fds)| fds.iter().map(move |fd| (task, *fd)))
            .take(MAX_VMS_OF_FDS)
            .map(|(task, fd)| read(roots, task, fd))
            .collect();
        vms.sort_by_key(|vm| vm.fd);
        vms
    }

    /// The VMs whose creator exited and that have one of these threads as a vCPU.
    pub(super) fn run_by(
        &mut self,
        roots: &Roots,
        is_thread: impl Fn(i32) -> bool,
    ) -> Vec<DebugVm> {
        let listed = self.listed.get_or_insert_with(|| index(roots));
        let orphans = self.orphans.get_or_insert_with(|| orphans(roots, listed));
        let runs = |vm: &&DebugVm| vm.vcpus.iter().any(|(_, tid)| tid.is_some_and(&is_thread));
        let mut vms: Vec<DebugVm> = orphans.iter().filter(runs).cloned().collect();
        vms.sort_by_key(|vm| vm.fd);
        vms
    }
}

impl DebugVm {
    /// Whether this VM belongs to the process with these threads and descriptors. The creator's TID
    /// is not sufficient: it can belong to another process since the thread exited, or to another
    /// pid namespace. `ids` are the vCPU ids of `fds`.
    pub(super) fn is_of(
        &self,
        is_thread: impl Fn(i32) -> bool,
        fds: Option<&KvmFds>,
        ids: &HashSet<u32>,
    ) -> bool {
        let has_id = |id: &u32| fds.is_none() || ids.contains(id);
        let mut threads = self.vcpus.iter().filter_map(|(_, tid)| *tid).peekable();
        let its_own = match threads.peek() {
            Some(_) => threads.any(is_thread),
            None => fds.is_none_or(|fds| fds.vms.len() < 2 || fds.vms.contains(&self.fd)),
        };
        its_own && !self.vcpus.is_empty() && self.vcpus.iter().all(|(id, _)| has_id(id))
    }
}

fn orphans(roots: &Roots, listed: &HashMap<i32, Vec<i32>>) -> Vec<DebugVm> {
    let gone = |task: &i32| !roots.proc.join(task.to_string()).exists();
    let orphans = listed.iter().filter(|(task, _)| gone(task));
    orphans
        .flat_map(|(task, fds)| fds.iter().map(|fd| read(roots, *task, *fd)))
        .collect()
}

fn index(roots: &Roots) -> HashMap<i32, Vec<i32>> {
    let mut index: HashMap<i32, Vec<i32>> = HashMap::new();
    let names = roots.list(&roots.debug.join("kvm")).unwrap_or_default();
    for (task, fd) in names.iter().filter_map(|name| parse(name)) {
        index.entry(task).or_default().push(fd);
    }
    index
}

/// `<task>-<fd>`
fn parse(name: &str) -> Option<(i32, i32)> {
    let (task, fd) = name.split_once('-')?;
    Some((task.parse().ok()?, fd.parse().ok().filter(|fd| *fd >= 0)?))
}

fn read(roots: &Roots, creator: i32, fd: i32) -> DebugVm {
    let dir = roots.debug.join(format!("kvm/{creator}-{fd}"));
    let names = roots.list(&dir).unwrap_or_default();
    let ids = names
        .iter()
        .filter_map(|n| n.strip_prefix("vcpu")?.parse().ok());
    let mut vcpus: Vec<(u32, Option<i32>)> = ids
        .map(|id: u32| {
            let tid = roots.number(&dir.join(format!("vcpu{id}/pid")));
            (id, tid.filter(|tid| *tid > 0))
        })
        .collect();
    vcpus.sort_unstable();
    DebugVm { creator, fd, vcpus }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::FakeHost;
    use proptest::prelude::*;

    #[test]
    fn vms_are_found_by_the_task_that_made_them() {
        let host = FakeHost::new();
        host.debugfs_vcpu(11, 9, 1, 14).debugfs_vcpu(11, 9, 0, 13);
        host.debugfs_vcpu(11, 4, 0, 0).debugfs_vcpu(20, 4, 0, 21);
        let roots = Roots::below(host.root());
        let found = Debugfs::default().created_by(&roots, [10, 11].into_iter());
        let expected = [
            DebugVm {
                creator: 11,
                fd: 4,
                vcpus: vec![(0, None)],
            },
            DebugVm {
                creator: 11,
                fd: 9,
                vcpus: vec![(0, Some(13)), (1, Some(14))],
            },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_vm_whose_creator_ended_is_found_by_its_vcpus() {
        let host = FakeHost::new();
        host.debugfs_vcpu(11, 9, 0, 13).debugfs_vcpu(12, 9, 0, 14);
        let roots = Roots::below(host.root());
        let found = Debugfs::default().run_by(&roots, |tid| tid == 14);
        assert_eq!(found.iter().map(|vm| vm.creator).collect::<Vec<_>>(), [12]);
        host.process(12, 1, &["x"], "");
        assert_eq!(Debugfs::default().run_by(&roots, |tid| tid == 14), []);
    }

    #[test]
    fn no_debugfs_has_no_vms() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        assert_eq!(Debugfs::default().created_by(&roots, [1].into_iter()), []);
    }

    proptest! {
        #[test]
        fn any_name_is_parsed_or_refused(name in "\\PC{0,20}", task in 1i32.., fd in 0i32..) {
            let _ = parse(&name);
            prop_assert_eq!(parse(&format!("{task}-{fd}")), Some((task, fd)));
        }
    }
}
