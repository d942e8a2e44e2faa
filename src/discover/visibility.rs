//! Visibility gaps: what a scan could not see, one for each kind.

use std::borrow::Cow;
use std::path::Path;
use std::{fmt, io};

/// Something that a scan could not see. Its text is `unseen; needs needs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisibilityGap {
    /// What is not visible, and why.
    pub unseen: String,
    /// What makes it visible; empty if unknown.
    pub needs: Cow<'static, str>,
}

impl VisibilityGap {
    fn new(unseen: impl Into<String>, needs: impl Into<Cow<'static, str>>) -> Self {
        Self {
            unseen: unseen.into(),
            needs: needs.into(),
        }
    }
}

impl fmt::Display for VisibilityGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.needs {
            "" => f.write_str(&self.unseen),
            needs => write!(f, "{}; needs {needs}", self.unseen),
        }
    }
}

/// Counts for each kind of visibility gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct VisibilityGaps {
    /// procfs does not list all processes.
    pub(super) invisible: bool,
    /// The descriptors of some processes cannot be read.
    pub(super) hidden: bool,
    /// VMs known only by thread names.
    pub(super) by_name: usize,
    /// vCPUs without a known thread.
    pub(super) threads: usize,
    /// Processes with several VMs whose vCPUs are assigned by vCPU id alone.
    pub(super) mixed: usize,
    /// VMs that have no thread per vCPU.
    pub(super) unbound: usize,
    /// libvirt domains whose state cannot be read.
    pub(super) domains: usize,
    /// Processes that cannot be examined because reading their memory blocks.
    pub(super) blocked: usize,
    /// The lowest PID of these.
    pub(super) first_blocked: i32,
}

impl VisibilityGaps {
    /// One gap for each kind that occurs.
    pub(super) fn list(&self) -> Vec<VisibilityGap> {
        let mut gaps = Vec::new();
        if self.invisible {
            gaps.push(VisibilityGap::new(
                "procfs hides the processes of other users (hidepid), including their VMs",
                "CAP_SYS_PTRACE",
            ));
        }
        if self.hidden || self.by_name > 0 {
            let known = match self.by_name {
                0 => String::new(),
                n => format!(
                    "{} known only by thread names, and ",
                    count(n, "VM is", "VMs are")
                ),
            };
            gaps.push(VisibilityGap::new(
                format!(
                    "cannot read the descriptors of some processes: {known}VMMs that do not name \
                     their threads are missing"
                ),
                "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and no AppArmor or SELinux profile that \
                 denies it",
            ));
        }
        if self.threads > 0 {
            let vcpus = count(self.threads, "vCPU has", "vCPUs have");
            gaps.push(VisibilityGap::new(
                format!(
                    "{vcpus} no known thread: the VMM does not name its threads, and they have \
                     not run yet"
                ),
                "KVM debugfs (mount -t debugfs none /sys/kernel/debug), or QEMU started with \
                 -name debug-threads=on",
            ));
        }
        if self.mixed > 0 {
            let processes = count(self.mixed, "process runs", "processes run");
            gaps.push(VisibilityGap::new(
                format!(
                    "{processes} several VMs: their vCPUs are assigned by the order of \
                     descriptors, which can be wrong"
                ),
                "KVM debugfs (mount -t debugfs none /sys/kernel/debug)",
            ));
        }
        if self.unbound > 0 {
            let vms = count(self.unbound, "VM has", "VMs have");
            gaps.push(VisibilityGap::new(
                format!(
                    "{vms} no thread per vCPU (gVisor): any thread of the sandbox runs any vCPU, \
                     so the VM is counted as a whole"
                ),
                "a VMM that runs each vCPU on its own thread",
            ));
        }
        if self.domains > 0 {
            let domains = count(self.domains, "libvirt domain", "libvirt domains");
            gaps.push(VisibilityGap::new(
                format!(
                    "cannot read the state of {domains} (/run/libvirt/qemu): their OpenStack \
                     labels are missing"
                ),
                "CAP_DAC_READ_SEARCH",
            ));
        }
        if self.blocked > 0 {
            let processes = count(self.blocked, "process cannot", "processes cannot");
            let pid = self.first_blocked;
            gaps.push(VisibilityGap::new(
                format!(
                    "{processes} be examined: reading their memory blocks (it is locked, or in a \
                     file whose server does not answer), so their VMs are missing or keep their \
                     last names; first: PID {pid}"
                ),
                format!(
                    "the blocking thread or file server stopped: \
                     ps -L -o pid,tid,user,stat,wchan:32,comm -p {pid}"
                ),
            ));
        }
        gaps
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The gap of a host whose processes cannot be listed.
pub(super) fn no_processes(proc: &Path, error: &io::Error) -> VisibilityGap {
    let proc = proc.display();
    VisibilityGap::new(
        format!("cannot list {proc}: {error}: new VMs are not visible"),
        "procfs mounted there, or --path.procfs set to it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_one_line_with_what_it_needs() {
        assert_eq!(VisibilityGaps::default().list(), []);
        let all = VisibilityGaps {
            invisible: true,
            hidden: true,
            by_name: 2,
            threads: 3,
            mixed: 4,
            unbound: 5,
            domains: 6,
            blocked: 7,
            first_blocked: 8,
        };
        let lines: Vec<String> = all.list().iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 7);
        assert!(
            lines.iter().all(|line| line.contains("; needs ")),
            "{lines:?}"
        );
        for (line, number) in lines[1..].iter().zip(2..) {
            assert!(line.contains(&number.to_string()), "{line}");
        }
    }
}
