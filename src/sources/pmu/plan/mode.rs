//! Determines the hardware counting that this host allows, and the reason for the operator if it
//! is not full.

use crate::config;
use crate::engine::{descriptors, Reason, ReasonCode};

use super::super::counters::Attr;
use super::super::denied::SHARE_PID_NAMESPACE;
use super::super::events::{self, Code, Mode};
use super::super::probe::Kernel;
use super::{errno_text, Machine, PmuMode};

/// Determines the mode, with the reason if it is not [`PmuMode::Full`].
pub(super) fn decide(
    config: &config::Pmu,
    machine: &Machine,
    kernel: &dyn Kernel,
) -> (PmuMode, Option<Reason>) {
    if !config.enabled {
        return (PmuMode::Off, Some(Reason::disabled("pmu")));
    }
    if machine.foreign_pid.is_some() {
        return (PmuMode::Off, Some(pid_namespace()));
    }
    let cycles = |mode| {
        let attrs = events::attrs(Code::Hardware(0), mode, &machine.pmus);
        attrs.iter().try_for_each(|attr| kernel.opens(&[*attr]))
    };
    if let Some(module) = machine.mediated_vpmu {
        // Guest mode is not probed: a VM that starts during the probe would fail.
        return match cycles(Mode::Host) {
            Ok(()) if config.host_mode => (PmuMode::HostOnly, Some(mediated(module))),
            Ok(()) => (PmuMode::Off, Some(mediated(module))),
            Err(errno) => without_pmu(errno, machine, kernel),
        };
    }
    match (cycles(Mode::Guest), cycles(Mode::Host)) {
        (Ok(()), _) => (PmuMode::Full, None),
        (Err(errno), Ok(())) if config.host_mode => (PmuMode::HostOnly, Some(guest_refused(errno))),
        (Err(errno), Ok(())) => (PmuMode::Off, Some(guest_refused(errno))),
        (Err(_), Err(errno)) => without_pmu(errno, machine, kernel),
    }
}

fn without_pmu(errno: i32, machine: &Machine, kernel: &dyn Kernel) -> (PmuMode, Option<Reason>) {
    let denied = |errno| {
        let detail = format!("perf_event_open: {}", errno_text(errno));
        machine.gate.reason(Some(errno), &detail)
    };
    if let Some(reason) = denied(errno) {
        return (PmuMode::Off, Some(reason));
    }
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EOPNOTSUPP => {
            let software: Vec<Attr> = events::software().iter().map(|(_, attr)| *attr).collect();
            match kernel.opens(&software) {
                Ok(()) => (PmuMode::Software, Some(no_pmu())),
                Err(errno) => (PmuMode::Off, denied(errno).or_else(|| Some(no_pmu()))),
            }
        }
        libc::EMFILE | libc::ENFILE => {
            let detail = "no file descriptor left to open a counter".to_owned();
            (PmuMode::Off, Some(descriptors::none_left(detail)))
        }
        _ => (PmuMode::Off, Some(refused(errno))),
    }
}

pub(in crate::sources) fn pid_namespace() -> Reason {
    ReasonCode::PidNamespace
        .reason(
            "the exporter runs in its own PID namespace: the thread IDs in /proc are not valid \
                 for perf_event_open",
        )
        .with_fix(SHARE_PID_NAMESPACE)
}

/// The reason if [`super::mediated_vpmu`] finds a module.
pub(in super::super) fn mediated(module: &str) -> Reason {
    ReasonCode::MediatedVpmu
        .reason(format!(
            "{module} uses a mediated vPMU: a running guest owns the counters, and an event that \
             counts guests would prevent VMs from starting"
        ))
        .with_fix(format!(
            "with no VM running: modprobe -r {module} && modprobe {module} enable_mediated_pmu=0, \
             then restart the exporter"
        ))
}

fn guest_refused(errno: i32) -> Reason {
    ReasonCode::ExcludeHostRefused.reason(format!(
        "the kernel counts host mode but cannot count guest mode separately ({})",
        errno_text(errno)
    ))
}

fn no_pmu() -> Reason {
    ReasonCode::NoPmu
        .reason("this machine has no hardware counters")
        .with_fix(
            "if this machine is a VM, give it a vPMU (QEMU: -cpu host,pmu=on); on bare metal, see \
             dmesg | grep -i 'performance events'",
        )
}

fn refused(errno: i32) -> Reason {
    ReasonCode::Refused.reason(format!(
        "the kernel refuses to count cycles: {}",
        errno_text(errno)
    ))
}
