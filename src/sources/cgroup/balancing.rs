//! NUMA balancing of a VM, from `memory.stat` of its group.

use std::io;

use super::levels::LocatedVm;
use super::totals::{Counted, Totals};
use crate::engine::{Fact, Origin};
use crate::host::roots::Roots;
use crate::metric::{metrics, Keys, Metric};

metrics! { METRICS of "cgroup":
    NUMA_BALANCING = Metric::counter("kvm_vm_numa_balancing_total", Keys::Vm, &["event"],
        "NUMA balancing of the VM's memory, from its cgroup: pte_updates (page table entries marked to detect the next access), hint_faults (faults on marked entries; the vCPU waits), pages_migrated (base pages moved to another node)");
}

/// Values of the `event` label, in the order of
/// [`Group::numa_balancing`](crate::host::cgroup::Group::numa_balancing).
const EVENTS: [&str; 3] = ["pte_updates", "hint_faults", "pages_migrated"];

/// State of a VM between two reads.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    totals: Totals<{ EVENTS.len() }>,
    /// `memory.stat` of this kernel has no such lines: before Linux 6.12, or without NUMA
    /// balancing. It is not read again.
    is_unsupported: bool,
}

impl Balancing {
    /// Events of the VM's own group in the v2 hierarchy. A failure changes no state.
    pub(super) fn read(
        &mut self,
        roots: &Roots,
        unified: &LocatedVm,
    ) -> io::Result<Option<Counted<3>>> {
        let Some((hierarchy, levels)) = unified.as_ref().filter(|_| !self.is_unsupported) else {
            return Ok(None);
        };
        // The root group counts the whole host.
        let Some(path) = levels.vm() else {
            return Ok(None);
        };
        let group = hierarchy.group(roots, path);
        let Some(inode) = group.inode()? else {
            return Ok(None);
        };
        // The file is missing without the memory controller.
        let Some(events) = group.numa_balancing()? else {
            return Ok(None);
        };
        self.is_unsupported = events.is_none();
        Ok(events.map(|values| Counted {
            group: path.to_owned(),
            inode,
            values,
        }))
    }

    /// Adds a read, and returns the totals.
    pub(super) fn add(&mut self, counted: Option<Counted<3>>) -> Vec<Fact> {
        self.totals.update(counted.into_iter().collect());
        let fact = |(event, total): (&'static str, u64)| {
            let labels = [("event", event.into())];
            Fact::int(&NUMA_BALANCING, labels, total).since(Origin::Vm)
        };
        let totals = self.totals.get().into_iter();
        totals
            .flat_map(|totals| EVENTS.into_iter().zip(totals))
            .map(fact)
            .collect()
    }
}
