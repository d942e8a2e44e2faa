//! What a pass remembers of a process, and whether it has to be examined again.

use crate::discover::blocked::Blocked;
use crate::discover::cmdline::Cmdline;
use crate::discover::guest::Guest;
use crate::discover::vcpus::Machine;
use crate::discover::watch::{Look, Mark, Watch};

/// Descriptors or threads from which on a look at all of them is dear (some milliseconds). No
/// less: a directory of ext4 that stands in for /proc/PID/fd has a size of 4096.
pub(super) const MANY: u64 = 4097;
/// Passes between looks at a process that keeps changing, for each so many that it has.
pub(super) const BUSY_PASSES: u64 = 6;
/// Further looks at a VMM some of whose vCPUs have no thread though its threads have names.
pub(super) const RETRIES: u8 = 3;

/// A process that was looked at.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) look: Look,
    /// The last pass that saw it.
    pub(super) seen: u64,
    /// The last pass that looked closely.
    pub(super) examined: u64,
    /// What that cost, in links.
    pub(super) cost: u64,
    /// How often to look again though nothing changed.
    pub(super) retries: u8,
    /// It could not be examined; the role is what was known before.
    pub(super) blocked: Option<Blocked>,
    pub(super) role: Role,
}

#[derive(Debug)]
pub(super) enum Role {
    Other,
    Hidden,
    Vmm(Box<Guest>, Vec<(i32, Mark)>),
}

impl Known {
    /// Whether to look closely again.
    pub(super) fn is_due(&self, look: &Look, pass: u64) -> bool {
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

    /// Whether there may be a VM, or a vCPU, that was not there before.
    pub(super) fn is_news(&self, look: &Look) -> bool {
        !self.look.same_program(look) || self.matters() && self.look != *look
    }

    /// Whether all vCPU threads are the ones they were.
    pub(super) fn has_its_threads(&self, pid: i32, watch: &Watch) -> bool {
        match &self.role {
            Role::Vmm(_, marks) => {
                let mut marks = marks.iter();
                marks.all(|(tid, mark)| watch.thread(pid, *tid) == Some(*mark))
            }
            _ => true,
        }
    }

    /// Whether the inventory tells of it.
    pub(super) fn matters(&self) -> bool {
        self.blocked.is_some() || !matches!(self.role, Role::Other)
    }

    pub(super) fn cmdline(&self) -> Option<&Cmdline> {
        match &self.role {
            Role::Vmm(guest, _) => Some(&guest.cmdline),
            _ => None,
        }
    }

    pub(super) fn machines(&self) -> &[Machine] {
        match &self.role {
            Role::Vmm(guest, _) => &guest.machines,
            _ => &[],
        }
    }
}

impl Role {
    /// A thread gets its name shortly after it started: what may have been too early is looked
    /// at again, unless nothing has changed since the last such look.
    pub(super) fn retries(&self, before: Option<&Known>, look: &Look) -> u8 {
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
