//! Who keeps perf_event_open from being used: the kernel, its privileges, or a filter before it.
//!
//! Which errno says what (kernel/events/core.c, 5.8 to 6.18):
//!
//! - EACCES: `kernel.perf_event_paranoid` and no CAP_PERFMON, another user's thread and no right to
//!   trace it, or a security module.
//! - EPERM: not of counting as such. Docker's seccomp profile answers so, and Podman's with
//!   CAP_PERFMON alone until the end of 2025.
//! - ENOSYS: a kernel without perf, or again a profile: Podman's, for a container that has
//!   CAP_SYS_ADMIN and lacks CAP_PERFMON (containers/common, issue 2534). perf_event_open(2) calls
//!   it the official way to tell a kernel with perf that it has
//!   /proc/sys/kernel/perf_event_paranoid.

use crate::host::privileges;
use crate::host::roots::Roots;
use crate::sample::Reason;

use super::plan::permission_fix;

/// What stands before perf_event_open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gate {
    /// `kernel.perf_event_paranoid`; `None` in a kernel without perf, or where procfs hides it.
    pub paranoid: Option<i32>,
    /// Whether a seccomp filter is in force; `None` where the kernel does not say.
    pub seccomp: Option<bool>,
}

impl Gate {
    /// That of this process.
    pub fn read(roots: &Roots) -> Self {
        Self {
            paranoid: privileges::perf_event_paranoid(roots),
            seccomp: privileges::seccomp_filter(roots),
        }
    }

    /// Why the kernel, or what is before it, did not let perf_event_open count; `None` for an
    /// errno that says something else. `detail` is what was tried and the kernel's answer.
    pub(in crate::sample) fn reason(self, errno: Option<i32>, detail: &str) -> Option<Reason> {
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
            None => "kernel.perf_event_paranoid could not be read".to_owned(),
        };
        Reason {
            code: "no_permission",
            detail: format!("{detail}; {paranoid}"),
            fix: Some(permission_fix(self.paranoid)),
        }
    }
}

fn filtered(detail: &str) -> Reason {
    Reason {
        code: "seccomp",
        detail: format!("{detail}: a seccomp filter refuses it, not the kernel"),
        fix: Some(
            "allow perf_event_open in the container's seccomp profile: --cap-add=PERFMON, and where \
             the profile still refuses, --security-opt seccomp=PROFILE with perf_event_open among \
             its allowed calls (systemd: SystemCallFilter=perf_event_open)"
                .to_owned(),
        ),
    }
}

fn no_perf(detail: &str) -> Reason {
    Reason {
        code: "no_perf",
        detail: format!("{detail}: the kernel has no perf_event_open"),
        fix: Some("use a kernel with CONFIG_PERF_EVENTS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_and_what_is_known_of_the_process_name_the_cause() {
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
