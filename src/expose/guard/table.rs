//! The table of connections, and the choice which to close.
//!
//! Connections and bodies in memory are limited. If all are in use, a new client takes the place of
//! the least active one. So clients that hold resources without using them cannot lock Prometheus
//! out, even if all come from one address (a proxy, `kubectl port-forward`, the exporter's own
//! host).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{watch, Notify};
use tokio::time::{timeout_at, Instant};

use super::{due, Limits, Phase};

/// A client that is reading its answer is not closed for this long after it last read: a third of
/// the send buffer at 50 kB/s, see [`super::Limits::stall`].
const SPARED: Duration = Duration::from_secs(2);

/// The open connections and their limit.
#[derive(Debug, Clone)]
pub(in crate::expose) struct Table(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    /// By a unique number.
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    next: AtomicU64,
}

/// The result for a new connection.
#[derive(Debug)]
pub(in crate::expose) enum Admission {
    /// The connection has a place until the seat is dropped.
    Seat(Seat),
    /// All connections are busy; try again soon.
    Later,
    /// The address already has its share of connections, all busy.
    Never,
}

/// A connection's place in the table; dropping it frees the place.
#[derive(Debug)]
pub(in crate::expose) struct Seat {
    table: Table,
    number: u64,
    client: Arc<Client>,
}

impl Seat {
    pub(in crate::expose) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.table.clients().remove(&self.number);
    }
}

/// The state of a connection that the table needs.
#[derive(Debug)]
pub(in crate::expose) struct Client {
    peer: IpAddr,
    phase: watch::Sender<Phase>,
    body: Mutex<Option<BodyId>>,
    out: Notify,
}

/// Identifies a body in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::expose) struct BodyId {
    pub(in crate::expose) kind: BodyKind,
    pub(in crate::expose) number: u64,
}

/// What a body is for. Each kind has its own slots, so neither displaces the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::expose) enum BodyKind {
    /// `/metrics`.
    Scrape,
    /// The page, and the view as JSON.
    Page,
}

impl Client {
    pub(in crate::expose) fn new(peer: IpAddr) -> Self {
        let begun = Instant::now();
        Self {
            peer: network(peer),
            phase: watch::Sender::new(Phase::Request { begun, bytes: 0 }),
            body: Mutex::default(),
            out: Notify::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Wakes [`Self::expires`] only if the phase changed, which polls the stream again.
    pub(super) fn set(&self, phase: Phase) {
        self.phase
            .send_if_modified(|own| std::mem::replace(own, phase) != phase);
    }

    /// Resolves when the limit of the current phase expires.
    pub(in crate::expose) async fn expires(&self, limits: &Limits) {
        let mut phase = self.phase.subscribe();
        loop {
            let due = due(*phase.borrow_and_update(), limits);
            if timeout_at(due, phase.changed()).await.is_err() {
                return;
            }
        }
    }

    fn body(&self) -> MutexGuard<'_, Option<BodyId>> {
        // Written as a whole, so ignore the poisoning.
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its request is complete and being processed.
    pub(in crate::expose) fn works(&self) {
        let begun = Instant::now();
        self.set(Phase::Work { begun });
    }

    /// Records the body that is being sent; `None` when it is done.
    pub(in crate::expose) fn takes(&self, body: Option<BodyId>) {
        *self.body() = body;
    }

    /// Resolves when the connection's place is needed.
    pub(in crate::expose) async fn is_out(&self) {
        self.out.notified().await;
    }

    /// How long the client has been expected to send a request; `None` while one is processed or
    /// answered.
    fn idle(&self, now: Instant) -> Option<Duration> {
        match self.phase() {
            Phase::Request { begun, .. } => Some(now.saturating_duration_since(begun)),
            Phase::Answer {
                progress,
                blocked: false,
                ..
            } => Some(now.saturating_duration_since(progress)),
            _ => None,
        }
    }

    /// How long the client has read nothing of its answer.
    fn stalled(&self, now: Instant) -> Duration {
        match self.phase() {
            Phase::Answer { progress, .. } => now.saturating_duration_since(progress),
            _ => Duration::ZERO,
        }
    }
}

impl Table {
    pub(in crate::expose) fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            clients: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        // Entries are inserted and removed as a whole, so ignore the poisoning.
        let clients = self.0.clients.lock();
        clients.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a new connection would displace another.
    pub(in crate::expose) fn is_full(&self) -> bool {
        self.clients().len() >= self.0.most
    }

    /// Admits a connection, if necessary in place of the least active one.
    pub(in crate::expose) fn admit(&self, peer: IpAddr) -> Admission {
        let mut clients = self.clients();
        let client = Arc::new(Client::new(peer));
        if clients.len() >= self.0.most {
            let of_peer = clients.values().filter(|c| c.peer == client.peer).count();
            // Leave a quarter to other addresses.
            let has_its_share = of_peer >= (self.0.most * 3 / 4).max(1) && self.0.most > 1;
            let own = has_its_share.then_some(client.peer);
            match (least_active(&clients, own, Instant::now()), has_its_share) {
                (Some(number), _) => throw_out(&mut clients, number),
                // If the address has all connections, waiting would delay only itself.
                (None, true) if of_peer < clients.len() => return Admission::Never,
                (None, _) => return Admission::Later,
            }
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        clients.insert(number, Arc::clone(&client));
        Admission::Seat(Seat {
            table: self.clone(),
            number,
            client,
        })
    }

    /// Closes the least active connection, unless all are busy, to free its descriptor.
    pub(in crate::expose) fn make_room(&self) {
        let mut clients = self.clients();
        if let Some(number) = least_active(&clients, None, Instant::now()) {
            throw_out(&mut clients, number);
        }
    }

    /// Frees one body: closes all clients of the body that has been unread for the longest time.
    /// Returns the number of clients closed.
    pub(in crate::expose) fn free_body(&self, kind: BodyKind) -> usize {
        let now = Instant::now();
        let mut clients = self.clients();
        let mut liveliest: BTreeMap<BodyId, Duration> = BTreeMap::new();
        for client in clients.values() {
            if let Some(body) = client.body().filter(|body| body.kind == kind) {
                let stalled = client.stalled(now);
                let least = liveliest.entry(body).or_insert(stalled);
                *least = stalled.min(*least);
            }
        }
        let Some((stuck, _)) = liveliest.into_iter().max_by_key(|(_, stalled)| *stalled) else {
            return 0;
        };
        let holders = clients.iter();
        let holders = holders.filter(|(_, client)| *client.body() == Some(stuck));
        let holders: Vec<u64> = holders.map(|(number, _)| *number).collect();
        for number in &holders {
            throw_out(&mut clients, *number);
        }
        holders.len()
    }
}

/// The connection to close, among all or those of one address: the one that has been idle for the
/// longest, of the address with the most connections; else one that does not read its answer.
fn least_active(
    clients: &BTreeMap<u64, Arc<Client>>,
    of: Option<IpAddr>,
    now: Instant,
) -> Option<u64> {
    let mut count: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for client in clients.values() {
        *count.entry(client.peer).or_default() += 1;
    }
    let all = || {
        let all = clients.iter();
        all.filter(|(_, client)| of.is_none_or(|of| of == client.peer))
    };
    let idle = all().filter_map(|(number, client)| {
        let idle = client.idle(now)?;
        Some((count.get(&client.peer), idle, *number))
    });
    let stalled = all().map(|(number, client)| (client.stalled(now), *number));
    let stalled = stalled.filter(|(stalled, _)| *stalled > SPARED);
    match idle.max() {
        Some((.., number)) => Some(number),
        None => stalled.max().map(|(_, number)| number),
    }
}

fn throw_out(clients: &mut BTreeMap<u64, Arc<Client>>, number: u64) {
    if let Some(client) = clients.remove(&number) {
        client.out.notify_one();
    }
}

/// One IPv6 client may have the 2^64 addresses of its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests;
