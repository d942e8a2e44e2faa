//! The exporter with few privileges: it runs, shows what is visible, and gives a reason for
//! everything else.
#![cfg(feature = "demo")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use vcpu_exporter::demo::guest::Load;

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};

/// `nobody` on Debian and most other distributions.
const NOBODY: u32 = 65_534;

const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// A copy of the program that any user may run.
struct Program(TempDir);

impl Program {
    fn copy() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let all = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(dir.path(), all(0o755)).expect("it is ours");
        let program = Self(dir);
        // Copied by another process: a concurrent test that starts a program would let it inherit a
        // descriptor open for writing, and a file that is open for writing cannot be executed.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_vcpu-exporter"))
            .arg(program.path())
            .status();
        assert!(copied.expect("cp runs").success());
        std::fs::set_permissions(program.path(), all(0o755)).expect("it is ours");
        program
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("vcpu-exporter")
    }

    fn as_nobody(&self) -> Command {
        let mut command = Command::new(self.path());
        // Changing from root to another user drops all capabilities (capabilities(7)).
        command.uid(NOBODY).gid(NOBODY);
        command
    }
}

/// Replaces a host without tracefs whose debugfs is locked down.
const NOT_THERE: [&str; 2] = ["--path.tracefs=/not/there", "--path.debugfs=/not/there"];

/// Whether any user may count kernel events, which guests require
/// (Documentation/admin-guide/sysctl/kernel.rst, perf_event_paranoid).
fn counters_are_for_all() -> bool {
    let level = std::fs::read_to_string(PARANOID).ok();
    let level: Option<i32> = level.and_then(|text| text.trim().parse().ok());
    level.is_some_and(|level| level < 2)
}

fn can_become_nobody() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can start a program as nobody");
    }
    root && kvm_works()
}

fn reason(exposition: &Exposition, source: &str) -> String {
    let labels = [("source", source)];
    let mut rows = exposition.all("kvm_exporter_source_up", &labels);
    let row = rows.next().unwrap_or_else(|| panic!("no row of {source}"));
    row.label("reason").to_owned()
}

#[test]
fn as_nobody_it_shows_what_can_be_seen_and_says_what_cannot() {
    if !can_become_nobody() {
        return;
    }
    let vm = MicroVm::start("unprivileged", Load::Spin, 2);
    let name = vm.name().to_owned();
    let program = Program::copy();
    let exporter = Exporter::spawn(program.as_nobody(), &NOT_THERE, "");
    let time = |e: &Exposition| e.sum("kvm_vcpu_time_seconds_total", &[("vm", &name)]);
    let exposition = exporter.until(|e| time(e) > Some(0.1));
    assert_eq!(exposition.one("kvm_vm_vcpus", &[("vm", &name)]), Some(2.0));
    assert_eq!(reason(&exposition, "sched"), "");
    assert_ne!(
        reason(&exposition, "inventory"),
        "",
        "descriptors cannot be seen"
    );
    if counters_are_for_all() {
        println!("skipped: counters are for all here ({PARANOID} is below 2)");
    } else {
        assert_ne!(reason(&exposition, "pmu"), "", "counters cannot be opened");
    }
    // The background collector can be a moment behind.
    exporter.until(|e| reason(e, "memory") == "no_permission");
    assert!(exposition.one("kvm_exporter_blind_spots", &[]) >= Some(1.0));
    let page = exporter.get("/");
    assert!(page.contains("CAP_SYS_PTRACE"), "{page}");
    drop(vm);
    exporter.until(|e| time(e).is_none());
}

fn check(program: &Program, nobody: bool) -> (Output, serde_json::Value) {
    let mut command = if nobody {
        program.as_nobody()
    } else {
        Command::new(program.path())
    };
    let output = command.args(["check", "--json"]).args(NOT_THERE).output();
    let output = output.expect("it runs");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output, json)
}

#[test]
fn check_gives_each_missing_source_a_reason_and_a_fix() {
    if !can_become_nobody() {
        return;
    }
    let _vm = MicroVm::start("checked", Load::Halt, 1);
    let program = Program::copy();
    let (output, json) = check(&program, true);
    assert!(output.status.success(), "usable all the same: {json:#}");
    assert_eq!(json["usable"], true);
    let findings = json["findings"].as_array().expect("findings").iter();
    let unmet: Vec<_> = findings.filter(|f| f["state"] != "ok").collect();
    let text = serde_json::to_string(&unmet).expect("json");
    for word in [
        "inventory",
        "pmu",
        "CAP_SYS_PTRACE",
        "CAP_PERFMON",
        "/not/there",
    ] {
        assert!(text.contains(word), "nothing of {word} in {text}");
    }
    for finding in &unmet {
        assert_ne!(finding["detail"], "", "{finding:#}");
    }
}

#[test]
fn check_says_when_the_exporter_is_of_no_use() {
    let empty = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .arg("check")
        .arg(format!("--path.procfs={}", empty.path().display()))
        .arg(format!("--path.sysfs={}", empty.path().display()))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not usable"));
}
