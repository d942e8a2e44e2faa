//! Connections with limits: how many, how long a request may take to arrive and its answer to
//! leave, how long a connection may be idle, how large a request may be.
//!
//! When all connections are taken, those that keep others waiting have to hurry: who is idle or has
//! not finished its request loses its place within seconds, and an answer is the connection's
//! last ([`Slots::are_all_taken`]). So whoever opens connections and holds them delays Prometheus
//! by seconds and cannot shut it out.
//!
//! `axum::serve` offers none of these (hyper's own header timeout needs a timer that it does not
//! set), but it takes any listener: ours hands out streams that watch the clock. A stream sees
//! bytes only, which is enough for HTTP/1: what is read before anything is written is a request,
//! what is read after it begins the next one.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// What a connection may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections open at a time; further ones wait in the kernel's queue.
    pub(super) connections: usize,
    /// From a request's first byte (or the connection's start) to the answer's first byte.
    pub(super) request: Duration,
    /// From an answer's first byte to its last.
    pub(super) answer: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
    /// Instead of `request` (while it arrives) and `idle`, when all connections are taken.
    pub(super) hurry: Duration,
    /// Bytes of a request before its answer begins.
    pub(super) request_bytes: usize,
    /// For a request to get its turn, twice (an answer's place, a worker); together less than
    /// `request`.
    pub(super) patience: Duration,
    /// For open requests to end once the server is asked to stop.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            request: Duration::from_secs(15),
            // A scrape of 25 MB at 1 MB/s, and Prometheus gives up after 10 s by default.
            answer: Duration::from_secs(30),
            // Longer than a scrape interval of a minute, so that Prometheus can stay connected.
            idle: Duration::from_secs(90),
            // Ten times what a request across a slow line takes.
            hurry: Duration::from_secs(2),
            request_bytes: 32 * 1024,
            // Prometheus gives up after 10 s by default.
            patience: Duration::from_secs(5),
            // Well within the 90 s systemd gives a service, and the 30 s Kubernetes gives a pod.
            grace: Duration::from_secs(5),
        }
    }
}

/// The connections there may be at a time.
#[derive(Debug, Clone)]
pub(super) struct Slots(Arc<Semaphore>);

impl Slots {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Semaphore::new(limits.connections)))
    }

    /// Whether a further client would have to wait.
    pub(super) fn are_all_taken(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// Waits for a slot; the semaphore is never closed, and without it there would be none to hold.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// A listener whose connections are held to limits.
#[derive(Debug)]
pub(super) struct Guarded {
    listener: TcpListener,
    slots: Slots,
    limits: Limits,
}

impl Guarded {
    pub(super) fn new(listener: TcpListener, limits: Limits, slots: Slots) -> Self {
        Self {
            listener,
            slots,
            limits,
        }
    }
}

impl Listener for Guarded {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let slot = self.slots.take().await;
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without it a small answer may wait for an acknowledgement; it still arrives.
        let _ = stream.set_nodelay(true);
        let connection = Connection::new(stream, slot, self.slots.clone(), self.limits);
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Where a connection is in HTTP/1's give and take.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A request arrives or, once complete, is worked on.
    Request {
        begun: Instant,
        bytes: usize,
        complete: bool,
    },
    /// An answer leaves, or has left.
    Answer {
        begun: Instant,
        progress: Instant,
        blocked: bool,
    },
}

/// A stream that fails once it oversteps a limit.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    limits: Limits,
    phase: Phase,
    alarm: Pin<Box<Sleep>>,
    slots: Slots,
    _slot: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, slot: Option<OwnedSemaphorePermit>, slots: Slots, limits: Limits) -> Self {
        let phase = Phase::Request {
            begun: Instant::now(),
            bytes: 0,
            complete: false,
        };
        Self {
            stream,
            limits,
            phase,
            alarm: Box::pin(tokio::time::sleep(limits.hurry)),
            slots,
            _slot: slot,
        }
    }

    /// When patience ends, and what it was waiting for.
    fn due(&self) -> (Instant, &'static str) {
        match self.phase {
            Phase::Request {
                begun, complete, ..
            } => {
                let limit = self.hurried(self.limits.request, !complete);
                (begun + limit, "the request took too long to arrive")
            }
            Phase::Answer {
                begun,
                blocked: true,
                ..
            } => (
                begun + self.limits.answer,
                "the client took too long to take its answer",
            ),
            Phase::Answer { progress, .. } => {
                let limit = self.hurried(self.limits.idle, true);
                (progress + limit, "the connection was idle")
            }
        }
    }

    /// The limit, or less where the client keeps others waiting.
    fn hurried(&self, limit: Duration, waits_for_client: bool) -> Duration {
        if waits_for_client && self.slots.are_all_taken() {
            limit.min(self.limits.hurry)
        } else {
            limit
        }
    }

    /// Pending until patience ends. Looks again every `hurry`: others may have come to wait.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            let (due, what) = self.due();
            let now = Instant::now();
            if due <= now {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            let look = due.min(now + self.limits.hurry);
            if self.alarm.is_elapsed() || self.alarm.deadline() > look {
                self.alarm.as_mut().reset(look);
            }
            ready!(self.alarm.as_mut().poll(cx));
        }
    }

    /// Notes bytes read: the first after an answer begin the next request. Whether they complete it
    /// is a guess (a head may end in a later read), and only makes the client hurry for nothing.
    fn has_read(&mut self, read: &[u8]) -> io::Result<()> {
        let (begun, before) = match self.phase {
            Phase::Request { begun, bytes, .. } => (begun, bytes),
            Phase::Answer { .. } => (Instant::now(), 0),
        };
        let bytes = before.saturating_add(read.len());
        let complete = read.ends_with(b"\n\r\n") || read.ends_with(b"\n\n");
        self.phase = Phase::Request {
            begun,
            bytes,
            complete,
        };
        if bytes > self.limits.request_bytes {
            let what = "the request is larger than any this server answers";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }

    /// Notes that a write was tried: the first after a request begins its answer.
    fn has_written(&mut self, blocked: bool) {
        let now = Instant::now();
        let (begun, progress) = match self.phase {
            Phase::Request { .. } => (now, now),
            Phase::Answer {
                begun, progress, ..
            } => (begun, if blocked { progress } else { now }),
        };
        self.phase = Phase::Answer {
            begun,
            progress,
            blocked,
        };
    }

    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.has_written(result.is_pending());
        // Also after a write that went through: hyper does not read again before the socket
        // wakes it, so that this is the last chance to set the alarm of an idle connection.
        match (result, self.wait(cx)) {
            (Poll::Pending, waited) => waited,
            (done, _) => done,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Ok(())) => match buf.filled().get(before..).unwrap_or_default() {
                [] => Poll::Ready(Ok(())), // the end of the stream
                read => Poll::Ready(self.has_read(read)),
            },
            failed => failed,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
