//! The picture, pushed by OTLP: the same samples as `/metrics`, under names that become the same
//! again in Prometheus (docs/OTLP.md).
//!
//! A thread and a runtime of their own: a receiver that is slow, away or hostile takes nothing
//! from the sampler and no turn of a scrape. Nothing is kept for a receiver that is away; totals
//! are, so the next push has them, and increments are counted from the last one that arrived.

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
pub mod names;
mod own;
mod protobuf;
mod push;
mod resource;
mod schedule;
mod secrets;
pub mod settings;
mod starts;
mod transport;

pub use answer::Answer;
pub use encode::{Encoder, Picture, Request, REQUEST};
pub use push::{Outcome, Pusher};
pub use resource::Resource;
pub use schedule::Schedule;
pub use settings::Settings;
pub use starts::Clock;
pub use transport::{Client, SetupError};

/// At the end, a push that is under way has so long …
const UNDER_WAY: Duration = Duration::from_millis(500);

/// … and the last one so long: the exporter ends within 5 s of being asked to.
const LAST: Duration = Duration::from_secs(1);

/// For the thread to say that it ended.
const MARGIN: Duration = Duration::from_millis(250);

/// Threads for looking up names, which may hang.
const RESOLVERS: usize = 2;

/// They are kept once started: tokio panics where it needs a thread, has none and may not start
/// one (`pids.max`, `RLIMIT_NPROC`).
const KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// The thread that pushes; none where there is nowhere to push to.
#[derive(Debug)]
pub struct Pushing {
    stop: watch::Sender<bool>,
    /// What the thread says when it ends; `None` where there is none.
    result: Option<mpsc::Receiver<Result<(), JoinError>>>,
    ended: Arc<Notify>,
}

/// A task of the thread panicked.
#[derive(Debug, thiserror::Error)]
#[error("pushing by OTLP failed; this is a bug of the exporter, please report it")]
pub struct PushingFailed;

/// Starts pushing to every endpoint.
///
/// # Errors
/// When the thread or its runtime cannot be started.
pub fn start(pushers: Vec<Pusher>) -> io::Result<Pushing> {
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
    // An error here, for it would be a panic there.
    let _ = ThreadBuilder::new().spawn(|| ())?.join();
    runtime.spawn_blocking(|| ());
    let ended = Arc::clone(&pushing.ended);
    let builder = ThreadBuilder::new().name("otlp".to_owned());
    let (sender, result) = mpsc::channel();
    builder.spawn(move || {
        // However the thread ends.
        let _tell = Tell(ended);
        let result = runtime.block_on(all(pushers, stopped));
        // A name that is being looked up keeps nobody waiting.
        runtime.shutdown_background();
        // Nobody listens only if the end did not wait.
        let _ = sender.send(result);
    })?;
    pushing.result = Some(result);
    Ok(pushing)
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Ends when all have been told to stop, or when one has panicked.
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

/// Pushes whenever it is time, and once more at the end.
async fn run(mut pusher: Pusher, mut stopped: watch::Receiver<bool>) {
    let mut schedule = Schedule::new(pusher.settings().interval, Instant::now());
    let timeout = pusher.settings().timeout;
    loop {
        tokio::select! {
            () = told(&mut stopped) => break,
            () = tokio::time::sleep_until(schedule.due().into()) => {}
        }
        let outcome = tokio::select! {
            outcome = pusher.push() => outcome,
            () = grace(&mut stopped, UNDER_WAY.min(timeout / 2)) => break,
        };
        schedule.follow(&outcome, Instant::now());
    }
    // The sampler has stopped: this is the last there is.
    let last = tokio::time::timeout(LAST.min(timeout), pusher.push()).await;
    tracing::debug!(
        endpoint = pusher.settings().url,
        ?last,
        "pushed for the last time"
    );
}

/// Resolves when it is time to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // Nobody left to tell us is as good as being told.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Resolves some time after that: for a push that is under way.
async fn grace(stopped: &mut watch::Receiver<bool>, time: Duration) {
    told(stopped).await;
    tokio::time::sleep(time).await;
}

impl Pushing {
    /// Resolves once the thread has ended, which without being asked to it does by a bug alone.
    /// Living on would leave receivers without numbers that they count on.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended = Arc::clone(&self.ended);
        async move { ended.notified().await }
    }

    /// Pushes the newest picture once more and waits for the end, but not for a thread that hangs,
    /// such as in a file of a password on a file system that does not answer.
    ///
    /// # Errors
    /// When pushing had failed by a bug.
    pub fn stop(self) -> Result<(), PushingFailed> {
        // Nobody listens only if the thread has ended by itself.
        let _ = self.stop.send(true);
        let Some(result) = self.result else {
            return Ok(());
        };
        match result.recv_timeout(UNDER_WAY + LAST + MARGIN) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "pushing failed");
                Err(PushingFailed)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!("the thread that pushes does not end; ending without it");
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(PushingFailed),
        }
    }
}
