//! Totals of the statistics of one vCPU or VM, and sums over several.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::total::{add, Total};
use crate::host::kvm_stats::{FormatError, Schema, Stat, StatKind};

/// Most kinds of files: one of vCPUs and one of VMs on a host.
const MOST_SCHEMAS: usize = 4;

/// The schema of a file, from those known or parsed now.
///
/// # Errors
/// If the file is not one of statistics.
pub(super) fn schema(
    known: &mut Vec<Arc<Schema>>,
    file: &[u8],
) -> Result<Arc<Schema>, FormatError> {
    if let Some(schema) = known.iter().find(|schema| schema.matches(file)) {
        return Ok(schema.clone());
    }
    let new = Arc::new(Schema::parse(file)?);
    known.truncate(MOST_SCHEMAS - 1);
    known.insert(0, new.clone());
    Ok(new)
}

/// Statistics of one vCPU or VM since it started.
#[derive(Default)]
pub(super) struct Counters {
    schema: Option<Arc<Schema>>,
    /// Of each number, in the order of the schema.
    totals: Vec<Total>,
    latest: Vec<u64>,
}

impl Counters {
    /// Takes the numbers of a file with this schema.
    pub(super) fn advance(&mut self, schema: Arc<Schema>, file: &[u8]) {
        self.latest.clear();
        self.latest
            .extend(schema.stats.iter().flat_map(|stat| stat.read(file)));
        if self.schema.as_ref() != Some(&schema) {
            self.totals = vec![Total::default(); self.latest.len()];
            self.schema = Some(schema);
        }
        for (total, now) in self.totals.iter_mut().zip(&self.latest) {
            total.advance(*now);
        }
    }

    /// Gauges and peaks.
    pub(super) fn current(&self) -> impl Iterator<Item = (&str, u64)> {
        let stats = self.schema.iter().flat_map(|schema| &schema.stats);
        let mut at = 0;
        stats.filter_map(move |stat| {
            let first = self.latest.get(at).copied();
            at += stat.numbers;
            is_current(stat).then_some((stat.name.as_str(), first?))
        })
    }
}

fn is_current(stat: &Stat) -> bool {
    matches!(stat.kind, StatKind::Instant | StatKind::Peak)
}

/// Sums over vCPUs, and of the VM's own statistics.
#[derive(Default)]
pub(super) struct Sums(Vec<(Arc<Schema>, Vec<u64>)>);

impl Sums {
    /// Sums of one.
    pub(super) fn of_one(counters: &Counters) -> Self {
        let mut sums = Self::default();
        sums.add(counters);
        sums
    }

    /// Adds the totals of a vCPU or the VM.
    pub(super) fn add(&mut self, counters: &Counters) {
        let Some(schema) = &counters.schema else {
            return;
        };
        let position = self.0.iter().position(|(known, _)| known == schema);
        let n = position.unwrap_or_else(|| {
            self.0
                .push((schema.clone(), vec![0; counters.totals.len()]));
            self.0.len() - 1
        });
        for (sum, total) in self.0[n].1.iter_mut().zip(&counters.totals) {
            add(sum, total.sum());
        }
    }

    /// The numbers of each counter and histogram.
    pub(super) fn by_name(&self) -> BTreeMap<&str, &[u64]> {
        let mut sums = BTreeMap::new();
        for (schema, numbers) in self.0.iter().rev() {
            let mut at = 0;
            for stat in &schema.stats {
                let own = numbers.get(at..at + stat.numbers).unwrap_or_default();
                at += stat.numbers;
                if !is_current(stat) {
                    sums.insert(stat.name.as_str(), own);
                }
            }
        }
        sums
    }
}

/// A name as the value of a label; those of Linux 6.18 are not copied.
pub(super) fn label(name: &str) -> Cow<'static, str> {
    match NAMES.binary_search(&name) {
        Ok(n) => Cow::Borrowed(NAMES[n]),
        Err(_) => Cow::Owned(name.to_owned()),
    }
}

/// The names of counters and gauges of Linux 6.18 on x86-64 (`kvm_vcpu_stats_desc` and
/// `kvm_vm_stats_desc`, arch/x86/kvm/x86.c), sorted.
const NAMES: &[&str] = &[
    "blocking",
    "directed_yield_attempted",
    "directed_yield_successful",
    "exits",
    "fpu_reload",
    "guest_mode",
    "halt_attempted_poll",
    "halt_exits",
    "halt_poll_fail_ns",
    "halt_poll_invalid",
    "halt_poll_success_ns",
    "halt_successful_poll",
    "halt_wait_ns",
    "halt_wakeup",
    "host_state_reload",
    "hypercalls",
    "insn_emulation",
    "insn_emulation_fail",
    "invlpg",
    "io_exits",
    "irq_exits",
    "irq_injections",
    "irq_window_exits",
    "l1d_flush",
    "max_mmu_page_hash_collisions",
    "max_mmu_rmap_size",
    "mmio_exits",
    "mmu_cache_miss",
    "mmu_flooded",
    "mmu_pde_zapped",
    "mmu_pte_write",
    "mmu_recycled",
    "mmu_shadow_zapped",
    "mmu_unsync",
    "nested_run",
    "nmi_injections",
    "nmi_window_exits",
    "notify_window_exits",
    "nx_lpage_splits",
    "pages_1g",
    "pages_2m",
    "pages_4k",
    "pf_emulate",
    "pf_fast",
    "pf_fixed",
    "pf_guest",
    "pf_mmio_spte_created",
    "pf_spurious",
    "pf_taken",
    "preemption_other",
    "preemption_reported",
    "remote_tlb_flush",
    "remote_tlb_flush_requests",
    "req_event",
    "request_irq_exits",
    "signal_exits",
    "tlb_flush",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted());
        assert!(matches!(label("exits"), Cow::Borrowed("exits")));
        assert_eq!(label("exits_of_tomorrow"), "exits_of_tomorrow");
    }
}
