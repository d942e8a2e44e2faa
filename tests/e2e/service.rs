//! How the exporter starts, says that it runs, and ends, as init systems and people see it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use vcpu_exporter::demo::vm;

use crate::exporter::Exporter;
use crate::run::{eventually, DEADLINE};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
}

/// A client that has sent this and stays connected.
fn client(exporter: &Exporter, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(exporter.address()).expect("it answers");
    stream.write_all(request.as_bytes()).expect("it listens");
    stream
}

#[test]
fn sigterm_and_ctrl_c_end_it_with_status_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let exporter = Exporter::start();
        // As a Prometheus between two scrapes.
        let mut idle = client(&exporter, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        let answered = idle.read(&mut [0; 4096]).expect("an answer");
        assert!(answered > 0);
        assert_eq!(exporter.end(signal), Some(0), "{signal:?}");
    }
}

#[test]
fn a_client_that_never_ends_its_request_does_not_keep_it_from_ending() {
    let exporter = Exporter::start();
    let _cut_off = client(&exporter, "GET /metrics HTT");
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}

/// What systemd is on the other end of `NOTIFY_SOCKET` (sd_notify(3)).
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Systemd {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self {
            socket,
            path,
            _dir: dir,
        }
    }

    /// The exporter as its unit starts it, with a watchdog or without.
    fn start(&self, watchdog: Option<Duration>) -> Exporter {
        let mut command = program();
        command.env("NOTIFY_SOCKET", &self.path);
        command.env_remove("WATCHDOG_PID");
        match watchdog {
            Some(period) => command.env("WATCHDOG_USEC", period.as_micros().to_string()),
            None => command.env_remove("WATCHDOG_USEC"),
        };
        Exporter::spawn(command, &[], "")
    }

    /// The next thing it says.
    fn hears(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the exporter speaks");
        let text = String::from_utf8_lossy(&bytes[..length]);
        text.trim_end().to_owned()
    }

    /// The next thing it says that is not the watchdog's.
    fn hears_beside_ticks(&self) -> String {
        loop {
            let said = self.hears();
            if said != "WATCHDOG=1" {
                return said;
            }
        }
    }
}

#[test]
fn systemd_hears_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let systemd = Systemd::new();
    let exporter = systemd.start(Some(Duration::from_secs(30)));
    // Ticks begin before it answers.
    assert_eq!(systemd.hears_beside_ticks(), "READY=1");
    assert!(exporter.get("/readyz").contains("ready"), "ready is ready");
    // One each tick, so that a sampler that hangs is noticed.
    for _ in 0..3 {
        assert_eq!(systemd.hears(), "WATCHDOG=1");
    }
    assert_eq!(exporter.end(Signal::TERM), Some(0));
    assert_eq!(systemd.hears_beside_ticks(), "STOPPING=1");
}

#[test]
fn without_a_watchdog_systemd_hears_of_start_and_stop_alone() {
    let systemd = Systemd::new();
    let exporter = systemd.start(None);
    assert_eq!(systemd.hears(), "READY=1");
    // Ticks that would have been told.
    exporter.scrape_anew();
    assert_eq!(exporter.end(Signal::TERM), Some(0));
    assert_eq!(systemd.hears(), "STOPPING=1");
}

/// What the program says when it cannot start, and its exit status; none when it started.
fn refusal(args: &[&str]) -> (Option<i32>, String) {
    let mut command = program();
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let ended = eventually(|| child.try_wait().expect("it is ours"));
    let _ = child.kill();
    let output = child.wait_with_output().expect("it is ours");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (ended.and_then(|status| status.code()), said)
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place_and_what_was_expected() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("wrong.yml");
    std::fs::write(&file, "sampling:\n  tick: soon\n").expect("a file");
    let file = file.to_str().expect("a name");
    for command in [&["serve"][..], &["check"], &["list"], &[]] {
        let (status, said) = refusal(&[command, &["--config", file]].concat());
        assert_eq!(status, Some(1), "{command:?}: {said}");
        for part in [file, "sampling.tick", "line 2", "soon", "100ms"] {
            assert!(said.contains(part), "no {part:?} from {command:?}: {said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let (status, said) = refusal(&["serve", "--config", "/not/there.yml"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("/not/there.yml"), "{said}");
    assert!(said.contains("No such file"), "{said}");
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address").to_string();
    let flag = format!("--web.listen-address={address}");
    // The demo needs more than a port.
    let demo = vm::probe().is_ok().then_some("demo");
    for command in ["serve"].into_iter().chain(demo) {
        let (status, said) = refusal(&[command, &flag]);
        assert_eq!(status, Some(1), "{said}");
        for part in [address.as_str(), "in use", "--web.listen-address"] {
            assert!(said.contains(part), "no {part:?} from {command}: {said}");
        }
    }
}
