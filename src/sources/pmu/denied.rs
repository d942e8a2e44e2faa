//! Why perf_event_open is denied: the kernel has no perf, a privilege is missing, or a filter
//! blocks the call.
//!
//! Meaning of each errno (kernel/events/core.c, 5.8 to 6.18):
//!
//! - EACCES: `kernel.perf_event_paranoid` without CAP_PERFMON, a thread of another user without
//!   the right to trace it, or a security module.
//! - EPERM: not returned for counting as such. Docker's seccomp profile returns it, and Podman's
//!   with only CAP_PERFMON until the end of 2025.
//! - ENOSYS: a kernel without perf, or a seccomp profile: Podman's, for a container with
//!   CAP_SYS_ADMIN and without CAP_PERFMON (containers/common, issue 2534). The existence of
//!   /proc/sys/kernel/perf_event_paranoid is the official test for a kernel with perf
//!   (perf_event_open(2)).

use crate::engine::{descriptors, Reason, ReasonCode};
use crate::host::privileges;
use crate::host::roots::Roots;

use super::counters::CounterError;

/// Why the kernel refused counters, and how to fix it. `taken` says how many descriptors they take.
pub(in crate::sources) fn refusal(
    error: &CounterError,
    taken: &str,
    gate: impl FnOnce() -> Gate,
) -> Reason {
    let detail = error.to_string();
    if descriptors::are_out(&error.error) {
        return descriptors::none_left(format!("{detail}; {taken} descriptors per vCPU"));
    }
    let errno = error.error.raw_os_error();
    if let Some(denied) = gate().reason(errno, &detail) {
        return denied;
    }
    match errno {
        // If the thread exited, `sched` returns `Gone` on the next tick, which discards this
        // reason.
        Some(libc::ESRCH) => ReasonCode::NoSuchThread
            .reason(detail)
            .with_fix(SHARE_PID_NAMESPACE),
        Some(libc::ETIMEDOUT) => ReasonCode::Blocked.reason(detail),
        _ => ReasonCode::Refused.reason(detail),
    }
}

/// What may block perf_event_open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Gate {
    /// `kernel.perf_event_paranoid`; `None` if the kernel has no perf or procfs hides it.
    pub paranoid: Option<i32>,
    /// Whether a seccomp filter is active; `None` if the kernel does not report it.
    pub seccomp: Option<bool>,
}

impl Gate {
    /// Reads the state of this process.
    pub(crate) fn read(roots: &Roots) -> Self {
        Self {
            paranoid: privileges::perf_event_paranoid(roots),
            seccomp: privileges::seccomp_filter(roots),
        }
    }

    /// Why perf_event_open was denied; `None` for an errno with another meaning. `detail` is the
    /// attempt and the kernel's error.
    pub(in crate::sources) fn reason(self, errno: Option<i32>, detail: &str) -> Option<Reason> {
        match (errno?, self.seccomp) {
            (libc::ENOSYS, _) if self.paranoid.is_some() => Some(filtered(detail)),
            (libc::ENOSYS, _) => Some(no_perf(detail)),
            (libc::EPERM, Some(true)) => Some(filtered(detail)),
            (libc::EACCES | libc::EPERM, _) => Some(self.no_permission(detail)),
            _ => None,
        }
    }

    fn no_permission(self, detail: &str) -> Reason {
        let paranoid = match self.paranoid {
            Some(level) => format!("kernel.perf_event_paranoid is {level}"),
            None => "cannot read kernel.perf_event_paranoid".to_owned(),
        };
        ReasonCode::NoPermission
            .reason(format!("{detail}; {paranoid}"))
            .with_fix(permission_fix(self.paranoid))
    }
}

fn filtered(detail: &str) -> Reason {
    ReasonCode::Seccomp.reason(format!("{detail}: blocked by a seccomp filter, not by the kernel"))
    .with_fix(
        "allow perf_event_open in the container's seccomp profile: --cap-add=PERFMON; if that is \
             not enough, --security-opt seccomp=PROFILE with a profile that allows perf_event_open \
             (systemd: SystemCallFilter=perf_event_open)",
    )
}

fn no_perf(detail: &str) -> Reason {
    ReasonCode::NoPerf
        .reason(format!("{detail}: the kernel has no perf_event_open"))
        .with_fix("use a kernel with CONFIG_PERF_EVENTS")
}

/// Makes thread IDs in /proc valid for perf_event_open.
pub(in crate::sources) const SHARE_PID_NAMESPACE: &str =
    "run the container with --pid=host (Kubernetes: hostPID: true)";

/// How to permit opening counters. Levels above 2 are specific to distributions (3 on Debian, 4 on
/// Ubuntu); their kernels then require CAP_SYS_ADMIN, which is too powerful to grant. Seen on
/// Debian's 6.12 kernel: with CAP_PERFMON it returns EACCES at level 3 and opens at level 2.
pub(in crate::sources) fn permission_fix(paranoid: Option<i32>) -> String {
    let lower = match paranoid {
        Some(3..) => "sysctl kernel.perf_event_paranoid=2, and ",
        _ => "",
    };
    format!(
        "{lower}give the exporter CAP_PERFMON: AmbientCapabilities=CAP_PERFMON in its unit (in a \
         container also allow perf_event_open in the seccomp profile)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_and_process_state_determine_the_reason() {
        let gate = |paranoid, seccomp| Gate { paranoid, seccomp };
        for (errno, gate, code, fix) in [
            (
                libc::ENOSYS,
                gate(Some(2), None),
                "seccomp",
                "seccomp profile",
            ),
            (
                libc::ENOSYS,
                gate(Some(2), Some(false)),
                "seccomp",
                "seccomp profile",
            ),
            (
                libc::ENOSYS,
                gate(None, Some(true)),
                "no_perf",
                "CONFIG_PERF_EVENTS",
            ),
            (
                libc::EPERM,
                gate(Some(2), Some(true)),
                "seccomp",
                "seccomp profile",
            ),
            (
                libc::EPERM,
                gate(Some(2), Some(false)),
                "no_permission",
                "CAP_PERFMON",
            ),
            (
                libc::EACCES,
                gate(Some(2), Some(true)),
                "no_permission",
                "CAP_PERFMON",
            ),
            (
                libc::EACCES,
                gate(Some(3), None),
                "no_permission",
                "perf_event_paranoid=2",
            ),
        ] {
            let reason = gate.reason(Some(errno), "opening counters").unwrap();
            assert_eq!(reason.code, code, "{errno} {gate:?}");
            assert!(reason.fix.unwrap().contains(fix), "{errno} {gate:?}");
        }
        for errno in [Some(libc::EINVAL), Some(libc::EMFILE), None] {
            assert_eq!(Gate::default().reason(errno, ""), None);
        }
    }
}
