//! Threads for reads that another process can block for any time.
//!
//! A file of /proc that reads the memory of a process waits for that process (Linux 5.8 to 6.18):
//!
//! - `cmdline` and `environ` take its mmap_lock (mm/memory.c, `__access_remote_vm`). A user can
//!   hold this lock: a read of a FUSE page through /proc/self/mem holds it for reading until the
//!   user's FUSE server answers, and every reader waits behind a waiting writer.
//! - `smaps` and `numa_maps` take its mmap_lock (fs/proc/task_mmu.c, `m_start`).
//! - These, `environ`, `maps`, `syscall` and `stack` also take its `exec_update_lock` for reading
//!   (kernel/fork.c, `mm_access`; fs/proc/base.c, `lock_trace`; a mutex before 5.11), and so do
//!   perf_event_open(2) on a thread (kernel/events/core.c), kcmp(2) and pidfd_getfd(2)
//!   (kernel/pid.c, `__pidfd_fget`). An execve(2) holds it for writing while it waits for the
//!   mmap_lock of the old program (fs/exec.c, `exec_mmap`).
//!
//! `stat`, `status`, `statm`, `schedstat`, `sched`, `comm`, `cgroup`, `wchan`, `task`, `fd` with
//! its links, and `exe` take locks that no program can keep (fs/proc/array.c, `do_task_stat`;
//! fs/proc/base.c, `proc_exe_link`).
//!
//! A fatal signal ends all such waits (`mmap_read_lock_killable`, `down_read_killable`), so blocked
//! threads do not prevent the exporter from exiting.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod late;

pub(crate) use late::{Blocked, LateAnswers};

/// Most pending reads. A blocked one costs a kernel stack (16 KiB) and the touched part of `STACK`.
pub(crate) const MAX: usize = 32;

/// Most pending reads of one process: one of the inventory and one of a background collector.
const MAX_OF_PROCESS: usize = 2;

/// Time after which an idle thread exits.
const IDLE: Duration = Duration::from_secs(10);

/// Stack of a thread (bytes).
const STACK: usize = 256 << 10;

/// The process and the user whose limits a pending read counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Payer {
    pub(crate) pid: i32,
    pub(crate) uid: u32,
}

/// The threads; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    /// Threads that wait for work or will at once.
    idle: usize,
    of_user: HashMap<u32, usize>,
    of_process: HashMap<i32, usize>,
    under_way: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("threads", &self.threads)
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

struct Work {
    payer: Payer,
    /// Performs the read and returns a function that delivers the answer.
    run: Box<dyn FnOnce() -> Deliver + Send>,
}

type Deliver = Box<dyn FnOnce()>;

/// A pending read.
#[derive(Debug)]
pub(crate) struct Ticket<T> {
    begun: Instant,
    answer: Receiver<Result<T, Box<dyn Any + Send>>>,
}

/// Why a read was not started.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub(crate) enum NotBegun {
    /// Pending reads of this user or process have reached their limit.
    #[error("too many pending reads ({of_user} of processes of user {uid})")]
    Hang { uid: u32, of_user: usize },
    #[error("cannot start a thread: {0}")]
    NoThread(#[from] std::io::Error),
}

impl Readers {
    /// Starts a read on its own thread. A user may have as many pending reads as remain for all
    /// others: however many users block reads, the next user still gets some.
    ///
    /// # Errors
    /// If this user or process has reached its limit, or no thread can be started.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        payer: Payer,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Ticket<T>, NotBegun> {
        let (sender, answer) = sync_channel(1);
        let run = Box::new(move || -> Deliver {
            let answer = catch_unwind(AssertUnwindSafe(read));
            // If the ticket was dropped, the answer is dropped too.
            Box::new(move || drop(sender.send(answer)))
        });
        let begun = Instant::now();
        self.enqueue(Work { payer, run })?;
        Ok(Ticket { begun, answer })
    }

    fn enqueue(&self, work: Work) -> Result<(), NotBegun> {
        let mut state = self.0.lock();
        let of_user = state.of_user.get(&work.payer.uid).copied().unwrap_or(0);
        let of_process = state.of_process.get(&work.payer.pid).copied().unwrap_or(0);
        if of_process >= MAX_OF_PROCESS || of_user >= MAX - state.under_way {
            let uid = work.payer.uid;
            return Err(NotBegun::Hang { uid, of_user });
        }
        if state.idle <= state.waiting.len() {
            let shared = Arc::clone(&self.0);
            let builder = std::thread::Builder::new().name("reader".to_owned());
            builder.stack_size(STACK).spawn(move || shared.serve())?;
            state.threads += 1;
            state.idle += 1;
        }
        *state.of_user.entry(work.payer.uid).or_default() += 1;
        *state.of_process.entry(work.payer.pid).or_default() += 1;
        state.under_way += 1;
        state.waiting.push_back(work);
        self.0.work.notify_one();
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread: serves reads until it has been idle for [`IDLE`].
    fn serve(&self) {
        while let Some(Work { payer, run }) = self.next() {
            let deliver = run();
            // First, because the receiver of the answer may start another read at once: this thread
            // serves it.
            self.lock().ended(payer);
            deliver();
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                state.idle -= 1;
                return Some(work);
            }
            let waited = self.work.wait_timeout(state, IDLE);
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = guard;
            if waited.timed_out() && state.waiting.is_empty() {
                state.threads -= 1;
                state.idle -= 1;
                return None;
            }
        }
    }
}

impl State {
    fn ended(&mut self, payer: Payer) {
        self.under_way -= 1;
        self.idle += 1;
        less(&mut self.of_user, payer.uid);
        less(&mut self.of_process, payer.pid);
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(n) = counts.get_mut(&key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(&key);
        }
    }
}

impl<T> Ticket<T> {
    /// Time since the start of the read.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The answer; `None` if it does not arrive within `patience`.
    ///
    /// # Panics
    /// If the read panicked.
    pub(crate) fn wait(&self, patience: Duration) -> Option<T> {
        match self.answer.recv_timeout(patience) {
            Ok(Ok(read)) => Some(read),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, Sender};

    const LONG: Duration = Duration::from_secs(30);

    fn payer(pid: i32, uid: u32) -> Payer {
        Payer { pid, uid }
    }

    /// A read that blocks until the sender is dropped.
    fn hang(readers: &Readers, payer: Payer) -> Result<(Ticket<()>, Sender<()>), NotBegun> {
        let (release, held) = channel::<()>();
        let ticket = readers.begin(payer, move || held.recv().unwrap_or(()))?;
        Ok((ticket, release))
    }

    #[test]
    fn a_read_that_hangs_leaves_others_alone_and_is_answered_in_the_end() {
        let readers = Readers::default();
        let (held, release) = hang(&readers, payer(1, 1)).unwrap();
        assert_eq!(held.wait(Duration::ZERO), None);
        let other = readers.begin(payer(2, 1), || 7).unwrap();
        assert_eq!(other.wait(LONG), Some(7));
        drop(release);
        assert_eq!(held.wait(LONG), Some(()));
    }

    #[test]
    fn users_who_hold_up_reads_leave_some_for_the_next() {
        let readers = Readers::default();
        let mut held = Vec::new();
        let mut of_users = Vec::new();
        for uid in 0..6 {
            let before = held.len();
            for pid in 0..100 {
                held.extend(hang(&readers, payer(pid + 100 * uid as i32, uid)));
            }
            of_users.push(held.len() - before);
        }
        assert_eq!(of_users, [16, 8, 4, 2, 1, 1]);
        let full = hang(&readers, payer(9999, 9)).unwrap_err();
        assert_eq!(
            full.to_string(),
            "too many pending reads (0 of processes of user 9)"
        );
        let (first, release) = held.remove(0);
        drop(release);
        first.wait(LONG).unwrap();
        assert!(hang(&readers, payer(9999, 9)).is_ok());
    }

    #[test]
    fn one_process_has_two_reads_at_most() {
        let readers = Readers::default();
        let held = [(); 3].map(|()| hang(&readers, payer(1, 1)));
        assert_eq!(held.each_ref().map(Result::is_ok), [true, true, false]);
    }

    #[test]
    fn threads_are_used_again() {
        let readers = Readers::default();
        for n in 0..100 {
            let ticket = readers.begin(payer(n, 0), move || n).unwrap();
            assert_eq!(ticket.wait(LONG), Some(n));
        }
        assert_eq!(readers.0.lock().threads, 1);
    }

    #[test]
    fn panic_reaches_the_caller() {
        let readers = Readers::default();
        let ticket = readers.begin(payer(1, 1), || assert_eq!(1, 2)).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| ticket.wait(LONG)));
        assert!(panic.is_err());
        assert_eq!(
            readers.begin(payer(1, 1), || 1).unwrap().wait(LONG),
            Some(1)
        );
    }
}
