//! Why a VM's memory is unknown, and what would mend it.

use std::time::Duration;

use crate::config::values::show_duration;
use crate::sample::{Reason, SourceState};

/// What keeps the memory of one VM, or a part of what there is to know of it, from being known.
/// The gravest comes first: it is what the source's state tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// Its process may not be looked at.
    NoPermission,
    /// The kernel lacks a file.
    NoFile(&'static str),
    /// What should be a file of the kernel cannot be read or understood.
    Unreadable(String),
    /// The process holds up who reads its page tables.
    Blocked,
    /// A walk took longer than this budget.
    TooSlow(Duration),
    /// A walk would take longer than this budget.
    TooLarge(Duration),
    /// Its private memory (guest_memfd) is in no page table, and its cgroup is not its own.
    GuestMemfd,
    /// Walks are switched off.
    WalksOff,
    /// Several VMs live in one process.
    SharedProcess,
    /// No mapping looks like guest RAM.
    NoRam,
}

impl Trouble {
    fn reason(&self, count: &str) -> Reason {
        let own_cgroup =
            "give each VM a cgroup of its own (version 2, with the memory controller), \
            as libvirt and Proxmox do";
        let (code, detail, fix) = match self {
            Self::NoPermission => (
                "no_permission",
                "their processes may not be looked at".to_owned(),
                Some(
                    "give the exporter CAP_SYS_PTRACE: AmbientCapabilities= in its unit, --cap-add \
                     in docker"
                        .to_owned(),
                ),
            ),
            Self::NoFile(file) => (
                "no_file",
                format!("the kernel has no /proc/PID/{file}"),
                Some(match *file {
                    "numa_maps" => "use a kernel with CONFIG_NUMA".to_owned(),
                    _ => "use a kernel with CONFIG_PROC_PAGE_MONITOR".to_owned(),
                }),
            ),
            Self::Unreadable(text) => ("unreadable", text.clone(), None),
            Self::Blocked => (
                "blocked_reads",
                "their memory cannot be read: their mmap_lock is held".to_owned(),
                Some("see what holds it: cat /proc/PID/task/*/stack of the VM".to_owned()),
            ),
            Self::TooSlow(budget) | Self::TooLarge(budget) => (
                "budget",
                format!(
                    "walking their page tables {} longer than sources.memory.budget ({})",
                    match self {
                        Self::TooSlow(_) => "took",
                        _ => "would take",
                    },
                    show_duration(*budget)
                ),
                Some(format!("{own_cgroup}, or raise sources.memory.budget")),
            ),
            Self::GuestMemfd => (
                "guest_memfd",
                "their private memory (guest_memfd) is in no page table of their processes, and no \
                 cgroup tells of them alone"
                    .to_owned(),
                Some(own_cgroup.to_owned()),
            ),
            Self::WalksOff => (
                "walks_off",
                "sources.memory.budget is 0, and no cgroup tells of them alone".to_owned(),
                Some(format!("{own_cgroup}, or set sources.memory.budget")),
            ),
            Self::SharedProcess => (
                "shared_process",
                "several VMs live in one process, and their memory cannot be told apart".to_owned(),
                None,
            ),
            Self::NoRam => (
                "no_guest_ram",
                "no mapping of theirs is large enough for a guest's memory".to_owned(),
                None,
            ),
        };
        Reason {
            code,
            detail: format!("{count}: {detail}"),
            fix,
        }
    }
}

/// The source's state by what troubles each of its VMs.
pub(super) fn state<'a>(vms: impl Iterator<Item = Option<&'a Trouble>>) -> SourceState {
    let vms: Vec<_> = vms.collect();
    let Some(gravest) = vms.iter().flatten().min() else {
        return SourceState::Up;
    };
    let same =
        |trouble: &&Trouble| std::mem::discriminant(*trouble) == std::mem::discriminant(*gravest);
    let troubled = vms.iter().flatten().copied().filter(same).count();
    let reason = gravest.reason(&format!("{troubled} of {} VMs", vms.len()));
    match troubled == vms.len() && gravest.is_whole() {
        true => SourceState::Down(reason),
        false => SourceState::Degraded(reason),
    }
}

impl Trouble {
    /// Whether a VM in this trouble has no data at all, now and as long as nothing is mended.
    fn is_whole(&self) -> bool {
        !matches!(self, Self::TooSlow(_) | Self::NoFile("numa_maps"))
    }
}
