//! `check` under a seccomp filter that refuses perf_event_open, as in containers: it names the
//! filter as the cause, not the kernel.
// A filter is installed between fork and exec with prctl(2).
#![allow(unsafe_code)]
#![cfg(target_os = "linux")]

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A filter that returns this errno for perf_event_open and allows everything else (linux/filter.h,
/// linux/seccomp.h): load the call number, compare, return.
fn filter(errno: i32) -> [libc::sock_filter; 4] {
    let code = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    [
        code(load, 0, 0, 0),
        code(equal, 0, 1, libc::SYS_perf_event_open as u32),
        code(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        code(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn install(errno: i32) -> io::Result<()> {
    let mut filter = filter(errno);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls take numbers; the second also takes a program that lives until it returns.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Findings of `check` about perf_event_open for the source `pmu`.
fn findings(errno: i32) -> Vec<Value> {
    let mut check = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    check.args(["check", "--json"]);
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { check.pre_exec(move || install(errno)) };
    let output = check.output().expect("check runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list").clone();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let is_told = |finding: &Value| {
        text(finding, "source") == "pmu" && text(finding, "detail").contains("perf_event_open")
    };
    findings.into_iter().filter(is_told).collect()
}

#[test]
fn filtered_perf_event_open_is_a_seccomp_profile_and_no_other_kernel() {
    if !Path::new("/proc/sys/kernel/perf_event_paranoid").exists() {
        println!("skipped: this kernel has no perf events");
        return;
    }
    for errno in [libc::EPERM, libc::ENOSYS] {
        let findings = findings(errno);
        assert_eq!(findings.len(), 1, "errno {errno}: {findings:?}");
        let fix = findings[0]["fix"].as_str().unwrap_or_default();
        assert!(fix.contains("seccomp profile"), "errno {errno}: {fix}");
        assert!(!fix.contains("CONFIG_PERF_EVENTS"), "errno {errno}: {fix}");
    }
}
