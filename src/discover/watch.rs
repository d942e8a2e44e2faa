//! Cheap questions to /proc: which processes there are, and whether one looks as it did.
//!
//! All go through one kept descriptor of /proc and open nothing. What they compare:
//!
//! - inode and modification time of `PID/fd`, which /proc makes anew for a new process of the
//!   same pid, and its size, which since Linux 6.2 is the number of open descriptors
//!   (fs/proc/fd.c, `proc_fd_getattr`);
//! - links of `PID/task`: the number of threads (fs/proc/base.c, `proc_task_getattr`);
//! - the target of `PID/exe`: pid and start time outlive an exec.
//!
//! The kernel may forget an inode of /proc when memory is short; the process then only looks
//! changed when it is not.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fs::{
    fstatfs, readlinkat_raw, seek, statat, AtFlags, RawDir, SeekFrom, Stat, PROC_SUPER_MAGIC,
};

use super::process::{MAX_LINKS, MAX_THREADS, PROCESS, THREAD};
use crate::host::roots::Roots;

/// What a process looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Look {
    fd: Mark,
    task: Mark,
    threads: u64,
    descriptors: u64,
    exe: u64,
    /// Its effective user: a directory that all may read has it even where the process may not be
    /// dumped (fs/proc/base.c, `task_dump_owner`).
    pub(super) user: u32,
}

/// Identity of a file of /proc; another one for the next process or thread of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    inode: u64,
    modified: (i64, u64),
}

impl Look {
    /// Open descriptors (0 before Linux 6.2) and threads.
    pub(super) fn size(&self) -> u64 {
        self.descriptors.max(self.threads)
    }

    /// What it costs to read the links of its descriptors, and its threads too if those are
    /// wanted; in links.
    pub(super) fn cost(&self, threads: bool) -> u64 {
        let of_threads = self.threads.min(MAX_THREADS as u64) * THREAD;
        PROCESS + self.descriptors.min(MAX_LINKS as u64) + of_threads * u64::from(threads)
    }

    /// Whether the kernel counts the descriptors of this process that has some.
    pub(super) fn counts_descriptors(&self) -> bool {
        self.descriptors > 0
    }

    /// Whether it is the same process with as many threads.
    pub(super) fn same_threads(&self, other: &Look) -> bool {
        self.fd.inode == other.fd.inode && self.task == other.task && self.threads == other.threads
    }

    /// Whether it is still the same program in the same process.
    pub(super) fn same_program(&self, other: &Look) -> bool {
        self.exe == other.exe && self.fd.inode == other.fd.inode
    }
}

/// A kept descriptor of /proc.
#[derive(Debug)]
pub(super) struct Watch {
    roots: Arc<Roots>,
    proc: Option<File>,
    buffer: Vec<MaybeUninit<u8>>,
    /// Whether the kernel is one that counts descriptors; tests stand in for an older one.
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

    /// The pids of all processes, in no order.
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

    /// Whether procfs shows some processes and the first of all not: it is mounted with `hidepid`
    /// (proc(5)), and what else it hides nobody can say.
    pub(super) fn hides(&self, pids: &[i32]) -> bool {
        let filesystem = self.proc.as_ref().and_then(|proc| fstatfs(proc).ok());
        let is_procfs = filesystem.is_some_and(|fs| fs.f_type == PROC_SUPER_MAGIC);
        is_procfs && !pids.contains(&1)
    }

    /// What the process looks like now.
    ///
    /// # Errors
    /// That it is gone, or that procfs does not let one look (`hidepid=1`).
    pub(super) fn look(&self, pid: i32) -> io::Result<Look> {
        let fd = self.stat(&format!("{pid}/fd"))?;
        let task = self.stat(&format!("{pid}/task"))?;
        Ok(Look {
            fd: mark(&fd),
            task: mark(&task),
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

    /// The mark of a thread that lives.
    pub(super) fn thread(&self, pid: i32, tid: i32) -> Option<Mark> {
        let stat = self.stat(&format!("{pid}/task/{tid}"));
        stat.map(|stat| mark(&stat)).ok()
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        let proc = self.proc.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(statat(proc, path, AtFlags::empty())?)
    }

    /// A hash of the executable's path; 0 for kernel threads and where it may not be read.
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

/// The entries of a directory that are numbers, until there are `most`. Goes back to its beginning
/// first.
pub(super) fn numbers(
    dir: &File,
    buffer: &mut [MaybeUninit<u8>],
    found: &mut Vec<i32>,
    most: usize,
) -> io::Result<()> {
    seek(dir, SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next().filter(|_| found.len() < most) {
        let number = entry?
            .file_name()
            .to_str()
            .unwrap_or_default()
            .parse::<i32>();
        found.extend(number.ok().filter(|n| *n >= 0));
    }
    Ok(())
}

#[allow(clippy::unnecessary_cast)] // the fields' types differ between architectures
fn mark(stat: &Stat) -> Mark {
    Mark {
        inode: stat.st_ino as u64,
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::process;

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
        // Other tests of this process open files and start threads: its program stays.
        let look = watch.look(me).unwrap();
        assert!(look.same_program(&watch.look(me).unwrap()));
        assert_eq!(roots.opens(), opens);
        assert_eq!(watch.thread(me, me), watch.thread(me, me));
        assert!(process::is_gone(&watch.look(i32::MAX).unwrap_err()));
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
