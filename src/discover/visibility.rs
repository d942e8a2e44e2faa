//! Visibility gaps: what a scan could not see, one line per kind, which ends in `; needs ` and the
//! fix.

use std::io;
use std::path::Path;

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
    /// One line for each kind that occurs.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.invisible {
            lines.push(
                "procfs hides the processes of other users (hidepid), including their VMs; \
                 needs CAP_SYS_PTRACE"
                    .to_owned(),
            );
        }
        if self.hidden || self.by_name > 0 {
            let known = match self.by_name {
                0 => String::new(),
                n => format!(
                    "{} known only by thread names, and ",
                    count(n, "VM is", "VMs are")
                ),
            };
            lines.push(format!(
                "cannot read the descriptors of some processes: {known}VMMs that do not name \
                 their threads are missing; needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and no \
                 AppArmor or SELinux profile that denies it"
            ));
        }
        if self.threads > 0 {
            lines.push(format!(
                "{} no known thread: the VMM does not name its threads, and they have not run \
                 yet; needs KVM debugfs (mount -t debugfs none /sys/kernel/debug), or QEMU started \
                 with -name debug-threads=on",
                count(self.threads, "vCPU has", "vCPUs have")
            ));
        }
        if self.mixed > 0 {
            lines.push(format!(
                "{} several VMs: their vCPUs are assigned by the order of descriptors, which can \
                 be wrong; needs KVM debugfs (mount -t debugfs none /sys/kernel/debug)",
                count(self.mixed, "process runs", "processes run")
            ));
        }
        if self.unbound > 0 {
            lines.push(format!(
                "{} no thread per vCPU (gVisor): any thread of the sandbox runs any vCPU, so the \
                 VM is counted as a whole; needs a VMM that runs each vCPU on its own thread",
                count(self.unbound, "VM has", "VMs have")
            ));
        }
        if self.domains > 0 {
            lines.push(format!(
                "cannot read the state of {} (/run/libvirt/qemu): their OpenStack labels are \
                 missing; needs CAP_DAC_READ_SEARCH",
                count(self.domains, "libvirt domain", "libvirt domains")
            ));
        }
        if self.blocked > 0 {
            let pid = self.first_blocked;
            lines.push(format!(
                "{} be examined: reading their memory blocks (it is locked, or in a file whose \
                 server does not answer), so their VMs are missing or keep their last names; \
                 first: PID {pid}; needs the blocking thread or file server stopped: \
                 ps -L -o pid,tid,user,stat,wchan:32,comm -p {pid}",
                count(self.blocked, "process cannot", "processes cannot")
            ));
        }
        lines
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// The line for a host whose processes cannot be listed.
pub(super) fn no_processes(proc: &Path, error: &io::Error) -> String {
    let proc = proc.display();
    format!(
        "cannot list {proc}: {error}: new VMs are not visible; needs procfs mounted there, or \
         --path.procfs set to it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_one_line_with_what_it_needs() {
        assert_eq!(VisibilityGaps::default().lines(), Vec::<String>::new());
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
        let lines = all.lines();
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
