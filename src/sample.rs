//! The sampler: one thread with a fixed schedule that reads every vCPU thread once a tick.
//!
//! A source is one measured thing with its own cost and privileges. It is one file here, listed
//! where the exporter is wired together; it declares the columns it feeds, and for each vCPU it opens a reader.

use crate::discover::{Vcpu, Vm};
use crate::host::topology::Place;

pub mod buckets;
pub mod cgroup;
pub mod demand;
mod descriptors;
pub mod devices;
pub mod exits;
#[cfg(test)]
pub(crate) mod fixture;
mod hangs;
pub mod host;
mod identity;
pub mod ledger;
pub mod limit;
pub mod memory;
pub mod pmu;
pub mod pt;
pub mod reading;
pub mod resctrl;
pub mod sampler;
pub mod sched;
pub mod schedule;
pub mod slot;
pub mod slow;
pub mod threads;
mod total;

pub use buckets::Buckets;
pub use reading::{Column, ColumnId, Columns, Reading, Scope, Unit};

/// The vCPU thread a reader is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The VM it belongs to.
    pub vm: &'a Vm,
    /// The vCPU.
    pub vcpu: Vcpu,
}

/// What a source is, for `check` and the status page.
#[derive(Debug, Clone, Copy)]
pub struct SourceInfo {
    /// The `source` label.
    pub name: &'static str,
    /// What it needs from kernel and privileges, in one line.
    pub needs: &'static str,
    /// What it costs, in one line.
    pub cost: &'static str,
}

/// Whether a source delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// It does.
    Up,
    /// It delivers less than it could: what is missing and why.
    Degraded(Reason),
    /// It does not: why.
    Down(Reason),
}

/// What the inventory is.
pub const INVENTORY: SourceInfo = SourceInfo {
    name: "inventory",
    needs:
        "CAP_SYS_PTRACE (or the VMM's own user) to see descriptors; CAP_DAC_READ_SEARCH for KVM \
            debugfs and libvirt's files",
    cost: "a few system calls for each process and pass, and no open on an unchanged host",
};

impl SourceState {
    /// Why it is not [`SourceState::Up`].
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Up => None,
            Self::Degraded(reason) | Self::Down(reason) => Some(reason),
        }
    }

    /// The `reason` label: empty while it is up.
    pub fn code(&self) -> &'static str {
        self.reason().map_or("", |reason| reason.code)
    }
}

/// Why a source is not all it could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A short fixed word for the `reason` label: `no_pmu`, `no_permission`, `disabled`, …
    pub code: &'static str,
    /// One sentence for a person.
    pub detail: String,
    /// The exact command or setting that would mend it, if there is one.
    pub fix: Option<String>,
}

impl Reason {
    /// The code of what is switched off.
    pub const DISABLED: &'static str = "disabled";

    /// The source of this name is switched off.
    pub(crate) fn disabled(source: &str) -> Self {
        Self {
            code: Self::DISABLED,
            detail: "switched off in the configuration".to_owned(),
            fix: Some(format!("set sources.{source}.enabled: true")),
        }
    }
}

/// One measured thing about vCPU threads.
pub trait Source: Send {
    /// What it is.
    fn info(&self) -> SourceInfo;
    /// Whether it delivers now.
    fn state(&self) -> SourceState;
    /// Opens what is needed to read one vCPU thread from now on. A source that is
    /// [`SourceState::Down`] opens a reader that reads nothing.
    ///
    /// # Errors
    /// [`OpenError::Gone`] when the thread no longer exists; anything else leaves this vCPU
    /// without this source, and makes the source [`SourceState::Degraded`] as long as it does.
    fn open(&mut self, target: &Target<'_>) -> Result<Box<dyn Reader>, OpenError>;
    /// Most file descriptors that one reader holds.
    fn descriptors(&self) -> usize;
}

/// Reads one vCPU thread for one source.
pub trait Reader: Send {
    /// Adds what happened since the last call to `reading`.
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError>;
    /// File descriptors held.
    fn descriptors(&self) -> usize;
}

/// Why a reader could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The thread ended, or its id belongs to another thread now.
    #[error("the thread is gone")]
    Gone,
    /// The source cannot watch this thread.
    #[error("{}", .0.detail)]
    Refused(Reason),
}

/// Why a reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The thread ended.
    #[error("the thread is gone")]
    Gone,
    /// Reading failed; the totals stay as they are.
    #[error("{0}")]
    Failed(String),
}

/// Where a vCPU was found at the end of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    /// Logical CPU it last ran on.
    pub cpu: u32,
    /// That CPU's place.
    pub place: Place,
}
