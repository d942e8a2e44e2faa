//! One function for each requirement of the sources. A probe reports only what it read.

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
    let need = Need("host", "CPU topology");
    match topology {
        Ok(topology) => need.ok(places(topology)),
        Err(error) => need
            .missing(error.to_string())
            .fix("mount -t sysfs sysfs /sys, or --path.sysfs=DIR"),
    }
}

/// vCPUs that ran on CPUs which sysfs does not list; `None` if there are none.
pub(super) fn unplaced(seen: &Snapshot) -> Option<Finding> {
    let ran = seen.vcpus.iter().filter(|vcpu| vcpu.known_totals != 0);
    let unplaced = ran.filter(|vcpu| vcpu.location.is_none()).count();
    let need = Need("host", "CPUs of all vCPUs");
    let found = need.degraded(format!(
        "{} ran on CPUs that sysfs does not list: their core, package and NUMA node are unknown",
        count(unplaced, "vCPU"),
    ));
    let fix =
        "mount the host's sysfs and set --path.sysfs=DIR: lxcfs shows a container only its own \
               CPUs";
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

/// How to grant the default capabilities. Not with `setcap` on the program file, which grants them
/// to every user of the machine.
fn grant() -> String {
    grant_with(&[])
}

/// How to grant the default capabilities and `more`.
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

/// Without `CONFIG_SCHED_INFO` the file is missing or contains zeros.
pub(super) fn schedstat(roots: &Roots) -> Finding {
    let need = Need("sched", "schedstat");
    let path = roots.proc.join("self/schedstat");
    let seen = match roots.read(&path).map(|text| parse_schedstat(&text)) {
        Ok(Some(stat)) if stat.run > 0 => return need.ok("works"),
        Ok(Some(_)) => format!("{} stays at 0", path.display()),
        Ok(None) => format!("unexpected format in {}", path.display()),
        Err(error) => refused(&path, &error),
    };
    need.missing(seen).fix(
        "boot a kernel with CONFIG_SCHED_INFO (CONFIG_SCHEDSTATS=y), as distributions build it",
    )
}

/// Before Linux 6.15, a kernel without `CONFIG_SCHED_DEBUG` does not have the file.
pub(super) fn sched(roots: &Roots) -> Finding {
    let need = Need("sched", "migrations and context switches");
    let path = roots.proc.join("self/sched");
    let seen = match roots.read(&path).map(|text| parse_sched(&text)) {
        Ok(Some(_)) => return need.ok("works"),
        Ok(None) => format!("unexpected format in {}", path.display()),
        Err(error) => refused(&path, &error),
    };
    need.degraded(format!("{seen}: no migration and context switch counters"))
        .fix("boot a kernel with CONFIG_SCHED_DEBUG=y, as distributions build it")
}

/// perf_event_open(2): with `CAP_PERFMON`, a process may count on any thread. Without it, only on
/// its own user's threads, and kernel mode only if `perf_event_paranoid` is below 2.
pub(super) fn perf_events(roots: &Roots, caps: &Capabilities) -> Finding {
    let need = Need("pmu", "perf events");
    let Some(paranoid) = perf_event_paranoid(roots) else {
        return need
            .missing("no kernel.perf_event_paranoid in procfs")
            .fix("boot a kernel with CONFIG_PERF_EVENTS=y, and set --path.procfs to its procfs");
    };
    let seen = format!("kernel.perf_event_paranoid is {paranoid}");
    match (caps.perfmon(), paranoid) {
        (true, ..=2) => need.ok(format!("{seen}, CAP_PERFMON is held")),
        (true, _) => need
            .ok(format!(
                "{seen}, a level that some distributions add; CAP_PERFMON is held"
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

/// With a mediated vPMU, KVM cannot create a VM (EBUSY) while a host event counts guest mode.
pub(super) fn mediated_pmu(roots: &Roots) -> Finding {
    let need = Need("pmu", "mediated vPMU");
    let read = |module: &'static str| {
        let file = format!("module/{module}/parameters/enable_mediated_pmu");
        let value = roots.read_text(&roots.sys.join(file)).ok()?;
        Some((module, matches!(value.trim(), "Y" | "1")))
    };
    match ["kvm_intel", "kvm_amd"].into_iter().find_map(read) {
        Some((module, true)) => need
            .degraded("on: guests own the PMU, so only host mode is counted")
            .fix(format!(
                "with no VM running: modprobe -r {module} && modprobe {module} enable_mediated_pmu=N"
            )),
        Some((module, false)) => need.ok(format!("off ({module}.enable_mediated_pmu=N)")),
        None => need.ok("this KVM has none (no parameter enable_mediated_pmu)"),
    }
}

/// Most descriptors of a vCPU with the default events: stat, schedstat, sched and status, 6
/// counters of guest mode, 2 of host mode, 6 tracepoints of KVM.
const DESCRIPTORS_PER_VCPU: u64 = 4 + 6 + 2 + 6;

/// Descriptors reserved for the rest of the exporter (src/engine/descriptors.rs).
const DESCRIPTORS_BESIDE: u64 = 256;

/// Checks the hard limit: the exporter raises the soft limit to it at start.
pub(super) fn descriptors(limit: DescriptorLimit, vcpus: usize) -> Finding {
    let need = Need("pmu", "open files");
    let hard = limit.hard;
    let wanted = DESCRIPTORS_BESIDE + DESCRIPTORS_PER_VCPU * vcpus as u64;
    if hard >= wanted {
        let most = hard.saturating_sub(DESCRIPTORS_BESIDE) / DESCRIPTORS_PER_VCPU;
        return need.ok(format!(
            "{hard} allowed (RLIMIT_NOFILE), enough for {most} vCPUs"
        ));
    }
    let enough = wanted.next_power_of_two();
    need.degraded(format!(
        "{hard} allowed (RLIMIT_NOFILE), about {wanted} needed: some vCPUs are not counted"
    ))
    .fix(format!(
        "ulimit -Hn {enough} (systemd: LimitNOFILE={enough})"
    ))
}

/// KVM's tracepoints exist while one of its modules is loaded; only root may read them.
pub(super) fn tracefs(roots: &Roots) -> Finding {
    let need = Need("exits", "KVM's tracepoints");
    let dir = roots.tracing.join("events/kvm");
    let error = match roots.read_text(&dir.join("kvm_userspace_exit/id")) {
        Ok(_) => return need.ok("readable"),
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
