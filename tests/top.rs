//! `top` with an exporter, alone, in a pipe, and in a real terminal (tmux).
#![cfg(feature = "fixtures")]

use std::process::{Command, Output};

use crate::support::exporter::Exporter;
use crate::support::run::free_address;
use crate::support::tmux::Tmux;
use rustix::process::Signal;
use vcpu_exporter::fake_host::FakeHost;

const TOP: &str = env!("CARGO_BIN_EXE_vcpu-exporter");

/// A VM name with terminal control characters.
const HOSTILE: &str = "evil\u{202e}\x1b[2J\x1b]0;owned\x07";

/// A host with three VMs.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(1, 4, 1, 1);
    host.qemu(1000, "web-1", "00000000-0000-4000-8000-000000000001", 2);
    host.qemu(2000, "db-1", "00000000-0000-4000-8000-000000000002", 4);
    host.qemu(3000, HOSTILE, "00000000-0000-4000-8000-000000000003", 1);
    host
}

/// The flags that make this directory the host.
fn flags(host: &FakeHost) -> Vec<String> {
    let dirs = [
        ("procfs", "proc"),
        ("sysfs", "sys"),
        ("cgroupfs", "sys/fs/cgroup"),
        ("debugfs", "sys/kernel/debug"),
        ("tracefs", "sys/kernel/tracing"),
        ("runfs", "run"),
        ("devfs", "dev"),
    ];
    let flag = |(flag, dir)| format!("--path.{flag}={}", host.path(dir).display());
    dirs.map(flag).to_vec()
}

fn once(args: &[&str]) -> Output {
    let mut top = Command::new(TOP);
    top.args(["top", "--once"]).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_shows_what_the_exporter_knows_and_obeys_no_name() {
    let host = host();
    let flags = flags(&host);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::with(&flags, "");
    exporter.until(|e| e.all("kvm_vm_info", &[]).count() == 3);
    let url = format!("http://{}", exporter.address());
    let page = text(&once(&["--url", &url, "--vcpus"]));
    assert!(page.contains("3 VMs, 7 vCPUs on 4 CPUs"), "{page}");
    assert!(page.contains(&url), "{page}");
    assert_eq!(page.matches("\ndb-1 ").count(), 4, "{page}");
    assert!(page.contains("\nevil"), "{page}");
    assert!(!page.contains(['\x1b', '\x07', '\u{202e}']), "{page}");
    let page = text(&once(&["--url", &url]));
    assert_eq!(page.matches("\ndb-1 ").count(), 1, "{page}");
}

#[test]
fn it_samples_by_itself_where_nobody_answers_and_says_so() {
    let host = host();
    let flags = flags(&host);
    let address = free_address();
    let nobody = format!("--web.listen-address={address}");
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    args.push(&nobody);
    let page = text(&once(&args));
    assert!(
        page.contains(&format!(
            "own samples (no exporter answers at http://{address})"
        )),
        "{page}"
    );
    assert_eq!(page.matches("\nweb-1 ").count(), 1, "{page}");
    args.push("--sample");
    let page = text(&once(&args));
    assert!(page.contains("own samples\n"), "{page}");
}

/// `list --url` shows the exporter's VMs with their names as in JSON.
#[test]
fn list_asks_an_exporter() {
    let host = host();
    let flags = flags(&host);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::with(&flags, "");
    exporter.until(|e| e.all("kvm_vm_info", &[]).count() == 3);
    let url = format!("--url=http://{}", exporter.address());
    let mut list = Command::new(TOP);
    let json = text(&list.args(["list", "--json", &url]).output().unwrap());
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 7, "{json}");
    let of = |vm: &str| rows.iter().find(|row| row["vm"] == vm).unwrap();
    assert_eq!(of("web-1")["pid"], 1000);
    assert_eq!(of("web-1")["vmm"], "qemu");
    let uuid = "00000000-0000-4000-8000-000000000002";
    assert_eq!(
        (&of("db-1")["uuid"], &of("db-1")["vcpu"]),
        (&uuid.into(), &0.into())
    );
}

#[test]
fn an_exporter_that_was_named_must_be_there() {
    let url = format!("http://{}", free_address());
    let output = once(&["--url", &url]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = format!("vcpu-exporter: no exporter answers at {url}: Connection refused");
    assert!(said.starts_with(&expected), "{said}");
}

/// Starts `top` in a terminal, in a shell that prints its exit status.
fn start(name: &str, host: &FakeHost, then: &str) -> Option<Tmux> {
    let flags = flags(host).join(" ");
    let command = format!("echo before; {TOP} top --sample {flags}; {then} echo left $?; stty -a");
    let tmux = Tmux::start(name, &command)?;
    tmux.until("VMs, 7 vCPUs on 4 CPUs");
    Some(tmux)
}

/// The terminal is restored: earlier text, line mode, echo, and the cursor.
#[track_caller]
fn assert_given_back(tmux: &Tmux, status: i32) {
    let screen = tmux.until("icanon");
    assert!(screen.contains(&format!("left {status}")), "{screen}");
    assert!(screen.contains("before"), "{screen}");
    assert!(
        !screen.contains("-icanon") && !screen.contains("-echo "),
        "{screen}"
    );
    assert_eq!(tmux.ask("#{cursor_flag}#{alternate_on}"), "10", "{screen}");
}

#[test]
fn keys_lead_through_a_real_terminal_and_out_of_it() {
    let host = host();
    let Some(tmux) = start("keys", &host, "") else {
        return;
    };
    assert_eq!(tmux.ask("#{pane_title}").find("owned"), None);
    let screen = tmux.until("VMs by worst, highest first, 1-3 of 3");
    assert!(screen.contains("\nevil"), "{screen}");
    tmux.keys(&["v"]);
    tmux.until("vCPUs by delay%, highest first");
    tmux.keys(&["v"]);
    tmux.until("VMs by worst, highest first, 1-3 of 3");
    tmux.keys(&["/", "d", "b", "Enter", "Enter"]);
    let screen = tmux.until("vCPUs of db-1 by delay%, highest first, 1-4 of 4");
    assert!(!screen.contains("web-1"), "{screen}");
    tmux.keys(&["Left"]);
    tmux.until("by time, highest first");
    tmux.keys(&["r"]);
    tmux.until("by time, lowest first");
    tmux.keys(&["h"]);
    tmux.until("reverse the order");
    tmux.keys(&["q"]);
    assert_given_back(&tmux, 0);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let host = host();
    for signal in [Signal::TERM, Signal::INT] {
        let Some(tmux) = start("signal", &host, "") else {
            return;
        };
        tmux.signal("vcpu-exporter", signal);
        assert_given_back(&tmux, 0);
    }
}

#[test]
fn it_goes_to_the_shell_and_comes_back() {
    let host = host();
    // The shell is back at its prompt and brings `top` to the foreground again.
    let shell = "echo stopped $?; stty -a; read key; clear; fg;";
    let Some(tmux) = start("suspend", &host, shell) else {
        return;
    };
    tmux.keys(&["C-z"]);
    let screen = tmux.until(" icanon");
    assert!(screen.contains("stopped 148"), "{screen}");
    assert_eq!(tmux.ask("#{alternate_on}"), "0");
    tmux.keys(&["Enter"]);
    tmux.until("VMs, 7 vCPUs on 4 CPUs");
    tmux.keys(&["C-c"]);
    let screen = tmux.until(" icanon");
    assert!(screen.contains("left 0"), "{screen}");
}

#[test]
fn an_exporter_that_ends_leaves_its_last_picture() {
    let host = host();
    let flags = flags(&host);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exporter = Exporter::with(&flags, "");
    exporter.until(|e| e.all("kvm_vm_info", &[]).count() == 3);
    let address = exporter.address().to_owned();
    let command = format!("{TOP} top -d 0.25 --url {address}; echo left $?; stty -a");
    let Some(tmux) = Tmux::start("gone", &command) else {
        return;
    };
    tmux.until("VMs, 7 vCPUs on 4 CPUs");
    drop(exporter);
    let screen = tmux.until("showing the last sample: no exporter answers at");
    assert!(screen.contains("db-1"), "{screen}");
    tmux.keys(&["Escape"]);
    tmux.until("left 0");
}
