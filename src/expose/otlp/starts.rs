//! The start time of each series, as OTLP defines it.
//!
//! A series that the exporter counts starts with the exporter or the vCPU thread, whichever is
//! later. A series that the kernel counts starts with the VM, or with boot if it is about the host.
//! Each source declares which applies ([`Origin`]). So a VM that restarts under its name has a new
//! start time, and no backend takes its lower totals for a decreasing counter.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{clock_gettime, ClockId};

use crate::engine::background::Origin;
use crate::metric::{Keys, Metric};
use crate::snapshot::{Labels, Snapshot};

/// Converts clock ticks since boot to nanoseconds since the Unix epoch with a fixed offset: a start
/// time that moved with each clock adjustment would look like a restart.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: u64,
    ns_per_tick: u64,
    process: u64,
}

impl Clock {
    /// The machine's clock. The exporter started at `born` clock ticks since boot; 0 means now.
    pub fn new(born: u64) -> Self {
        let now = unix_ns(SystemTime::now());
        let up = clock_gettime(ClockId::Boottime);
        let up = up.tv_sec as u64 * 1_000_000_000 + up.tv_nsec as u64;
        let clock = Self {
            boot: now.saturating_sub(up),
            ns_per_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            process: now,
        };
        let process = if born == 0 { now } else { clock.at(born) };
        Self { process, ..clock }
    }

    /// Start time of the exporter.
    pub(super) fn process(&self) -> u64 {
        self.process
    }

    fn at(&self, ticks: u64) -> u64 {
        self.boot
            .saturating_add(ticks.saturating_mul(self.ns_per_tick))
    }
}

/// Nanoseconds since the Unix epoch, good until the year 2554; 0 before 1970.
pub(super) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The start of a VM or of one of its vCPUs.
#[derive(Debug)]
struct Begun<'a> {
    vm: &'a str,
    vcpu: Option<u32>,
    at: u64,
}

/// Start times of all VMs and vCPUs of a snapshot, in its order.
#[derive(Debug)]
pub(super) struct Starts<'a> {
    clock: Clock,
    all: Vec<Begun<'a>>,
    /// Index of the last match: rows come in the same order.
    last: usize,
}

impl<'a> Starts<'a> {
    pub(super) fn new(clock: Clock, snapshot: &'a Snapshot) -> Self {
        let mut all = Vec::new();
        for vm in &snapshot.inventory.vms {
            let begun = |vcpu, ticks| Begun {
                vm: &vm.name,
                vcpu,
                at: clock.at(ticks),
            };
            all.push(begun(None, vm.key.start_time));
            let vcpus = vm.vcpus.iter();
            all.extend(vcpus.map(|vcpu| begun(Some(vcpu.index), vcpu.start_time)));
        }
        Self {
            clock,
            all,
            last: 0,
        }
    }

    /// Start time of the metric's series with these labels, at most the time of the `sample`.
    pub(super) fn of(&mut self, metric: &Metric, row: &Labels, origin: Origin, sample: u64) -> u64 {
        let process = self.clock.process;
        let start = match (metric.keys, origin) {
            (Keys::Exporter, _) => process,
            (_, Origin::Exporter) => self.begun(row).unwrap_or(process).max(process),
            (_, Origin::Vm) => self.begun(row).unwrap_or(process),
            (_, Origin::Boot) => self.clock.boot,
        };
        start.min(sample)
    }

    /// All VMs and their start times.
    pub(super) fn vms(&self) -> impl Iterator<Item = (&'a str, u64)> + '_ {
        let vms = self.all.iter().filter(|begun| begun.vcpu.is_none());
        vms.map(|vm| (vm.vm, vm.at))
    }

    fn begun(&mut self, row: &Labels) -> Option<u64> {
        let vm = row.get("vm")?;
        let vcpu = row.get("vcpu").and_then(|index| index.parse().ok());
        let is = |begun: &Begun<'_>| begun.vcpu == vcpu && begun.vm == vm;
        let (before, after) = self.all.split_at(self.last.min(self.all.len()));
        let found = match after.iter().position(is) {
            Some(n) => before.len() + n,
            None => before.iter().position(is)?,
        };
        self.last = found;
        Some(self.all[found].at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::metrics::find;

    #[test]
    fn ticks_become_nanoseconds_and_the_exporters_start_is_one_of_them() {
        let born = Clock::new(1000);
        let now = unix_ns(SystemTime::now());
        assert_eq!(born.process, born.at(1000));
        assert!(born.at(0) < now && born.process < now);
        assert!(Clock::new(0).process >= now);
    }

    #[test]
    fn without_an_inventory_a_series_begins_with_the_exporter() {
        let clock = Clock {
            boot: 10,
            ns_per_tick: 1,
            process: 100,
        };
        let mut starts = Starts {
            clock,
            all: Vec::new(),
            last: 0,
        };
        let cycles = find("kvm_vcpu_cycles_total").unwrap();
        let stat = find("kvm_vm_kvm_stat_total").unwrap();
        let row = |vm, vcpu: Option<&'static str>| {
            let vcpu = vcpu.map(|vcpu| ("vcpu", vcpu.into()));
            Labels::new(std::iter::once(("vm", std::borrow::Cow::from(vm))).chain(vcpu))
        };
        assert_eq!(
            starts.of(cycles, &row("a", Some("0")), Origin::Exporter, 1000),
            100
        );
        let begun = |vm, vcpu, at| Begun { vm, vcpu, at };
        starts.all = vec![
            begun("a", None, 20),
            begun("a", Some(0), 30),
            begun("b", None, 200),
            begun("b", Some(0), 210),
            begun("b", Some(7), 5000),
        ];
        assert_eq!(
            starts.of(cycles, &row("a", Some("0")), Origin::Exporter, 1000),
            100
        );
        assert_eq!(
            starts.of(cycles, &row("b", Some("0")), Origin::Exporter, 1000),
            210
        );
        assert_eq!(
            starts.of(cycles, &row("b", Some("7")), Origin::Exporter, 1000),
            1000,
            "not in the future"
        );
        assert_eq!(starts.of(stat, &row("b", None), Origin::Vm, 1000), 200);
        assert_eq!(
            starts.of(stat, &row("a", None), Origin::Vm, 1000),
            20,
            "back at the beginning"
        );
        assert_eq!(starts.of(stat, &row("c", None), Origin::Vm, 1000), 100);
        let of_boot = starts.of(stat, &row("b", None), Origin::Boot, 1000);
        assert_eq!(of_boot, 10, "whatever the VM's start");
    }
}
