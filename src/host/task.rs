//! Identifies a process or thread: the kernel reuses PIDs and TIDs.
//!
//! The start time (field 22 of /proc/PID/stat) identifies it. A source that reads checks after
//! reading: if the task is the same then, it was the same throughout. A source that writes an ID to
//! the kernel checks right before and right after.

use std::io;
use std::path::PathBuf;

use super::roots::Roots;
use super::thread::parse_stat;

/// A process, or one of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) pid: i32,
    /// TID; `None` for the process as a whole.
    tid: Option<i32>,
    /// Clock ticks since boot.
    start_time: u64,
}

/// Why a file of a task was not read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub(crate) enum TaskError {
    /// The ID may belong to another task.
    #[error("the task exited")]
    Gone,
    #[error("cannot read {path}: {error}", path = .0.display(), error = .1)]
    Unreadable(PathBuf, io::Error),
    /// The file is not as proc(5) describes it.
    #[error("unexpected format in {}", .0.display())]
    Malformed(PathBuf),
}

impl TaskError {
    /// From the error of a file below /proc/PID that each task has.
    pub(crate) fn new(path: PathBuf, error: io::Error) -> Self {
        if is_gone(&error) {
            Self::Gone
        } else {
            Self::Unreadable(path, error)
        }
    }
}

impl Task {
    /// A whole process.
    pub(crate) fn process(pid: i32, start_time: u64) -> Self {
        let tid = None;
        Self {
            pid,
            tid,
            start_time,
        }
    }

    /// A thread of a process.
    pub(crate) fn thread(pid: i32, tid: i32, start_time: u64) -> Self {
        let tid = Some(tid);
        Self {
            pid,
            tid,
            start_time,
        }
    }

    /// Its directory in /proc.
    pub(crate) fn dir(&self, roots: &Roots) -> PathBuf {
        let process = roots.proc.join(self.pid.to_string());
        match self.tid {
            Some(tid) => process.join(format!("task/{tid}")),
            None => process,
        }
    }

    /// Reads a file that no process can block, of the task that has the ID now.
    ///
    /// # Errors
    /// If no task has the ID, or the file cannot be read.
    pub(crate) fn read(&self, roots: &Roots, name: &str) -> Result<Vec<u8>, TaskError> {
        let path = self.dir(roots).join(name);
        roots
            .read(&path)
            .map_err(|error| TaskError::new(path, error))
    }

    /// Reads `stat` of this very task.
    ///
    /// # Errors
    /// [`TaskError::Gone`] if another task or none has the ID.
    pub(crate) fn stat(&self, roots: &Roots) -> Result<Vec<u8>, TaskError> {
        let text = self.read(roots, "stat")?;
        match parse_stat(&text) {
            Some(stat) if stat.start_time == self.start_time => Ok(text),
            Some(_) => Err(TaskError::Gone),
            None => Err(TaskError::Malformed(self.dir(roots).join("stat"))),
        }
    }

    /// Checks that the task still runs: what was read of it before is its own.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub(crate) fn check(&self, roots: &Roots) -> Result<(), TaskError> {
        self.stat(roots).map(drop)
    }
}

/// Whether an error of a file below /proc/PID means that the task exited: the file is gone, or a
/// read returns `ESRCH` because the task exited after the open (proc(5)).
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether PIDs in procfs are valid in the system calls of this process. They are not if a directory
/// replaces procfs (they belong to another machine) or if procfs belongs to another pid namespace.
pub(crate) fn shows_own_pids(roots: &Roots) -> bool {
    let status = roots.read_text(&roots.proc.join("self/status"));
    status.is_ok_and(|status| is_own_namespace(&status, std::process::id()))
}

/// Whether procfs shows this process under its own PID only: `NSpid` lists its PIDs from procfs's
/// namespace down to its own (proc_pid_status(5)).
fn is_own_namespace(status: &str, pid: u32) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| pids.trim() == pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::FakeHost;

    #[test]
    fn pids_are_valid_in_their_own_namespace() {
        assert!(is_own_namespace("Pid:\t7\nNSpid:\t7\nNSpgid:\t7\n", 7));
        assert!(!is_own_namespace("Pid:\t900\nNSpid:\t900\t7\n", 7));
        assert!(!is_own_namespace("NSpid:\t900\n", 7));
        assert!(!is_own_namespace("Pid:\t7\n", 7));
    }

    #[test]
    fn task_is_gone_once_it_exited_or_another_has_its_id() {
        let host = FakeHost::new();
        let roots = Roots::below(host.root());
        host.process(7, 100, &["vmm"], "").thread(7, 8, "a", 200);
        let tasks = [
            |start_time| Task::process(7, start_time),
            |start_time| Task::thread(7, 7, start_time),
            |start_time| Task::thread(7, 8, start_time + 100),
        ];
        let is_gone = |task: Task| matches!(task.check(&roots), Err(TaskError::Gone));
        for task in tasks {
            task(100).check(&roots).unwrap();
            assert!(is_gone(task(101)));
        }
        let thread = Task::thread(7, 8, 200);
        host.file("proc/7/task/8/stat", "8 (a) R");
        let malformed = thread.check(&roots).unwrap_err().to_string();
        assert!(malformed.ends_with("/proc/7/task/8/stat"), "{malformed}");
        host.exit_thread(7, 8);
        assert!(is_gone(thread));
    }
}
