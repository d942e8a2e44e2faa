//! Reads every vCPU thread once per tick, and VMs and the host at longer periods.
//!
//! A source (src/sources) measures one kind of data, with its own cost and privileges. It has one
//! of the interfaces in [`source`].

use crate::host::topology::Place;

pub mod background;
pub mod demand;
pub(crate) mod descriptors;
pub(crate) mod fact;
#[cfg(test)]
pub(crate) mod fixture;
mod hangs;
pub mod ledger;
pub(crate) mod limit;
pub(crate) mod reading;
mod reason;
pub mod sampler;
pub(crate) mod schedule;
pub mod source;
mod state;
pub(crate) mod total;
pub(crate) mod vcpu_sampler;

pub use fact::{Fact, Found, Origin, VmFacts};
pub(crate) use reading::{Column, ColumnId, Columns, Scope};
pub use reading::{Reading, Unit};
pub use reason::{Reason, ReasonCode};
pub(crate) use source::{HostSource, Source, ThreadedSource};
pub use source::{OpenError, ReadError, Reader, Target, VcpuSource, VmSource};
pub(crate) use state::INVENTORY;
pub use state::{SourceInfo, SourceState};

/// Where a vCPU thread ran at the end of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLocation {
    /// Logical CPU that it last ran on.
    pub cpu: u32,
    /// Package, core and NUMA node of that CPU.
    pub place: Place,
}
