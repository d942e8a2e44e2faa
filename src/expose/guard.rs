//! Limits on connections: time for a request and its answer, idle time, and size of a request.
//!
//! [`Table`] chooses which connection is closed to make room for another. hyper limits only the
//! arrival of headers, so the stream that hyper reads and writes enforces the other times. It sees
//! only bytes, which is enough for HTTP/1: bytes that arrive while no answer is pending belong to a
//! request. HTTP/2 is refused, because its streams and windows would need limits of their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

mod table;

pub(super) use table::{Admission, BodyId, Client, Kind, Seat, Table};

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
#[derive(Debug, Clone, Copy)]
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

/// A stream that returns an error when a limit is exceeded.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    limits: Limits,
    client: Arc<Client>,
    alarm: Pin<Box<Sleep>>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, client: Arc<Client>, limits: Limits) -> Self {
        Self {
            stream,
            limits,
            client,
            alarm: Box::pin(tokio::time::sleep(limits.request)),
        }
    }

    /// Pending until the current limit expires.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            let (due, what) = due(self.client.phase(), &self.limits);
            if due <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
            }
            if self.alarm.is_elapsed() || self.alarm.deadline() != due {
                self.alarm.as_mut().reset(due);
            }
            ready!(self.alarm.as_mut().poll(cx));
        }
    }

    /// Records received bytes.
    fn has_read(&mut self, read: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let phase = after_read(self.client.phase(), read.len());
        self.client.set(phase);
        match phase {
            Phase::Request { bytes, .. } if bytes > self.limits.request_bytes => {
                wrong("the request exceeds the size limit")
            }
            Phase::Request { bytes, .. } if bytes == read.len() && read.starts_with(HTTP2) => {
                // Best effort: the connection is closed in any case.
                let _ = Pin::new(&mut self.stream).poll_write(cx, HTTP2_REFUSED);
                wrong("HTTP/2 is not supported")
            }
            _ => Ok(()),
        }
    }

    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.client
            .set(after_write(self.client.phase(), result.is_pending()));
        // Also after a completed write: hyper does not read again until the socket wakes it, so the
        // idle timer must be set now.
        match (result, self.wait(cx)) {
            (Poll::Pending, waited) => waited,
            (done, _) => done,
        }
    }
}

/// When the current limit expires, and its name.
fn due(phase: Phase, limits: &Limits) -> (Instant, &'static str) {
    match phase {
        Phase::Request { begun, .. } => (
            begun + limits.request,
            "timeout while receiving the request",
        ),
        Phase::Work { begun } => (
            begun + limits.request,
            "timeout while processing the request",
        ),
        Phase::Answer {
            begun,
            progress,
            blocked: true,
        } => (
            (begun + limits.answer).min(progress + limits.stall),
            "timeout while the client read the answer",
        ),
        Phase::Answer { progress, .. } => (progress + limits.idle, "the connection was idle"),
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
            Poll::Pending => self.wait(cx),
            Poll::Ready(Ok(())) => match buf.filled().get(before..).unwrap_or_default() {
                [] => Poll::Ready(Ok(())), // the end of the stream
                read => Poll::Ready(self.has_read(read, cx)),
            },
            failed => failed,
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
