//! Why a VM's memory is unknown, and how to fix it.

use std::time::Duration;

use crate::config::values::show_duration;
use crate::engine::{Reason, ReasonCode, SourceState};

/// Why the memory of a VM is unknown, in whole or in part. The most severe comes first: the
/// source's state reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnknownMemory {
    /// The exporter may not read its process.
    NoPermission,
    /// The kernel lacks a file.
    NoFile(&'static str),
    /// A file of the kernel cannot be read or has an unexpected format.
    Unreadable(String),
    /// The process blocks reads of its page tables.
    Blocked,
    /// A walk took longer than this budget.
    TooSlow(Duration),
    /// A walk would take longer than this budget.
    TooLarge(Duration),
    /// Its private memory (guest_memfd) is in no page table, and it has no cgroup of its own.
    GuestMemfd,
    /// Walks are disabled.
    WalksOff,
    /// Several VMs share one process.
    SharedProcess,
    /// No mapping looks like guest RAM.
    NoRam,
}

impl UnknownMemory {
    fn reason(&self, count: &str) -> Reason {
        let own_cgroup = "give each VM its own cgroup v2 group with the memory controller, \
            as libvirt and Proxmox do";
        let reason = |code: ReasonCode, detail: &str| code.reason(format!("{count}: {detail}"));
        match self {
            Self::NoPermission => reason(
                ReasonCode::NoPermission,
                "the exporter may not read their processes",
            )
            .with_fix(
                "give the exporter CAP_SYS_PTRACE: AmbientCapabilities= in its unit, --cap-add \
                 in docker",
            ),
            Self::NoFile(file) => reason(
                ReasonCode::NoFile,
                &format!("the kernel has no /proc/PID/{file}"),
            )
            .with_fix(match *file {
                "numa_maps" => "use a kernel with CONFIG_NUMA",
                _ => "use a kernel with CONFIG_PROC_PAGE_MONITOR",
            }),
            Self::Unreadable(text) => reason(ReasonCode::Unreadable, text),
            Self::Blocked => reason(
                ReasonCode::BlockedReads,
                "cannot read their memory: their mmap_lock is held",
            )
            .with_fix("find the holder: cat /proc/PID/task/*/stack of the VM"),
            Self::TooSlow(budget) | Self::TooLarge(budget) => {
                let (takes, budget) = match self {
                    Self::TooSlow(_) => ("took", show_duration(*budget)),
                    _ => ("would take", show_duration(*budget)),
                };
                let detail = format!(
                    "walking their page tables {takes} longer than sources.memory.budget ({budget})"
                );
                reason(ReasonCode::Budget, &detail)
                    .with_fix(format!("{own_cgroup}, or raise sources.memory.budget"))
            }
            Self::GuestMemfd => reason(
                ReasonCode::GuestMemfd,
                "their private memory (guest_memfd) is in no page table of their processes, and \
                 they have no cgroup of their own",
            )
            .with_fix(own_cgroup),
            Self::WalksOff => reason(
                ReasonCode::WalksOff,
                "sources.memory.budget is 0, and they have no cgroup of their own",
            )
            .with_fix(format!("{own_cgroup}, or set sources.memory.budget")),
            Self::SharedProcess => reason(
                ReasonCode::SharedProcess,
                "several VMs share one process, so memory cannot be attributed to a VM",
            ),
            Self::NoRam => reason(
                ReasonCode::NoGuestRam,
                "no mapping is large enough to be guest memory",
            ),
        }
    }
}

/// The source's state from the problems of its VMs.
pub(super) fn state<'a>(vms: impl Iterator<Item = Option<&'a UnknownMemory>>) -> SourceState {
    let vms: Vec<_> = vms.collect();
    let Some(gravest) = vms.iter().flatten().min() else {
        return SourceState::Up;
    };
    let same = |trouble: &&UnknownMemory| {
        std::mem::discriminant(*trouble) == std::mem::discriminant(*gravest)
    };
    let troubled = vms.iter().flatten().copied().filter(same).count();
    let reason = gravest.reason(&format!("{troubled} of {} VMs", vms.len()));
    if troubled == vms.len() && gravest.is_whole() {
        SourceState::Down(reason)
    } else {
        SourceState::Degraded(reason)
    }
}

impl UnknownMemory {
    /// Whether a VM with this problem has no data at all until it is fixed.
    fn is_whole(&self) -> bool {
        !matches!(self, Self::TooSlow(_) | Self::NoFile("numa_maps"))
    }
}
