//! Requirements of Intel PT. The machine's are checked even if the source is off.

use caps::Capability;

use super::{grant_with, Finding, Need};
use crate::cli::check::State;
use crate::config;
use crate::host::privileges::{Capabilities, MemoryLock, NEEDED_BY_PT};
use crate::host::roots::Roots;
use crate::sources::pt::PtPlan;

/// The machine's requirements, and the process's if the source is on.
pub(in super::super) fn pt(
    roots: &Roots,
    config: &config::Pt,
    caps: &Capabilities,
    cpus: usize,
) -> Vec<Finding> {
    let machine = machine(roots);
    let can = !matches!(machine.state, State::Missing | State::Absent);
    let mut findings = vec![machine];
    if config.enabled && can {
        findings.push(permission(caps));
        findings.push(memory(roots, config, caps, cpus));
    }
    findings
}

fn machine(roots: &Roots) -> Finding {
    let need = Need("pt", "Intel PT");
    let (finding, fix) = match PtPlan::read(roots) {
        Ok(plan) => match plan.gaps {
            Some(reason) => (need.degraded(reason.detail), reason.fix),
            None => (need.ok(format!("intel_pt/{}/", plan.terms.join(","))), None),
        },
        Err(reason) if reason.code.is_absent() => (need.absent(reason.detail), reason.fix),
        Err(reason) => (need.missing(reason.detail), reason.fix),
    };
    Finding { fix, ..finding }
}

fn permission(caps: &Capabilities) -> Finding {
    let need = Need("pt", "CAP_PERFMON");
    if caps.perfmon() {
        need.ok("held")
    } else {
        need.missing("not held: only threads of this user can be recorded")
            .fix(grant_with(&NEEDED_BY_PT))
    }
}

fn memory(roots: &Roots, config: &config::Pt, caps: &Capabilities, cpus: usize) -> Finding {
    let need = Need("pt", "locked memory for traces");
    let lock = MemoryLock::read(roots);
    let kib = config.max_bytes / 1024;
    if caps.has(Capability::CAP_IPC_LOCK) {
        return need.ok("CAP_IPC_LOCK is held");
    }
    if lock.allows(config.max_bytes as u64, cpus as u64) {
        need.ok(format!("{kib} KiB: {lock}"))
    } else {
        need.missing(format!("{kib} KiB, without CAP_IPC_LOCK: {lock}"))
            .fix(grant_with(&NEEDED_BY_PT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PMU: &str = "sys/bus/event_source/devices/intel_pt";

    /// A machine with Intel PT and additional files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let type_file = format!("{PMU}/type");
        let pt_file = format!("{PMU}/format/pt");
        let own = [(&*type_file, "8\n"), (&*pt_file, "config:0\n")];
        for (file, text) in own.iter().chain(files) {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let roots = Roots::below(dir.path());
        (dir, roots)
    }

    fn on() -> config::Pt {
        config::Pt {
            enabled: true,
            ..config::Pt::default()
        }
    }

    fn states(roots: &Roots, config: &config::Pt, caps: &[Capability]) -> Vec<State> {
        let caps = caps.iter().copied().collect();
        let findings = pt(roots, config, &caps, 2);
        findings.iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn missing_pt_is_the_only_finding() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        std::fs::create_dir_all(&roots.proc).unwrap();
        let cpuinfo = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 106\nstepping : 6\nflags : fpu hypervisor\n";
        std::fs::write(roots.proc.join("cpuinfo"), cpuinfo).unwrap();
        let findings = pt(&roots, &on(), &Capabilities::default(), 2);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].state, State::Absent);
        assert!(findings[0].detail.contains("itself a virtual machine"));
    }

    #[test]
    fn process_is_checked_only_if_pt_is_enabled() {
        let host = host(&[("proc/sys/kernel/perf_event_mlock_kb", "0\n")]);
        let off = config::Pt::default();
        assert_eq!(states(&host.1, &off, &[]), [State::Ok]);
        let all = [Capability::CAP_PERFMON, Capability::CAP_IPC_LOCK];
        assert_eq!(states(&host.1, &on(), &all), [State::Ok; 3]);
        let found = states(&host.1, &on(), &[Capability::CAP_IPC_LOCK]);
        assert_eq!(found, [State::Ok, State::Missing, State::Ok]);
        let huge = config::Pt {
            max_bytes: usize::MAX,
            ..on()
        };
        if MemoryLock::read(&host.1).limit == u64::MAX {
            return println!("skipped: this process may lock as much memory as it likes");
        }
        let found = pt(&host.1, &huge, &Capabilities::default(), 2);
        assert_eq!(found[2].state, State::Missing);
        assert!(found[2].detail.contains("perf_event_mlock_kb is 0"));
        assert!(found[2].fix.as_ref().unwrap().contains("CAP_IPC_LOCK"));
    }

    #[test]
    fn host_guest_mode_hides_the_guest() {
        let host = host(&[("sys/module/kvm_intel/parameters/pt_mode", "1\n")]);
        let findings = pt(&host.1, &config::Pt::default(), &Capabilities::default(), 2);
        assert_eq!(findings[0].state, State::Degraded);
        assert!(findings[0].fix.as_ref().unwrap().contains("pt_mode=0"));
    }
}
