//! Reads every vCPU thread once per tick, and VMs and the host at longer periods.
//!
//! A source (src/sources) measures one kind of data, with its own cost and privileges, and is
//! listed where the pipeline is built (src/cli/pipeline.rs). A source about vCPUs declares the
//! columns it feeds and opens a reader for each vCPU.

use crate::discover::{Vcpu, Vm};
use crate::host::task::TaskError;
use crate::host::topology::Place;

pub mod background;
pub mod demand;
pub(crate) mod descriptors;
#[cfg(test)]
pub(crate) mod fixture;
mod hangs;
pub mod ledger;
pub(crate) mod limit;
pub(crate) mod reading;
mod reason;
pub mod sampler;
pub(crate) mod schedule;
pub(crate) mod total;
pub(crate) mod vcpu_sampler;

pub(crate) use reading::{Column, ColumnId, Columns, Scope};
pub use reading::{Reading, Unit};
pub use reason::{Reason, ReasonCode};

/// The vCPU thread that a reader is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its owner: descriptors count for its share.
    pub vm: &'a Vm,
    /// The vCPU and its thread.
    pub vcpu: Vcpu,
}

/// Description of a source, for `check` and the status page.
#[derive(Debug, Clone, Copy)]
pub struct SourceInfo {
    /// The `source` label.
    pub name: &'static str,
    /// Required kernel support and privileges, in one line.
    pub needs: &'static str,
    /// Cost, in one line.
    pub cost: &'static str,
}

/// Whether a source delivers data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Complete data.
    Up,
    /// Partial data; the reason names what is missing and why.
    Degraded(Reason),
    /// No data.
    Down(Reason),
}

/// The inventory, described as a source.
pub(crate) const INVENTORY: SourceInfo = SourceInfo {
    name: "inventory",
    needs:
        "CAP_SYS_PTRACE (or the VMM's own user) to see descriptors; CAP_DAC_READ_SEARCH for KVM \
            debugfs and libvirt's files",
    cost: "a few system calls per process and scan; no file is opened on an unchanged host",
};

impl SourceState {
    /// The reason, unless the source is [`SourceState::Up`].
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Up => None,
            Self::Degraded(reason) | Self::Down(reason) => Some(reason),
        }
    }

    /// Value of the `reason` label; empty while the source is up.
    pub fn code(&self) -> &'static str {
        self.reason().map_or("", |reason| reason.code.label())
    }

    /// Whether both have the same cause.
    pub(crate) fn has_code_of(&self, other: &Self) -> bool {
        let code = |state: &Self| state.reason().map(|reason| reason.code);
        code(self) == code(other)
    }
}

/// A source of per-vCPU data.
pub trait VcpuSource: Send {
    /// Name, requirements and cost.
    fn info(&self) -> SourceInfo;
    /// Whether the source delivers data now.
    fn state(&self) -> SourceState;
    /// Opens the files or events that a vCPU thread is read from. A source that is
    /// [`SourceState::Down`] returns a reader that reads nothing.
    ///
    /// # Errors
    /// [`OpenError::Gone`] if the thread no longer exists. After [`OpenError::Refused`], the vCPU
    /// has no data from this source, and the source is [`SourceState::Degraded`] until a retry
    /// succeeds.
    fn open(&mut self, target: &Target<'_>) -> Result<Box<dyn Reader>, OpenError>;
    /// Maximum number of file descriptors that one reader holds.
    fn descriptors(&self) -> usize;
}

/// Reads one vCPU thread for one source.
pub trait Reader: Send {
    /// Adds the activity since the last call to `reading`.
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError>;
    /// Number of file descriptors held.
    fn descriptors(&self) -> usize;
}

/// Why a reader cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The thread exited, or its TID belongs to another thread.
    #[error("the thread exited")]
    Gone,
    /// The source cannot read this thread.
    #[error("{}", .0.detail)]
    Refused(Reason),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The thread exited.
    #[error("the thread exited")]
    Gone,
    /// The read failed; the totals keep their values.
    #[error("{0}")]
    Failed(String),
}

impl From<TaskError> for ReadError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Gone => Self::Gone,
            failed => Self::Failed(failed.to_string()),
        }
    }
}

/// Where a vCPU thread ran at the end of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLocation {
    /// Logical CPU that it last ran on.
    pub cpu: u32,
    /// Package, core and NUMA node of that CPU.
    pub place: Place,
}
