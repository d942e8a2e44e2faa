//! What a scan could not see, and what would make it visible: one line for each kind, which ends
//! in `; needs ` and the remedy.

use std::io;
use std::path::Path;

/// Counts of what was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Blind {
    /// procfs does not list all processes.
    pub(super) invisible: bool,
    /// Some processes' descriptors may not be read.
    pub(super) hidden: bool,
    /// VMs known only by their threads' names.
    pub(super) by_name: usize,
    /// vCPUs whose thread is not known.
    pub(super) threads: usize,
    /// Processes with several VMs that were told apart by vCPU ids alone.
    pub(super) mixed: usize,
    /// VMs whose vCPUs are no threads.
    pub(super) unbound: usize,
    /// libvirt domains whose state may not be read.
    pub(super) domains: usize,
    /// Processes whose memory cannot be read now.
    pub(super) blocked: usize,
    /// The least PID of them.
    pub(super) first_blocked: i32,
}

impl Blind {
    /// One sentence for each kind there is.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.invisible {
            lines.push(
                "procfs hides other users' processes (hidepid), and VMs among them; \
                 needs CAP_SYS_PTRACE"
                    .to_owned(),
            );
        }
        if self.hidden || self.by_name > 0 {
            let known = match self.by_name {
                0 => String::new(),
                n => format!(
                    "{} known by thread names alone, and ",
                    count(n, "VM is", "VMs are")
                ),
            };
            lines.push(format!(
                "the descriptors of some processes may not be read: {known}VMMs among them that \
                 give threads no names are not seen; needs CAP_SYS_PTRACE and \
                 CAP_DAC_READ_SEARCH, and no AppArmor or SELinux profile against it"
            ));
        }
        if self.threads > 0 {
            lines.push(format!(
                "{} no known thread: the VMM gives threads no names, and they have not run yet; \
                 needs KVM debugfs (mount -t debugfs none /sys/kernel/debug), or QEMU started \
                 with -name debug-threads=on",
                count(self.threads, "vCPU has", "vCPUs have")
            ));
        }
        if self.mixed > 0 {
            lines.push(format!(
                "{} several VMs, whose vCPUs are told apart by the order of descriptors; needs \
                 KVM debugfs (mount -t debugfs none /sys/kernel/debug)",
                count(self.mixed, "process runs", "processes run")
            ));
        }
        if self.unbound > 0 {
            lines.push(format!(
                "{} no thread for each vCPU (gVisor): any thread of the sandbox runs any of them, \
                 so that the VM is counted as a whole; needs another platform for series of each \
                 vCPU",
                count(self.unbound, "VM has", "VMs have")
            ));
        }
        if self.domains > 0 {
            lines.push(format!(
                "the state of {} may not be read (/run/libvirt/qemu): what OpenStack knows of \
                 them is missing; needs CAP_DAC_READ_SEARCH",
                count(self.domains, "libvirt domain", "libvirt domains")
            ));
        }
        if self.blocked > 0 {
            let pid = self.first_blocked;
            lines.push(format!(
                "{} be examined, so that their VMs are not seen or keep the names they had: their \
                 memory is locked, or lies in a file that does not answer; the first is PID \
                 {pid}; needs what holds them up to be ended: \
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

/// The line for a host whose processes cannot be listed at all.
pub(super) fn no_processes(proc: &Path, error: &io::Error) -> String {
    let proc = proc.display();
    format!("no VM is seen: cannot list {proc}: {error}; is procfs mounted there (--path.procfs)?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_one_line_with_what_it_needs() {
        assert_eq!(Blind::default().lines(), Vec::<String>::new());
        let all = Blind {
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
