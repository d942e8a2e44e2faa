//! Files of a VM that are read less often: memory, cgroups and KVM's counters.

use std::io;

use super::super::counts::Counted;
use super::super::scenario::NODES;
use super::super::state::{SyntheticTotals, VmTotals, LLC_BYTES};
use super::super::tree::Tree;
use super::SyntheticGuest;
use crate::fake_host::files::memory;

impl SyntheticGuest {
    /// Updates these files. `llc` is the miss rate of each last-level cache.
    pub(in super::super) fn update_slow(
        &mut self,
        tree: &Tree,
        totals: &VmTotals,
        llc: [f64; 2],
    ) -> io::Result<()> {
        self.update_memory(tree, totals.rates.memory_far)?;
        if self.device_far != totals.rates.device_far {
            self.device_far = totals.rates.device_far;
            if self.spec.device {
                self.hold_device(tree)?;
            }
        }
        self.update_group(tree, totals)?;
        self.update_caches(tree, totals, llc)?;
        for (stat, value) in kvm_stats(totals) {
            let path = format!("{}/{stat}", self.debugfs());
            tree.line(&path, value as u64)?;
        }
        Ok(())
    }

    pub(super) fn update_memory(&self, tree: &Tree, far: bool) -> io::Result<()> {
        let nodes = self.memory(far);
        let bytes: u64 = nodes.iter().sum();
        // Memory in transparent huge pages, which QEMU requests.
        let huge = nodes.map(|bytes| (bytes / 10 * 9) & !0x1f_ffff);
        let known = ..self.nodes;
        let text = memory::numa_stat(&nodes[known], &[0; NODES][known], &huge[known]);
        tree.file(
            &format!("sys/fs/cgroup/{}/memory.numa_stat", self.scope),
            &text,
        )?;
        let status = self.others[0].1.status(self.pid, self.pid);
        let resident = memory::resident(bytes >> 10, 0, 0);
        tree.file(&format!("proc/{}/status", self.pid), &(status + &resident))
    }

    fn update_group(&self, tree: &Tree, totals: &VmTotals) -> io::Result<()> {
        let own = self.group();
        let micros = |seconds: f64| (seconds * 1e6) as u64;
        let time: f64 = totals.vcpus.iter().map(|vcpu| vcpu.thread.time).sum();
        let delay: f64 = totals.vcpus.iter().map(|vcpu| vcpu.thread.delay).sum();
        let [periods, throttled, lost] = totals.quota;
        let mut stat = format!("usage_usec {}\n", micros(time));
        if self.spec.quota.is_some() {
            stat += &format!(
                "nr_periods {}\nnr_throttled {}\nthrottled_usec {}\n",
                periods as u64,
                throttled as u64,
                micros(lost)
            );
        }
        tree.file(&format!("{own}/cpu.stat"), &stat)?;
        let path = format!("sys/fs/cgroup/{}/memory.stat", self.scope);
        tree.file(&path, &memory::stat(self.spec.memory, totals.balancing()))?;
        // Mostly one thread waits at a time; that all wait is rare.
        for (name, some, full) in [
            ("cpu", delay, 0.0),
            ("memory", 0.0, 0.0),
            ("io", 0.01 * time, 0.004 * time),
        ] {
            let line = |kind, total| {
                format!(
                    "{kind} avg10=0.00 avg60=0.00 avg300=0.00 total={}\n",
                    micros(total)
                )
            };
            let text = line("some", some) + &line("full", full);
            tree.file(&format!("{own}/{name}.pressure"), &text)?;
        }
        Ok(())
    }

    fn update_caches(&self, tree: &Tree, totals: &VmTotals, llc: [f64; 2]) -> io::Result<()> {
        let own = totals.misses();
        for cache in 0..2 {
            let part = own[cache] / llc[cache].max(1.0);
            let [all, local] = totals.traffic[cache];
            let dir = format!("{}/mon_data/mon_L3_{cache:02}", self.resctrl());
            for (name, value) in [
                ("llc_occupancy", part * LLC_BYTES),
                ("mbm_total_bytes", all),
                ("mbm_local_bytes", local),
            ] {
                tree.line(&format!("{dir}/{name}"), value as u64)?;
            }
        }
        Ok(())
    }
}

/// Counters of KVM debugfs (virt/kvm, arch/x86/kvm), summed over all vCPUs.
fn kvm_stats(totals: &VmTotals) -> [(&'static str, f64); 12] {
    let sum = |counted: Counted| -> f64 {
        let vcpus: &[SyntheticTotals] = &totals.vcpus;
        vcpus.iter().map(|vcpu| counted.total(&vcpu.counts)).sum()
    };
    let (halts, io) = (sum(Counted::Reason(12)), sum(Counted::Reason(30)));
    let faults = sum(Counted::Reason(48));
    [
        ("exits", sum(Counted::Exits)),
        ("io_exits", io),
        ("mmio_exits", sum(Counted::Event(3))),
        ("halt_exits", halts),
        ("irq_exits", sum(Counted::Reason(1))),
        ("irq_injections", sum(Counted::Event(4))),
        ("insn_emulation", io),
        ("halt_attempted_poll", 0.9 * halts),
        ("halt_successful_poll", 0.5 * halts),
        ("halt_wakeup", 0.4 * halts),
        ("pf_taken", faults),
        ("pf_fixed", 0.98 * faults),
    ]
}
