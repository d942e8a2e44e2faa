//! One vCPU being sampled: its readers and its account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::descriptors::{Kind, Shares, NONE_LEFT};
use super::ledger::Account;
use super::pmu::patient::BLOCKED;
use super::reading::{ColumnSet, Columns, Reading};
use super::{OpenError, ReadError, Reader, Reason, Source, Target};
use crate::discover::{Vcpu, Vm, VmKey};

/// A source that refused a vCPU is asked again after this time: limits are raised and
/// permissions granted while the exporter runs.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The same where the kernel has only not answered yet.
const RETRY_LATE_AFTER: Duration = Duration::from_secs(1);

/// Identity of a vCPU across inventories: its VM and its index. Its thread may change.
pub type SlotKey = (VmKey, u32);

/// One vCPU being sampled.
pub struct Slot {
    /// The VM, as the inventory knows it now.
    pub vm: Arc<Vm>,
    /// The vCPU and its thread.
    pub vcpu: Vcpu,
    /// Its totals.
    pub account: Account,
    /// Placed columns that the series limit keeps out of the exposition.
    pub hidden: ColumnSet,
    readers: Vec<Opened>,
    /// The columns each source has fed.
    fed: Vec<Fed>,
    /// The thread was found to have ended; the inventory has not noticed yet.
    gone: bool,
}

/// Columns that one source has fed, of each scope.
#[derive(Debug, Clone, Copy, Default)]
struct Fed {
    placed: ColumnSet,
    vcpu: ColumnSet,
}

impl Fed {
    fn of(reading: &Reading) -> Self {
        let (_, placed) = reading.placed();
        let (_, added, set) = reading.vcpu();
        let vcpu = added | set;
        Self { placed, vcpu }
    }
}

/// What has become of one source's reader.
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

impl Slot {
    /// A vCPU that was not known before.
    pub fn new(vm: Arc<Vm>, vcpu: Vcpu, columns: &Columns) -> Self {
        Self {
            vm,
            vcpu,
            account: Account::new(columns),
            hidden: 0,
            readers: Vec::new(),
            fed: Vec::new(),
            gone: false,
        }
    }

    /// Its identity.
    pub fn key(&self) -> SlotKey {
        (self.vm.key, self.vcpu.index)
    }

    /// Takes over what the inventory says now. A new thread gets new readers; the account stays.
    pub fn update(&mut self, vm: Arc<Vm>, vcpu: Vcpu) {
        self.vm = vm;
        if self.vcpu != vcpu {
            self.vcpu = vcpu;
            self.readers.clear();
            self.gone = false;
        }
    }

    /// Reads all sources into `reading`; `errors` counts failed readings by source. What was read
    /// before the thread was found to have ended is as good as any. Readers that are missing are
    /// opened within the VM's share of descriptors.
    pub(super) fn read(
        &mut self,
        sources: &mut [Box<dyn Source>],
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
            // The first source, sched, tells where the thread runs and whether it ran at all.
            // Counters of one that did not run have not moved; those of one that ran nobody
            // knows where stay in the kernel until somebody knows.
            let wanted = n == 0 || (reading.active && reading.cpu.is_some());
            if wanted && !self.gone {
                self.read_one(n, reading, errors);
            }
        }
        if self.gone {
            self.readers.clear();
        }
    }

    fn open_missing(&mut self, sources: &mut [Box<dyn Source>], shares: &mut Shares, now: Instant) {
        self.readers.resize_with(sources.len(), || Opened::NotYet);
        self.fed.resize(sources.len(), Fed::default());
        for (n, source) in sources.iter_mut().enumerate() {
            if self.readers[n].is_due(now) {
                self.open(n, &mut **source, shares, now);
            }
            // Where sched does not say whether the thread runs, nothing else is read.
            let blind = n == 0 && matches!(self.readers[n], Opened::Refused { .. });
            if self.gone || blind {
                return;
            }
        }
    }

    fn open(&mut self, n: usize, source: &mut dyn Source, shares: &mut Shares, now: Instant) {
        let target = Target {
            vm: &self.vm,
            vcpu: self.vcpu,
        };
        let (key, kind) = (self.vm.key, Kind::of_source(n));
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
                // The sampler tells the operator, once for all vCPUs.
                let source = source.info().name;
                tracing::debug!(source, vm = %self.vm.name, vcpu = self.vcpu.index, why = %why.detail, "a vCPU is not watched");
                self.refuse(n, why, now);
            }
        }
    }

    /// Leaves the vCPU without this source: what it fed is unknown from now on.
    fn refuse(&mut self, n: usize, why: Reason, now: Instant) {
        let fed = std::mem::take(&mut self.fed[n]);
        self.account.withdraw(fed.placed, fed.vcpu);
        self.readers[n] = Opened::Refused { why, since: now };
    }

    fn read_one(&mut self, n: usize, reading: &mut Reading, errors: &mut [u64]) {
        let Opened::Reader { reader, failing } = &mut self.readers[n] else {
            return;
        };
        let before = Fed::of(reading);
        let read = reader.read(reading);
        let (after, fed) = (Fed::of(reading), &mut self.fed[n]);
        fed.placed |= after.placed & !before.placed;
        fed.vcpu |= after.vcpu & !before.vcpu;
        match read {
            Ok(()) => *failing = false,
            Err(ReadError::Gone) => self.gone = true,
            Err(ReadError::Failed(error)) => {
                errors[n] += 1;
                if !std::mem::replace(failing, true) {
                    tracing::warn!(vm = %self.vm.name, vcpu = self.vcpu.index, %error, "a reading failed");
                }
            }
        }
    }

    /// Why a source refused this vCPU.
    pub fn refusal(&self, source: usize) -> Option<&Reason> {
        match self.readers.get(source)? {
            Opened::Refused { why, .. } => Some(why),
            Opened::NotYet | Opened::Reader { .. } => None,
        }
    }

    /// File descriptors held for this vCPU.
    pub fn descriptors(&self) -> usize {
        self.readers.iter().map(Opened::descriptors).sum()
    }

    /// Descriptors of one kind that are held for this vCPU.
    pub(super) fn held(&self, kind: Kind) -> usize {
        let readers = self.readers.iter().enumerate();
        let of_kind = readers.filter(|(n, _)| Kind::of_source(*n) == kind);
        of_kind.map(|(_, opened)| opened.descriptors()).sum()
    }

    /// Closes what it holds of one kind, because others have a better claim.
    pub(super) fn release(&mut self, kind: Kind, why: &Reason, now: Instant) {
        for n in 0..self.readers.len() {
            if Kind::of_source(n) == kind && self.readers[n].descriptors() > 0 {
                self.refuse(n, why.clone(), now);
            }
        }
    }

    /// Asks at the next tick again for what was refused for lack of descriptors.
    pub(super) fn retry_descriptors(&mut self) {
        for opened in &mut self.readers {
            if matches!(opened, Opened::Refused { why, .. } if why.code == NONE_LEFT) {
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
                let is_late = why.code == BLOCKED;
                let pause = if is_late {
                    RETRY_LATE_AFTER
                } else {
                    RETRY_AFTER
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
