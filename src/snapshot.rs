//! The immutable result of one tick. All outputs render the latest one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use crate::discover::{Inventory, Vcpu};
use crate::engine::demand::OfCpu;
use crate::engine::ledger::SeriesKey;
use crate::engine::reading::{ColumnSet, Unit};
use crate::engine::{CpuLocation, SourceInfo, SourceState};
use crate::metric::Metric;

pub mod build;
pub(crate) mod cores;
pub(crate) mod delta;
pub(crate) mod facts;
pub(crate) mod labels;
pub mod metrics;
mod subject;
pub(crate) mod visit;

pub use facts::FactRow;
pub use labels::Labels;
pub use metrics::CATALOG;
pub use subject::{Subject, VmKey};
pub use visit::{visit_own, Row, Value, Visitor};

/// Interval at which the older snapshots rotate. Rates therefore cover 5 to 10 s: long enough to
/// include a wait, which counts when it ends, and short enough to follow changes.
const ROTATION: Duration = Duration::from_secs(5);

/// The latest snapshot, shared by all outputs, and two older ones, so that an output can compute
/// rates without keeping state. Empty until the first tick ends.
#[derive(Debug, Default, Clone)]
pub struct Handle {
    kept: Arc<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    newest: ArcSwapOption<Snapshot>,
    /// Less than [`ROTATION`] older than the latest snapshot; becomes the base next.
    next: ArcSwapOption<Snapshot>,
    base: ArcSwapOption<Snapshot>,
}

impl Handle {
    /// Replaces the latest snapshot and returns the one that is no longer kept: one per call once
    /// all three are filled. Only one thread may publish.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let Recent { newest, next, base } = &*self.kept;
        let taken = snapshot.taken_mono;
        let before = newest.swap(Some(snapshot));
        let waits = |next: &Snapshot| taken.saturating_duration_since(next.taken_mono) < ROTATION;
        match &*next.load() {
            None => next.swap(before),
            Some(next) if waits(next) => before,
            // The snapshot before the latest one becomes `next`. So the base is never twice as old,
            // and exactly one snapshot is returned.
            Some(_) => base.swap(next.swap(before)),
        }
    }

    /// The latest snapshot.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.kept.newest.load_full()
    }

    /// A base and the latest snapshot, for rates over the time between them: 5 to 10 s, less just
    /// after the start, two ticks if those take longer. `None` before the second tick.
    pub fn window(&self) -> Option<(Arc<Snapshot>, Arc<Snapshot>)> {
        let Recent { newest, next, base } = &*self.kept;
        // Load the older snapshot first: a snapshot published in between can only be newer.
        let base = base.load_full().or_else(|| next.load_full())?;
        let newest = newest.load_full()?;
        (base.taken_mono < newest.taken_mono).then_some((base, newest))
    }
}

/// The state at the end of one tick.
#[derive(Debug)]
pub struct Snapshot {
    /// Wall-clock time at the end of the tick.
    pub taken: SystemTime,
    /// The same on the monotonic clock, for ages.
    pub taken_mono: Instant,
    /// Number of the tick, from 1.
    pub tick: u64,
    /// VMs, topology and visibility gaps.
    pub inventory: Arc<Inventory>,
    /// Rendered labels of `kvm_host_cpu_info`, one per CPU.
    pub cpu_labels: Arc<[Arc<Labels>]>,
    /// Demand of all vCPUs for each logical CPU; empty until any is known.
    pub demand: Vec<CpuRow>,
    /// VMs, sorted by name.
    pub vms: Vec<VmRow>,
    /// vCPUs of all VMs, grouped by VM, ordered by index.
    pub vcpus: Vec<VcpuRow>,
    /// Visible (vCPU, location) series of all vCPUs, grouped by vCPU.
    pub series: Vec<SeriesRow>,
    /// Columns charged to a location, with their fixed labels.
    pub placed: Arc<[ColumnRow]>,
    /// Columns of the vCPU as a whole, with their fixed labels.
    pub per_vcpu: Arc<[ColumnRow]>,
    /// `series.len()` rows of `placed.len()` totals.
    pub series_totals: Vec<u64>,
    /// `vcpus.len()` rows of `per_vcpu.len()` values.
    pub vcpu_values: Vec<u64>,
    /// `vcpus.len()` rows of `placed.len()` totals: each vCPU over all its series, visible or not.
    /// So a series that returns to the exposition adds no delta.
    pub vcpu_totals: Vec<u64>,
    /// Facts from the background collectors, in catalog order.
    pub facts: Arc<[FactRow]>,
    /// The facts of 30 to 60 s before, for deltas: background sources read every 15 s or less
    /// often.
    pub facts_before: Arc<[FactRow]>,
    /// State of each source.
    pub sources: Vec<SourceRow>,
    /// Labels of `kvm_exporter_pmu_mode`: mode and reason, once known.
    pub pmu_mode: Option<Arc<Labels>>,
    /// The host's name; a container has its own unless it shares the host's UTS namespace.
    pub host_name: Option<Arc<str>>,
    /// Name of the scenario if the host is synthetic.
    pub synthetic: Option<Arc<str>>,
    /// Series dropped by the series limit.
    pub dropped: Vec<DroppedRow>,
    /// Number of exposed series, without the exporter's own.
    pub series_count: usize,
}

/// A VM of the inventory, with or without known threads.
#[derive(Debug, Clone)]
pub struct VmRow {
    /// The VM.
    pub key: VmKey,
    /// `vm`
    pub labels: Arc<Labels>,
    /// Labels of `kvm_vm_info`.
    pub info: Arc<Labels>,
    /// Range in [`Snapshot::vcpus`] of the vCPUs whose thread is known.
    pub vcpus: std::ops::Range<usize>,
    /// Number of further vCPUs, whose thread is unknown.
    pub threadless: u32,
}

/// One vCPU.
#[derive(Debug, Clone)]
pub struct VcpuRow {
    /// Its owner: the key of a [`VmRow`].
    pub vm: VmKey,
    /// Its index in the VM, and its thread.
    pub vcpu: Vcpu,
    /// `vm`, `vcpu`
    pub labels: Arc<Labels>,
    /// Labels of `kvm_vcpu_placement_info`; `None` while the location is unknown.
    pub placement: Option<Arc<Labels>>,
    /// Where the thread ran at the end of the tick.
    pub location: Option<CpuLocation>,
    /// Range of its series in [`Snapshot::series`].
    pub series: std::ops::Range<usize>,
    /// Which vCPU columns are known.
    pub known: ColumnSet,
    /// Which placed columns are known in any of its series.
    pub known_totals: ColumnSet,
}

/// Activity of one vCPU at one location.
#[derive(Debug, Clone)]
pub struct SeriesRow {
    /// The location.
    pub key: SeriesKey,
    /// `vm`, `vcpu` and the location labels.
    pub labels: Arc<Labels>,
    /// Which placed columns are known here.
    pub known: ColumnSet,
}

/// One column of totals.
#[derive(Debug, Clone)]
pub struct ColumnRow {
    /// The family of its samples.
    pub metric: &'static Metric,
    /// Labels besides vm, vcpu and location.
    pub labels: Arc<Labels>,
    /// Unit of the raw values.
    pub unit: Unit,
}

/// Demand of all vCPUs for one logical CPU.
#[derive(Debug, Clone)]
pub struct CpuRow {
    /// The CPU's number.
    pub cpu: u32,
    /// `cpu`, `package`, `core`, `numa_node`
    pub labels: Arc<Labels>,
    /// Time that vCPUs ran, and their delay.
    pub demand: OfCpu,
}

/// State of a source.
#[derive(Debug, Clone)]
pub struct SourceRow {
    /// Name, requirements and cost.
    pub info: SourceInfo,
    /// Whether the source delivers data.
    pub state: SourceState,
    /// Labels of `kvm_exporter_source_up`.
    pub labels: Arc<Labels>,
}

/// Series that the series limit dropped, by detail.
#[derive(Debug, Clone)]
pub struct DroppedRow {
    /// Label `what`: `user_events`, `host_mode`, `core`, `numa_node`.
    pub labels: Arc<Labels>,
    /// Number of series dropped.
    pub series: u64,
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
