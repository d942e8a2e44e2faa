//! Builds the snapshot at the end of each tick. Labels are rendered once, when a VM or a location
//! first appears. The buffers of a snapshot that is no longer kept are reused, so a steady host
//! costs a copy of its numbers and no allocation per number.

use std::collections::HashMap;
use std::sync::Arc;

use super::facts::FactRows;
use super::{
    ColumnRow, CpuRow, DroppedRow, Handle, Labels, SeriesRow, Snapshot, SourceRow, VcpuRow, VmRow,
};
use crate::config::Placement;
use crate::discover::{Inventory, Vm};
use crate::engine::ledger::{SeriesKey, MAX_SERIES_AHEAD};
use crate::engine::reading::Column;
use crate::engine::sampler::Sampled;
use crate::engine::vcpu_sampler::{VcpuKey, VcpuSampler};
use crate::engine::{CpuLocation, ReasonCode, SourceInfo, SourceState, INVENTORY};
use crate::host::topology::{Cpu, Place, Topology};
use crate::metric::Label;

/// Builds snapshots and publishes them.
#[derive(Default)]
pub struct Builder {
    handle: Handle,
    pmu_mode: Option<Arc<Labels>>,
    host_name: Option<Arc<str>>,
    synthetic: Option<Arc<str>>,
    inventory: Arc<Inventory>,
    cpu_labels: Arc<[Arc<Labels>]>,
    cpu_places: Arc<[Arc<Labels>]>,
    vms: Vec<VmRow>,
    vcpus: Vec<VcpuLabels>,
    placed: Arc<[ColumnRow]>,
    per_vcpu: Arc<[ColumnRow]>,
    sources: Vec<SourceRow>,
    facts: FactRows,
    /// A snapshot that is no longer kept, for its buffers.
    spare: Option<Arc<Snapshot>>,
}

/// Labels of one vCPU, rendered once.
struct VcpuLabels {
    key: VcpuKey,
    labels: Arc<Labels>,
    placement: Option<(CpuLocation, Arc<Labels>)>,
    /// Parallel to the series of the vCPU's totals.
    series: Vec<(SeriesKey, Arc<Labels>)>,
}

impl Builder {
    /// A builder that publishes to `handle`. `pmu_mode` is the PMU mode and its reason.
    pub fn new(handle: Handle, pmu_mode: Option<(&'static str, &'static str)>) -> Self {
        let mode = |(mode, reason): (&'static str, &'static str)| {
            Arc::new(Labels::new([
                ("mode", mode.into()),
                ("reason", reason.into()),
            ]))
        };
        Self {
            handle,
            pmu_mode: pmu_mode.map(mode),
            ..Self::default()
        }
    }

    /// Sets the host name of all following snapshots.
    pub fn host_name(&mut self, name: Option<String>) {
        self.host_name = name.map(Into::into);
    }

    /// Marks all following snapshots as synthetic, with the scenario's name.
    pub fn synthetic(&mut self, scenario: &str) {
        self.synthetic = Some(scenario.into());
    }

    /// Builds the snapshot of the sampler's state and publishes it.
    pub fn publish(&mut self, view: &Sampled<'_>) {
        self.refresh_labels(view);
        let mut snapshot = self.empty(view);
        for (vcpu_sampler, labels) in view.vcpu_samplers.iter().zip(&mut self.vcpus) {
            add_vcpu(&mut snapshot, vcpu_sampler, labels, view);
        }
        snapshot.series_count = snapshot.count_series();
        self.spare = self.handle.publish(Arc::new(snapshot));
    }

    fn refresh_labels(&mut self, view: &Sampled<'_>) {
        if !Arc::ptr_eq(&self.inventory, view.inventory) {
            self.refresh_inventory(view);
        }
        if self.placed.len() != view.columns.placed.len() {
            self.placed = column_rows(&view.columns.placed);
            self.per_vcpu = column_rows(&view.columns.vcpu);
        }
        self.facts
            .follow(view.facts, view.inventory, view.taken_mono);
        self.refresh_sources(view);
    }

    fn refresh_inventory(&mut self, view: &Sampled<'_>) {
        if !Arc::ptr_eq(&self.inventory.topology, &view.inventory.topology) {
            self.cpu_labels = cpu_labels(&view.inventory.topology);
            let cpus = view.inventory.topology.cpus.iter();
            let labels = cpus.map(|cpu| Labels::new(cpu_place(cpu.id, cpu.place)));
            self.cpu_places = labels.map(Arc::new).collect();
        }
        self.inventory = view.inventory.clone();
        let mut start = 0;
        self.vms.clear();
        for vm in &view.inventory.vms {
            let vcpus = start..start + vm.vcpus.len();
            start = vcpus.end;
            self.vms.push(vm_row(vm, vcpus));
        }
        let old = self.vcpus.drain(..).map(|v| (v.key, v));
        let mut old: HashMap<VcpuKey, VcpuLabels> = old.collect();
        let renew = |vcpu_sampler: &VcpuSampler| match old.remove(&vcpu_sampler.key()) {
            Some(known) if known.labels.get("vm") == Some(&vcpu_sampler.vm.name) => known,
            _ => VcpuLabels::new(vcpu_sampler),
        };
        self.vcpus = view.vcpu_samplers.iter().map(renew).collect();
    }

    fn refresh_sources(&mut self, view: &Sampled<'_>) {
        let inventory = (INVENTORY, inventory_state(view.inventory));
        let overdue = |name: &str| view.overdue.iter().find(|(info, _)| info.name == name);
        let said = std::iter::once(&inventory)
            .chain(view.sources)
            .chain(self.facts.sources());
        let mut now: Vec<_> = said
            .map(|said| overdue(said.0.name).unwrap_or(said))
            .collect();
        for late in view.overdue {
            if !now.iter().any(|(info, _)| info.name == late.0.name) {
                now.push(late);
            }
        }
        self.sources.truncate(now.len());
        for (n, (info, state)) in now.into_iter().enumerate() {
            match self.sources.get_mut(n) {
                Some(row) if row.state == *state && row.info.name == info.name => {}
                Some(row) => *row = source_row(*info, state.clone()),
                None => self.sources.push(source_row(*info, state.clone())),
            }
        }
    }

    fn demand(&self, view: &Sampled<'_>) -> Vec<CpuRow> {
        let cpus = view.inventory.topology.cpus.iter().zip(&*self.cpu_places);
        let row = |(cpu, labels): (&Cpu, &Arc<Labels>)| {
            Some(CpuRow {
                cpu: cpu.id,
                labels: labels.clone(),
                demand: view.demand.on_cpu(cpu.id)?,
            })
        };
        cpus.filter_map(row).collect()
    }

    /// A snapshot without vCPUs, in the buffers of the spare snapshot if no reader holds it.
    fn empty(&mut self, view: &Sampled<'_>) -> Snapshot {
        let spare = self.spare.take().and_then(|s| Arc::try_unwrap(s).ok());
        let (mut vms, mut vcpus, mut series, numbers) = match spare {
            Some(s) => {
                let numbers = [s.series_totals, s.vcpu_values, s.vcpu_totals];
                (s.vms, s.vcpus, s.series, numbers)
            }
            None => Default::default(),
        };
        vcpus.clear();
        series.clear();
        vms.clone_from(&self.vms);
        let [series_totals, vcpu_values, vcpu_totals] = numbers.map(|mut numbers| {
            numbers.clear();
            numbers
        });
        Snapshot {
            taken: view.taken,
            taken_mono: view.taken_mono,
            tick: view.tick,
            inventory: view.inventory.clone(),
            cpu_labels: self.cpu_labels.clone(),
            demand: self.demand(view),
            vms,
            vcpus,
            series,
            placed: self.placed.clone(),
            per_vcpu: self.per_vcpu.clone(),
            series_totals,
            vcpu_values,
            vcpu_totals,
            facts: self.facts.now().clone(),
            facts_before: self.facts.before().clone(),
            sources: self.sources.clone(),
            pmu_mode: self.pmu_mode.clone(),
            host_name: self.host_name.clone(),
            synthetic: self.synthetic.clone(),
            dropped: dropped_rows(view),
            series_count: 0,
        }
    }
}

fn add_vcpu(
    snapshot: &mut Snapshot,
    vcpu_sampler: &VcpuSampler,
    labels: &mut VcpuLabels,
    view: &Sampled<'_>,
) {
    let totals = &vcpu_sampler.totals;
    let first = snapshot.series.len();
    labels.follow(vcpu_sampler);
    let row = snapshot.vcpu_totals.len();
    snapshot.vcpu_totals.resize(row + snapshot.placed.len(), 0);
    for (n, (series, (_, labels))) in totals.series.iter().zip(&labels.series).enumerate() {
        if totals.is_visible(n, view.limit.ttl(), view.taken_mono) {
            snapshot.series.push(SeriesRow {
                key: series.key,
                labels: labels.clone(),
                known: totals.known_in(series) & !vcpu_sampler.hidden,
            });
            snapshot.series_totals.extend_from_slice(&series.totals);
        }
        series.add_alone(&mut snapshot.vcpu_totals[row..]);
    }
    snapshot.vcpu_values.extend_from_slice(&totals.values);
    let series = totals.series.iter();
    snapshot.vcpus.push(VcpuRow {
        vm: vcpu_sampler.vm.key,
        vcpu: vcpu_sampler.vcpu,
        labels: labels.labels.clone(),
        placement: labels.placement.as_ref().map(|(_, labels)| labels.clone()),
        location: totals.location,
        series: first..snapshot.series.len(),
        known: totals.known,
        known_totals: series.fold(0, |set, series| set | totals.known_in(series)),
    });
}

impl VcpuLabels {
    fn new(vcpu_sampler: &VcpuSampler) -> Self {
        Self {
            key: vcpu_sampler.key(),
            labels: Arc::new(Labels::new(identity(vcpu_sampler))),
            placement: None,
            series: Vec::with_capacity(MAX_SERIES_AHEAD),
        }
    }

    /// Renders the labels of a new placement and of new series.
    fn follow(&mut self, vcpu_sampler: &VcpuSampler) {
        let totals = &vcpu_sampler.totals;
        if self.placement.as_ref().map(|(w, _)| *w) != totals.location {
            let labels = |at| (at, Arc::new(placement_labels(vcpu_sampler, at)));
            self.placement = totals.location.map(labels);
        }
        self.series.truncate(totals.series.len());
        for (n, series) in totals.series.iter().enumerate() {
            let labels = || (series.key, series_labels(vcpu_sampler, series.key));
            match self.series.get_mut(n) {
                Some((key, _)) if *key == series.key => {}
                Some(known) => *known = labels(),
                None => self.series.push(labels()),
            }
        }
    }
}

fn identity(vcpu_sampler: &VcpuSampler) -> [Label; 2] {
    [
        ("vm", vcpu_sampler.vm.name.clone().into()),
        ("vcpu", vcpu_sampler.vcpu.index.into()),
    ]
}

fn placement_labels(vcpu_sampler: &VcpuSampler, location: CpuLocation) -> Labels {
    let place = cpu_place(location.cpu, location.place);
    Labels::new(identity(vcpu_sampler).into_iter().chain(place))
}

fn series_labels(vcpu_sampler: &VcpuSampler, key: SeriesKey) -> Arc<Labels> {
    let identity = identity(vcpu_sampler).into_iter();
    Arc::new(Labels::new(identity.chain(key.labels())))
}

fn vm_row(vm: &Vm, vcpus: std::ops::Range<usize>) -> VmRow {
    let vm_label = || ("vm", vm.name.clone().into());
    let uuid = vm.uuid.as_ref().map(|uuid| ("uuid", uuid.clone().into()));
    let manager = vm.manager.map(|manager| ("manager", manager.into()));
    let facts = vm.facts.iter();
    let info = std::iter::once(vm_label())
        .chain(uuid)
        .chain([("vmm", vm.vmm.into())])
        .chain(manager)
        .chain(facts.map(|(name, value)| (*name, value.clone().into())))
        .chain([("name_source", vm.name_source.into())]);
    VmRow {
        key: vm.key,
        info: Arc::new(Labels::new(info)),
        labels: Arc::new(Labels::new([vm_label()])),
        vcpus,
        threadless: vm.threadless,
    }
}

fn cpu_labels(topology: &Topology) -> Arc<[Arc<Labels>]> {
    let one = |cpu: &Cpu| {
        let core_type = cpu.core_type.label();
        let core_type = (!core_type.is_empty()).then(|| ("core_type", core_type.into()));
        let die = cpu.ids.die.map(|die| ("die_id", die.into()));
        let cluster = cpu.ids.cluster.map(|id| ("cluster_id", id.into()));
        let llc = cpu.llc.map(|llc| ("llc", llc.into()));
        let online = ("online", if cpu.online { "true" } else { "false" }.into());
        let ids = die.into_iter().chain(cluster).chain(core_type).chain(llc);
        let place = cpu_place(cpu.id, cpu.place);
        Arc::new(Labels::new(place.chain(ids).chain([online])))
    };
    topology.cpus.iter().map(one).collect()
}

fn cpu_place(cpu: u32, place: Place) -> impl Iterator<Item = Label> {
    let place = SeriesKey::new(Some(place), Placement::Core).labels();
    std::iter::once(("cpu", cpu.into())).chain(place)
}

fn column_rows(columns: &[Column]) -> Arc<[ColumnRow]> {
    let row = |column: &Column| {
        let labels = column.labels.iter().map(|(n, v)| (*n, v.clone().into()));
        ColumnRow {
            metric: column.metric,
            labels: Arc::new(Labels::new(labels)),
            unit: column.unit,
        }
    };
    columns.iter().map(row).collect()
}

fn inventory_state(inventory: &Inventory) -> SourceState {
    match inventory.visibility_gaps.as_slice() {
        [] => SourceState::Up,
        gaps => {
            let code = match inventory.blocked {
                0 => ReasonCode::BlindSpots,
                _ => ReasonCode::BlockedReads,
            };
            let gaps: Vec<String> = gaps.iter().map(ToString::to_string).collect();
            SourceState::Degraded(code.reason(gaps.join("; ")))
        }
    }
}

fn source_row(info: SourceInfo, state: SourceState) -> SourceRow {
    let labels = [
        ("source", info.name.into()),
        ("reason", state.code().into()),
    ];
    SourceRow {
        info,
        labels: Arc::new(Labels::new(labels)),
        state,
    }
}

fn dropped_rows(view: &Sampled<'_>) -> Vec<DroppedRow> {
    let row = |(detail, series): &(crate::engine::limit::Detail, u64)| DroppedRow {
        labels: Arc::new(Labels::new([("what", detail.label().into())])),
        series: *series,
    };
    view.limit.dropped().iter().map(row).collect()
}
