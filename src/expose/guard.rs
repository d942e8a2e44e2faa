//! Limits on connections: time for a request and its answer, idle time, and size of a request.
//!
//! [`Table`] chooses which connection is closed to make room for another. Libraries do neither:
//! - hyper has one timer (`header_read_timeout`), which also runs while the connection is idle, so
//!   a request and idling would share one limit. It has no timer for answers: a client that reads
//!   nothing would keep its connection and body forever.
//! - A semaphore makes new connections wait for old ones: idle clients would lock out Prometheus.
//!
//! Therefore the stream that hyper reads and writes records the phase of its connection. It sees
//! only bytes, which is enough for HTTP/1: bytes that arrive while no answer is pending belong to a
//! request. HTTP/2 is refused, because its streams and windows would need limits of their own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

mod table;

pub(super) use table::{Admission, BodyId, BodyKind, Client, Seat, Table};

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most open connections; a further one closes the least active.
    pub(super) connections: usize,
    /// Most time from a request's first byte (or the connection's start) to the answer's first
    /// byte.
    pub(super) request: Duration,
    /// Most time from the first to the last byte of an answer.
    pub(super) answer: Duration,
    /// Most time in which a client reads nothing of a pending answer.
    pub(super) stall: Duration,
    /// Most time between an answer and the next request.
    pub(super) idle: Duration,
    /// Most bytes of a request before its answer starts.
    pub(super) request_bytes: usize,
    /// Most time for a request to wait and be processed; less than `request`.
    pub(super) patience: Duration,
    /// Time for open requests to finish after the server is asked to stop.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            request: Duration::from_secs(15),
            // The longest scrape timeout in use: a scrape interval of 1 min.
            answer: Duration::from_secs(60),
            // The kernel reports a writable socket when a third of the send buffer is free
            // (sk_stream_is_writeable). At 20 kB/s, which takes a minute for a megabyte, this takes
            // less than 5 s.
            stall: Duration::from_secs(5),
            // Longer than a scrape interval of 1 min, so that Prometheus can keep its connection.
            idle: Duration::from_secs(90),
            request_bytes: 32 * 1024,
            // Prometheus' default scrape timeout.
            patience: Duration::from_secs(10),
            // Well below the 90 s that systemd gives a service and the 30 s that Kubernetes gives a
            // pod.
            grace: Duration::from_secs(2),
        }
    }
}

/// The state of an HTTP/1 connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a request, or receiving it.
    Request { begun: Instant, bytes: usize },
    /// Processing the request.
    Work { begun: Instant },
    /// Sending the answer (`blocked`: the socket buffer is full), or done with it.
    Answer {
        begun: Instant,
        progress: Instant,
        blocked: bool,
    },
}

/// First bytes of HTTP/2's preface (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

const HTTP2_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 31\r\n\
    Connection: close\r\n\r\n\
    this server speaks HTTP/1 only\n";

/// A stream that records the phase of its connection, and ends with a request that is too large.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) client: Arc<Client>,
    pub(super) request_bytes: usize,
}

impl Connection {
    /// Records received bytes.
    fn has_read(&mut self, read: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let phase = after_read(self.client.phase(), read.len());
        self.client.set(phase);
        match phase {
            Phase::Request { bytes, .. } if bytes > self.request_bytes => {
                Err(io::ErrorKind::InvalidData.into())
            }
            Phase::Request { bytes, .. } if bytes == read.len() && read.starts_with(HTTP2) => {
                // Best effort: the connection is closed in any case.
                let _ = Pin::new(&mut self.stream).poll_write(cx, HTTP2_REFUSED);
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(()),
        }
    }

    fn after_write<T>(&mut self, result: Poll<T>) -> Poll<T> {
        let phase = after_write(self.client.phase(), result.is_pending());
        self.client.set(phase);
        result
    }
}

/// When the limit of this phase expires.
fn due(phase: Phase, limits: &Limits) -> Instant {
    match phase {
        Phase::Request { begun, .. } | Phase::Work { begun } => begun + limits.request,
        Phase::Answer {
            begun,
            progress,
            blocked: true,
        } => (begun + limits.answer).min(progress + limits.stall),
        Phase::Answer { progress, .. } => progress + limits.idle,
    }
}

/// Received bytes start or continue a request, unless one is being processed or answered: a client
/// must not reset the timeout of an answer by sending bytes.
fn after_read(phase: Phase, read: usize) -> Phase {
    match phase {
        Phase::Request { begun, bytes } => Phase::Request {
            begun,
            bytes: bytes.saturating_add(read),
        },
        Phase::Answer { blocked: false, .. } => Phase::Request {
            begun: Instant::now(),
            bytes: read,
        },
        worked_on_or_answered => worked_on_or_answered,
    }
}

/// The first write after a request starts its answer.
fn after_write(phase: Phase, blocked: bool) -> Phase {
    let now = Instant::now();
    let (begun, progress) = match phase {
        Phase::Request { .. } | Phase::Work { .. } => (now, now),
        Phase::Answer {
            begun, progress, ..
        } => (begun, if blocked { progress } else { now }),
    };
    Phase::Answer {
        begun,
        progress,
        blocked,
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // After close, the kernel would keep unread data for minutes.
        if matches!(self.client.phase(), Phase::Answer { blocked: true, .. }) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => match buf.filled().get(before..).unwrap_or_default() {
                [] => Poll::Ready(Ok(())), // the end of the stream
                read => Poll::Ready(self.has_read(read, cx)),
            },
            pending_or_failed => pending_or_failed,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(result)
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
