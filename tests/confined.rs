//! The exporter without resources that the system usually grants: a working log, and threads.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{kill_process, Pid, Signal};

use crate::support::run::{eventually, DEADLINE};

/// A running exporter; dropping it kills it.
struct Exporter {
    child: Child,
    address: String,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exporter {
    /// The log may be lost, so the test chooses the port.
    fn start(mut command: Command, stderr: impl Into<Stdio>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let child = command
            .args(["--web.listen-address", &address, "--path.procfs=/not/there"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// The status of an answer; `None` without an answer.
    fn status(&self, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn serves(&self) -> Option<()> {
        (self.status("/metrics") == Some(200)).then_some(())
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        eventually(|| self.child.try_wait().unwrap()).expect("it ends")
    }
}

/// An exporter with the most verbose log.
fn talkative() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    command.arg("--log.level=trace");
    command
}

fn goes_on(mut exporter: Exporter) {
    eventually(|| exporter.serves()).expect("it serves");
    for n in 0..20 {
        assert_eq!(exporter.status("/healthz"), Some(200), "request {n}");
    }
    assert_eq!(exporter.terminate().code(), Some(0));
}

#[test]
fn a_log_on_a_full_disk_is_lost_and_nothing_else() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    goes_on(Exporter::start(talkative(), full));
}

#[test]
fn a_log_that_nobody_reads_any_more_is_lost_and_nothing_else() {
    let mut exporter = Exporter::start(talkative(), Stdio::piped());
    drop(exporter.child.stderr.take());
    goes_on(exporter);
}

#[test]
fn a_log_that_is_not_read_stops_nothing() {
    // A socket, as systemd passes its journal, that is full from the start.
    let (_reader, mut log) = UnixStream::pair().unwrap();
    log.set_nonblocking(true).unwrap();
    while log.write(&[b'x'; 4096]).is_ok() {}
    log.set_nonblocking(false).unwrap();
    goes_on(Exporter::start(talkative(), OwnedFd::from(log)));
}

/// A user with threads of this test only: `RLIMIT_NPROC` counts all threads of a user.
const USER: u32 = 1_097_520_000;

#[test]
fn under_a_limit_of_threads_it_answers_or_says_that_it_cannot_start() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root becomes another user");
        return;
    }
    if Command::new("prlimit").arg("--version").output().is_err() {
        println!("skipped: there is no prlimit (util-linux)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let all = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(dir.path(), all(0o755)).unwrap();
    let program = dir.path().join("vcpu-exporter");
    // Copied by another process, so that no child inherits a descriptor open for writing.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let (mut served, mut refused) = (0, 0);
    for limit in 1.. {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nproc={limit}:{limit}"))
            .arg(&program);
        command.uid(USER).gid(USER);
        let mut exporter = Exporter::start(command, Stdio::piped());
        enum Is {
            Serving,
            Over(ExitStatus),
        }
        let is = eventually(|| {
            let over = exporter.child.try_wait().unwrap().map(Is::Over);
            over.or_else(|| exporter.serves().map(|()| Is::Serving))
        });
        let over = match is.expect("it serves or ends") {
            Is::Over(status) => {
                assert_eq!(status.code(), Some(1), "limit {limit}");
                true
            }
            Is::Serving => {
                // Each request needs a worker; none may need another thread.
                for path in ["/metrics", "/", "/api/view", "/metrics", "/healthz"].repeat(3) {
                    let status = exporter.status(path).expect("an answer");
                    let too_early = path == "/api/view" && status == 503;
                    assert!(
                        status == 200 || too_early,
                        "{path}: {status}, limit {limit}"
                    );
                }
                assert_eq!(exporter.terminate().code(), Some(0), "limit {limit}");
                false
            }
        };
        let mut log = String::new();
        let stderr = exporter.child.stderr.take();
        stderr.unwrap().read_to_string(&mut log).unwrap();
        assert!(!log.contains("panicked"), "limit {limit}: {log}");
        assert_eq!(
            log.contains("raise the thread limit"),
            over,
            "limit {limit}: {log}"
        );
        served += usize::from(!over);
        refused += usize::from(over);
        // The first sufficient limit, and one with room for a single further thread.
        if served == 2 {
            break;
        }
    }
    assert!(refused > 0, "one thread is not enough");
}
