//! VMs and their vCPUs: measurements, and the locations of CPU time, memory and devices.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::host::HostDelta;
use super::known::CoreKey;
use super::known::{self, KnownOfVm};
use super::numbers::{Meter, Raw};
use super::thresholds::thresholds;
use super::{over, sum, DeviceView, NodeShare, Numbers, PlaceView, VcpuView, VmView};
use crate::engine::ledger::SeriesKey;
use crate::snapshot::delta::Delta;
use crate::snapshot::{Snapshot, VmRow};

pub(super) fn vms(newest: &Snapshot, delta: &Delta<'_>, machine: &HostDelta<'_>) -> Vec<VmView> {
    let meter = Meter::new(delta);
    let mut known = known::of_vms(newest);
    let vm = |row: &VmRow| {
        let time = TimeAt::new(newest, delta, &meter, row);
        let raws: Vec<Raw> = row.vcpus.clone().map(|n| meter.read(delta, n)).collect();
        let known = known.remove(&row.key).unwrap_or_default();
        let vcpus = vcpus(newest, row, &raws, &meter, &known);
        let numbers = meter.numbers(&raws.iter().copied().sum());
        build(row, vcpus, numbers, known, &time, machine)
    };
    newest.vms.iter().map(vm).collect()
}

fn build(
    row: &VmRow,
    vcpus: Vec<VcpuView>,
    numbers: Numbers,
    known: KnownOfVm,
    time: &TimeAt,
    machine: &HostDelta<'_>,
) -> VmView {
    let nodes = time.nodes(&known.memory, machine);
    let far = |from, to| Some(machine.far(from, to));
    let remote = locality(&nodes, |node| node.memory, far);
    let spread = locality(&nodes, |node| node.time, far);
    let limit = remote_limit(thresholds().device_remote, spread);
    let contention = contention(&numbers, &known);
    let devices = known.devices.into_iter();
    let devices = devices.map(|device| judge(device, limit, &nodes, machine));
    let devices: Vec<DeviceView> = devices.collect();
    let distance = |from, to| Some(machine.distance(from, to)? / 10.0);
    let distance = locality(&nodes, |node| node.memory, distance);
    VmView {
        name: row.labels.get("vm").unwrap_or_default().to_owned(),
        pid: Some(row.key.pid),
        info: info(row),
        nodes_used: (time.total > 0.0 && !time.nodes.is_empty()).then(|| time.used().count()),
        memory_remote: remote,
        memory_remote_spread: spread,
        memory_distance: distance,
        devices_remote: devices_remote(&devices),
        devices,
        quota: known.quota,
        throttled: known.throttled,
        quota_wait: known.throttled_time.and(quota_wait(&numbers, contention)),
        contention,
        frequency: time.weighted(|core| machine.frequency(core)),
        smt_shared: time.weighted(|core| machine.smt_beside(core)),
        hot: time.weighted(|core| machine.package_too_hot(core.0)),
        io_time: sum(known.io.iter().map(|(_, time)| Some(*time))),
        io_on_its_cores: io_on(&known.io, &vcpus),
        nodes,
        numbers,
        vcpus,
        threadless: row.threadless,
        core_time: time.cores_used(&known.io),
        ..VmView::default()
    }
}

/// Mean of a function of the nodes where a VM runs and where its memory is, over all pairs of
/// nodes; `memory` is the share of each node. `None` if either is unknown.
fn locality(
    nodes: &[NodeShare],
    memory: impl Fn(&NodeShare) -> Option<f64>,
    of: impl Fn(u32, u32) -> Option<f64>,
) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for (from, time) in nodes.iter().filter_map(|at| Some((at.node, at.time?))) {
        for (to, memory) in nodes.iter().filter_map(|at| Some((at.node, memory(at)?))) {
            let both = time * memory;
            // The function may be unknown for pairs that do not occur.
            if both > 0.0 {
                sum += both * of(from, to)?;
                weight += both;
            }
        }
    }
    over(sum, weight)
}

/// Delay that quotas do not explain: a throttled thread counts as waiting. `None` if the VM is
/// often throttled for an unknown time.
fn contention(numbers: &Numbers, known: &KnownOfVm) -> Option<f64> {
    let throttled = match (known.throttled_time, known.throttled) {
        (None, Some(ratio)) if ratio > thresholds().quota_throttled => return None,
        (time, _) => time.unwrap_or(0.0),
    };
    Some((numbers.delay? - throttled).max(0.0))
}

/// Share of runnable time in which quotas throttled it.
fn quota_wait(numbers: &Numbers, contention: Option<f64>) -> Option<f64> {
    let (time, delay) = (numbers.time?, numbers.delay?);
    over(delay - contention?, time + delay)
}

fn info(row: &VmRow) -> Vec<(String, String)> {
    let info = row.info.pairs().iter();
    let info = info.filter(|(name, value)| *name != "vm" && value.text() != Some(""));
    info.map(|(name, value)| ((*name).to_owned(), value.to_string()))
        .collect()
}

fn vcpus(
    newest: &Snapshot,
    row: &VmRow,
    raws: &[Raw],
    meter: &Meter,
    known: &KnownOfVm,
) -> Vec<VcpuView> {
    let rows = newest.vcpus.get(row.vcpus.clone()).unwrap_or_default();
    let vcpu = |(row, raw): (&crate::snapshot::VcpuRow, &Raw)| {
        let place = row.location.map(|at| PlaceView {
            cpu: at.cpu,
            package: at.place.package,
            core: at.place.core,
            node: at.place.numa_node,
        });
        let core = place.map(|place| (place.package, place.core));
        VcpuView {
            index: row.vcpu.index,
            tid: row.vcpu.tid,
            place,
            numbers: meter.numbers(raw),
            io_on_core: core.and_then(|core| io_at(&known.io, |at| at == core)),
        }
    };
    rows.iter().zip(raws).map(vcpu).collect()
}

fn io_on(io: &[(Option<CoreKey>, f64)], vcpus: &[VcpuView]) -> Option<f64> {
    let cores = vcpus.iter().filter_map(|vcpu| vcpu.place);
    let cores: HashSet<CoreKey> = cores.map(|place| (place.package, place.core)).collect();
    io_at(io, |core| cores.contains(&core))
}

/// CPU time of other threads on some cores; `None` if no thread's core is known.
fn io_at(io: &[(Option<CoreKey>, f64)], here: impl Fn(CoreKey) -> bool) -> Option<f64> {
    let placed = io.iter().filter_map(|(core, time)| Some(((*core)?, *time)));
    sum(placed.map(|(core, time)| Some(if here(core) { time } else { 0.0 })))
}

/// The limit of remote memory or of a remote device, at least `least`: a VM that runs on several
/// nodes is far from any node for a part of its time, `spread`.
pub(super) fn remote_limit(least: f64, spread: Option<f64>) -> f64 {
    least.max(spread.unwrap_or(0.0) + thresholds().memory_remote_over_spread)
}

/// As `kvm_vm:device_remote:ratio` in mixin/rules.
fn judge(
    device: DeviceView,
    limit: f64,
    nodes: &[NodeShare],
    machine: &HostDelta<'_>,
) -> DeviceView {
    let far = device.node.and_then(|node| {
        let times = nodes.iter().filter_map(|at| Some((at.node, at.time?)));
        let (far, time) = times.fold((0.0, 0.0), |(far, all), (from, time)| {
            (far + time * machine.far(from, node), all + time)
        });
        over(far, time)
    });
    DeviceView {
        far,
        remote: far.map(|far| far > limit),
        ..device
    }
}

fn devices_remote(devices: &[DeviceView]) -> Option<usize> {
    let known = devices.iter().filter_map(|device| device.remote);
    let known: Vec<bool> = known.collect();
    (!known.is_empty()).then(|| known.into_iter().filter(|remote| *remote).count())
}

/// CPU time of a VM by location, nanoseconds.
#[derive(Default)]
struct TimeAt {
    /// Length of the window, to convert times to cores.
    seconds: f64,
    total: f64,
    nodes: BTreeMap<u32, f64>,
    cores: HashMap<CoreKey, f64>,
}

impl TimeAt {
    fn new(newest: &Snapshot, delta: &Delta<'_>, meter: &Meter, vm: &VmRow) -> Self {
        let mut time = Self {
            seconds: delta.span().as_secs_f64(),
            ..Self::default()
        };
        for vcpu in vm.vcpus.clone() {
            for (n, ns) in delta.by_series(vcpu, meter.time()) {
                if let Some(series) = newest.series.get(n) {
                    time.add(series.key, ns as f64);
                }
            }
        }
        time
    }

    /// Adds time at a location. The series limit may leave core and node out.
    fn add(&mut self, place: SeriesKey, ns: f64) {
        self.total += ns;
        if let Some(node) = place.numa_node {
            *self.nodes.entry(node).or_default() += ns;
        }
        if let Some(core) = place.core {
            *self.cores.entry(core).or_default() += ns;
        }
    }

    /// Share of its time on a node.
    fn share(&self, node: u32) -> Option<f64> {
        let time = self.nodes.get(&node).copied().unwrap_or(0.0);
        (!self.nodes.is_empty()).then(|| over(time, self.total))?
    }

    fn used(&self) -> impl Iterator<Item = u32> + '_ {
        let nodes = self.nodes.keys().copied();
        nodes.filter(|node| {
            self.share(*node)
                .is_some_and(|share| share >= thresholds().node_time_share)
        })
    }

    fn nodes(&self, memory: &[(u32, f64)], machine: &HostDelta<'_>) -> Vec<NodeShare> {
        let all: f64 = memory.iter().map(|(_, bytes)| bytes).sum();
        let mut nodes: BTreeMap<u32, Option<f64>> = BTreeMap::new();
        nodes.extend(self.nodes.keys().map(|node| (*node, over(0.0, all))));
        let shares = memory
            .iter()
            .map(|(node, bytes)| (*node, over(*bytes, all)));
        nodes.extend(shares);
        let share = |(node, memory)| NodeShare {
            node,
            time: self.share(node),
            memory,
            has_cpus: machine.has_cpus(node),
        };
        nodes.into_iter().map(share).collect()
    }

    /// Cores used of each core, by vCPUs and by other threads.
    fn cores_used(&self, io: &[(Option<CoreKey>, f64)]) -> HashMap<CoreKey, f64> {
        let of_vcpus = self.cores.iter();
        let of_vcpus =
            of_vcpus.filter_map(|(core, ns)| Some((*core, over(ns / 1e9, self.seconds)?)));
        let mut used: HashMap<CoreKey, f64> = of_vcpus.collect();
        for (core, time) in io.iter().filter_map(|(core, time)| Some(((*core)?, *time))) {
            *used.entry(core).or_default() += time;
        }
        used
    }

    /// Mean of a property of cores, weighted by the time on them.
    fn weighted(&self, of_core: impl Fn(CoreKey) -> Option<f64>) -> Option<f64> {
        let known = self.cores.iter();
        let known = known.filter_map(|(core, ns)| Some((of_core(*core)?, *ns)));
        let (sum, weight) = known.fold((0.0, 0.0), |(sum, weight), (value, ns)| {
            (sum + value * ns, weight + ns)
        });
        over(sum, weight)
    }
}
