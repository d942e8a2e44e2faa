//! Connections with limits: how long a request may take to arrive and its answer to leave, how long
//! a connection may be idle, how large a request may be.
//!
//! Nobody keeps a place that others need: [`Table`] says who makes room. hyper offers a limit for
//! the arrival of headers alone, so the stream that it reads and writes watches the clock here. A
//! stream sees bytes only, which is enough for HTTP/1: bytes read while nothing is being answered
//! are a request. HTTP/2 is refused; its streams and windows would need limits of their own.

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

/// What a connection may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections open at a time; a further one takes the place of the least active.
    pub(super) connections: usize,
    /// From a request's first byte (or the connection's start) to the answer's first byte.
    pub(super) request: Duration,
    /// From an answer's first byte to its last.
    pub(super) answer: Duration,
    /// In which a client takes nothing of an answer that waits for it.
    pub(super) stall: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
    /// Bytes of a request before its answer begins.
    pub(super) request_bytes: usize,
    /// For a request to get its turn and to be worked on; less than `request`.
    pub(super) patience: Duration,
    /// For open requests to end once the server is asked to stop.
    pub(super) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            request: Duration::from_secs(15),
            // The longest scrape timeout in use: a minute's interval, all of it.
            answer: Duration::from_secs(60),
            // The kernel asks for more once a third of the send buffer is free (sk_stream_is_writeable):
            // a line of 20 kB/s, which takes a minute for a megabyte, gets there in 5 s.
            stall: Duration::from_secs(5),
            // Longer than a scrape interval of a minute, so that Prometheus can stay connected.
            idle: Duration::from_secs(90),
            request_bytes: 32 * 1024,
            // Prometheus stops waiting after 10 s by default.
            patience: Duration::from_secs(10),
            // Well within the 90 s systemd gives a service, and the 30 s Kubernetes gives a pod.
            grace: Duration::from_secs(2),
        }
    }
}

/// Where a connection is in HTTP/1's give and take.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A request is awaited or arrives.
    Request { begun: Instant, bytes: usize },
    /// It is worked on.
    Work { begun: Instant },
    /// An answer leaves (`blocked`: the client has to take some of it first), or has left.
    Answer {
        begun: Instant,
        progress: Instant,
        blocked: bool,
    },
}

/// The beginning of HTTP/2's preface (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

const HTTP2_REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 31\r\n\
    Connection: close\r\n\r\n\
    this server speaks HTTP/1 only\n";

/// A stream that fails once it oversteps a limit.
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

    /// Pending until patience ends.
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

    /// Notes bytes read.
    fn has_read(&mut self, read: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let phase = after_read(self.client.phase(), read.len());
        self.client.set(phase);
        match phase {
            Phase::Request { bytes, .. } if bytes > self.limits.request_bytes => {
                wrong("the request is larger than any this server answers")
            }
            Phase::Request { bytes, .. } if bytes == read.len() && read.starts_with(HTTP2) => {
                // Whether it arrives or not, the connection is closed.
                let _ = Pin::new(&mut self.stream).poll_write(cx, HTTP2_REFUSED);
                wrong("HTTP/2 without having been offered it")
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
        // Also after a write that went through: hyper does not read again before the socket
        // wakes it, so that this is the last chance to set the alarm of an idle connection.
        match (result, self.wait(cx)) {
            (Poll::Pending, waited) => waited,
            (done, _) => done,
        }
    }
}

/// When patience ends, and what it was waiting for.
fn due(phase: Phase, limits: &Limits) -> (Instant, &'static str) {
    match phase {
        Phase::Request { begun, .. } => (
            begun + limits.request,
            "the request took too long to arrive",
        ),
        Phase::Work { begun } => (begun + limits.request, "the answer took too long to begin"),
        Phase::Answer {
            begun,
            progress,
            blocked: true,
        } => (
            (begun + limits.answer).min(progress + limits.stall),
            "the client took too long to take its answer",
        ),
        Phase::Answer { progress, .. } => (progress + limits.idle, "the connection was idle"),
    }
}

/// Bytes read begin or continue a request, except while another is worked on or answered: a client
/// must not set back the clock of an answer by sending.
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

/// The first write after a request begins its answer.
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
        // What the client does not take would stay in the kernel for minutes after the end.
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
