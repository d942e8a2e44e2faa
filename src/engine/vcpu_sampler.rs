//! The sampler of one vCPU: its readers and its totals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::{Vcpu, Vm, VmKey};
use crate::engine::descriptors::{DescriptorKind, Shares};
use crate::engine::ledger::VcpuTotals;
use crate::engine::reading::{ColumnSet, Columns, Reading};
use crate::engine::{OpenError, ReadError, Reader, Reason, ReasonCode, Target, VcpuSource};

/// Interval at which a refused source is retried: limits may be raised and permissions granted
/// while the exporter runs.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The same if the kernel has not answered yet: the first user of a tracepoint may wait for an RCU
/// grace period (`tracepoint_add_func`, kernel/tracepoint.c).
const RETRY_LATE_AFTER: Duration = Duration::from_secs(1);

/// Identifies a vCPU across inventories by its VM and index. Its thread may change.
pub(crate) type VcpuKey = (VmKey, u32);

/// The sampler of one vCPU.
pub(crate) struct VcpuSampler {
    /// The VM in the current inventory.
    pub vm: Arc<Vm>,
    /// The vCPU and its thread.
    pub vcpu: Vcpu,
    /// The vCPU's running totals.
    pub totals: VcpuTotals,
    /// Placed columns that the series limit hides from the exposition.
    pub hidden: ColumnSet,
    readers: Vec<Opened>,
    /// The columns that each source has fed.
    fed: Vec<Fed>,
    /// The thread exited, and the inventory does not reflect it yet.
    gone: bool,
}

/// Columns that one source has fed, by scope.
#[derive(Debug, Clone, Copy, Default)]
struct Fed {
    placed: ColumnSet,
    vcpu: ColumnSet,
}

impl Fed {
    fn new(reading: &Reading) -> Self {
        let (_, placed) = reading.placed();
        let (_, added, set) = reading.vcpu();
        let vcpu = added | set;
        Self { placed, vcpu }
    }
}

/// State of one source's reader.
enum Opened {
    NotYet,
    Reader {
        reader: Box<dyn Reader>,
        failing: bool,
    },
    Refused {
        why: Reason,
        since: Instant,
    },
}

impl VcpuSampler {
    /// A vCPU without totals.
    pub(crate) fn new(vm: Arc<Vm>, vcpu: Vcpu, columns: &Columns) -> Self {
        Self {
            vm,
            vcpu,
            totals: VcpuTotals::new(columns),
            hidden: 0,
            readers: Vec::new(),
            fed: Vec::new(),
            gone: false,
        }
    }

    /// Identity of the vCPU.
    pub(crate) fn key(&self) -> VcpuKey {
        (self.vm.key, self.vcpu.index)
    }

    /// Adopts the current inventory's data. A new thread gets new readers; the totals continue.
    pub(crate) fn update(&mut self, vm: Arc<Vm>, vcpu: Vcpu) {
        self.vm = vm;
        if self.vcpu != vcpu {
            self.vcpu = vcpu;
            self.readers.clear();
            self.gone = false;
        }
    }

    /// Reads all sources into `reading` and counts failed reads by source in `errors`. Opens
    /// missing readers within the VM's share of descriptors. If the thread exits in between, the
    /// values read before remain valid.
    pub(super) fn read(
        &mut self,
        sources: &mut [Box<dyn VcpuSource>],
        shares: &mut Shares,
        reading: &mut Reading,
        errors: &mut [u64],
        now: Instant,
    ) {
        if self.gone {
            return;
        }
        self.open_missing(sources, shares, now);
        for n in 0..self.readers.len() {
            // The first source, sched, reports whether the thread ran and on which CPU. Skip the
            // other sources if the thread was idle or its CPU is unknown; the deltas stay in the
            // kernel until a later tick.
            let wanted = n == 0 || (reading.active && reading.cpu.is_some());
            if wanted && !self.gone {
                self.read_one(n, reading, errors);
            }
        }
        if self.gone {
            self.readers.clear();
        }
    }

    fn open_missing(
        &mut self,
        sources: &mut [Box<dyn VcpuSource>],
        shares: &mut Shares,
        now: Instant,
    ) {
        self.readers.resize_with(sources.len(), || Opened::NotYet);
        self.fed.resize(sources.len(), Fed::default());
        for (n, source) in sources.iter_mut().enumerate() {
            if self.readers[n].is_due(now) {
                self.open(n, &mut **source, shares, now);
            }
            // Without sched nothing else is read: whether and where the thread ran is unknown.
            let gaps = n == 0 && matches!(self.readers[n], Opened::Refused { .. });
            if self.gone || gaps {
                return;
            }
        }
    }

    fn open(&mut self, n: usize, source: &mut dyn VcpuSource, shares: &mut Shares, now: Instant) {
        let target = Target {
            vm: &self.vm,
            vcpu: self.vcpu,
        };
        let (key, kind) = (self.vm.key, DescriptorKind::of_source(n));
        let opened = match shares.admit(key, kind, source.descriptors()) {
            Ok(()) => shares.note(source.open(&target)),
            Err(why) => Err(OpenError::Refused(why)),
        };
        match opened {
            Ok(reader) => {
                shares.hold(key, kind, reader.descriptors());
                self.readers[n] = Opened::Reader {
                    reader,
                    failing: false,
                };
            }
            Err(OpenError::Gone) => self.gone = true,
            Err(OpenError::Refused(why)) => {
                // Debug only: the sampler logs the change once for all vCPUs.
                let source = source.info().name;
                tracing::debug!(source, vm = %self.vm.name, vcpu = self.vcpu.index, why = %why.detail, "source unavailable for this vCPU");
                self.refuse(n, why, now);
            }
        }
    }

    /// Removes a source from the vCPU: the columns it fed are unknown from now on.
    fn refuse(&mut self, n: usize, why: Reason, now: Instant) {
        let fed = std::mem::take(&mut self.fed[n]);
        self.totals.withdraw(fed.placed, fed.vcpu);
        self.readers[n] = Opened::Refused { why, since: now };
    }

    fn read_one(&mut self, n: usize, reading: &mut Reading, errors: &mut [u64]) {
        let Opened::Reader { reader, failing } = &mut self.readers[n] else {
            return;
        };
        let before = Fed::new(reading);
        let read = reader.read(reading);
        let (after, fed) = (Fed::new(reading), &mut self.fed[n]);
        fed.placed |= after.placed & !before.placed;
        fed.vcpu |= after.vcpu & !before.vcpu;
        match read {
            Ok(()) => *failing = false,
            Err(ReadError::Gone) => self.gone = true,
            Err(ReadError::Failed(error)) => {
                errors[n] += 1;
                if !std::mem::replace(failing, true) {
                    tracing::warn!(vm = %self.vm.name, vcpu = self.vcpu.index, %error, "cannot read this vCPU");
                }
            }
        }
    }

    /// Why a source refused this vCPU.
    pub(crate) fn refusal(&self, source: usize) -> Option<&Reason> {
        match self.readers.get(source)? {
            Opened::Refused { why, .. } => Some(why),
            Opened::NotYet | Opened::Reader { .. } => None,
        }
    }

    /// Number of file descriptors held for this vCPU.
    pub(crate) fn descriptors(&self) -> usize {
        self.readers.iter().map(Opened::descriptors).sum()
    }

    /// Number of descriptors of one kind held for this vCPU.
    pub(super) fn held(&self, kind: DescriptorKind) -> usize {
        let readers = self.readers.iter().enumerate();
        let of_kind = readers.filter(|(n, _)| DescriptorKind::of_source(*n) == kind);
        of_kind.map(|(_, opened)| opened.descriptors()).sum()
    }

    /// Closes the descriptors of one kind, because other VMs are entitled to them.
    pub(super) fn release(&mut self, kind: DescriptorKind, why: &Reason, now: Instant) {
        for n in 0..self.readers.len() {
            if DescriptorKind::of_source(n) == kind && self.readers[n].descriptors() > 0 {
                self.refuse(n, why.clone(), now);
            }
        }
    }

    /// Retries sources that were refused for lack of descriptors at the next tick.
    pub(super) fn retry_descriptors(&mut self) {
        for opened in &mut self.readers {
            if matches!(opened, Opened::Refused { why, .. } if why.code == ReasonCode::NoDescriptors)
            {
                *opened = Opened::NotYet;
            }
        }
    }
}

impl Opened {
    fn is_due(&self, now: Instant) -> bool {
        match self {
            Self::NotYet => true,
            Self::Reader { .. } => false,
            Self::Refused { why, since } => {
                let pause = match why.code {
                    ReasonCode::Blocked => RETRY_LATE_AFTER,
                    _ => RETRY_AFTER,
                };
                now.saturating_duration_since(*since) >= pause
            }
        }
    }

    fn descriptors(&self) -> usize {
        match self {
            Self::Reader { reader, .. } => reader.descriptors(),
            Self::NotYet | Self::Refused { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests;
