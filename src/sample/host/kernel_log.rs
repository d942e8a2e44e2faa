//! The `kernel_log` source: lines of the kernel's log about machine checks and KVM, counted by kind.
//!
//! - `kvm_host_kernel_log_lines_total{kind}`: since the exporter started
//! - `kvm_host_kernel_log_lost_total`: records overwritten before they were read
//!
//! Only lines the kernel wrote itself count, and none of their text is shown: much of it is what a
//! guest or a process chose. `/dev/kmsg` wants `CAP_SYSLOG` where `kernel.dmesg_restrict` is 1; it
//! is opened before privileges are given up, and kept.

use std::io;
use std::sync::Arc;

use super::{fact, unreadable, Found, HostReader};
use crate::host::kernel_log::{self, KernelLog, Record};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::sample::slow::{Fact, FactValue};
use crate::sample::{Reason, SourceInfo};

/// Most records a reading: a log that is flooded must not hold up the lane.
const MOST: usize = 20_000;

/// Kinds of lines, and how one is known: it begins so, or it has so within. The first that fits
/// counts. Texts of Linux 6.18.
const KINDS: [(&str, &[&str], &[&str]); 6] = [
    // arch/x86/kernel/cpu/mce/core.c, drivers/edac/mce_amd.c, drivers/firmware/efi/cper.c
    ("machine_check", &["mce: "], &["[Hardware Error]:"]),
    // mm/memory-failure.c
    ("memory_failure", &["Memory failure: ", "MCE: "], &[]),
    // drivers/thermal/intel/therm_throt.c
    ("throttle", &[], &["cpu clock throttled"]),
    // arch/x86/kernel/cpu/bus_lock.c: "x86/split lock detection: #AC: CPU 0/KVM/77 took a …"
    ("split_lock", &["x86/split lock detection: #"], &[]),
    // arch/x86/kvm/x86.c, kvm_msr_ignored_check and its like: "kvm: vcpu0, guest …: unhandled rdmsr"
    (
        "kvm_msr",
        &[],
        &[
            "unhandled rdmsr",
            "unhandled wrmsr",
            "ignored rdmsr",
            "ignored wrmsr",
        ],
    ),
    (
        "kvm",
        &["kvm: ", "kvm [", "kvm_intel: ", "kvm_amd: ", "KVM: "],
        &[],
    ),
];

/// Follows /dev/kmsg.
pub struct Log {
    roots: Arc<Roots>,
    log: Option<KernelLog>,
    lines: [u64; KINDS.len()],
    lost: u64,
}

impl Log {
    /// The reader over these roots; it counts what is logged from its first reading on.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self {
            roots,
            log: None,
            lines: [0; KINDS.len()],
            lost: 0,
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(KernelLog::open(&self.roots)?),
        };
        let lines = &mut self.lines;
        let count = |record: Record<'_>| {
            if let Some(kind) = kind(&record) {
                lines[kind] += 1;
            }
        };
        self.lost += log.read(MOST, count)?;
        Ok(())
    }

    fn facts(&self) -> Vec<Fact> {
        let line = |((kind, _, _), n): (&(&str, _, _), &u64)| {
            let labels = [("kind", (*kind).to_owned())];
            let metric = "kvm_host_kernel_log_lines_total";
            fact(metric, labels, FactValue::Int(*n))
        };
        let lost = FactValue::Int(self.lost);
        let lost = fact("kvm_host_kernel_log_lost_total", [], lost);
        let lines = KINDS.iter().zip(&self.lines).map(line);
        lines.chain([lost]).collect()
    }
}

/// Which kind of line it is.
fn kind(record: &Record<'_>) -> Option<usize> {
    let text = record.text;
    let has = |part: &&str| text.windows(part.len()).any(|w| w == part.as_bytes());
    let fits = |(_, begins, within): &(&str, &[&str], &[&str])| {
        begins.iter().any(|b| text.starts_with(b.as_bytes())) || within.iter().any(has)
    };
    KINDS.iter().position(fits).filter(|_| record.of_kernel)
}

impl HostReader for Log {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "kernel_log",
            needs: "/dev/kmsg: CAP_SYSLOG at start, or kernel.dmesg_restrict=0",
            cost: "one system call a line of the kernel's log",
        }
    }

    fn read(&mut self, _topology: &Topology) -> Found {
        match self.advance() {
            Ok(()) => Found {
                facts: self.facts(),
                missing: None,
            },
            Err(error) => {
                // It is opened anew; what was counted stays for then.
                self.log = None;
                Found::nothing(missing(&self.roots, &error))
            }
        }
    }
}

fn missing(roots: &Roots, error: &io::Error) -> Reason {
    let path = kernel_log::path(roots);
    let reason = unreadable(&path, error);
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Reason {
            code: "no_permission",
            fix: Some(
                "give the exporter CAP_SYSLOG, which it drops after start, or: \
                 sysctl kernel.dmesg_restrict=0"
                    .to_owned(),
            ),
            ..reason
        },
        Some(libc::ENOENT) => Reason {
            code: "no_kmsg",
            fix: Some(
                "in a container, pass the device /dev/kmsg; under systemd, ProtectKernelLogs=no \
                 and PrivateDevices=no"
                    .to_owned(),
            ),
            ..reason
        },
        _ => reason,
    }
}
