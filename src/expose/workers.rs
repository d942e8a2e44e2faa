//! Threads for work of more than a few microseconds: encoding, compressing, rendering.
//!
//! They are started with the server. One that was started for a request might not start at all
//! (`pids.max`, `RLIMIT_NPROC`), at a time when somebody counts on the answer.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A job that takes longer hangs: the largest exposition is encoded in a second.
const HANGS: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after the other, and ends with the last handle.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    /// Since when it is at its job.
    busy: Arc<Mutex<Option<Instant>>>,
}

impl Worker {
    /// Starts one. After each job it rests for `rest` times as long as that took, so that its
    /// clients get no more than a share of a CPU.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(name: &str, rest: u32) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let busy = Arc::new(Mutex::new(None));
        let is_busy = Arc::clone(&busy);
        let work = move || {
            for job in queue {
                let begun = Instant::now();
                set(&is_busy, Some(begun));
                // The panic hook has reported it; whoever waits gets no result.
                let _ = catch_unwind(AssertUnwindSafe(job));
                set(&is_busy, None);
                thread::sleep(begun.elapsed() * rest);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        thread.map_err(|error| {
            let what = format!("cannot start a thread that answers requests: {error}");
            io::Error::new(error.kind(), what)
        })?;
        Ok(Self { jobs, busy })
    }

    /// Does a job in its turn. `None` where the job panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let busy = Arc::clone(&self.busy);
        let job = Box::new(move || {
            let result = job();
            // Before it is known that the job is done.
            set(&busy, None);
            // Where nobody waits any more, the result is dropped.
            let _ = tell.send(result);
        });
        self.jobs.send(job).ok()?;
        told.await.ok()
    }

    /// Whether it gets on with its jobs.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.is_none_or(|since| now.saturating_duration_since(since) < HANGS)
    }
}

fn set(busy: &Mutex<Option<Instant>>, since: Option<Instant>) {
    *busy.lock().unwrap_or_else(PoisonError::into_inner) = since;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_job() {
        let worker = Worker::start("test", 0).unwrap();
        let panics: Option<()> = worker.run(|| std::panic::resume_unwind(Box::new(()))).await;
        assert_eq!(panics, None);
        assert_eq!(worker.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_job_that_hangs_is_noticed() {
        let worker = Worker::start("test", 0).unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let hangs = worker.clone();
        let job = tokio::spawn(async move {
            let hang = move || {
                begin.send(()).unwrap();
                ended.recv()
            };
            hangs.run(hang).await
        });
        begun.await.unwrap();
        assert!(worker.is_alive(Instant::now()));
        assert!(!worker.is_alive(Instant::now() + HANGS));
        drop(end);
        job.await.unwrap();
        assert!(worker.is_alive(Instant::now() + HANGS));
    }
}
