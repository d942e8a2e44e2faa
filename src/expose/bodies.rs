//! Large bodies in memory: a bounded number, each shared by all who ask for the same at about the
//! same time, and given back when the last of them has taken it.
//!
//! So memory is bounded by bodies and not by clients, and the CPU time of scrapes by the clock and
//! not by scrapers. A body that clients hold and do not take is taken away from them when its
//! place is needed ([`Table::free_body`]).

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use axum::body::{Body as AxumBody, Bytes};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::buffers::Buffer;
use super::guard::{BodyId, Client, Kind, Table};
use crate::snapshot::Snapshot;

/// Bodies of each kind in memory at a time. With the size of one, which `limits.max_series`
/// bounds, this bounds their memory.
const SCRAPES: usize = 8;
const PAGES: usize = 4;

/// Requests that wait for a page's place; further ones are sent away at once, for each takes a
/// connection from others.
const WAITING: usize = 16;

/// How long to wait for clients that were closed to give a place back, before more are.
const PATIENCE: Duration = Duration::from_millis(100);

/// A body is shared for this many times as long as it took to make, so that making it takes at most
/// an eleventh of a CPU however many ask...
const SHARED: u32 = 10;
/// ...and no longer than this: ages and the exporter's own counters are as old as the body.
const SHARED_AT_MOST: Duration = Duration::from_secs(1);

/// The places for bodies of one kind.
#[derive(Debug)]
pub(super) struct Places {
    kind: Kind,
    free: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    table: Table,
    next: AtomicU64,
}

/// A body in memory.
#[derive(Debug)]
pub(super) struct Body {
    id: BodyId,
    bytes: Buffer,
    _place: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(kind: Kind, table: Table) -> Self {
        let places = match kind {
            Kind::Scrape => SCRAPES,
            Kind::Page => PAGES,
        };
        Self {
            kind,
            free: Arc::new(Semaphore::new(places)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            table,
            next: AtomicU64::new(0),
        }
    }

    /// A place, if need be one that clients hold who take nothing. `None` where too many wait.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        let _waits = match self.kind {
            Kind::Scrape => None,
            Kind::Page => Some(self.waiting.try_acquire().ok()?),
        };
        loop {
            let place = Arc::clone(&self.free).acquire_owned();
            match tokio::time::timeout(PATIENCE, place).await {
                Ok(place) => return place.ok(),
                Err(_) => {
                    let closed = self.table.free_body(self.kind);
                    tracing::debug!(closed, kind = ?self.kind, "took a body from clients");
                }
            }
        }
    }

    /// A body at its place.
    pub(super) fn put(&self, bytes: Buffer, place: OwnedSemaphorePermit) -> Arc<Body> {
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

/// A body on its way to a client.
struct Taken {
    body: Arc<Body>,
    client: Arc<Client>,
}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        self.body.bytes.as_ref()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.client.takes(None);
    }
}

impl Body {
    /// The body of an answer to a client.
    pub(super) fn send(self: Arc<Self>, client: Arc<Client>) -> AxumBody {
        client.takes(Some(self.id));
        let body = self;
        AxumBody::from(Bytes::from_owner(Taken { body, client }))
    }
}

/// Which tick a body shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shows {
    tick: u64,
    taken: Instant,
}

/// The newest body of one form, for all who ask for that.
#[derive(Debug, Default)]
pub(super) struct Newest(Arc<Mutex<Option<Kept>>>);

#[derive(Debug)]
struct Kept {
    shows: Shows,
    until: Instant,
    body: Weak<Body>,
}

impl Newest {
    /// The body that shows this snapshot, made by `make` unless it has just been. Who comes while
    /// it is made waits for it. It is made to the end also where the client has left meanwhile.
    pub(super) async fn get<E: Send + 'static, F>(
        &self,
        snapshot: &Snapshot,
        make: impl FnOnce() -> F,
    ) -> Option<Result<Arc<Body>, E>>
    where
        F: Future<Output = Option<Result<Arc<Body>, E>>> + Send + 'static,
    {
        let shows = Shows {
            tick: snapshot.tick,
            taken: snapshot.taken_mono,
        };
        let kept = Arc::clone(&self.0).lock_owned().await;
        if let Some(body) = fresh(&kept, shows) {
            return Some(Ok(body));
        }
        let making = tokio::spawn(make_anew(kept, shows, make()));
        making.await.ok()?
    }
}

fn fresh(kept: &Option<Kept>, shows: Shows) -> Option<Arc<Body>> {
    let kept = kept.as_ref()?;
    let is_fresh = kept.shows == shows && Instant::now() < kept.until;
    is_fresh.then(|| kept.body.upgrade()).flatten()
}

async fn make_anew<E>(
    mut kept: OwnedMutexGuard<Option<Kept>>,
    shows: Shows,
    make: impl Future<Output = Option<Result<Arc<Body>, E>>>,
) -> Option<Result<Arc<Body>, E>> {
    *kept = None;
    let begun = Instant::now();
    let body = match make.await? {
        Ok(body) => body,
        Err(error) => return Some(Err(error)),
    };
    let now = Instant::now();
    let until = now + ((now - begun) * SHARED).min(SHARED_AT_MOST);
    *kept = Some(Kept {
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
