//! Pushes snapshots by OTLP: the same samples as `/metrics`, under names that Prometheus translates
//! back to the same names (docs/OTLP.md).
//!
//! Pushes have their own thread and runtime: a slow, absent or hostile receiver delays neither the
//! sampler nor a scrape. Nothing is queued for an absent receiver. The next push has the current
//! totals; deltas are counted from the last push that arrived.

use std::future::Future;
use std::io;
use std::sync::{mpsc, Arc};
use std::thread::Builder as ThreadBuilder;
use std::time::{Duration, Instant};

use tokio::sync::{watch, Notify};
use tokio::task::{JoinError, JoinSet};

use super::App;

mod answer;
mod delta;
mod encode;
mod histogram;
pub mod names;
mod protobuf;
mod push;
mod resource;
mod schedule;
mod secrets;
pub mod settings;
mod starts;
mod transport;

pub use answer::Answer;
pub use encode::{Encoder, Export, Request, REQUEST};
pub use push::{Outcome, Pusher};
pub use resource::Resource;
pub use schedule::Schedule;
pub use settings::Settings;
pub use starts::Clock;
pub use transport::Client;

/// At shutdown, the time for a push in progress ...
const UNDER_WAY: Duration = Duration::from_millis(500);

/// ... and for the last push. The exporter must exit within 5 s of SIGTERM.
const LAST: Duration = Duration::from_secs(1);

/// The time for the thread to report its end.
const MARGIN: Duration = Duration::from_millis(250);

/// Threads for DNS lookups, which may hang.
const RESOLVERS: usize = 2;

/// Keeps these threads once started: tokio panics if it needs a thread and cannot start one
/// (`pids.max`, `RLIMIT_NPROC`).
const KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// The thread that pushes; there is none without endpoints.
#[derive(Debug)]
pub(crate) struct Pushing {
    stop: watch::Sender<bool>,
    /// Receives the thread's result; `None` without a thread.
    result: Option<mpsc::Receiver<Result<(), JoinError>>>,
    ended: Arc<Notify>,
}

/// A task of the OTLP thread panicked.
#[derive(Debug, thiserror::Error)]
#[error("the OTLP thread panicked; this is a bug in the exporter, please report it")]
pub(crate) struct PushingFailed;

/// Starts pushing to every endpoint.
///
/// # Errors
/// If the thread or its runtime cannot be started.
pub(crate) fn start(pushers: Vec<Pusher>) -> io::Result<Pushing> {
    let (stop, stopped) = watch::channel(false);
    let mut pushing = Pushing {
        stop,
        result: None,
        ended: Arc::default(),
    };
    if pushers.is_empty() {
        return Ok(pushing);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(RESOLVERS)
        .thread_keep_alive(KEPT)
        .enable_all()
        .build()?;
    // Returns an error if threads cannot be started; tokio would panic.
    let _ = ThreadBuilder::new().spawn(|| ())?.join();
    runtime.spawn_blocking(|| ());
    let ended = Arc::clone(&pushing.ended);
    let builder = ThreadBuilder::new().name("otlp".to_owned());
    let (sender, result) = mpsc::channel();
    builder.spawn(move || {
        // Also if the thread panics.
        let _notify = NotifyOnDrop(ended);
        let result = runtime.block_on(all(pushers, stopped));
        // Do not wait for a DNS lookup that has not finished.
        runtime.shutdown_background();
        // The receiver is gone if `stop` did not wait.
        let _ = sender.send(result);
    })?;
    pushing.result = Some(result);
    Ok(pushing)
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Ends when all pushers have stopped or one has panicked.
async fn all(pushers: Vec<Pusher>, stopped: watch::Receiver<bool>) -> Result<(), JoinError> {
    let mut tasks = JoinSet::new();
    for pusher in pushers {
        tasks.spawn(run(pusher, stopped.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// Pushes on schedule, and once more at shutdown.
async fn run(mut pusher: Pusher, mut stopped: watch::Receiver<bool>) {
    let mut schedule = Schedule::new(pusher.settings().interval, Instant::now());
    let timeout = pusher.settings().timeout;
    loop {
        tokio::select! {
            () = is_stopped(&mut stopped) => break,
            () = tokio::time::sleep_until(schedule.due().into()) => {}
        }
        let outcome = tokio::select! {
            outcome = pusher.push() => outcome,
            () = grace(&mut stopped, UNDER_WAY.min(timeout / 2)) => break,
        };
        schedule.follow(&outcome, Instant::now());
    }
    // The sampler has stopped, so this snapshot is the last.
    let last = tokio::time::timeout(LAST.min(timeout), pusher.push()).await;
    tracing::debug!(
        endpoint = pusher.settings().url,
        ?last,
        "last push before shutdown"
    );
}

/// Resolves when the exporter stops.
async fn is_stopped(stopped: &mut watch::Receiver<bool>) {
    // A dropped sender also means stop.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Resolves some time after the exporter stops, to let a push in progress finish.
async fn grace(stopped: &mut watch::Receiver<bool>, time: Duration) {
    is_stopped(stopped).await;
    tokio::time::sleep(time).await;
}

impl Pushing {
    /// Resolves when the thread exits; before shutdown only a bug causes that. The exporter then
    /// exits too, because receivers depend on its pushes.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended = Arc::clone(&self.ended);
        async move { ended.notified().await }
    }

    /// Pushes the last snapshot and waits for the thread, but not longer than the limits above: the
    /// thread may hang, for example on a password file on a file system that does not respond.
    ///
    /// # Errors
    /// If pushing ended by a bug.
    pub(crate) fn stop(self) -> Result<(), PushingFailed> {
        // The receiver is gone if the thread has ended.
        let _ = self.stop.send(true);
        let Some(result) = self.result else {
            return Ok(());
        };
        match result.recv_timeout(UNDER_WAY + LAST + MARGIN) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the OTLP thread panicked");
                Err(PushingFailed)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!(
                    "the OTLP thread did not stop in time; exiting without waiting for it"
                );
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(PushingFailed),
        }
    }
}
