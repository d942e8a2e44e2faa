//! What the scanner remembers of a process, and when it must be examined again.

use crate::discover::cmdline::Cmdline;
use crate::discover::vcpus::VmCandidate;
use crate::discover::vmm_process::VmmProcess;
use crate::discover::watch::{InodeStamp, ProcessFingerprint, Watch};
use crate::host::readers::Blocked;

/// Number of descriptors or threads from which an examination is expensive (milliseconds). Not
/// lower: an ext4 directory that replaces /proc/PID/fd has a size of 4096.
pub(super) const MANY: u64 = 4097;
/// Passes between examinations of a process that keeps changing, per [`MANY`] descriptors or
/// threads.
pub(super) const BUSY_PASSES: u64 = 6;
/// Further examinations of a VMM that names its threads but lacks threads for some vCPUs.
pub(super) const RETRIES: u8 = 3;

/// A process that was checked.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) look: ProcessFingerprint,
    /// The last pass that saw it.
    pub(super) seen: u64,
    /// The last pass that examined it.
    pub(super) examined: u64,
    /// Cost of that examination, in links.
    pub(super) cost: u64,
    /// Examinations still to make without a change.
    pub(super) retries: u8,
    /// Set if it could not be examined; `role` is then the previous one.
    pub(super) blocked: Option<Blocked>,
    pub(super) role: Role,
}

#[derive(Debug)]
pub(super) enum Role {
    Other,
    Hidden,
    Vmm(Box<VmmProcess>, Vec<(i32, InodeStamp)>),
}

impl Known {
    /// Whether it must be examined again.
    pub(super) fn is_due(&self, look: &ProcessFingerprint, pass: u64) -> bool {
        if self.retries > 0 {
            return true;
        }
        let dear = look.size() / MANY;
        let wait = self.look.same_program(look) && pass < self.examined + dear * BUSY_PASSES;
        match &self.role {
            Role::Vmm(guest, _) => self.look != *look || guest.unknown_threads() > 0,
            Role::Hidden => !self.look.same_threads(look) && !wait,
            Role::Other => self.look != *look && !wait,
        }
    }

    /// Whether it may have a new VM or vCPU.
    pub(super) fn is_news(&self, look: &ProcessFingerprint) -> bool {
        !self.look.same_program(look) || self.matters() && self.look != *look
    }

    /// Whether all vCPU threads are unchanged.
    pub(super) fn has_its_threads(&self, pid: i32, watch: &Watch) -> bool {
        match &self.role {
            Role::Vmm(_, stamps) => {
                let mut stamps = stamps.iter();
                stamps.all(|(tid, stamp)| watch.thread(pid, *tid) == Some(*stamp))
            }
            _ => true,
        }
    }

    /// Whether it affects the inventory.
    pub(super) fn matters(&self) -> bool {
        self.blocked.is_some() || !matches!(self.role, Role::Other)
    }

    pub(super) fn cmdline(&self) -> Option<&Cmdline> {
        match &self.role {
            Role::Vmm(guest, _) => Some(&guest.cmdline),
            _ => None,
        }
    }

    pub(super) fn machines(&self) -> &[VmCandidate] {
        match &self.role {
            Role::Vmm(guest, _) => &guest.machines,
            _ => &[],
        }
    }
}

impl Role {
    /// How often to examine it again without a change: a thread gets its name shortly after its
    /// start. An examination without any change since the last one does not restart the count.
    pub(super) fn retries(&self, before: Option<&Known>, look: &ProcessFingerprint) -> u8 {
        match before {
            Some(known) if known.look == *look => known.retries,
            _ => match self {
                Role::Vmm(guest, _) if guest.missing_named() => RETRIES,
                Role::Vmm(guest, _) => u8::from(guest.hidden),
                Role::Hidden => 1,
                Role::Other => 0,
            },
        }
    }
}
