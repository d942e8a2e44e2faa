use super::*;
use axum::routing::get;
use axum::Router;
use std::io::{Read, Write};
use tokio::net::TcpListener;

use crate::expose::server;

const SHORT: Duration = Duration::from_millis(50);

/// Longer than any test takes unless a limit is not enforced.
const LONG: Duration = Duration::from_secs(600);

fn limits() -> Limits {
    Limits {
        connections: 16,
        request: LONG,
        answer: LONG,
        stall: LONG,
        idle: LONG,
        request_bytes: 1024,
        patience: LONG,
        grace: LONG,
    }
}

/// Runs a client against a server with these limits.
fn client<T: Send + 'static>(
    limits: Limits,
    does: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = || async { vec![b'x'; 64 << 20] };
        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/large", get(large));
        let table = Table::new(limits.connections);
        let never = std::future::pending();
        tokio::spawn(server::serve(listener, router, table, limits, never));
        let client = tokio::task::spawn_blocking(move || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            does(stream)
        });
        client.await.unwrap()
    })
}

/// Reads to the end. A reset is an end; a read timeout is not.
fn drain(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => panic!("never cut off"),
        _ => bytes,
    }
}

fn ask(stream: &mut std::net::TcpStream, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
}

#[test]
fn silence_and_half_a_request_are_cut_off() {
    let request = SHORT;
    let limits = Limits {
        request,
        ..limits()
    };
    assert!(client(limits, |mut stream| drain(&mut stream)).is_empty());
    let half = |mut stream: std::net::TcpStream| {
        stream.write_all(b"GET / HT").unwrap();
        drain(&mut stream)
    };
    assert!(!client(limits, half).starts_with(b"HTTP/1.1 200"));
}

#[test]
fn an_idle_connection_is_closed_after_its_answer() {
    let idle = SHORT;
    let answer = client(Limits { idle, ..limits() }, |mut stream| {
        ask(&mut stream, "/");
        drain(&mut stream)
    });
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"ok"));
}

#[test]
fn a_client_that_does_not_take_its_answer_is_cut_off() {
    for (answer, stall) in [(SHORT, LONG), (LONG, SHORT)] {
        let limits = Limits {
            answer,
            stall,
            ..limits()
        };
        let taken = client(limits, |mut stream| {
            ask(&mut stream, "/large");
            // After a reset, the kernel keeps nothing of the answer.
            let closed = rustix::event::PollFlags::HUP;
            let mut wait = [rustix::event::PollFd::new(&stream, closed)];
            rustix::event::poll(&mut wait, None).unwrap();
            drain(&mut stream).len()
        });
        assert!(taken < 64 << 20, "{taken} bytes");
    }
}

#[test]
fn http2_is_refused_with_a_message() {
    let answer = client(limits(), |mut stream| {
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .unwrap();
        String::from_utf8(drain(&mut stream)).unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nthis server speaks HTTP/1 only\n"));
}

#[test]
fn an_upgrade_to_http2_is_not_taken_up() {
    let answer = client(limits(), |mut stream| {
        let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
                       Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
        stream.write_all(upgrade.as_bytes()).unwrap();
        String::from_utf8(drain(&mut stream)).unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"));
}

#[test]
fn size_of_a_request_is_limited() {
    let answer = |padding: usize| {
        client(limits(), move |mut stream| {
            let padding = "a".repeat(padding);
            let request =
                format!("GET / HTTP/1.1\r\nHost: x\r\nX: {padding}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            drain(&mut stream)
        })
    };
    assert!(answer(900).starts_with(b"HTTP/1.1 200"));
    assert!(!answer(2000).starts_with(b"HTTP/1.1 200"));
}

/// A client is answered although `first` holds the only connection.
fn second(first: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) {
    let limits = Limits {
        connections: 1,
        ..limits()
    };
    client(limits, |mut stream| {
        first(&mut stream);
        let mut second = std::net::TcpStream::connect(stream.peer_addr().unwrap()).unwrap();
        second
            .set_read_timeout(stream.read_timeout().unwrap())
            .unwrap();
        ask(&mut second, "/");
        let mut first_bytes = [0; 12];
        second.read_exact(&mut first_bytes).unwrap();
        assert_eq!(&first_bytes, b"HTTP/1.1 200");
    });
}

#[test]
fn idle_connection_makes_room_if_all_are_in_use() {
    second(|stream| {
        ask(stream, "/");
        stream.read_exact(&mut [0; 12]).unwrap();
    });
}

#[test]
fn connection_without_request_makes_room_if_all_are_in_use() {
    second(|_| ());
    second(|stream| stream.write_all(b"GET / HT").unwrap());
    // Ends like a request, but is none.
    second(|stream| stream.write_all(b"\r\n\r\n").unwrap());
}

#[test]
fn stalled_answer_makes_room_if_all_are_in_use() {
    second(|stream| ask(stream, "/large"));
}

#[tokio::test]
async fn sending_does_not_set_back_the_clock_of_an_answer() {
    let begun = Instant::now();
    let answer = Phase::Answer {
        begun,
        progress: begun,
        blocked: true,
    };
    assert_eq!(
        due(after_read(answer, 10), &limits()),
        due(answer, &limits())
    );
    let work = Phase::Work { begun };
    assert_eq!(due(after_read(work, 10), &limits()), due(work, &limits()));
}
