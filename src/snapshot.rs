//! One immutable picture of everything known. All output is drawn from the newest one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use crate::discover::Inventory;
use crate::sample::demand::OfCpu;
use crate::sample::reading::{ColumnSet, Unit};
use crate::sample::{Reason, SourceInfo, SourceState, Whereabouts};

pub mod build;
pub mod catalog;
pub mod facts;
pub mod growth;
pub mod labels;
pub mod walk;

pub use catalog::{Kind, Metric, CATALOG};
pub use facts::FactRow;
pub use labels::Labels;
pub use walk::{Value, Visitor};

/// How often the older snapshots beside the newest change places. Rates are then over 5 to 10 s:
/// long enough for a wait that counts when it ends, short enough to follow what happens.
const ROTATION: Duration = Duration::from_secs(5);

/// The newest snapshot, shared by all outputs, and two older ones, so that anybody can show rates
/// at any time without having looked before. Empty until the first tick has ended.
#[derive(Debug, Default, Clone)]
pub struct Handle {
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    newest: ArcSwapOption<Snapshot>,
    /// Less than [`ROTATION`] older than the newest: the next base.
    next: ArcSwapOption<Snapshot>,
    base: ArcSwapOption<Snapshot>,
}

impl Handle {
    /// Replaces the newest snapshot and gives back the one that is no longer kept: one for each
    /// that comes once all places are taken. There is one publisher.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let Kept { newest, next, base } = &*self.kept;
        let taken = snapshot.taken_mono;
        let before = newest.swap(Some(snapshot));
        let waits = |next: &Snapshot| taken.saturating_duration_since(next.taken_mono) < ROTATION;
        match &*next.load() {
            None => next.swap(before),
            Some(next) if waits(next) => before,
            // The one before the newest takes the place, not the newest: so the base is never
            // twice as old, and exactly one is given back.
            Some(_) => base.swap(next.swap(before)),
        }
    }

    /// The newest snapshot.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.kept.newest.load_full()
    }

    /// A base and the newest snapshot, for rates over the time between them: 5 to 10 s, less just
    /// after the start, and two ticks where those are longer. `None` before the second tick.
    pub fn window(&self) -> Option<(Arc<Snapshot>, Arc<Snapshot>)> {
        let Kept { newest, next, base } = &*self.kept;
        // The older one first: what is published meanwhile cannot come before it.
        let base = base.load_full().or_else(|| next.load_full())?;
        let newest = newest.load_full()?;
        (base.taken_mono < newest.taken_mono).then_some((base, newest))
    }
}

/// Everything known at the end of one tick.
#[derive(Debug)]
pub struct Snapshot {
    /// Wall-clock time of the tick's end.
    pub taken: SystemTime,
    /// The same on the monotonic clock, for ages.
    pub taken_mono: Instant,
    /// Counts ticks from 1.
    pub tick: u64,
    /// Who runs: VM facts, topology, blind spots.
    pub inventory: Arc<Inventory>,
    /// Pre-rendered rows about CPUs (`kvm_host_cpu_info`).
    pub cpu_labels: Arc<[Arc<Labels>]>,
    /// What all vCPUs wanted of each logical CPU, once anything is known of one.
    pub demand: Vec<CpuRow>,
    /// VMs, sorted by name.
    pub vms: Vec<VmRow>,
    /// vCPUs of all VMs, VM by VM, by index.
    pub vcpus: Vec<VcpuRow>,
    /// Visible cells of all vCPUs, vCPU by vCPU.
    pub cells: Vec<CellRow>,
    /// Columns charged to places and their fixed labels.
    pub placed: Arc<[ColumnRow]>,
    /// Columns of the vCPU as such and their fixed labels.
    pub per_vcpu: Arc<[ColumnRow]>,
    /// `cells.len()` rows of `placed.len()` totals.
    pub cell_totals: Vec<u64>,
    /// `vcpus.len()` rows of `per_vcpu.len()` values.
    pub vcpu_values: Vec<u64>,
    /// `vcpus.len()` rows of `placed.len()` totals of each vCPU over all its cells, those that are
    /// not visible among them: a cell that comes back is no growth.
    pub vcpu_totals: Vec<u64>,
    /// What slow sources know of VMs and the host, in the catalogue's order.
    pub facts: Arc<[FactRow]>,
    /// The same half a minute to a minute ago, for what grew: slow sources read every 15 s or less often.
    pub facts_before: Arc<[FactRow]>,
    /// State of each source.
    pub sources: Vec<SourceRow>,
    /// `kvm_exporter_pmu_mode`: mode and reason, once known.
    pub pmu_mode: Option<Arc<Labels>>,
    /// Name of the scenario where the host is a synthetic one, else nothing.
    pub synthetic: Option<Arc<str>>,
    /// What the series limit took away.
    pub dropped: Vec<DroppedRow>,
    /// Series in the exposition, the exporter's own left out.
    pub series: usize,
}

/// One VM.
#[derive(Debug, Clone)]
pub struct VmRow {
    /// `vm`
    pub labels: Arc<Labels>,
    /// Labels of `kvm_vm_info`.
    pub info: Arc<Labels>,
    /// Its vCPUs whose thread is known: a range of [`Snapshot::vcpus`].
    pub vcpus: std::ops::Range<usize>,
    /// vCPUs it has beside those.
    pub threadless: u32,
}

/// One vCPU.
#[derive(Debug, Clone)]
pub struct VcpuRow {
    /// `vm`, `vcpu`
    pub labels: Arc<Labels>,
    /// Labels of `kvm_vcpu_placement_info`, while the place is known.
    pub placement: Option<Arc<Labels>>,
    /// Where it was found.
    pub whereabouts: Option<Whereabouts>,
    /// Index in its VM.
    pub index: u32,
    /// Host thread id.
    pub tid: i32,
    /// Its cells: a range of [`Snapshot::cells`].
    pub cells: std::ops::Range<usize>,
    /// Which of the vCPU's columns are known.
    pub known: ColumnSet,
    /// Which placed columns are known in any of its cells.
    pub known_totals: ColumnSet,
}

/// What one vCPU did at one place.
#[derive(Debug, Clone)]
pub struct CellRow {
    /// `vm`, `vcpu` and the place labels.
    pub labels: Arc<Labels>,
    /// Which columns are known here.
    pub known: ColumnSet,
}

/// One column of totals.
#[derive(Debug, Clone)]
pub struct ColumnRow {
    /// The metric.
    pub metric: &'static Metric,
    /// Labels beyond vm, vcpu and place.
    pub labels: Arc<Labels>,
    /// Unit of the raw numbers.
    pub unit: Unit,
    /// Left out by the series limit.
    pub dropped: bool,
}

/// What all vCPUs wanted of one logical CPU.
#[derive(Debug, Clone)]
pub struct CpuRow {
    /// `cpu`, `package`, `core`, `numa_node`
    pub labels: Arc<Labels>,
    /// Time and delay.
    pub demand: OfCpu,
}

/// State of a source.
#[derive(Debug, Clone)]
pub struct SourceRow {
    /// What it is.
    pub info: SourceInfo,
    /// Whether it delivers.
    pub state: SourceState,
    /// Labels of `kvm_exporter_source_up`.
    pub labels: Arc<Labels>,
}

/// One thing the series limit took away.
#[derive(Debug, Clone)]
pub struct DroppedRow {
    /// Label `what`: `user_events`, `host_mode`, `core`, `numa_node`.
    pub labels: Arc<Labels>,
    /// Series that are missing for it.
    pub series: u64,
}

impl SourceRow {
    /// The reason it is not all it could be.
    pub fn reason(&self) -> Option<&Reason> {
        self.state.reason()
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
