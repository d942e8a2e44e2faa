//! Clients that hold shared resources: scrapes every second are answered nevertheless.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vcpu_exporter::expose::{serve, App};
use vcpu_exporter::snapshot::Handle;
use vcpu_exporter::telemetry::Telemetry;

use crate::support::snapshots::Host;

/// vCPUs of an exposition that fills the buffers of many sockets.
const VCPUS: usize = 2000;

/// Scrapes during each kind of attack; each sees its own snapshot.
const SCRAPES: usize = 10;

/// A longer scrape fails: this is Prometheus's default timeout.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that publishes on request.
struct Server {
    address: SocketAddr,
    app: Arc<App>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn start() -> Self {
        let (telemetry, registry) = Telemetry::new();
        let app = Arc::new(App {
            snapshots: Handle::default(),
            telemetry,
            registry,
            max_age: Duration::from_secs(3600),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, address) = std::sync::mpsc::channel();
        let site = Arc::clone(&app);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stopped = async { drop(stopped.await) };
                serve(listener, site, stopped).await.unwrap();
            });
        });
        let server = Self {
            address: address.recv().unwrap(),
            app,
            _stop: stop,
        };
        server.publish();
        server
    }

    fn publish(&self) {
        let snapshot = Host::of_vcpus(VCPUS).snapshot();
        self.app.snapshots.publish(Arc::new(snapshot));
    }

    /// Scrapes like Prometheus, each time on a new connection, and expects every series.
    fn scrapes(&self) {
        for n in 0..SCRAPES {
            self.publish();
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(SCRAPE_TIMEOUT)).unwrap();
            let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            let status = answer.get(..15).unwrap_or(&answer);
            assert_eq!(status, "HTTP/1.1 200 OK", "scrape {n}: {read:?}");
            let series = answer.matches("\nkvm_vcpu_time_seconds_total{").count();
            assert!(series >= VCPUS, "scrape {n}: {series} of {VCPUS}");
        }
    }

    /// Scrapes while `count` clients repeat the same attack.
    fn beside(&self, count: usize, client: impl Fn(SocketAddr, &AtomicBool) + Sync) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        client(self.address, &over);
                    }
                });
            }
            let scrapes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.scrapes()));
            over.store(true, Ordering::Relaxed);
            scrapes.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}

/// Holds a connection without reading until the server closes it.
fn hold(stream: &TcpStream, over: &AtomicBool) {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !over.load(Ordering::Relaxed) {
        let mut hangup = [PollFd::new(stream, PollFlags::RDHUP)];
        if poll(&mut hangup, Some(&wait)).unwrap() > 0 {
            return;
        }
    }
}

fn send(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(bytes).ok()?;
    Some(stream)
}

fn asks_and_never_reads(path: &'static str) -> impl Fn(SocketAddr, &AtomicBool) + Sync {
    move |address, over| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        if let Some(stream) = send(address, request.as_bytes()) {
            hold(&stream, over);
        }
    }
}

#[test]
fn clients_that_never_read_keep_no_scrape_waiting() {
    let server = Server::start();
    for count in [1, 8, 64] {
        server.beside(count, asks_and_never_reads("/metrics"));
    }
}

#[test]
fn people_that_never_read_keep_no_scrape_waiting() {
    let server = Server::start();
    server.beside(32, asks_and_never_reads("/"));
    server.beside(32, asks_and_never_reads("/api/view"));
}

#[test]
fn http2_with_windows_of_zero_keeps_no_scrape_waiting() {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        [&head, payload].concat()
    };
    // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113, 6.5.2), then eight requests with names of HPACK's
    // static table: :method GET, :scheme http, :path /metrics, :authority x.
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let headers = [&[0x82, 0x86, 0x04, 8][..], b"/metrics", &[0x01, 1], b"x"].concat();
    for n in 0..8 {
        bytes.extend(frame(1, 5, 1 + 2 * n, &headers));
    }
    let server = Server::start();
    for count in [1, 8, 64] {
        server.beside(count, |address, over| {
            if let Some(stream) = send(address, &bytes) {
                hold(&stream, over);
            }
        });
    }
}

#[test]
fn a_thousand_idle_connections_keep_no_scrape_waiting() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    if soft < 4096 {
        println!("skipped: this process may have {soft} descriptors, and 4096 are needed");
        return;
    }
    let server = Server::start();
    let connect = |_| TcpStream::connect(server.address).unwrap();
    let silent: Vec<TcpStream> = (0..1000).map(connect).collect();
    server.scrapes();
    let half = |mut stream: TcpStream| {
        // The server may have closed a connection to make room for another.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:");
        stream
    };
    let halves: Vec<TcpStream> = (0..1000).map(connect).map(half).collect();
    server.scrapes();
    drop((silent, halves));
}

#[test]
fn odd_requests_keep_no_scrape_waiting() {
    let accept = format!("Accept: {}\r\n", "text/plain;q=0.1,".repeat(1700));
    let headers: String = (0..99).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let pipelined = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    let requests = [
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n"),
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}\r\n"),
        pipelined,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
            .into(),
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\nx".into(),
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nx".into(),
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n".into(),
        "GET http://example.com/metrics HTTP/1.1\r\nHost: example.com\r\n\r\n".into(),
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            .into(),
        "\r\n\r\n".into(),
        "GET /?sort=name&open=vm-00001 HTTP/1.1\r\nHost: x\r\n\r\n".into(),
    ];
    let server = Server::start();
    server.beside(4, |address, over| {
        for request in &requests {
            let Some(stream) = send(address, request.as_bytes()) else {
                continue;
            };
            // Time for the server to start its answer.
            let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
            let _ = (&stream).read(&mut [0; 100]);
            if over.load(Ordering::Relaxed) {
                return;
            }
        }
    });
}

#[test]
fn a_client_that_reads_slowly_gets_its_whole_answer_beside_those_that_do_not() {
    let server = Server::start();
    let mut slow = send(
        server.address,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    slow.set_read_timeout(Some(SCRAPE_TIMEOUT)).unwrap();
    let over = AtomicBool::new(false);
    let answer = thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    asks_and_never_reads("/metrics")(server.address, &over);
                }
            });
        }
        let (mut answer, mut part) = (Vec::new(), vec![0; 64 << 10]);
        let mut published = Instant::now();
        let answer = loop {
            match slow.read(&mut part) {
                Ok(0) => break Ok(answer),
                Err(error) => break Err(error),
                Ok(n) => answer.extend_from_slice(&part[..n]),
            }
            // About 6 MB/s, so that the other clients get many snapshots meanwhile.
            thread::sleep(Duration::from_millis(10));
            if published.elapsed() > Duration::from_millis(100) {
                server.publish();
                published = Instant::now();
            }
        };
        over.store(true, Ordering::Relaxed);
        answer
    });
    let answer = String::from_utf8(answer.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    let head = answer.find("\r\n\r\n").unwrap();
    let length = answer[..head].split("content-length: ").nth(1).unwrap();
    let length = length.lines().next().unwrap().parse();
    assert_eq!(Ok(answer.len() - head - 4), length);
}
