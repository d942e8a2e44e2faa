//! VMs and their vCPUs: what is measured of them, and where they run against where their memory
//! and devices are.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::host::{CoreKey, Machine};
use super::known::{self, OfVm};
use super::numbers::{Meter, Raw};
use super::{over, sum, DeviceView, NodeShare, Numbers, PlaceView, VcpuView, VmView};
use crate::snapshot::growth::Growth;
use crate::snapshot::{Labels, Snapshot, VmRow};

/// A VM runs on a node where it spends this share of its time or more; the rest is a thread on
/// its way.
pub const RUNS_THERE: f64 = 0.05;

impl NodeShare {
    /// Whether the VM could run there and does not.
    pub(super) fn is_remote(&self) -> bool {
        self.has_cpus && self.time.is_none_or(|time| time < RUNS_THERE)
    }
}

pub(super) fn vms(newest: &Snapshot, growth: &Growth<'_>, machine: &Machine<'_>) -> Vec<VmView> {
    let meter = Meter::new(growth);
    let mut known = known::of_vms(newest);
    let vm = |row: &VmRow| {
        let name = row.labels.get("vm").unwrap_or_default();
        let time = TimeAt::of(newest, growth, &meter, row);
        let raws: Vec<Raw> = row.vcpus.clone().map(|n| meter.read(growth, n)).collect();
        let known = known.remove(name).unwrap_or_default();
        let vcpus = vcpus(newest, row, &raws, &meter, &known);
        let numbers = meter.numbers(&raws.iter().copied().sum());
        build(name, row, vcpus, numbers, known, &time, machine)
    };
    newest.vms.iter().map(vm).collect()
}

fn build(
    name: &str,
    row: &VmRow,
    vcpus: Vec<VcpuView>,
    numbers: Numbers,
    known: OfVm,
    time: &TimeAt,
    machine: &Machine<'_>,
) -> VmView {
    let devices = known.devices.into_iter();
    let devices: Vec<DeviceView> = devices.map(|d| time.judge(d, machine)).collect();
    let nodes = time.nodes(&known.memory, machine);
    let remote = |node: &NodeShare| node.memory.filter(|_| node.is_remote());
    let memory_is_known = time.total > 0.0 && nodes.iter().any(|node| node.memory.is_some());
    let info = row.info.pairs().iter();
    let info = info.filter(|(name, value)| *name != "vm" && !value.is_empty());
    VmView {
        name: name.to_owned(),
        info: info
            .map(|(name, value)| ((*name).to_owned(), value.to_string()))
            .collect(),
        nodes_used: (time.total > 0.0 && !time.nodes.is_empty()).then(|| time.used().count()),
        // An empty sum of floats is -0.
        memory_remote: memory_is_known
            .then(|| nodes.iter().filter_map(remote).fold(0.0, |a, b| a + b)),
        devices_remote: devices_remote(&devices),
        devices,
        quota: known.quota,
        throttled: known.throttled,
        frequency: time.weighted(|core| machine.frequency(core)),
        smt_shared: time.weighted(|core| machine.smt_beside(core)),
        hot: time.weighted(|core| machine.package_too_hot(core.0)),
        io_time: sum(known.io.iter().map(|(_, time)| Some(*time))),
        io_on_its_cores: io_on(&known.io, &vcpus),
        nodes,
        numbers,
        vcpus,
        threadless: row.threadless,
        causes: Vec::new(),
        verdict: String::new(),
    }
}

fn vcpus(
    newest: &Snapshot,
    row: &VmRow,
    raws: &[Raw],
    meter: &Meter,
    known: &OfVm,
) -> Vec<VcpuView> {
    let rows = newest.vcpus.get(row.vcpus.clone()).unwrap_or_default();
    let vcpu = |(row, raw): (&crate::snapshot::VcpuRow, &Raw)| {
        let place = row.whereabouts.map(|at| PlaceView {
            cpu: at.cpu,
            package: at.place.package,
            core: at.place.core,
            node: at.place.numa_node,
        });
        let core = place.map(|place| (place.package, place.core));
        VcpuView {
            index: row.index,
            tid: row.tid,
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

/// Time of other threads on some cores; `None` where no thread's core is known.
fn io_at(io: &[(Option<CoreKey>, f64)], here: impl Fn(CoreKey) -> bool) -> Option<f64> {
    let placed = io.iter().filter_map(|(core, time)| Some(((*core)?, *time)));
    sum(placed.map(|(core, time)| Some(if here(core) { time } else { 0.0 })))
}

fn devices_remote(devices: &[DeviceView]) -> Option<usize> {
    let known = devices.iter().filter_map(|device| device.remote);
    let known: Vec<bool> = known.collect();
    (!known.is_empty()).then(|| known.into_iter().filter(|remote| *remote).count())
}

/// Where a VM spent its time, nanoseconds.
#[derive(Default)]
struct TimeAt {
    total: f64,
    nodes: BTreeMap<u32, f64>,
    cores: HashMap<CoreKey, f64>,
}

impl TimeAt {
    fn of(newest: &Snapshot, growth: &Growth<'_>, meter: &Meter, vm: &VmRow) -> Self {
        let mut time = Self::default();
        for vcpu in vm.vcpus.clone() {
            for (cell, ns) in growth.by_cell(vcpu, meter.time()) {
                if let Some(cell) = newest.cells.get(cell) {
                    time.add(&cell.labels, ns as f64);
                }
            }
        }
        time
    }

    /// Adds time at a place; detail the series limit took away is not known.
    fn add(&mut self, place: &Labels, ns: f64) {
        let number = |name| place.get(name)?.parse::<i32>().ok();
        self.total += ns;
        if let Some(node) = place.get("numa_node").and_then(|node| node.parse().ok()) {
            *self.nodes.entry(node).or_default() += ns;
        }
        if let Some(core) = number("package").zip(number("core")) {
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
        nodes.filter(|node| self.share(*node).is_some_and(|share| share >= RUNS_THERE))
    }

    fn nodes(&self, memory: &[(u32, f64)], machine: &Machine<'_>) -> Vec<NodeShare> {
        let all: f64 = memory.iter().map(|(_, bytes)| bytes).sum();
        let mut nodes: BTreeMap<u32, Option<f64>> = BTreeMap::new();
        nodes.extend(self.nodes.keys().map(|node| (*node, over(0.0, all))));
        nodes.extend(
            memory
                .iter()
                .map(|(node, bytes)| (*node, over(*bytes, all))),
        );
        let share = |(node, memory)| NodeShare {
            node,
            time: self.share(node),
            memory,
            has_cpus: machine.has_cpus(node),
        };
        nodes.into_iter().map(share).collect()
    }

    fn judge(&self, device: DeviceView, machine: &Machine<'_>) -> DeviceView {
        let node = device.node.filter(|node| machine.has_cpus(*node));
        let share = node.and_then(|node| self.share(node));
        DeviceView {
            remote: share.map(|share| share < RUNS_THERE),
            ..device
        }
    }

    /// Mean of something about cores, by the time spent there.
    fn weighted(&self, of_core: impl Fn(CoreKey) -> Option<f64>) -> Option<f64> {
        let known = self.cores.iter();
        let known = known.filter_map(|(core, ns)| Some((of_core(*core)?, *ns)));
        let (sum, weight) = known.fold((0.0, 0.0), |(sum, weight), (value, ns)| {
            (sum + value * ns, weight + ns)
        });
        over(sum, weight)
    }
}
