//! Accepts connections and serves HTTP/1 on each, within the limits of [`Guard`](super::guard).
//!
//! All of this runs on one thread; [`workers`](super::workers) do the slow work.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{service_fn, Service};
use hyper::Request;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::guard::{Admission, Connection, Limits, Seat, Table};

/// Connections that the kernel queues until they are accepted, bounded by `net.core.somaxconn`
/// (4096 since Linux 5.4). The standard library's 128 is too few for a thousand clients.
const BACKLOG: i32 = 4096;

/// Bytes of an answer in the kernel, which doubles the value (`SO_SNDBUF`). A connection with a
/// round trip of 50 ms still gets 2.5 MB/s, and 256 clients that read nothing hold 64 MiB instead
/// of the 1 GiB of `tcp_wmem`.
const SEND_BUFFER: usize = 128 * 1024;

/// Bytes of requests in the kernel; [`Limits::request_bytes`] of them are read.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Time for a client to acknowledge sent data, also after the connection was closed.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Delay before another attempt if there is no place or descriptor.
const PAUSE: Duration = Duration::from_millis(20);

/// hyper's minimum for its buffer.
const LEAST_BUFFER: usize = 8 * 1024;

/// Most headers of a request; browsers and proxies send up to 40.
const HEADERS: usize = 100;

/// Serves until `stop` resolves, then gives open requests `grace` to finish.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    table: Table,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    tune(&listener);
    let (stop_connections, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let accepting = async {
        loop {
            let (stream, seat) = next(&listener, &table).await;
            // Remove finished tasks.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(serve_one(
                stream,
                seat,
                router.clone(),
                limits,
                stopping.clone(),
            ));
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    drop(listener);
    // There is no receiver without a connection.
    let _ = stop_connections.send(true);
    let all = async { while tasks.join_next().await.is_some() {} };
    // Close the remaining connections.
    let _ = tokio::time::timeout(limits.grace, all).await;
}

/// Sets socket options, which accepted sockets inherit. They do not fail on a TCP socket; if one
/// does, the server works without it.
fn tune(listener: &TcpListener) {
    use rustix::net::sockopt;
    let user_timeout = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    let tuned = sockopt::set_socket_send_buffer_size(listener, SEND_BUFFER)
        .and_then(|()| sockopt::set_socket_recv_buffer_size(listener, RECEIVE_BUFFER))
        .and_then(|()| sockopt::set_tcp_user_timeout(listener, user_timeout))
        .and_then(|()| rustix::net::listen(listener, BACKLOG));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune the listening socket");
    }
}

/// The next connection that was admitted.
async fn next(listener: &TcpListener, table: &Table) -> (TcpStream, Seat) {
    loop {
        let (stream, peer) = accept(listener, table).await;
        if let Some(seat) = admit(table, peer).await {
            // Otherwise a small answer may wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            return (stream, seat);
        }
    }
}

async fn accept(listener: &TcpListener, table: &Table) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // EMFILE, ENFILE, ENOBUFS, ENOMEM: closing an idle client frees a descriptor.
                tracing::debug!(%error, "cannot accept a connection");
                table.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Waits for a place; `None` if the client's address has its share.
async fn admit(table: &Table, peer: SocketAddr) -> Option<Seat> {
    loop {
        match table.admit(peer.ip()) {
            Admission::Seat(seat) => return Some(seat),
            Admission::Never => return None,
            Admission::Later => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Serves one connection until it ends, a limit expires, its place is needed, or the server stops.
async fn serve_one(
    stream: TcpStream,
    seat: Seat,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let client = Arc::clone(seat.client());
    let stream = Connection {
        stream,
        client: Arc::clone(&client),
        request_bytes: limits.request_bytes,
    };
    let router = TowerToHyperService::new(router);
    let asked = Arc::clone(&client);
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.works();
        request.extensions_mut().insert(Arc::clone(&asked));
        let answer = router.call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http1::Builder::new();
    http.half_close(false)
        .max_headers(HEADERS)
        .max_buf_size(limits.request_bytes.max(LEAST_BUFFER));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        () = client.is_out() => return,
        () = client.expires(&limits) => {
            return tracing::trace!(error = "a limit expired", "a connection ended");
        }
        // The sender is dropped only when the server has stopped.
        _ = stopping.wait_for(|over| *over) => {}
    }
    connection.as_mut().graceful_shutdown();
    log(connection.await);
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended");
    }
}
