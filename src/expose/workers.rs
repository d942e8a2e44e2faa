//! Threads for work that takes more than a few microseconds: encoding, compression, rendering.
//!
//! They start with the server. A thread for each request might fail to start (`pids.max`,
//! `RLIMIT_NPROC`) when its answer is needed.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::telemetry::{Heartbeat, Heartbeats};

/// A job that takes longer counts as hanging: the largest exposition takes a second.
const HANGS: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs jobs one after the other, and ends with the last handle.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    heartbeat: Heartbeat,
}

impl Worker {
    /// Starts a worker. After each job it sleeps for `rest` times the job's duration, which bounds
    /// its share of a CPU.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(name: &str, rest: u32) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        // Not registered: neither `/readyz` nor a metric shows this thread.
        let heartbeat = Heartbeats::default().add("worker", HANGS, false);
        let beats = heartbeat.clone();
        let work = move || {
            for job in queue {
                let begun = Instant::now();
                beats.step("job");
                // The panic hook has logged it; the caller gets no result.
                let _ = catch_unwind(AssertUnwindSafe(job));
                beats.rest();
                thread::sleep(begun.elapsed() * rest);
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        thread.map_err(|error| {
            let what = format!("cannot start a worker thread of the HTTP server: {error}");
            io::Error::new(error.kind(), what)
        })?;
        Ok(Self { jobs, heartbeat })
    }

    /// Runs a job after those before it. `None` if the job panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = oneshot::channel();
        let heartbeat = self.heartbeat.clone();
        let job = Box::new(move || {
            let result = job();
            // Before the caller learns that the job is done.
            heartbeat.rest();
            // The caller may be gone.
            let _ = sender.send(result);
        });
        self.jobs.send(job).ok()?;
        result.await.ok()
    }

    /// Whether no job hangs.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.heartbeat.hang(now).is_none()
    }
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
