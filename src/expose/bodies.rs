//! Large response bodies in memory: a bounded number, each shared by all clients that ask for the
//! same body at about the same time, and freed when the last client has received it.
//!
//! So the number of bodies, not the number of clients, bounds memory, and the age of a body bounds
//! the CPU time of scrapes. A body that its clients do not read is dropped when its slot is needed
//! ([`Table::free_body`]).

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::body::{Body as AxumBody, Bytes};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::buffers::Buffer;
use super::guard::{BodyId, BodyKind, Client, Table};
use super::workers::Worker;
use crate::snapshot::Snapshot;

/// Most bodies of each kind in memory. `limits.max_series` bounds the size of one.
const SCRAPES: usize = 8;
const PAGES: usize = 4;

/// Most requests that wait for the slot of a page. Further ones are refused immediately, because
/// each holds a connection.
const WAITING: usize = 16;

/// How long closed clients have to release a body before more clients are closed.
const PATIENCE: Duration = Duration::from_millis(100);

/// A body is shared for this many times as long as encoding it took, so encoding uses at most 1/11
/// of a CPU, whatever the number of clients ...
const SHARED: u32 = 10;
/// ... but not longer than this: ages and the exporter's own counters are as old as the body.
const SHARED_AT_MOST: Duration = Duration::from_secs(1);

/// The slots for bodies of one kind, and the thread that makes these bodies.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) worker: Worker,
    kind: BodyKind,
    free: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    table: Table,
    next: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Body {
    id: BodyId,
    bytes: Buffer,
    _place: OwnedSemaphorePermit,
}

/// A new body, or why there is none; `None` if too many requests wait or making it panicked.
pub(super) type Made = Option<Result<Arc<Body>, String>>;

impl Places {
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn new(kind: BodyKind, table: Table) -> io::Result<Self> {
        let (places, worker) = match kind {
            BodyKind::Scrape => (SCRAPES, Worker::start("scrapes", 0)?),
            // Pages are not shared: each request may have another state.
            BodyKind::Page => (PAGES, Worker::start("pages", 1)?),
        };
        Ok(Self {
            worker,
            kind,
            free: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            table,
            next: AtomicU64::new(0),
        })
    }

    /// Makes a body on the worker thread when a slot is free.
    pub(super) async fn make<B: Into<Buffer> + Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<B, String> + Send + 'static,
    ) -> Made {
        let place = self.take().await?;
        let bytes = self.worker.run(job).await?;
        Some(bytes.map(|bytes| self.put(bytes.into(), place)))
    }

    /// Takes a slot; if none is free, drops a body that its clients do not read. `None` if too many
    /// requests wait.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        let _waits = match self.kind {
            BodyKind::Scrape => None,
            BodyKind::Page => Some(self.waiting.try_acquire().ok()?),
        };
        loop {
            let place = Arc::clone(&self.free).acquire_owned();
            match tokio::time::timeout(PATIENCE, place).await {
                Ok(place) => return place.ok(),
                Err(_) => {
                    let closed = self.table.free_body(self.kind);
                    tracing::debug!(closed, kind = ?self.kind, "dropped a body that its clients did not read");
                }
            }
        }
    }

    /// Stores a body in its slot.
    fn put(&self, bytes: Buffer, place: OwnedSemaphorePermit) -> Arc<Body> {
        Arc::new(Body {
            id: BodyId {
                kind: self.kind,
                number: self.next.fetch_add(1, Ordering::Relaxed),
            },
            bytes,
            _place: place,
        })
    }
}

/// A body that is being sent to a client.
struct Taken {
    body: Arc<Body>,
    client: Arc<Client>,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        &self.body.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.client.takes(None);
    }
}

impl Body {
    /// The response body for a client.
    pub(super) fn send(self: Arc<Self>, client: Arc<Client>) -> AxumBody {
        client.takes(Some(self.id));
        let body = self;
        AxumBody::from(Bytes::from_owner(Taken { body, client }))
    }
}

/// The tick that a body contains: its number and time.
type Shows = (u64, Instant);

/// The latest body in one format, shared by the clients that ask for it.
#[derive(Debug, Default)]
pub(super) struct Newest(Arc<Mutex<Option<NewestBody>>>);

#[derive(Debug)]
struct NewestBody {
    shows: Shows,
    until: Instant,
    body: Weak<Body>,
}

impl Newest {
    /// The body for this snapshot: the stored one if it is fresh, else the result of `make`.
    /// Clients that ask meanwhile wait for it. `make` completes even if its client disconnects.
    pub(super) async fn get<F: Future<Output = Made> + Send + 'static>(
        &self,
        snapshot: &Snapshot,
        make: impl FnOnce() -> F,
    ) -> Made {
        let shows = (snapshot.tick, snapshot.taken_mono);
        let kept = Arc::clone(&self.0).lock_owned().await;
        if let Some(body) = fresh(&kept, shows) {
            return Some(Ok(body));
        }
        let making = tokio::spawn(make_again(kept, shows, make()));
        making.await.ok()?
    }
}

fn fresh(kept: &Option<NewestBody>, shows: Shows) -> Option<Arc<Body>> {
    let kept = kept.as_ref()?;
    let is_fresh = kept.shows == shows && Instant::now() < kept.until;
    is_fresh.then(|| kept.body.upgrade()).flatten()
}

async fn make_again(
    mut kept: OwnedMutexGuard<Option<NewestBody>>,
    shows: Shows,
    make: impl Future<Output = Made>,
) -> Made {
    *kept = None;
    let begun = Instant::now();
    let body = match make.await? {
        Ok(body) => body,
        Err(error) => return Some(Err(error)),
    };
    let now = Instant::now();
    let until = now + ((now - begun) * SHARED).min(SHARED_AT_MOST);
    *kept = Some(NewestBody {
        shows,
        until,
        body: Arc::downgrade(&body),
    });
    let shared = Arc::clone(&body);
    tokio::spawn(async move {
        tokio::time::sleep_until(until.into()).await;
        drop(shared);
    });
    Some(Ok(body))
}
