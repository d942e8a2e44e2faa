//! Descriptors of KVM's statistics that a VMM holds, and what they say.
//!
//! QEMU holds one for each vCPU and one for the VM from version 8.1 on
//! (`KVM_GET_STATS_FD`). pidfd_getfd(2) makes a copy, with the rights of a debugger; the copy is
//! read and closed at once. It is never kept: a descriptor holds its VM in the kernel, with all of
//! its memory, even after the VMM ended (Linux 6.5, `kvm_vcpu_stats_release`).

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::fstat;
use rustix::io::pread;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use crate::host::fds::Descriptors;
use crate::host::kvm_stats::MOST_BYTES;
use crate::host::roots::Roots;

/// Reads files of other processes' descriptors.
pub(crate) trait ReadStats: Send + Sync {
    /// The contents of these descriptors of a process. It can block the call for any time
    /// ([`crate::host::readers`]).
    ///
    /// # Errors
    /// `PermissionDenied` without the rights of a debugger; `InvalidData` if a descriptor is of
    /// something else by now.
    fn read(&self, pid: i32, fds: &[i32]) -> io::Result<Vec<Vec<u8>>>;
}

/// Reads through the kernel.
pub(super) struct KernelStats {
    /// Device and inode of anonymous files.
    anonymous: Option<(u64, u64)>,
}

impl KernelStats {
    pub(super) fn new() -> Self {
        let event = eventfd(0, EventfdFlags::CLOEXEC).and_then(fstat);
        Self {
            anonymous: event.ok().map(|event| (event.st_dev, event.st_ino)),
        }
    }
}

impl ReadStats for KernelStats {
    fn read(&self, pid: i32, fds: &[i32]) -> io::Result<Vec<Vec<u8>>> {
        let process = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let mut buffer = vec![0; MOST_BYTES];
        let read = |fd: &i32| {
            let file = pidfd_getfd(&process, *fd, PidfdGetfdFlags::empty())?;
            // The process may have replaced the descriptor by one whose reads block. Of anonymous
            // files, those that block have no positions, so pread(2) refuses them.
            let found = fstat(&file)?;
            if self.anonymous != Some((found.st_dev, found.st_ino)) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let len = pread(&file, &mut buffer[..], 0)?;
            Ok(buffer[..len].to_vec())
        };
        fds.iter().map(read).collect()
    }
}

/// Descriptors of one VM's statistics.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct StatsFds {
    /// By KVM's vcpu id.
    pub(super) vcpus: BTreeMap<u32, i32>,
    /// Of the VM itself, if there is one.
    pub(super) vm: Option<i32>,
}

impl StatsFds {
    /// The descriptors of a process. None if they are of several VMs: nothing says which is whose.
    ///
    /// # Errors
    /// If the descriptors are not visible.
    pub(super) fn find(roots: &Roots, pid: i32) -> io::Result<Self> {
        let mut found = Self::default();
        let mut several = false;
        let process = roots.proc.join(pid.to_string());
        Descriptors::list(roots, &process)?.targets(|fd, target| {
            let Some(target) = target.strip_prefix(b"anon_inode:kvm-") else {
                return ControlFlow::Continue(());
            };
            if target == b"vm-stats" {
                several |= found.vm.replace(fd).is_some();
            } else if let Some(id) = target.strip_prefix(b"vcpu-stats:") {
                let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
                several |= id.is_some_and(|id| found.vcpus.insert(id, fd).is_some());
            }
            ControlFlow::Continue(())
        })?;
        Ok(if several { Self::default() } else { found })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vcpus.is_empty()
    }

    /// All descriptors: the vCPUs' in the order of their ids, then the VM's.
    pub(super) fn all(&self) -> Vec<i32> {
        self.vcpus.values().copied().chain(self.vm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::FakeHost;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn descriptors_are_known_by_their_names() {
        let host = FakeHost::new();
        host.process(100, 1, &["vmm"], "");
        let link = |fd: i32, target: &str| host.fd(100, fd, target);
        link(3, "anon_inode:kvm-vm");
        link(5, "anon_inode:kvm-vcpu:0");
        link(7, "anon_inode:kvm-vcpu-stats:1");
        link(9, "anon_inode:kvm-vcpu-stats:0");
        link(11, "anon_inode:kvm-vm-stats");
        link(12, "anon_inode:kvm-vcpu-stats:x");
        link(13, "/tmp/anon_inode:kvm-vcpu-stats:2");
        let roots = Roots::below(host.root());
        let found = StatsFds::find(&roots, 100).unwrap();
        assert_eq!(found.all(), [9, 7, 11]);
        link(14, "anon_inode:kvm-vcpu-stats:0");
        assert!(
            StatsFds::find(&roots, 100).unwrap().is_empty(),
            "of two VMs"
        );
        assert!(StatsFds::find(&roots, 7).is_err());
    }

    #[test]
    fn other_files_are_refused_and_none_blocks() {
        let me = std::process::id() as i32;
        let read = |fd: i32| KernelStats::new().read(me, &[fd]);
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        if let Err(error) = read(file.as_raw_fd()) {
            if error.kind() != io::ErrorKind::InvalidData {
                return println!("skipped: pidfd_getfd(2) is refused here: {error}");
            }
        }
        // Reads of these would wait for ever.
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        for fd in [event.as_fd(), socket.as_fd()] {
            assert!(read(fd.as_raw_fd()).is_err());
        }
        assert!(read(i32::MAX).is_err());
    }
}
