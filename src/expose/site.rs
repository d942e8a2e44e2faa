//! State that all handlers share.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::Registry;
use axum::http::header::{self, HeaderValue};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::bodies::{Newest, Places};
use super::buffers::Pool;
use super::guard::{BodyKind, Table};
use crate::snapshot;
use crate::telemetry::{Hang, Telemetry};

/// The exporter's part of the shared state.
#[derive(Debug)]
pub struct App {
    /// The sampler publishes snapshots here.
    pub snapshots: snapshot::Handle,
    /// Metrics of the exporter itself, to count requests.
    pub telemetry: Telemetry,
    /// The registry of these metrics, to encode them.
    pub registry: Registry,
    /// Age from which the latest snapshot counts as stale.
    pub max_age: Duration,
}

impl App {
    /// Age of the latest sample; an error if it is stale or a thread hangs.
    pub(super) fn readiness(&self, now: Instant) -> Result<Duration, NotReady> {
        let newest = self.snapshots.load().ok_or(NotReady::NoSample)?;
        let age = now.saturating_duration_since(newest.taken_mono);
        let max_age = self.max_age;
        if age > max_age {
            return Err(NotReady::Stale { age, max_age });
        }
        match self.telemetry.heartbeats.vital_hang(now) {
            Some(hang) => Err(NotReady::Hangs(hang)),
            None => Ok(age),
        }
    }
}

/// Why the exporter is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    #[error("the sampler has not finished its first tick")]
    NoSample,
    #[error(
        "the newest sample is {:.1} s old (limit {:.1} s): the sampler hangs or is overloaded; \
         see the log of the exporter",
        age.as_secs_f64(),
        max_age.as_secs_f64()
    )]
    Stale { age: Duration, max_age: Duration },
    #[error("{0}: new and stopped VMs are not detected; see the log of the exporter")]
    Hangs(Hang),
}

/// The exporter's and the server's shared state.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) app: Arc<App>,
    /// How long a request may wait before it gets 503.
    pub(super) patience: Duration,
    pub(super) table: Table,
    pub(super) scrapes: Scrapes,
    pub(super) pages: Pages,
}

/// State that scrapes share.
#[derive(Debug)]
pub(super) struct Scrapes {
    pub(super) places: Places,
    /// By format and compression.
    pub(super) newest: [Newest; 4],
    pub(super) texts: Arc<Pool>,
    pub(super) gzipped: Arc<Pool>,
}

/// State that page requests share; separate, so that they do not delay scrapes.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) places: Places,
    pub(super) view: Newest,
}

impl Site {
    /// # Errors
    /// If a thread cannot be started.
    pub(super) fn new(app: Arc<App>, patience: Duration, table: Table) -> io::Result<Self> {
        Ok(Self {
            app,
            patience,
            scrapes: Scrapes {
                places: Places::new(BodyKind::Scrape, table.clone())?,
                newest: Default::default(),
                texts: Arc::default(),
                gzipped: Arc::default(),
            },
            pages: Pages {
                places: Places::new(BodyKind::Page, table.clone())?,
                view: Newest::default(),
            },
            table,
        })
    }
}

/// 503 with `Retry-After: 1`.
pub(super) fn unavailable(reason: &dyn fmt::Display) -> Response {
    let retry = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    let text = format!("{reason}\n");
    (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response()
}
