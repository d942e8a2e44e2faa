//! Snapshots for unit tests.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{metrics, ColumnRow, FactRow, Labels, SeriesRow, Snapshot, Subject, VcpuRow, VmRow};
use crate::config::Placement;
use crate::discover::{Inventory, Vcpu, VmKey};
use crate::engine::ledger::SeriesKey;
use crate::engine::reading::Unit;
use crate::engine::{CpuLocation, Origin};
use crate::host::topology::{Place, Topology};
use crate::metric::{FactValue, LabelValue};

/// Labels from borrowed values; all digits are a number, except in a name.
pub(crate) fn labels(pairs: &[(&'static str, &str)]) -> Arc<Labels> {
    let value = |name: &str, text: &str| match text.parse::<i32>() {
        Ok(n) if name != "vm" => LabelValue::from(n),
        _ => text.to_owned().into(),
    };
    Arc::new(Labels::new(pairs.iter().map(|(n, v)| (*n, value(n, v)))))
}

/// A column of the catalog.
pub(crate) fn column(metric: &str, fixed: &[(&'static str, &str)], unit: Unit) -> ColumnRow {
    ColumnRow {
        metric: metrics::find(metric).unwrap(),
        labels: labels(fixed),
        unit,
    }
}

/// An empty snapshot, taken `after` past `start`.
pub(crate) fn empty(start: Instant, after: Duration) -> Snapshot {
    Snapshot {
        taken: SystemTime::UNIX_EPOCH + after,
        taken_mono: start + after,
        tick: 1 + after.as_secs(),
        inventory: Arc::new(Inventory::default()),
        cpu_labels: Arc::new([]),
        demand: Vec::new(),
        vms: Vec::new(),
        vcpus: Vec::new(),
        series: Vec::new(),
        placed: Arc::new([]),
        per_vcpu: Arc::new([]),
        series_totals: Vec::new(),
        vcpu_values: Vec::new(),
        vcpu_totals: Vec::new(),
        facts: Arc::new([]),
        facts_before: Arc::new([]),
        sources: Vec::new(),
        pmu_mode: None,
        host_name: None,
        synthetic: None,
        dropped: Vec::new(),
        series_count: 0,
    }
}

impl Snapshot {
    /// The snapshot with these CPUs as its topology.
    pub(crate) fn on(mut self, cpus: Vec<crate::host::topology::Cpu>) -> Self {
        self.inventory = Arc::new(Inventory {
            topology: Arc::new(Topology { cpus }),
            ..Inventory::default()
        });
        self
    }

    /// Adds a VM without vCPUs, with these extra labels of `kvm_vm_info`.
    pub(crate) fn add_vm(&mut self, name: &str, info: &[(&'static str, &str)]) {
        let first = self.vcpus.len();
        let key = key(name);
        let name = [("vm", name)];
        self.vms.push(VmRow {
            key,
            labels: labels(&name),
            info: labels(&[&name, info].concat()),
            vcpus: first..first,
            threadless: 0,
        });
    }

    /// Adds a vCPU to the last VM, which runs at the last of its series. A series is a CPU, its
    /// location, and the totals of all placed columns.
    pub(crate) fn add_vcpu(&mut self, series: &[(u32, Place, &[u64])], own: &[u64]) {
        let vm = self.vms.last_mut().unwrap();
        let name = vm.labels.get("vm").unwrap().to_owned();
        let vcpu = Vcpu {
            index: vm.vcpus.len() as u32,
            tid: 100 + self.vcpus.len() as i32,
            start_time: 1,
        };
        let index = vcpu.index.to_string();
        let first = self.series.len();
        let mut sums = vec![0; self.placed.len()];
        for (_, place, totals) in series {
            assert_eq!(totals.len(), sums.len());
            self.series.push(SeriesRow {
                key: SeriesKey::new(Some(*place), Placement::Core),
                labels: series_labels(&name, &index, *place),
                known: all(totals.len()),
            });
            self.series_totals.extend_from_slice(totals);
            sums.iter_mut().zip(*totals).for_each(|(s, t)| *s += t);
        }
        self.vcpu_totals.extend(sums);
        self.vcpu_values.extend_from_slice(own);
        let at = series
            .last()
            .map(|&(cpu, place, _)| CpuLocation { cpu, place });
        self.vcpus.push(VcpuRow {
            vm: vm.key,
            vcpu,
            labels: labels(&[("vm", &name), ("vcpu", &index)]),
            placement: None,
            location: at,
            series: first..self.series.len(),
            known: all(own.len()),
            known_totals: if series.is_empty() {
                0
            } else {
                all(self.placed.len())
            },
        });
        vm.vcpus.end += 1;
    }

    /// Adds a fact first known in this snapshot, sorted into catalog order.
    pub(crate) fn add_fact(
        &mut self,
        metric: &str,
        pairs: &[(&'static str, &str)],
        value: FactValue,
    ) {
        let mut facts = self.facts.to_vec();
        let labels = labels(pairs);
        let vm = labels.get("vm").map(key);
        facts.push(FactRow {
            metric: metrics::find(metric).unwrap(),
            subject: vm.map_or(Subject::Host, Subject::Vm),
            labels,
            value,
            origin: Origin::Exporter,
            since: self.taken_mono,
        });
        facts.sort_by_key(|row| metrics::position(row.metric));
        self.facts = facts.into();
    }
}

/// The key of the VM with this name.
fn key(name: &str) -> VmKey {
    let digest = |n: u64, byte: u8| n.wrapping_mul(31).wrapping_add(byte.into());
    VmKey {
        pid: 1,
        start_time: name.bytes().fold(1, digest),
        ordinal: 0,
    }
}

fn series_labels(vm: &str, vcpu: &str, place: Place) -> Arc<Labels> {
    labels(&[
        ("vm", vm),
        ("vcpu", vcpu),
        ("package", &place.package.to_string()),
        ("core", &place.core.to_string()),
        ("numa_node", &place.numa_node.to_string()),
    ])
}

fn all(columns: usize) -> u128 {
    (1 << columns) - 1
}
