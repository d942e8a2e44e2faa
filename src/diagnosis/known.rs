//! Facts from slow sources, by VM.

use std::collections::HashMap;

use super::{over, owned, DeviceView};
use crate::snapshot::delta::{fact_deltas, facts_of, number};
use crate::snapshot::{FactRow, Snapshot, VmKey};
use crate::sources::{cgroup, devices, memory, threads};

/// Package and core.
pub(super) type CoreKey = (i32, i32);

/// Facts about one VM.
#[derive(Default)]
pub(super) struct KnownOfVm {
    /// Bytes on each node.
    pub(super) memory: Vec<(u32, f64)>,
    pub(super) devices: Vec<DeviceView>,
    pub(super) quota: Option<f64>,
    pub(super) throttled: Option<f64>,
    /// Seconds per second in which quotas throttled it, all levels together.
    pub(super) throttled_time: Option<f64>,
    /// CPU time of its threads other than vCPUs, by core if known.
    pub(super) io: Vec<(Option<CoreKey>, f64)>,
}

pub(super) type Known = HashMap<VmKey, KnownOfVm>;

pub(super) fn of_vms(newest: &Snapshot) -> Known {
    let mut known = Known::new();
    let facts = |metric| facts_of(&newest.facts, metric).iter();
    for row in facts(&memory::MEMORY) {
        let node = row.labels.number("numa_node").zip(number(&row.value));
        learn_of(&mut known, row, |vm| vm.memory.extend(node));
    }
    for row in facts(&cgroup::CPU_QUOTA_CORES) {
        learn_of(&mut known, row, |vm| vm.quota = number(&row.value));
    }
    for row in facts(&devices::DEVICE_INFO) {
        learn_of(&mut known, row, |vm| vm.devices.push(device(row)));
    }
    let time = fact_deltas(newest, &threads::THREAD_TIME);
    for (row, increase) in time.filter(|(row, _)| row.labels.get("role") != Some("vcpu")) {
        learn_of(&mut known, row, |vm| {
            vm.io.push((by_core(row), increase.rate()))
        });
    }
    throttled(newest, &mut known);
    throttled_time(newest, &mut known);
    known
}

/// The VM of a row.
fn learn_of(known: &mut Known, row: &FactRow, learn: impl FnOnce(&mut KnownOfVm)) {
    if let Some(vm) = row.subject.vm() {
        learn(known.entry(vm).or_default());
    }
}

/// Uses the worst level: a quota on any level throttles the VM.
fn throttled(newest: &Snapshot, known: &mut Known) {
    let periods = fact_deltas(newest, &cgroup::CPU_PERIODS);
    let periods: HashMap<&str, f64> = periods
        .map(|(row, increase)| (row.labels.text(), increase.by))
        .collect();
    for (row, increase) in fact_deltas(newest, &cgroup::CPU_THROTTLED_PERIODS) {
        let ratio = periods.get(row.labels.text());
        let ratio = ratio.and_then(|periods| over(increase.by, *periods));
        learn_of(known, row, |vm| {
            vm.throttled = vm.throttled.into_iter().chain(ratio).reduce(f64::max);
        });
    }
}

/// Time in which quotas throttled the VM. The kernel counts it for each CPU on which a thread of
/// the group was throttled (kernel/sched/fair.c, `unthrottle_cfs_rq`). So it is the wait of all
/// threads together, except for threads that share a CPU.
fn throttled_time(newest: &Snapshot, known: &mut Known) {
    for (row, increase) in fact_deltas(newest, &cgroup::CPU_THROTTLED) {
        learn_of(known, row, |vm| {
            *vm.throttled_time.get_or_insert(0.0) += increase.rate();
        });
    }
}

fn device(row: &FactRow) -> DeviceView {
    DeviceView {
        name: owned(&row.labels, "device").unwrap_or_default(),
        class: owned(&row.labels, "class"),
        node: row.labels.number("numa_node"),
        far: None,
        remote: None,
    }
}

/// The core of a row.
pub(super) fn by_core(row: &FactRow) -> Option<CoreKey> {
    Some((row.labels.number("package")?, row.labels.number("core")?))
}
