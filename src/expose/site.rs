//! What all handlers share: the exporter's side of it, and what the server keeps beside it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{self, HeaderValue};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;

use super::buffers::Pool;
use super::guard::Slots;
use crate::snapshot;
use crate::telemetry::Telemetry;

/// What the server shows.
#[derive(Debug)]
pub struct App {
    /// Where the sampler publishes.
    pub snapshots: snapshot::Handle,
    /// The exporter's own metrics, to count requests.
    pub telemetry: Telemetry,
    /// The same, to encode them.
    pub registry: Registry,
    /// Age from which the newest snapshot counts as stale.
    pub max_age: Duration,
}

impl App {
    /// The newest sample's age while it is fresh.
    pub(super) fn readiness(&self, now: Instant) -> Result<Duration, NotReady> {
        let newest = self.snapshots.load().ok_or(NotReady::NoSample)?;
        let age = now.saturating_duration_since(newest.taken_mono);
        let max_age = self.max_age;
        if age > max_age {
            return Err(NotReady::Stale { age, max_age });
        }
        Ok(age)
    }
}

/// Why the exporter is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotReady {
    NoSample,
    Stale { age: Duration, max_age: Duration },
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::NoSample => f.write_str("the sampler has not finished its first tick yet"),
            NotReady::Stale { age, max_age } => write!(
                f,
                "the newest sample is {:.1} s old, and more than {:.1} s is stale: the sampler \
                 hangs or is overloaded, see its log",
                age.as_secs_f64(),
                max_age.as_secs_f64()
            ),
        }
    }
}

/// The app and what the server keeps beside it.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) app: Arc<App>,
    pub(super) scrapes: Scrapes,
    /// How long a request waits for its turn before it is sent away with 503.
    pub(super) patience: Duration,
    /// Turns to work.
    pub(super) workers: Arc<Semaphore>,
    /// Connections.
    pub(super) slots: Slots,
}

impl Site {
    /// Does work of more than a few microseconds on a thread made for it, a few at a time.
    /// `None` when the server is too busy (or the work panicked, which is logged).
    pub(super) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Site) -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.workers).acquire_owned();
        let turn = tokio::time::timeout(self.patience, turn).await.ok()?.ok()?;
        let site = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job(&site)
        });
        work.await
            .inspect_err(|error| tracing::error!(%error, "a request could not be answered"))
            .ok()
    }
}

/// Answers in memory at a time, those still being sent among them: with the size of one, which
/// `limits.max_series` bounds, this bounds their memory.
const ANSWERS: usize = 8;

/// What scrapes share.
#[derive(Debug)]
pub(super) struct Scrapes {
    pub(super) answers: Arc<Semaphore>,
    pub(super) texts: Arc<Pool>,
    pub(super) gzipped: Arc<Pool>,
}

impl Default for Scrapes {
    fn default() -> Self {
        Self {
            answers: Arc::new(Semaphore::new(ANSWERS)),
            texts: Arc::default(),
            gzipped: Arc::default(),
        }
    }
}

/// 503, to be tried again in a second.
pub(super) fn unavailable(reason: &dyn fmt::Display) -> Response {
    let retry = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    let text = format!("{reason}\n");
    (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response()
}
