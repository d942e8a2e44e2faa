//! One vCPU being sampled: its readers and its account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::Account;
use super::reading::{Columns, Reading};
use super::{OpenError, ReadError, Reader, Reason, Source, Target};
use crate::discover::{Vcpu, Vm, VmKey};

/// A source that refused a vCPU is asked again after this time: limits are raised and
/// permissions granted while the exporter runs.
const RETRY_AFTER: Duration = Duration::from_secs(60);

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
    readers: Vec<Opened>,
    /// The thread was found to have ended; the inventory has not noticed yet.
    gone: bool,
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
            readers: Vec::new(),
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
    /// before the thread was found to have ended is as good as any.
    pub fn read(
        &mut self,
        sources: &mut [Box<dyn Source>],
        reading: &mut Reading,
        errors: &mut [u64],
        now: Instant,
    ) {
        if self.gone {
            return;
        }
        self.open_missing(sources, now);
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

    fn open_missing(&mut self, sources: &mut [Box<dyn Source>], now: Instant) {
        self.readers.resize_with(sources.len(), || Opened::NotYet);
        let target = Target {
            vm: &self.vm,
            vcpu: self.vcpu,
        };
        for (opened, source) in self.readers.iter_mut().zip(sources) {
            let due = match opened {
                Opened::NotYet => true,
                Opened::Reader { .. } => false,
                Opened::Refused { since, .. } => {
                    now.saturating_duration_since(*since) >= RETRY_AFTER
                }
            };
            if !due {
                continue;
            }
            match source.open(&target) {
                Ok(reader) => {
                    *opened = Opened::Reader {
                        reader,
                        failing: false,
                    }
                }
                Err(OpenError::Gone) => {
                    self.gone = true;
                    return;
                }
                Err(OpenError::Refused(why)) => {
                    // The sampler tells the operator, once for all vCPUs.
                    let source = source.info().name;
                    tracing::debug!(source, vm = %self.vm.name, vcpu = self.vcpu.index, why = %why.detail, "a vCPU is not watched");
                    *opened = Opened::Refused { why, since: now };
                }
            }
        }
    }

    fn read_one(&mut self, n: usize, reading: &mut Reading, errors: &mut [u64]) {
        let Opened::Reader { reader, failing } = &mut self.readers[n] else {
            return;
        };
        match reader.read(reading) {
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
        let held = self.readers.iter().map(|opened| match opened {
            Opened::Reader { reader, .. } => reader.descriptors(),
            Opened::NotYet | Opened::Refused { .. } => 0,
        });
        held.sum()
    }
}

#[cfg(test)]
mod tests;
