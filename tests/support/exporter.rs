//! The real exporter as a process, queried like by its users.
#![allow(dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::SystemTime;

use tempfile::TempDir;

use super::run::{eventually, DEADLINE};

pub use super::exposition::{Exposition, Sample};

/// A running exporter; dropping it kills it.
pub struct Exporter {
    child: Child,
    address: String,
    log: Receiver<String>,
    said: Receiver<(SystemTime, String)>,
    _dir: TempDir,
}

impl Exporter {
    /// An exporter with a tick of 100 ms that scans for VMs every second.
    pub fn start() -> Self {
        Self::with(&[], "")
    }

    /// The same with further arguments and configuration.
    pub fn with(args: &[&str], config: &str) -> Self {
        Self::spawn(
            Command::new(env!("CARGO_BIN_EXE_vcpu-exporter")),
            args,
            config,
        )
    }

    /// The same with a given listen address.
    pub fn at(address: &str, args: &[&str]) -> Self {
        Self::configured_at(address, args, "")
    }

    /// The same with further configuration.
    pub fn configured_at(address: &str, args: &[&str], config: &str) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
        Self::spawn_at(address, command, args, config)
    }

    /// The same, started by a given command, for example one that drops privileges.
    pub fn spawn(command: Command, args: &[&str], config: &str) -> Self {
        Self::spawn_at("127.0.0.1:0", command, args, config)
    }

    fn spawn_at(address: &str, mut command: Command, args: &[&str], config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.yml");
        let mut text = String::from("sampling: {tick: 100ms, inventory: 1s}\n");
        writeln!(text, "{config}").expect("a string takes it");
        std::fs::write(&file, text).expect("the configuration is written");
        make_readable(dir.path());
        make_readable(&file);
        let mut child = command
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.format=json", "--config"])
            .arg(&file)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the exporter starts");
        let log = lines_of(child.stderr.take().expect("stderr is a pipe"), |line| line);
        let timed = |line| (SystemTime::now(), line);
        let said = lines_of(child.stdout.take().expect("stdout is a pipe"), timed);
        let mut exporter = Self {
            child,
            address: String::new(),
            log,
            said,
            _dir: dir,
        };
        // If the exporter does not serve, this panics, and the exporter must be killed
        // nevertheless.
        exporter.address = address_in(&exporter.log);
        exporter
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The body of a page.
    pub fn get(&self, path: &str) -> String {
        get(&self.address, path)
    }

    /// Everything on /metrics.
    pub fn scrape(&self) -> Exposition {
        Exposition::parse(&self.get("/metrics"))
    }

    /// A scrape with a tick that started after this call.
    pub fn scrape_anew(&self) -> Exposition {
        let ticks = |e: &Exposition| e.one("kvm_exporter_ticks_total", &[]);
        let before = ticks(&self.scrape());
        // One more tick may have been running already.
        self.until(|e| ticks(e) >= before.map(|n| n + 2.0))
    }

    /// Scrapes until `test` holds; fails with the last exposition after the deadline.
    pub fn until(&self, test: impl Fn(&Exposition) -> bool) -> Exposition {
        let mut last = String::new();
        let found = eventually(|| {
            let exposition = self.scrape();
            last.clone_from(&exposition.text);
            test(&exposition).then_some(exposition)
        });
        found.unwrap_or_else(|| panic!("this never came:\n{last}"))
    }

    /// Sends a signal and returns the exit status; fails if the exporter does not exit.
    pub fn end(mut self, signal: rustix::process::Signal) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it can be signalled");
        let status = eventually(|| self.child.try_wait().expect("it is ours"));
        let status = status.unwrap_or_else(|| {
            let log = self.log().join("\n");
            panic!("{signal:?} does not end the exporter:\n{log}")
        });
        status.code()
    }

    /// Lines on standard output since the last call, with their times.
    pub fn said(&self) -> Vec<(SystemTime, String)> {
        self.said.try_iter().collect()
    }

    /// Log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.try_iter().collect()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a page at `HOST:PORT`, over plain HTTP/1.
pub fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the server answers");
    let deadline = stream.set_read_timeout(Some(DEADLINE));
    deadline.expect("a socket has a time-out");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer is text");
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .expect("the answer has a head");
    if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        return unchunk(body);
    }
    body.to_owned()
}

fn make_readable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
}

fn lines_of<T: Send + 'static>(
    pipe: impl Read + Send + 'static,
    of: fn(String) -> T,
) -> Receiver<T> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = sender.send(of(line));
        }
    });
    lines
}

/// The listen address in the log.
fn address_in(log: &Receiver<String>) -> String {
    let mut seen = Vec::new();
    while let Ok(line) = log.recv_timeout(DEADLINE) {
        let json: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if json["message"] == "serving" {
            return json["address"].as_str().expect("an address").to_owned();
        }
        seen.push(line);
    }
    panic!("the exporter does not serve:\n{}", seen.join("\n"));
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk has a size");
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}
