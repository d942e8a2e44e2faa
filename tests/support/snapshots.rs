//! Snapshots of imaginary hosts for tests and benchmarks: complete, of any size, with numbers that
//! differ from each other.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use vcpu_exporter::config::Placement;
use vcpu_exporter::discover::{Inventory, Vcpu, VisibilityGap, VmKey};
use vcpu_exporter::engine::ledger::SeriesKey;
use vcpu_exporter::engine::{CpuLocation, Origin, ReasonCode, SourceInfo, SourceState, Unit};
use vcpu_exporter::host::topology::{CoreType, Cpu, Place, Topology};
use vcpu_exporter::metric::{Buckets, FactValue, LabelValue};
use vcpu_exporter::snapshot::metrics;
use vcpu_exporter::snapshot::{
    ColumnRow, DroppedRow, FactRow, Labels, SeriesRow, Snapshot, SourceRow, Subject, VcpuRow, VmRow,
};

/// The host to build.
pub(crate) struct Host {
    /// VM names.
    pub(crate) names: Vec<String>,
    /// vCPUs per VM.
    pub(crate) vcpus: usize,
    /// Locations per vCPU.
    pub(crate) places: usize,
    /// CPUs, two per core, in two packages with one node each.
    pub(crate) cpus: u32,
}

impl Host {
    /// VMs with 8 vCPUs, one location per vCPU.
    pub(crate) fn of_vcpus(vcpus: usize) -> Self {
        Self {
            names: (0..vcpus.div_ceil(8))
                .map(|n| format!("vm-{n:05}"))
                .collect(),
            vcpus: 8.min(vcpus),
            places: 1,
            cpus: 128,
        }
    }

    /// VMs with these names and 2 vCPUs each, two locations per vCPU.
    pub(crate) fn named<const N: usize>(names: [&str; N]) -> Self {
        Self {
            names: names.map(String::from).to_vec(),
            vcpus: 2,
            places: 2,
            cpus: 8,
        }
    }

    /// The snapshot, taken now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let topology = topology(self.cpus);
        let (placed, per_vcpu) = (placed_columns(), vcpu_columns());
        let mut snapshot = Snapshot {
            taken: UNIX_EPOCH + Duration::from_millis(1_763_900_000_125),
            taken_mono: Instant::now(),
            tick: 86_421,
            cpu_labels: topology.cpus.iter().map(cpu_labels).collect(),
            demand: Vec::new(),
            inventory: Arc::new(Inventory {
                generation: 7,
                topology: Arc::new(topology),
                vms: Vec::new(),
                visibility_gaps: vec![VisibilityGap {
                    unseen: "debugfs is locked down: vCPUs are known by thread names".into(),
                    needs: "".into(),
                }],
                blocked: 0,
            }),
            vms: Vec::new(),
            vcpus: Vec::new(),
            series: Vec::new(),
            placed,
            per_vcpu,
            series_totals: Vec::new(),
            vcpu_values: Vec::new(),
            vcpu_totals: Vec::new(),
            facts: Arc::new([]),
            facts_before: Arc::new([]),
            sources: sources(),
            pmu_mode: Some(labels(&[
                ("mode", "host_only"),
                ("reason", "mediated_vpmu"),
            ])),
            host_name: Some("kvm-07".into()),
            synthetic: None,
            dropped: vec![DroppedRow {
                labels: labels(&[("what", "user_events")]),
                series: 12,
            }],
            series_count: 0,
        };
        self.names
            .iter()
            .for_each(|name| self.add_vm(&mut snapshot, name));
        snapshot.series_count = snapshot.count_series();
        snapshot
    }

    fn add_vm(&self, snapshot: &mut Snapshot, name: &str) {
        let first = snapshot.vcpus.len();
        for index in 0..self.vcpus {
            self.add_vcpu(snapshot, name, index);
        }
        snapshot.vms.push(VmRow {
            key: key(name),
            labels: labels(&[("vm", name)]),
            info: labels(&[
                ("vm", name),
                ("uuid", "b813b8d7-0d5f-4c5a-9a58-1f0c6a0b7f11"),
                ("vmm", "qemu"),
                ("manager", "libvirt"),
                ("name_source", "cmdline"),
            ]),
            vcpus: first..snapshot.vcpus.len(),
            threadless: 0,
        });
    }

    fn add_vcpu(&self, snapshot: &mut Snapshot, vm: &str, index: usize) {
        let n = snapshot.vcpus.len();
        let first = snapshot.series.len();
        for place in 0..self.places {
            let cpu = (n + place * 3) as u32 % self.cpus;
            self.add_series(snapshot, vm, index, cpu);
        }
        let cpu = n as u32 % self.cpus;
        let vcpu = index.to_string();
        let place = place_of(cpu);
        snapshot.vcpus.push(VcpuRow {
            vm: key(vm),
            vcpu: Vcpu {
                index: index as u32,
                tid: 20_000 + n as i32,
                start_time: 0,
            },
            labels: labels(&[("vm", vm), ("vcpu", &vcpu)]),
            placement: Some(labels(&[
                ("vm", vm),
                ("vcpu", &vcpu),
                ("cpu", &cpu.to_string()),
                ("package", &place.package.to_string()),
                ("core", &place.core.to_string()),
                ("numa_node", &place.numa_node.to_string()),
            ])),
            location: Some(CpuLocation { cpu, place }),
            series: first..snapshot.series.len(),
            known: all(snapshot.per_vcpu.len()),
            known_totals: all(snapshot.placed.len()),
        });
        let width = snapshot.placed.len();
        let of_series = snapshot.series_totals[first * width..].chunks_exact(width);
        let sums = of_series.fold(vec![0; width], |mut sums, totals| {
            sums.iter_mut().zip(totals).for_each(|(s, t)| *s += t);
            sums
        });
        snapshot.vcpu_totals.extend(sums);
        let columns = Arc::clone(&snapshot.per_vcpu);
        let values = columns.iter().enumerate().map(|(c, _)| number(n, c));
        snapshot.vcpu_values.extend(values);
    }

    fn add_series(&self, snapshot: &mut Snapshot, vm: &str, index: usize, cpu: u32) {
        let place = place_of(cpu);
        let n = snapshot.series.len();
        snapshot.series.push(SeriesRow {
            key: SeriesKey::new(Some(place), Placement::Core),
            labels: labels(&[
                ("vm", vm),
                ("vcpu", &index.to_string()),
                ("package", &place.package.to_string()),
                ("core", &place.core.to_string()),
                ("numa_node", &place.numa_node.to_string()),
            ]),
            known: all(snapshot.placed.len()),
        });
        let columns = Arc::clone(&snapshot.placed);
        let totals = columns.iter().enumerate().map(|(c, _)| number(n, c));
        snapshot.series_totals.extend(totals);
    }
}

/// The host at a time after `before`: vCPU n was on a core for 0.6 of the time and waited for n
/// thousandths of it, up to 0.4; everything else is unchanged.
pub(crate) fn later(before: &Snapshot, after: Duration) -> Snapshot {
    let mut now = copy(before);
    now.taken += after;
    now.taken_mono += after;
    now.tick += 1;
    let width = now.placed.len();
    let place = |name: &str| {
        now.placed
            .iter()
            .position(|c| c.metric.name == name)
            .unwrap()
    };
    let time = place("kvm_vcpu_time_seconds_total");
    let delay = place("kvm_vcpu_delay_seconds_total");
    for n in 0..now.vcpus.len() {
        let series = now.vcpus[n].series.start;
        let waited = after * (n as u32 % 400) / 1000;
        for (column, increase) in [(time, after * 6 / 10), (delay, waited)] {
            let increase = increase.as_nanos() as u64;
            now.series_totals[series * width + column] += increase;
            now.vcpu_totals[n * width + column] += increase;
        }
    }
    now
}

fn copy(of: &Snapshot) -> Snapshot {
    Snapshot {
        inventory: of.inventory.clone(),
        cpu_labels: of.cpu_labels.clone(),
        demand: of.demand.clone(),
        vms: of.vms.clone(),
        vcpus: of.vcpus.clone(),
        series: of.series.clone(),
        placed: of.placed.clone(),
        per_vcpu: of.per_vcpu.clone(),
        series_totals: of.series_totals.clone(),
        vcpu_values: of.vcpu_values.clone(),
        vcpu_totals: of.vcpu_totals.clone(),
        facts: of.facts.clone(),
        facts_before: of.facts_before.clone(),
        sources: of.sources.clone(),
        pmu_mode: of.pmu_mode.clone(),
        host_name: of.host_name.clone(),
        synthetic: of.synthetic.clone(),
        dropped: of.dropped.clone(),
        ..*of
    }
}

/// The snapshot with data from recordings of its VMs: a count, a time and a histogram.
pub(crate) fn recorded(mut snapshot: Snapshot) -> Snapshot {
    let mut rows = Vec::new();
    let mut add =
        |metric: &str, more: &[(&'static str, &str)], value: &dyn Fn(u64) -> FactValue| {
            for (n, vm) in (1..).zip(&snapshot.vms) {
                let name = vm.labels.get("vm").unwrap();
                let pairs: Vec<_> = [("vm", name)].iter().chain(more).copied().collect();
                rows.push(FactRow {
                    metric: metrics::find(metric).unwrap(),
                    subject: Subject::Vm(vm.key),
                    labels: labels(&pairs),
                    value: value(n),
                    origin: Origin::Exporter,
                    since: snapshot.taken_mono,
                });
            }
        };
    let (vcpu, guest) = (("vcpu", "0"), ("mode", "guest"));
    let cycles = |n| FactValue::Int(n * 1_000_003);
    add("kvm_vcpu_pt_cycles_total", &[vcpu, guest], &cycles);
    let time = |n| FactValue::Nanoseconds(n * 1_000_003);
    add("kvm_vcpu_pt_traced_seconds_total", &[vcpu, guest], &time);
    let runs = |n| {
        let buckets = Buckets::new(&[256, 1024, 1 << 28], &[n, 0, 2 * n, 1], n * 1_234_567);
        FactValue::Histogram(Arc::new(buckets))
    };
    add("kvm_vm_pt_guest_run_seconds", &[], &runs);
    snapshot.facts = rows.into();
    snapshot.series_count = snapshot.count_series();
    snapshot
}

/// With the six columns of the vCPU and its placement these make 25 samples per vCPU at one
/// location.
fn placed_columns() -> Arc<[ColumnRow]> {
    let mut columns = vec![
        column("kvm_vcpu_time_seconds_total", &[], Unit::Nanoseconds),
        column("kvm_vcpu_guest_seconds_total", &[], Unit::Nanoseconds),
        column("kvm_vcpu_delay_seconds_total", &[], Unit::Nanoseconds),
        column("kvm_vcpu_timeslices_total", &[], Unit::Count),
    ];
    for kind in ["voluntary", "involuntary"] {
        let name = "kvm_vcpu_context_switches_total";
        columns.push(column(name, &[("type", kind)], Unit::Count));
    }
    for name in [
        "cycles",
        "instructions",
        "ref_cycles",
        "cache_references",
        "cache_misses",
        "branch_misses",
    ] {
        for mode in ["guest", "host"] {
            let name = format!("kvm_vcpu_{name}_total");
            columns.push(column(&name, &[("mode", mode)], Unit::Count));
        }
    }
    columns.into()
}

fn vcpu_columns() -> Arc<[ColumnRow]> {
    let mut columns = vec![
        column("kvm_vcpu_affinity_cpus", &[], Unit::Count),
        column("kvm_vcpu_migrations_total", &[], Unit::Count),
    ];
    for crossed in ["cpu", "core"] {
        let name = "kvm_vcpu_moves_total";
        columns.push(column(name, &[("crossed", crossed)], Unit::Count));
    }
    for name in ["enabled", "running"] {
        let name = format!("kvm_vcpu_pmu_{name}_seconds_total");
        columns.push(column(&name, &[("group", "guest")], Unit::Nanoseconds));
    }
    columns.into()
}

/// A column of the catalog.
pub(crate) fn column(metric: &str, fixed: &[(&'static str, &str)], unit: Unit) -> ColumnRow {
    ColumnRow {
        metric: metrics::find(metric).unwrap(),
        labels: labels(fixed),
        unit,
    }
}

/// Labels with borrowed values; all digits are a number, except in a name.
pub(crate) fn labels(pairs: &[(&'static str, &str)]) -> Arc<Labels> {
    let value = |name: &str, text: &str| match text.parse::<i32>() {
        Ok(n) if name != "vm" => LabelValue::from(n),
        _ => text.to_owned().into(),
    };
    Arc::new(Labels::new(pairs.iter().map(|(n, v)| (*n, value(n, v)))))
}

/// The key of the VM with this name, which is as old as the host.
pub(crate) fn key(name: &str) -> VmKey {
    let digest = |n: i32, byte: u8| n.wrapping_mul(31).wrapping_add(byte.into());
    VmKey {
        pid: name.bytes().fold(1, digest),
        start_time: 0,
        ordinal: 0,
    }
}

fn all(columns: usize) -> u128 {
    (1 << columns) - 1
}

/// Below 10^15, so that its seconds have no more digits than a float represents exactly.
fn number(row: usize, column: usize) -> u64 {
    let row = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let column = (column as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = row ^ column;
    1_000_000_000 + mixed % 900_000_000_000_000
}

fn place_of(cpu: u32) -> Place {
    Place {
        package: (cpu / 2 % 2) as i32,
        core: (cpu / 4) as i32,
        numa_node: cpu / 2 % 2,
    }
}

fn topology(cpus: u32) -> Topology {
    let cpu = |id| Cpu {
        id,
        place: place_of(id),
        siblings: vec![id & !1, id | 1],
        ids: Default::default(),
        core_type: CoreType::Uniform,
        llc: Some(id / 2 % 2),
        online: true,
    };
    Topology {
        cpus: (0..cpus).map(cpu).collect(),
    }
}

fn cpu_labels(cpu: &Cpu) -> Arc<Labels> {
    labels(&[
        ("cpu", &cpu.id.to_string()),
        ("package", &cpu.place.package.to_string()),
        ("core", &cpu.place.core.to_string()),
        ("numa_node", &cpu.place.numa_node.to_string()),
        ("online", "true"),
    ])
}

fn sources() -> Vec<SourceRow> {
    let mediated = ReasonCode::MediatedVpmu
        .reason("KVM gives the counters to guests (mediated vPMU): only the host side is counted")
        .with_fix("modprobe -r kvm_intel && modprobe kvm_intel enable_mediated_pmu=N");
    let forbidden = ReasonCode::NoPermission
        .reason("tracefs cannot be read")
        .with_fix("mount -o remount,gid=kvm-exporter /sys/kernel/tracing");
    vec![
        source("sched", "/proc of the vCPU threads", SourceState::Up),
        source(
            "pmu",
            "CAP_PERFMON or perf_event_paranoid below 3",
            SourceState::Degraded(mediated),
        ),
        source(
            "exits",
            "tracefs and CAP_PERFMON",
            SourceState::Down(forbidden),
        ),
    ]
}

fn source(name: &'static str, needs: &'static str, state: SourceState) -> SourceRow {
    SourceRow {
        info: SourceInfo {
            name,
            needs,
            cost: "two reads a vCPU and tick",
        },
        labels: labels(&[("source", name), ("reason", state.code())]),
        state,
    }
}
