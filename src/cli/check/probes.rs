//! One look at each thing the sources need. A probe says what it saw, never what it supposes.

use std::io;
use std::path::Path;

use caps::Capability;

use super::{count, Finding, Need};
use crate::host::privileges::{perf_event_paranoid, Capabilities, DescriptorLimit, NEEDED};
use crate::host::roots::Roots;
use crate::host::thread::{parse_sched, parse_schedstat};
use crate::host::topology::{Cpu, Topology, TopologyError};
use crate::snapshot::Snapshot;

mod inventory;
mod otlp;
mod pt;

pub(super) use inventory::{blind_spot, hidepid, kvm, kvm_debugfs, procfs};
pub(super) use otlp::otlp;
pub(super) use pt::pt;

pub(super) fn topology(topology: &Result<Topology, TopologyError>) -> Finding {
    let need = Need("host", "CPU topology in sysfs");
    match topology {
        Ok(topology) => need.ok(places(topology)),
        Err(error) => need
            .missing(error.to_string())
            .fix("mount -t sysfs sysfs /sys, or --path.sysfs=DIR"),
    }
}

/// vCPUs that ran on CPUs which the topology lacks; `None` where all have their place.
pub(super) fn unplaced(seen: &Snapshot) -> Option<Finding> {
    let ran = seen.vcpus.iter().filter(|vcpu| vcpu.known_totals != 0);
    let unplaced = ran.filter(|vcpu| vcpu.whereabouts.is_none()).count();
    let need = Need("host", "CPUs of all vCPUs in sysfs");
    let found = need.degraded(format!(
        "{} on CPUs that sysfs does not list: no core, package or NUMA node of these is known",
        count(unplaced, "vCPU"),
    ));
    let fix = "--path.sysfs=DIR with the host's sysfs: that of a container may list its own CPUs \
               alone (lxcfs)";
    (unplaced > 0).then(|| found.fix(fix))
}

fn places(topology: &Topology) -> String {
    let distinct = |key: fn(&Cpu) -> (i32, i32)| {
        let mut keys: Vec<_> = topology.cpus.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    };
    let cores = distinct(|cpu| (cpu.place.package, cpu.place.core));
    let packages = distinct(|cpu| (cpu.place.package, 0));
    let nodes = distinct(|cpu| (cpu.place.numa_node as i32, 0));
    [
        count(topology.cpus.len(), "CPU"),
        count(cores, "core"),
        count(packages, "package"),
        count(nodes, "NUMA node"),
    ]
    .join(", ")
}

/// What gives the program its capabilities. Not `setcap` on the program file: with that every user
/// of the machine has them.
fn grant() -> String {
    grant_with(&[])
}

/// The same, with more of them.
fn grant_with(more: &[Capability]) -> String {
    let all = NEEDED.iter().chain(more);
    let names: Vec<_> = all.map(ToString::to_string).collect();
    format!(
        "run it as root, or as a service with AmbientCapabilities={} (docker: --cap-add)",
        names.join(" ")
    )
}

fn refused(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// A kernel without `CONFIG_SCHED_INFO` has no such file, or one of zeros.
pub(super) fn schedstat(roots: &Roots) -> Finding {
    let need = Need("sched", "time and delay of threads (schedstat)");
    let path = roots.proc.join("self/schedstat");
    let seen = match roots.read(&path).map(|text| parse_schedstat(&text)) {
        Ok(Some(stat)) if stat.run > 0 => return need.ok(format!("{} counts", path.display())),
        Ok(Some(_)) => format!("{} stays at 0", path.display()),
        Ok(None) => format!("{} is not understood", path.display()),
        Err(error) => refused(&path, &error),
    };
    need.missing(seen)
        .fix("a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS=y), as distributions build it")
}

/// A kernel without `CONFIG_SCHED_DEBUG` has no such file before Linux 6.15.
pub(super) fn sched(roots: &Roots) -> Finding {
    let need = Need(
        "sched",
        "migrations and context switches of threads (sched)",
    );
    let path = roots.proc.join("self/sched");
    let seen = match roots.read(&path).map(|text| parse_sched(&text)) {
        Ok(Some(_)) => return need.ok(format!("{} counts", path.display())),
        Ok(None) => format!("{} is not understood", path.display()),
        Err(error) => refused(&path, &error),
    };
    need.degraded(format!("{seen}: no migration and context switch counters"))
        .fix("a kernel with CONFIG_SCHED_DEBUG=y, as distributions build it")
}

/// perf_event_open(2): `CAP_PERFMON` opens counters on any thread; without it only on threads of
/// one's own, and the kernel side of those only below 2.
pub(super) fn perf_events(roots: &Roots, caps: &Capabilities) -> Finding {
    let need = Need("pmu", "perf events on other users' threads");
    let Some(paranoid) = perf_event_paranoid(roots) else {
        return need
            .missing("no kernel.perf_event_paranoid in procfs")
            .fix("a kernel with CONFIG_PERF_EVENTS=y, and its procfs");
    };
    let seen = format!("kernel.perf_event_paranoid is {paranoid}");
    match (caps.perfmon(), paranoid) {
        (true, ..=2) => need.ok(format!("{seen}, and CAP_PERFMON is held")),
        (true, _) => need
            .ok(format!(
                "{seen}, a distribution's own level; CAP_PERFMON is held"
            ))
            .fix("only if opening counters fails with EACCES: sysctl kernel.perf_event_paranoid=2"),
        (false, ..=1) => need
            .degraded(format!(
                "{seen}; without CAP_PERFMON only VMs of this user can be counted"
            ))
            .fix(grant()),
        (false, _) => need
            .missing(format!("{seen}, and CAP_PERFMON is not held"))
            .fix(grant()),
    }
}

/// With a mediated vPMU a host event that counts the guest makes creating a VM fail (EBUSY).
pub(super) fn mediated_pmu(roots: &Roots) -> Finding {
    let need = Need("pmu", "no mediated vPMU, to count inside guests");
    let read = |module: &'static str| {
        let file = format!("module/{module}/parameters/enable_mediated_pmu");
        let value = roots.read_text(&roots.sys.join(file)).ok()?;
        Some((module, matches!(value.trim(), "Y" | "1")))
    };
    match ["kvm_intel", "kvm_amd"].into_iter().find_map(read) {
        Some((module, true)) => need
            .degraded("KVM hands the PMU to guests whole: only the host side is counted")
            .fix(format!(
                "with no VM running: modprobe -r {module} && modprobe {module} enable_mediated_pmu=N"
            )),
        Some((module, false)) => need.ok(format!("{module}: enable_mediated_pmu is off")),
        None => need.ok("KVM has no enable_mediated_pmu parameter here"),
    }
}

/// Descriptors a vCPU takes by default, at most: stat, schedstat, sched and status, 6 counters of
/// the guest and 2 of the host, 6 tracepoints of KVM.
const DESCRIPTORS_PER_VCPU: u64 = 4 + 6 + 2 + 6;

/// What counters leave free for the rest of the exporter (src/sample/descriptors.rs).
const DESCRIPTORS_BESIDE: u64 = 256;

/// The soft limit does not matter: it is raised to the hard one at start.
pub(super) fn descriptors(limit: DescriptorLimit, vcpus: usize) -> Finding {
    let need = Need("pmu", "open files (RLIMIT_NOFILE)");
    let hard = limit.hard;
    let wanted = DESCRIPTORS_BESIDE + DESCRIPTORS_PER_VCPU * vcpus as u64;
    if hard >= wanted {
        let most = hard.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_VCPU;
        return need.ok(format!(
            "{hard} allowed, {wanted} needed now; enough for {most} vCPUs"
        ));
    }
    let enough = wanted.next_power_of_two();
    need.degraded(format!(
        "{hard} allowed, about {wanted} needed: some vCPUs go without counters"
    ))
    .fix(format!(
        "ulimit -Hn {enough} (systemd: LimitNOFILE={enough})"
    ))
}

/// KVM's tracepoints are there while one of its modules is loaded, and closed to all but root.
pub(super) fn tracefs(roots: &Roots) -> Finding {
    let need = Need("exits", "KVM's tracepoints in tracefs");
    let dir = roots.tracing.join("events/kvm");
    let error = match roots.read_text(&dir.join("kvm_userspace_exit/id")) {
        Ok(_) => return need.ok(format!("{} can be read", dir.display())),
        Err(error) => error,
    };
    need.missing(refused(&dir, &error))
        .fix(match error.raw_os_error() {
            Some(libc::EACCES) => grant(),
            Some(libc::EPERM) => "boot without lockdown=confidentiality".to_owned(),
            _ if roots.tracing.join("events").exists() => {
                "load KVM: modprobe kvm_intel, or kvm_amd".to_owned()
            }
            _ => format!("mount -t tracefs tracefs {}", roots.tracing.display()),
        })
}

#[cfg(test)]
mod tests;
