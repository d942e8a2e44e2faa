//! Cheap checks in /proc: which processes exist, and whether a process changed.
//!
//! All checks use one open descriptor of /proc and open no file. They compare:
//!
//! - inode and modification time of `PID/fd`, which are new for a new process of the same PID, and
//!   its size, which is the number of open descriptors since Linux 6.2 (fs/proc/fd.c,
//!   `proc_fd_getattr`);
//! - the link count of `PID/task`: the number of threads (fs/proc/base.c, `proc_task_getattr`);
//! - the target of `PID/exe`, because PID and start time survive an exec.
//!
//! The kernel may drop an inode of /proc under memory pressure; the process then appears changed
//! although it is not.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fs::{fstatfs, readlinkat_raw, statat, AtFlags, Stat, PROC_SUPER_MAGIC};

use super::process::{MAX_THREADS, PROCESS, THREAD};
use crate::host::fds::{numbers, MAX_DESCRIPTORS};
use crate::host::roots::Roots;

/// State of a process, for comparison with a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ProcessFingerprint {
    fd: InodeStamp,
    task: InodeStamp,
    threads: u64,
    descriptors: u64,
    exe: u64,
    /// Its effective user: the owner of a world-readable directory is the user even if the process
    /// is not dumpable (fs/proc/base.c, `task_dump_owner`).
    pub(super) user: u32,
}

/// Identity of a file in /proc; differs for the next process or thread with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct InodeStamp {
    inode: u64,
    modified: (i64, u64),
}

impl ProcessFingerprint {
    /// Number of open descriptors (0 before Linux 6.2) or of threads, whichever is larger.
    pub(super) fn size(&self) -> u64 {
        self.descriptors.max(self.threads)
    }

    /// Cost of reading the links of its descriptors and, if `threads`, its threads; in links.
    pub(super) fn cost(&self, threads: bool) -> u64 {
        let of_threads = self.threads.min(MAX_THREADS as u64) * THREAD;
        PROCESS + self.descriptors.min(MAX_DESCRIPTORS as u64) + of_threads * u64::from(threads)
    }

    /// Whether the kernel counts descriptors, asked of a process that has some.
    pub(super) fn counts_descriptors(&self) -> bool {
        self.descriptors > 0
    }

    /// Whether it is the same process with the same number of threads.
    pub(super) fn same_threads(&self, other: &ProcessFingerprint) -> bool {
        self.fd.inode == other.fd.inode && self.task == other.task && self.threads == other.threads
    }

    /// Whether it is the same program in the same process.
    pub(super) fn same_program(&self, other: &ProcessFingerprint) -> bool {
        self.exe == other.exe && self.fd.inode == other.fd.inode
    }
}

/// An open descriptor of /proc.
#[derive(Debug)]
pub(super) struct Watch {
    roots: Arc<Roots>,
    proc: Option<File>,
    buffer: Vec<MaybeUninit<u8>>,
    /// Whether the kernel counts descriptors; tests set `false` for an older kernel.
    #[cfg(test)]
    pub(super) counts_descriptors: bool,
}

impl Watch {
    pub(super) fn new(roots: Arc<Roots>) -> Self {
        Self {
            roots,
            proc: None,
            buffer: vec![MaybeUninit::uninit(); 32 << 10],
            #[cfg(test)]
            counts_descriptors: true,
        }
    }

    /// The PIDs of all processes, unsorted.
    pub(super) fn pids(&mut self, pids: &mut Vec<i32>) -> io::Result<()> {
        pids.clear();
        let proc = match self.proc.take() {
            Some(proc) => proc,
            None => self.roots.open(&self.roots.proc)?,
        };
        numbers(&proc, &mut self.buffer, pids, usize::MAX)?;
        self.proc = Some(proc);
        Ok(())
    }

    /// Whether procfs hides PID 1 and therefore is mounted with `hidepid` (proc(5)); what else it
    /// hides is unknown.
    pub(super) fn hides(&self, pids: &[i32]) -> bool {
        let filesystem = self.proc.as_ref().and_then(|proc| fstatfs(proc).ok());
        let is_procfs = filesystem.is_some_and(|fs| fs.f_type == PROC_SUPER_MAGIC);
        is_procfs && !pids.contains(&1)
    }

    /// The present state of the process.
    ///
    /// # Errors
    /// If the process exited, or procfs denies access (`hidepid=1`).
    pub(super) fn fingerprint(&self, pid: i32) -> io::Result<ProcessFingerprint> {
        let fd = self.stat(&format!("{pid}/fd"))?;
        let task = self.stat(&format!("{pid}/task"))?;
        Ok(ProcessFingerprint {
            fd: stamp(&fd),
            task: stamp(&task),
            threads: task.st_nlink as u64,
            descriptors: self.descriptors(&fd),
            exe: self.exe(pid),
            user: task.st_uid,
        })
    }

    #[cfg(not(test))]
    fn descriptors(&self, fd: &Stat) -> u64 {
        fd.st_size as u64
    }

    #[cfg(test)]
    fn descriptors(&self, fd: &Stat) -> u64 {
        u64::from(self.counts_descriptors) * fd.st_size as u64
    }

    /// The inode stamp of a running thread.
    pub(super) fn thread(&self, pid: i32, tid: i32) -> Option<InodeStamp> {
        let stat = self.stat(&format!("{pid}/task/{tid}"));
        stat.map(|stat| stamp(&stat)).ok()
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        let proc = self.proc.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(statat(proc, path, AtFlags::empty())?)
    }

    /// A hash of the executable's path; 0 for kernel threads and if it cannot be read.
    fn exe(&self, pid: i32) -> u64 {
        let mut buffer = [0u8; 256];
        let Some(proc) = &self.proc else { return 0 };
        let Ok(length) = readlinkat_raw(proc, format!("{pid}/exe"), &mut buffer) else {
            return 0;
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(buffer.get(..length).unwrap_or_default());
        hasher.finish()
    }
}

#[allow(clippy::unnecessary_cast)] // field types differ between architectures
fn stamp(stat: &Stat) -> InodeStamp {
    InodeStamp {
        inode: stat.st_ino as u64,
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::task::is_gone;

    #[test]
    fn this_process_is_listed_and_looks_the_same_twice() {
        let roots = Arc::new(Roots::default());
        let mut watch = Watch::new(roots.clone());
        let mut pids = Vec::new();
        watch.pids(&mut pids).unwrap();
        let me = std::process::id() as i32;
        assert!(pids.contains(&me));
        let opens = roots.opens();
        watch.pids(&mut pids).unwrap();
        assert_eq!(pids.iter().filter(|pid| **pid == me).count(), 1);
        // Other tests of this process open files and start threads, but its program stays the same.
        let look = watch.fingerprint(me).unwrap();
        assert!(look.same_program(&watch.fingerprint(me).unwrap()));
        assert_eq!(roots.opens(), opens);
        assert_eq!(watch.thread(me, me), watch.thread(me, me));
        assert!(is_gone(&watch.fingerprint(i32::MAX).unwrap_err()));
        assert!(!watch.hides(&pids));
        assert!(watch.hides(&[me]));
    }

    #[test]
    fn no_procfs_is_an_error_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(Arc::new(Roots::below(dir.path())));
        let mut pids = Vec::new();
        assert!(watch.pids(&mut pids).is_err());
        std::fs::create_dir_all(dir.path().join("proc/12")).unwrap();
        watch.pids(&mut pids).unwrap();
        assert_eq!(pids, [12]);
    }
}
