//! Privileges of this process: capabilities, `perf_event_paranoid`, limit of open files.
//!
//! A missing privilege never stops the exporter: it disables one source, with a reason.

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{getrlimit, setrlimit, Resource};

use super::roots::Roots;
use super::thread::after;

/// Capabilities that the exporter uses (capabilities(7)):
/// - `CAP_PERFMON`: `perf_event_open` on threads of other users, the host side included;
/// - `CAP_SYS_PTRACE`: read the links in /proc/PID/fd, which identify the holder of a VM
///   (`proc_fd_access_allowed`, fs/proc/base.c), and see processes hidden by `hidepid`;
/// - `CAP_DAC_READ_SEARCH`: list /proc/PID/fd, debugfs and /run/libvirt/qemu, which only their
///   owners can read.
pub(crate) const NEEDED: [Capability; 3] = [
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Also needed while `sources.pt` is on: `CAP_IPC_LOCK` maps the trace buffer, which exceeds what
/// an unprivileged user may lock in memory (`perf_mmap`, kernel/events/core.c).
pub(crate) const NEEDED_BY_PT: [Capability; 1] = [Capability::CAP_IPC_LOCK];

/// All needed capabilities, with or without Intel PT.
pub fn needed(pt: bool) -> Vec<Capability> {
    let more: &[Capability] = if pt { &NEEDED_BY_PT } else { &[] };
    NEEDED.iter().chain(more).copied().collect()
}

/// A set of capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(CapsHashSet);

impl Capabilities {
    /// Effective capabilities of the calling thread; none if they cannot be read.
    pub(crate) fn effective() -> Self {
        Self(caps::read(None, CapSet::Effective).unwrap_or_default())
    }

    /// Whether the set contains a capability.
    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// `perfmon_capable()` of include/linux/capability.h.
    pub(crate) fn perfmon(&self) -> bool {
        self.has(Capability::CAP_PERFMON) || self.has(Capability::CAP_SYS_ADMIN)
    }

    /// The capabilities in `wanted` that are missing.
    pub(crate) fn missing(&self, wanted: &[Capability]) -> Vec<Capability> {
        let missing = wanted.iter().filter(|capability| !self.has(**capability));
        missing.copied().collect()
    }

    /// All capabilities of the set, unsorted.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = Capability> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().collect())
    }
}

/// `kernel.perf_event_paranoid` (Documentation/admin-guide/sysctl/kernel.rst); `None` if there is
/// no such file, on a kernel without perf events.
pub fn perf_event_paranoid(roots: &Roots) -> Option<i32> {
    roots.number(&roots.proc.join("sys/kernel/perf_event_paranoid"))
}

/// Whether a seccomp filter applies to this process (`Seccomp` in /proc/self/status is 2,
/// proc_pid_status(5)); `None` if that cannot be read.
pub(crate) fn seccomp_filter(roots: &Roots) -> Option<bool> {
    let status = roots.read(&roots.proc.join("self/status")).ok()?;
    Some(after(&status, b"Seccomp:")?.trim_ascii() == b"2")
}

/// Limits on the perf buffers that a process may map without `CAP_IPC_LOCK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLock {
    /// `kernel.perf_event_mlock_kb`: KiB per CPU and user.
    pub(crate) per_cpu_kib: Option<u64>,
    /// `RLIMIT_MEMLOCK` in bytes, for memory above that; `u64::MAX` means unlimited.
    pub limit: u64,
}

impl MemoryLock {
    /// Limits of this process.
    pub(crate) fn read(roots: &Roots) -> Self {
        Self {
            per_cpu_kib: roots.number(&roots.proc.join("sys/kernel/perf_event_mlock_kb")),
            limit: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX),
        }
    }

    /// Whether a buffer of `bytes` fits on a machine with `cpus` CPUs. Buffers of other processes
    /// of the user are unknown and not subtracted.
    pub(crate) fn allows(&self, bytes: u64, cpus: u64) -> bool {
        let free = self.per_cpu_kib.unwrap_or(0).saturating_mul(1024);
        bytes <= free.saturating_mul(cpus).saturating_add(self.limit)
    }
}

impl std::fmt::Display for MemoryLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.per_cpu_kib {
            Some(kib) => write!(f, "kernel.perf_event_mlock_kb is {kib}")?,
            None => f.write_str("kernel.perf_event_mlock_kb cannot be read")?,
        }
        match self.limit {
            u64::MAX => f.write_str(", RLIMIT_MEMLOCK is unlimited"),
            bytes => write!(f, ", RLIMIT_MEMLOCK is {} KiB", bytes / 1024),
        }
    }
}

/// `RLIMIT_NOFILE`: number of descriptors that the process may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// Current limit; `u64::MAX` means unlimited.
    pub soft: u64,
    /// Highest limit that an unprivileged process may set.
    pub(crate) hard: u64,
}

impl DescriptorLimit {
    /// The limit of this process.
    pub(crate) fn now() -> Self {
        let limit = getrlimit(Resource::Nofile);
        Self {
            soft: limit.current.unwrap_or(u64::MAX),
            hard: limit.maximum.unwrap_or(u64::MAX),
        }
    }
}

/// Raises the soft limit of open files to the hard limit; returns the resulting limit.
pub fn raise_descriptor_limit() -> DescriptorLimit {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files to its hard limit");
    }
    DescriptorLimit::now()
}

/// Result of dropping capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Effective capabilities after the drop.
    pub kept: Capabilities,
    /// Steps that the kernel refused, each with its reason.
    pub refused: Vec<String>,
}

/// Drops every capability except `keep`, for the calling thread and the threads it starts later.
/// Must be called before any other thread starts, because other threads keep theirs.
///
/// Also clears the bounding set if `CAP_SETPCAP` allows it, and the inheritable set and with it the
/// ambient set: a program started from here inherits nothing.
pub(crate) fn drop_all_but(keep: &[Capability]) -> Dropped {
    let mut refused = Vec::new();
    if Capabilities::effective().has(Capability::CAP_SETPCAP) {
        refused.extend(cut_bounding_set(keep).err());
    }
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let kept = held
        .into_iter()
        .filter(|held| keep.contains(held))
        .collect();
    let none = CapsHashSet::new();
    // Permitted last: the effective set must stay within it.
    for (set, value) in [
        (CapSet::Inheritable, &none),
        (CapSet::Effective, &kept),
        (CapSet::Permitted, &kept),
    ] {
        if let Err(error) = caps::set(None, set, value) {
            refused.push(format!("{set:?} set: {error}"));
        }
    }
    Dropped {
        kept: Capabilities::effective(),
        refused,
    }
}

fn cut_bounding_set(keep: &[Capability]) -> Result<(), String> {
    for capability in caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)
                .map_err(|error| format!("Bounding set, {capability}: {error}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn cap_sys_admin_stands_in_for_perfmon() {
        let with = |capability| Capabilities::from_iter([capability]);
        assert!(with(Capability::CAP_PERFMON).perfmon());
        assert!(with(Capability::CAP_SYS_ADMIN).perfmon());
        assert!(!with(Capability::CAP_SYS_PTRACE).perfmon());
        assert_eq!(
            with(Capability::CAP_PERFMON).missing(&NEEDED),
            [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]
        );
    }

    /// Capabilities belong to threads: only those of this test's thread are dropped.
    #[test]
    fn threads_started_after_the_drop_have_no_more_than_what_was_kept() {
        let keep = [Capability::CAP_PERFMON];
        let before = Capabilities::effective();
        let (dropped, child) = thread::spawn(move || {
            let dropped = drop_all_but(&keep);
            let child = thread::spawn(Capabilities::effective).join().unwrap();
            (dropped, child)
        })
        .join()
        .unwrap();
        let expected: Capabilities = before.iter().filter(|c| keep.contains(c)).collect();
        assert_eq!(dropped.kept, expected);
        assert_eq!(child, expected);
        assert_eq!(dropped.refused, Vec::<String>::new());
    }

    #[test]
    fn what_is_dropped_cannot_be_taken_back() {
        thread::spawn(|| {
            drop_all_but(&[]);
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_PTRACE).is_err());
            assert_eq!(caps::read(None, CapSet::Permitted).unwrap().len(), 0);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_descriptor_limit();
        assert_eq!(limit.soft, limit.hard);
    }

    #[test]
    fn ipc_lock_is_kept_for_intel_pt_alone() {
        assert_eq!(needed(false), NEEDED);
        let with = needed(true);
        assert_eq!(with.len(), NEEDED.len() + 1);
        assert!(with.contains(&Capability::CAP_IPC_LOCK));
    }

    #[test]
    fn what_may_be_locked_is_the_users_part_and_the_processs() {
        let lock = MemoryLock {
            per_cpu_kib: Some(516),
            limit: 64 << 10,
        };
        assert!(lock.allows((516 << 10) + (64 << 10), 1));
        assert!(!lock.allows((516 << 10) + (64 << 10) + 1, 1));
        assert!(lock.allows(4 << 20, 16));
        let text = "kernel.perf_event_mlock_kb is 516, RLIMIT_MEMLOCK is 64 KiB";
        assert_eq!(lock.to_string(), text);
    }

    #[test]
    fn seccomp_filter_is_mode_2_of_status() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        assert_eq!(seccomp_filter(&roots), None);
        std::fs::create_dir_all(roots.proc.join("self")).unwrap();
        for (mode, expected) in [("0", false), ("2", true)] {
            let status =
                format!("Name:\tx\nNoNewPrivs:\t0\nSeccomp:\t{mode}\nSeccomp_filters:\t1\n");
            std::fs::write(roots.proc.join("self/status"), status).unwrap();
            assert_eq!(seccomp_filter(&roots), Some(expected));
        }
    }

    #[test]
    fn paranoid_is_a_number_or_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        assert_eq!(perf_event_paranoid(&roots), None);
        std::fs::create_dir_all(roots.proc.join("sys/kernel")).unwrap();
        std::fs::write(roots.proc.join("sys/kernel/perf_event_paranoid"), "-1\n").unwrap();
        assert_eq!(perf_event_paranoid(&roots), Some(-1));
    }
}
