use super::*;
use axum::routing::get;
use axum::Router;
use std::future::IntoFuture;
use std::io::{Read, Write};

const SHORT: Duration = Duration::from_millis(50);

/// Far longer than any test takes, unless what should be cut off is not.
const LONG: Duration = Duration::from_secs(600);

fn limits() -> Limits {
    Limits {
        connections: 16,
        request: LONG,
        answer: LONG,
        idle: LONG,
        hurry: LONG,
        request_bytes: 1024,
        patience: LONG,
        grace: LONG,
    }
}

/// What a client of a server with these limits does and sees.
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
        let guarded = Guarded::new(listener, limits, Slots::new(&limits));
        tokio::spawn(axum::serve(guarded, router).into_future());
        let client = tokio::task::spawn_blocking(move || {
            let stream = std::net::TcpStream::connect(address).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            does(stream)
        });
        client.await.unwrap()
    })
}

/// Reads to the end; a reset is an end too, a read that times out is none.
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
    let answer = SHORT;
    let limits = Limits {
        answer,
        connections: 1,
        ..limits()
    };
    let taken = client(limits, |mut stream| {
        ask(&mut stream, "/large");
        // The only connection there may be: a second is answered once the first is cut off.
        let second = std::net::TcpStream::connect(stream.peer_addr().unwrap());
        let mut second = second.unwrap();
        ask(&mut second, "/");
        let mut first_bytes = [0; 12];
        second.read_exact(&mut first_bytes).unwrap();
        assert_eq!(&first_bytes, b"HTTP/1.1 200");
        drain(&mut stream).len()
    });
    assert!(taken < 64 << 20, "{taken} bytes");
}

#[test]
fn a_request_may_be_so_large_and_no_larger() {
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

/// What a client sees that comes when `first` has taken the only connection there may be.
fn second(hurry: Duration, first: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) {
    let limits = Limits {
        hurry,
        connections: 1,
        ..limits()
    };
    client(limits, |mut stream| {
        first(&mut stream);
        let mut second = std::net::TcpStream::connect(stream.peer_addr().unwrap()).unwrap();
        ask(&mut second, "/");
        let mut first_bytes = [0; 12];
        second.read_exact(&mut first_bytes).unwrap();
        assert_eq!(&first_bytes, b"HTTP/1.1 200");
    });
}

#[test]
fn who_is_idle_makes_place_when_all_are_taken() {
    second(SHORT, |stream| {
        ask(stream, "/");
        stream.read_exact(&mut [0; 12]).unwrap();
    });
}

#[test]
fn who_dawdles_makes_place_when_all_are_taken() {
    second(SHORT, |_| ());
    second(SHORT, |stream| stream.write_all(b"GET / HT").unwrap());
}

#[tokio::test]
async fn who_keeps_nobody_waiting_need_not_hurry() {
    let limits = Limits {
        hurry: SHORT,
        connections: 1,
        ..limits()
    };
    let slots = Slots::new(&limits);
    let mut connection = Connection::new((), None, slots.clone(), limits);
    let start = Instant::now();
    let patient = |connection: &Connection<()>| connection.due().0 > start + LONG / 2;
    assert!(patient(&connection), "there is room");
    let _last = slots.take().await;
    assert!(!patient(&connection), "its request has not arrived");
    connection.has_read(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(patient(&connection), "its request is worked on");
    connection.has_written(false);
    assert!(!patient(&connection), "it is idle");
    connection.has_written(true);
    assert!(patient(&connection), "it takes its answer");
}
