//! The interfaces of sources, one for each scope.
//!
//! | scope | interface | called by |
//! |---|---|---|
//! | each vCPU, in each tick | `VcpuSource` | the sampler |
//! | each VM, once per period | `VmSource` | the background collector |
//! | the host, once per period | `HostSource` | the background collector |
//! | what it chooses, when it chooses | `ThreadedSource` | a thread of its own |

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config;
use crate::discover::{Vcpu, Vm, VmKey};
use crate::engine::{Fact, Found, Reading, Reason, SourceInfo, SourceState, VmFacts};
use crate::host::roots::Roots;
use crate::host::task::TaskError;
use crate::host::topology::Topology;
use crate::stop::Stop;

/// A source, by its scope.
pub(crate) enum Source {
    /// Reads each vCPU in each tick.
    Vcpu(Box<dyn VcpuSource>),
    /// Reads VMs or the host once per period.
    Periodic(Periodic),
    /// Has a thread of its own.
    Threaded(Box<dyn ThreadedSource>),
}

impl Source {
    /// A source that reads each vCPU in each tick.
    pub(crate) fn of_vcpus(source: impl VcpuSource + 'static) -> Self {
        Self::Vcpu(Box::new(source))
    }

    /// A source that reads each VM once per period.
    pub(crate) fn of_vms(enabled: bool, period: Duration, source: impl VmSource + 'static) -> Self {
        Self::Periodic(Periodic {
            enabled,
            period,
            reads: Reads::Vms(Box::new(source)),
        })
    }

    /// A source that reads the host once per period.
    pub(crate) fn of_host<const SECONDS: u64>(
        config: &config::Periodic<SECONDS>,
        source: impl HostSource + 'static,
    ) -> Self {
        Self::Periodic(Periodic {
            enabled: config.enabled,
            period: config.period,
            reads: Reads::Host(Box::new(source)),
        })
    }

    /// A source that has a thread of its own.
    pub(crate) fn threaded(source: impl ThreadedSource + 'static) -> Self {
        Self::Threaded(Box::new(source))
    }
}

/// A source of the background collector.
pub(crate) struct Periodic {
    /// Whether the configuration enables it; if not, it is never read.
    pub(crate) enabled: bool,
    /// Time between two reads of a VM or of the host.
    pub(crate) period: Duration,
    pub(crate) reads: Reads,
}

/// What a periodic source reads.
pub(crate) enum Reads {
    Vms(Box<dyn VmSource>),
    Host(Box<dyn HostSource>),
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

/// The vCPU thread that a reader is opened for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its owner: descriptors count for its share.
    pub vm: &'a Vm,
    /// The vCPU and its thread.
    pub vcpu: Vcpu,
}

/// Reads one vCPU thread for one source.
pub trait Reader: Send {
    /// Adds the activity since the last call to `reading`.
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError>;
    /// Number of file descriptors held.
    fn descriptors(&self) -> usize;
}

/// A source about whole VMs.
pub trait VmSource: Send {
    /// Whether the source delivers data now.
    fn state(&self) -> SourceState;
    /// Reads one VM. Unknown facts are omitted.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if the VM ended. [`ReadError::Failed`] keeps the facts of the previous
    /// read.
    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError>;
    /// Releases everything kept for a VM that ended.
    fn forget(&mut self, vm: VmKey);
}

/// A source about the host.
pub(crate) trait HostSource: Send {
    /// Reads all data again, from below `roots`. A missing file is a missing fact.
    fn read(&mut self, roots: &Roots, topology: &Topology) -> Found;
}

/// A source without state is a function.
impl<F: FnMut(&Roots, &Topology) -> Found + Send> HostSource for F {
    fn read(&mut self, roots: &Roots, topology: &Topology) -> Found {
        self(roots, topology)
    }
}

/// A source that has a thread of its own, because it takes longer than others can wait.
pub(crate) trait ThreadedSource: Send {
    /// Name, requirements and cost.
    fn info(&self) -> SourceInfo;
    /// Whether this machine has what the source requires; if not, the thread is not needed.
    fn is_able(&self) -> bool;
    /// The latest facts, with the state of the source.
    fn newest(&self) -> Arc<ArcSwap<VmFacts>>;
    /// When the next step is due.
    fn due(&self) -> Instant;
    /// Takes a step if one is due at `now`, then publishes the facts.
    fn pass(&mut self, now: Instant);
    /// Takes steps until `stop`.
    fn run(self: Box<Self>, stop: &Stop);
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
