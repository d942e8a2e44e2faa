//! The server over TCP, byte by byte.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vcpu_exporter::diagnosis::View;
use vcpu_exporter::expose::{serve, App};
use vcpu_exporter::snapshot::{Handle, Snapshot};
use vcpu_exporter::telemetry::Telemetry;

use crate::support::run::{loopback, DEADLINE};
use crate::support::snapshots;
use crate::support::snapshots::Host;

/// A running server; stops on drop.
struct Server {
    address: SocketAddr,
    app: Arc<App>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    fn start(snapshot: Option<Snapshot>) -> Self {
        let (telemetry, registry) = Telemetry::new();
        let snapshots = Handle::default();
        if let Some(snapshot) = snapshot {
            snapshots.publish(Arc::new(snapshot));
        }
        let app = Arc::new(App {
            snapshots,
            telemetry,
            registry,
            max_age: Duration::from_secs(3600),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (tell, address) = std::sync::mpsc::channel();
        let site = Arc::clone(&app);
        let thread = std::thread::spawn(move || {
            run(async move {
                let listener = tokio::net::TcpListener::bind((loopback(), 0)).await?;
                tell.send(listener.local_addr()?).unwrap();
                serve(listener, site, async {
                    let _ = stopped.await;
                })
                .await
            })
        });
        Self {
            address: address.recv().unwrap(),
            app,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Publishes a snapshot and the host's state one second later.
    fn publish_two(&self, snapshot: Snapshot) {
        let later = snapshots::later(&snapshot, Duration::from_secs(1));
        self.app.snapshots.publish(Arc::new(snapshot));
        self.app.snapshots.publish(Arc::new(later));
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = self.connect();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    fn stop(mut self) -> std::io::Result<()> {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap()
    }
}

fn run<T>(server: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(server)
}

/// A parsed answer; header names are in lower case.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("an HTTP head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        Self {
            status,
            headers: headers
                .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
                .collect(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(n, _)| n == name);
        header.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn serving() -> Server {
    Server::start(Some(Host::named(["web", "db"]).snapshot()))
}

const PROMETHEUS: &str = "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n";

#[test]
fn curl_gets_classic_text() {
    let answer = serving().get("/metrics");
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer
        .text()
        .contains("# TYPE kvm_vcpu_time_seconds_total counter\n"));
    assert!(answer
        .text()
        .contains("# TYPE kvm_exporter_ticks_total counter\n"));
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
}

#[test]
fn prometheus_gets_openmetrics_gzipped() {
    let answer = serving().ask("GET", "/metrics", PROMETHEUS);
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.header("vary"), Some("accept, accept-encoding"));
    let mut text = String::new();
    let mut gzip = flate2::read::GzDecoder::new(answer.body.as_slice());
    gzip.read_to_string(&mut text).unwrap();
    assert!(text
        .contains("# TYPE kvm_vcpu_time_seconds counter\n# UNIT kvm_vcpu_time_seconds seconds\n"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn before_the_first_tick_there_is_a_reason_instead() {
    let server = Server::start(None);
    for path in ["/metrics", "/readyz", "/api/view"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(
            answer.text().contains("has not finished its first tick"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(server.get("/healthz").status, 200);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("has not finished its first tick"));
}

#[test]
fn ready_while_the_sample_is_fresh() {
    let server = serving();
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut old = Host::named(["web"]).snapshot();
    let Some(taken) = old.taken_mono.checked_sub(Duration::from_secs(7200)) else {
        println!("skipped: this machine has been up for less than two hours");
        return;
    };
    old.taken_mono = taken;
    server.app.snapshots.publish(Arc::new(old));
    let answer = server.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("(limit 3600.0 s)"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_scrape_shows_the_newest_snapshot() {
    let server = serving();
    assert!(server.get("/metrics").text().contains("vm=\"web\""));
    server
        .app
        .snapshots
        .publish(Arc::new(Host::named(["other"]).snapshot()));
    let text = server.get("/metrics");
    assert!(text.text().contains("vm=\"other\"") && !text.text().contains("vm=\"web\""));
}

#[test]
fn head_is_get_without_a_body() {
    let server = serving();
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/view",
        "/runbooks/",
    ] {
        let answer = server.ask("HEAD", path, "");
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_ne!(answer.header("content-length"), Some("0"), "{path}");
    }
}

#[test]
fn other_methods_and_paths_are_refused_in_words() {
    let server = serving();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = server.ask(method, "/metrics", "");
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method}");
    }
    for path in ["/metrics/", "/nothing", "//", "/%00", "/../etc/passwd"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("not found"));
    }
    let garbage = server.ask("GET /metrics HTTP/1.1\r\nbad header\r\n\r\n", "", "");
    assert_eq!(garbage.status, 400);
}

#[test]
fn every_answer_carries_security_headers() {
    let server = serving();
    for path in [
        "/",
        "/metrics",
        "/healthz",
        "/nothing",
        "/api/view",
        "/runbooks/",
    ] {
        let answer = server.get(path);
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{path}"
        );
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    }
}

#[test]
fn requests_are_counted_by_known_path_alone() {
    let server = serving();
    server.get("/metrics");
    server.get("/secret-1");
    server.get("/secret-2");
    server.get("/runbooks/secret-3");
    // A new exposition is shared; one of another snapshot is not.
    server
        .app
        .snapshots
        .publish(Arc::new(Host::named(["web"]).snapshot()));
    let text = server.get("/metrics");
    for line in [
        "kvm_exporter_http_requests_total{path=\"/metrics\",code=\"200\"} 1",
        "kvm_exporter_http_requests_total{path=\"other\",code=\"404\"} 2",
        "kvm_exporter_http_requests_total{path=\"/runbooks/\",code=\"404\"} 1",
        "kvm_exporter_scrape_duration_seconds_count 1",
    ] {
        assert!(
            text.text().lines().any(|l| l == line),
            "{line}\n{}",
            text.text()
        );
    }
    assert!(!text.text().contains("secret"));
}

#[test]
fn the_page_escapes_names_and_says_what_is_wrong() {
    let name = "<script>alert(1)</script>\"'&\u{202e}";
    let server = Server::start(None);
    server.publish_two(Host::named([name, "web"]).snapshot());
    let page = server.get("/?open=web");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let html = page.text();
    assert_eq!(html.matches("<script").count(), 1, "the page's own");
    assert!(html.contains("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;"));
    for fact in [
        "mediated vPMU",
        "enable_mediated_pmu=N",
        "tracefs cannot be read",
        "debugfs is locked down",
        "user_events",
        "host_only",
        "No VM exceeds a threshold",
        "name_source cmdline",
    ] {
        assert!(html.contains(fact), "{fact}");
    }
    // Two VMs, and the two vCPUs of the open one.
    assert_eq!(html.matches("<th scope=\"row\">").count(), 4);
    assert!(!html.contains("Synthetic"));
}

#[test]
fn the_page_says_that_a_host_is_a_synthetic_one() {
    let mut snapshot = Host::named(["web"]).snapshot();
    snapshot.synthetic = Some("troubles".into());
    let server = Server::start(Some(snapshot));
    assert!(server.get("/").text().contains("Synthetic host."));
    let view: View = serde_json::from_slice(&server.get("/api/view").body).unwrap();
    assert_eq!(view.synthetic.as_deref(), Some("troubles"));
}

#[test]
fn a_large_host_has_a_short_page() {
    let server = Server::start(None);
    server.publish_two(Host::of_vcpus(16_000).snapshot());
    let open: String = (0..200).map(|n| format!("open=vm-{n:05}&")).collect();
    let page = server.get(&format!("/?sort=name.up&{open}"));
    let html = page.text();
    let (vms, rows) = (
        html.matches("class=\"toggle\"").count(),
        html.matches("<tr").count(),
    );
    assert_eq!(vms, 1000);
    // At most 32 open VMs: each has a row, a header of its vCPUs, and 8 vCPU rows.
    assert_eq!(rows, 1 + 1000 + 32 * (1 + 1 + 8));
    assert!(html.contains("1\u{202f}000\u{a0}more VMs"));
    // The VMs with the longest waits are named in any sort order.
    assert!(html.contains("waits 40\u{a0}% of the time it wants to run"));
    assert!(page.body.len() < 3_000_000, "{} bytes", page.body.len());
}

#[test]
fn what_the_page_knows_is_there_as_json() {
    let server = Server::start(None);
    server.publish_two(Host::named(["web", "db"]).snapshot());
    let answer = server.get("/api/view");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let view: View = serde_json::from_slice(&answer.body).unwrap();
    let names: Vec<&str> = view.vms.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["web", "db"]);
    let time = view.vms[1].numbers.time;
    assert!(
        time.is_some_and(|time| (time - 1.2).abs() < 1e-6),
        "{time:?}"
    );
}

#[test]
fn runbooks_are_html_for_a_browser_and_text_for_the_rest() {
    let server = serving();
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let path = "/runbooks/KvmVmMemoryRemote?vm=db-7&instance=compute-1:9752";
    let page = server.ask("GET", path, browser);
    let kind = page.header("content-type");
    assert_eq!(kind, Some("text/html; charset=utf-8"));
    assert!(page.text().contains("vm=\"db-7\""));
    // A different style would not match the content security policy.
    let style = page.text().split_once("<style>").unwrap().1.to_owned();
    let style = style.split_once("</style>").unwrap().0.to_owned();
    let digest = ring::digest::digest(&ring::digest::SHA256, style.as_bytes());
    let hash = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, digest);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains(&hash), "{policy}");
    let text = server.ask("GET", path, "Accept: */*\r\n");
    assert!(text.text().starts_with("# KvmVmMemoryRemote\n"));
    assert!(text.text().contains("vm=\"db-7\""));
    assert_eq!(text.header("vary"), Some("accept"));
    assert_eq!(server.ask("HEAD", path, browser).status, 200);
    let list = server.get("/runbooks/");
    assert_eq!(
        list.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(server.get("/runbooks/NoSuch").status, 404);
    assert_eq!(server.get("/runbooks/..%2f..%2fCargo.toml").status, 404);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks");
    for file in folder.read_dir().into_iter().flatten().flatten() {
        let (path, text) = (file.path(), std::fs::read_to_string(file.path()).unwrap());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            list.text().contains(&format!("/runbooks/{name}\"")),
            "{name}"
        );
        let answer = server.get(&format!("/runbooks/{name}"));
        assert_eq!(answer.text(), text);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn many_scrapes_at_once_are_all_answered() {
    let server = Arc::new(Server::start(Some(Host::of_vcpus(200).snapshot())));
    let scrapers: Vec<_> = (0..32)
        .map(|n| {
            let server = Arc::clone(&server);
            let headers = if n % 2 == 0 { PROMETHEUS } else { "" };
            std::thread::spawn(move || server.ask("GET", "/metrics", headers).status)
        })
        .collect();
    for scraper in scrapers {
        let status = scraper.join().unwrap();
        assert!(status == 200 || status == 503, "{status}");
    }
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn a_connection_serves_many_requests() {
    let mut stream = serving_forever().connect();
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1);
            answer.extend_from_slice(&byte);
        }
    }
}

/// A server that lives until the test program ends.
fn serving_forever() -> &'static Server {
    Box::leak(Box::new(serving()))
}

#[test]
fn a_request_that_never_ends_is_cut_off() {
    let server = serving();
    let mut stream = server.connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let header = [b"X: ".as_slice(), &[b'a'; 1000], b"\r\n"].concat();
    let begun = Instant::now();
    while stream.write_all(&header).is_ok() {
        assert!(begun.elapsed() < DEADLINE, "the server reads on and on");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn it_stops_when_asked_whatever_clients_do() {
    let server = serving();
    let mut idle = server.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut half = server.connect();
    half.write_all(b"GET /metrics HT").unwrap();
    let address = server.address;
    server.stop().unwrap();
    assert!(TcpStream::connect(address).is_err());
}
