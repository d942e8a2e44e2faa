//! A local user who blocks readers of their process's memory. The exporter runs as a process beside
//! a host on which a FIFO without a writer stands for a page that is never loaded, and beside a
//! real process whose command line is on a file system that does not answer.
#![cfg(feature = "fixtures")]

use crate::support::run::alone;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::exporter::{Exporter, Exposition};
use rustix::process::Signal;
use vcpu_exporter::fake_host::{FakeHost, UUID_A, UUID_B};

/// The exporter on this host.
fn exporter(host: &FakeHost) -> Exporter {
    let args = paths(host.root());
    Exporter::with(&args.each_ref().map(String::as_str), "")
}

fn paths(root: &Path) -> [String; 6] {
    let root = root.display();
    [
        format!("--path.procfs={root}/proc"),
        format!("--path.sysfs={root}/sys"),
        format!("--path.cgroupfs={root}/sys/fs/cgroup"),
        format!("--path.debugfs={root}/sys/kernel/debug"),
        format!("--path.tracefs={root}/sys/kernel/tracing"),
        format!("--path.runfs={root}/run"),
    ]
}

/// Replaces a file with a FIFO.
fn fifo(host: &FakeHost, path: &str) {
    host.remove(path);
    let made = Command::new("mkfifo").arg(host.path(path)).status();
    assert!(made.expect("mkfifo runs").success());
}

fn has(exposition: &Exposition, vm: &str) -> bool {
    exposition.one("kvm_vm_vcpus", &[("vm", vm)]).is_some()
}

/// The reason of the inventory.
fn reason(exposition: &Exposition) -> String {
    let mut up = exposition.all("kvm_exporter_source_up", &[("source", "inventory")]);
    let inventory = up.next().expect("the inventory has a state");
    inventory.label("reason").to_owned()
}

#[test]
fn a_blocked_command_line_is_a_reason_and_other_vms_come_and_go() {
    let host = FakeHost::new();
    host.qemu(1000, "old", UUID_A, 1);
    host.qemu(1100, "blocked", UUID_B, 1);
    fifo(&host, "proc/1100/cmdline");
    let exporter = exporter(&host);
    let first = exporter.until(|e| has(e, "old"));
    assert!(!has(&first, "blocked"));
    assert_eq!(reason(&first), "blocked_reads");
    host.qemu(1200, "new", "", 1);
    exporter.until(|e| has(e, "new"));
    host.exit(1000);
    exporter.until(|e| !has(e, "old"));
    assert!(exporter.get("/readyz").starts_with("ready"));
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}

/// A process that holds a VM; killed on drop.
struct Holder(Child);

impl Holder {
    /// Starts one whose memory is blocked by a file system at `dir`, or is not blocked.
    fn start(dir: Option<&Path>) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fuse_page.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let holder = Self(child);
        let read = BufReader::new(stdout).read_line(&mut said);
        read.expect("it speaks");
        assert_eq!(said, "ready\n");
        holder
    }

    fn name(&self) -> String {
        format!("pid-{}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Why a process cannot block its own memory here.
fn lacks() -> Option<&'static str> {
    let works = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
    if !rustix::process::geteuid().is_root() {
        return Some("mounting takes root");
    }
    if !works(Command::new("python3").arg("--version")) {
        return Some("no python3");
    }
    let opens = |path| std::fs::File::options().read(true).write(true).open(path);
    match (opens("/dev/kvm"), opens("/dev/fuse")) {
        (Err(_), _) => Some("no /dev/kvm"),
        (_, Err(_)) => Some("no /dev/fuse"),
        _ => None,
    }
}

#[test]
fn a_real_process_that_holds_its_memory_hides_itself_alone() {
    if let Some(lacks) = lacks() {
        return println!("skipped: {lacks}");
    }
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let held = Holder::start(Some(dir.path()));
    let exporter = Exporter::start();
    let info = |e: &Exposition, of: &Holder| {
        let name = of.name();
        let found = e.all("kvm_vm_info", &[("vm", &name)]).next().is_some();
        found
    };
    let first = exporter.until(|e| reason(e) == "blocked_reads");
    assert!(!info(&first, &held));
    let plain = Holder::start(None);
    let name = plain.name();
    exporter.until(|e| info(e, &plain));
    drop(plain);
    exporter.until(|e| e.all("kvm_vm_info", &[("vm", &name)]).next().is_none());
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}

#[test]
fn check_and_list_say_what_is_blocked() {
    let host = FakeHost::new();
    host.qemu(1000, "well", UUID_A, 1);
    host.qemu(1100, "blocked", UUID_B, 1);
    fifo(&host, "proc/1100/cmdline");
    let run = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
            .args(paths(host.root()))
            .arg(command)
            .output();
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let check = run("check");
    assert!(check.contains("1 process cannot be examined"), "{check}");
    assert!(check.contains("PID 1100"), "{check}");
    let list = run("list");
    assert!(list.contains("well"), "{list}");
    assert!(list.contains("not seen: 1 process cannot"), "{list}");
}

#[test]
fn what_hangs_does_not_keep_the_exporter_from_ending() {
    let host = FakeHost::new();
    host.qemu(1000, "a", UUID_A, 1);
    let dir = tempfile::tempdir().expect("a directory");
    let password = dir.path().join("password");
    let made = Command::new("mkfifo").arg(&password).status();
    assert!(made.expect("mkfifo runs").success());
    let config = format!(
        "otlp: {{endpoints: [{{url: 'http://127.0.0.1:9', headers: {{x-key: {{file: '{}'}}}}}}]}}",
        password.display()
    );
    let args = paths(host.root());
    let exporter = Exporter::with(&args.each_ref().map(String::as_str), &config);
    exporter.until(|e| has(e, "a"));
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}

#[test]
fn a_hangup_is_no_end_of_a_service() {
    let host = FakeHost::new();
    let exporter = exporter(&host);
    let pid = rustix::process::Pid::from_raw(exporter.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, Signal::HUP).expect("it can be signalled");
    exporter.scrape_anew();
    assert!(exporter
        .log()
        .iter()
        .any(|line| line.contains("SIGHUP ignored")));
    assert_eq!(exporter.end(Signal::TERM), Some(0));
}
