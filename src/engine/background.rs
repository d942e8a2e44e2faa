//! The background collector: reads sources about whole VMs or the host that are too expensive or
//! change too rarely for the tick.
//!
//! It has its own thread, so a file that takes seconds never delays a tick. Each source has its
//! own period. A source about VMs reads one VM after the other; facts stay until the next read of
//! that VM, and are dropped with the VM. Changed facts are published.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::discover::{Inventory, Vm, VmKey};
use crate::engine::{ReadError, SourceInfo, SourceState};
use crate::host::topology::Topology;
use crate::metric::{Buckets, Label, Metric};
use crate::stop::Stop;
use crate::telemetry::{Heartbeat, SourceLabel, Telemetry};

/// A fact about a VM or the host: a sample of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The metric.
    pub metric: &'static Metric,
    /// Labels besides `vm`; facts about the host have no `vm`.
    pub labels: Vec<Label>,
    /// Its value.
    pub value: FactValue,
    /// Where a counter started from 0; ignored for other types.
    pub origin: Origin,
}

impl Fact {
    /// A fact that counts from when the exporter first saw its subject.
    pub fn new(
        metric: &'static Metric,
        labels: impl IntoIterator<Item = Label>,
        value: FactValue,
    ) -> Self {
        Self {
            metric,
            labels: labels.into_iter().collect(),
            value,
            origin: Origin::Exporter,
        }
    }

    /// The same with another origin of the count.
    #[must_use]
    pub fn since(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Where the count of a total started. OTLP uses it as the start time of the series, and reports
/// no increment for activity before the exporter started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The exporter counts, from when it first saw the VM or the host.
    #[default]
    Exporter,
    /// The kernel counts for the VM, from the start of the VM.
    Vm,
    /// The kernel counts for the host, or for a group that may be older than the VM: from boot at
    /// the earliest.
    Boot,
}

/// Value of a fact.
#[derive(Debug, Clone, PartialEq)]
pub enum FactValue {
    /// An integer in the metric's unit.
    Int(u64),
    /// Nanoseconds, exposed as seconds.
    Nanoseconds(u64),
    /// Any other number in the metric's unit.
    Float(f64),
    /// Durations in buckets, exposed as seconds.
    Histogram(Arc<Buckets>),
}

impl FactValue {
    /// Number of series of this value.
    pub fn series(&self) -> usize {
        match self {
            Self::Int(_) | Self::Nanoseconds(_) | Self::Float(_) => 1,
            Self::Histogram(buckets) => buckets.series(),
        }
    }
}

/// A source about whole VMs.
pub trait VmSource: Send {
    /// Name, requirements and cost.
    fn info(&self) -> SourceInfo;
    /// Whether the source delivers data now.
    fn state(&self) -> SourceState;
    /// Time between two reads of a VM.
    fn period(&self) -> Duration;
    /// Reads one VM. Unknown facts are omitted.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if the VM ended. [`ReadError::Failed`] keeps the facts of the previous
    /// read.
    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError>;
    /// Releases everything kept for a VM that ended.
    fn forget(&mut self, vm: VmKey);
}

/// A source about the host.
pub trait HostSource: Send {
    /// Name, requirements and cost.
    fn info(&self) -> SourceInfo;
    /// Whether the source delivers data now.
    fn state(&self) -> SourceState;
    /// Time between two reads.
    fn period(&self) -> Duration;
    /// Reads the host, whose CPUs are those of `topology`. Unknown facts are omitted.
    ///
    /// # Errors
    /// [`ReadError::Failed`] keeps the facts of the previous read.
    fn read(&mut self, topology: &Topology) -> Result<Vec<Fact>, ReadError>;
}

/// Facts of one background collector.
#[derive(Debug, Default)]
pub struct VmFacts {
    /// Facts of each VM, in separate lists that are replaced one by one.
    pub vms: HashMap<VmKey, Vec<Arc<[Fact]>>>,
    /// Facts of the host, one list per source.
    pub host: Vec<Arc<[Fact]>>,
    /// State of each source.
    pub sources: Vec<(SourceInfo, SourceState)>,
}

impl VmFacts {
    /// Number of series of the facts about the host and the VMs in `inventory`.
    pub fn count(&self, inventory: &Inventory) -> usize {
        let known = inventory.vms.iter().filter_map(|vm| self.vms.get(&vm.key));
        let facts = known.flatten().chain(&self.host);
        let facts = facts.flat_map(|facts| facts.iter());
        facts.map(|fact| fact.value.series()).sum()
    }
}

/// A read of one VM or of the host that takes longer is reported as a hang.
const LONG: Duration = Duration::from_secs(60);

/// Reads its sources, each at its own period.
pub struct BackgroundCollector {
    sources: Vec<Entry>,
    heartbeat: Heartbeat,
    inventory: Arc<ArcSwap<Inventory>>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// One source and its latest facts.
struct Entry {
    source: Source,
    due: Instant,
    /// The VMs of the last pass, with or without facts.
    asked: HashSet<VmKey>,
    known: HashMap<VmKey, Arc<[Fact]>>,
    of_host: Option<Arc<[Fact]>>,
    /// Its state after its last pass.
    state: Option<SourceState>,
}

/// A source, by its subject.
pub enum Source {
    /// About whole VMs.
    Vm(Box<dyn VmSource>),
    /// About the host.
    Host(Box<dyn HostSource>),
}

/// Result of one pass of a source.
#[derive(Debug, Default)]
struct Round {
    /// Number of failed reads.
    errors: u64,
    /// Whether any fact changed.
    news: bool,
}

impl BackgroundCollector {
    /// A collector for the host and the VMs that `inventory` holds at each pass.
    pub fn new(
        sources: Vec<Source>,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let now = Instant::now();
        let entry = |source| Entry {
            source,
            due: now,
            asked: HashSet::new(),
            known: HashMap::new(),
            of_host: None,
            state: None,
        };
        Self {
            sources: sources.into_iter().map(entry).collect(),
            heartbeat: telemetry.heartbeats.add("slow", LONG, false),
            inventory,
            newest: Arc::default(),
            telemetry,
        }
    }

    /// The latest facts; updated after each pass with changes.
    pub fn newest(&self) -> Arc<ArcSwap<VmFacts>> {
        self.newest.clone()
    }

    /// Descriptions of all sources.
    pub fn infos(&self) -> Vec<SourceInfo> {
        self.sources
            .iter()
            .map(|entry| entry.source.info())
            .collect()
    }

    /// Reads every source that is due at `now`, and publishes after each source with changes.
    pub fn pass(&mut self, now: Instant) {
        let inventory = self.inventory.load_full();
        for n in 0..self.sources.len() {
            let entry = &mut self.sources[n];
            if entry.due <= now {
                let round = entry.read(&inventory, &self.heartbeat);
                entry.due = now + entry.source.period();
                self.count_errors(n, round.errors);
                if round.news {
                    self.publish(&inventory);
                }
            }
        }
        self.heartbeat.rest();
    }

    fn count_errors(&self, n: usize, errors: u64) {
        if errors > 0 {
            let source = self.sources[n].source.info().name;
            let counters = &self.telemetry.read_errors;
            counters
                .get_or_create(&SourceLabel { source })
                .inc_by(errors);
        }
    }

    fn publish(&self, inventory: &Inventory) {
        let facts = |vm: &Arc<Vm>| {
            let known = self
                .sources
                .iter()
                .filter_map(|entry| entry.known.get(&vm.key));
            (vm.key, known.cloned().collect())
        };
        let of_host = self
            .sources
            .iter()
            .filter_map(|entry| entry.of_host.clone());
        // A source that was not read yet has no state.
        let states = self.sources.iter().filter_map(Entry::said);
        self.newest.store(Arc::new(VmFacts {
            vms: inventory.vms.iter().map(facts).collect(),
            host: of_host.collect(),
            sources: states.collect(),
        }));
    }

    /// When the next source is due; in an hour if there are no sources.
    fn next_due(&self) -> Instant {
        let due = self.sources.iter().map(|entry| entry.due).min();
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Reads sources as they become due, until `stop`. A VM that appears in between is read with
    /// the next pass of each source.
    pub fn run(mut self, stop: &Stop) {
        while !stop.wait_until(self.next_due()) {
            self.pass(Instant::now());
        }
    }
}

impl Source {
    fn info(&self) -> SourceInfo {
        match self {
            Self::Vm(source) => source.info(),
            Self::Host(source) => source.info(),
        }
    }

    fn state(&self) -> SourceState {
        match self {
            Self::Vm(source) => source.state(),
            Self::Host(source) => source.state(),
        }
    }

    fn period(&self) -> Duration {
        match self {
            Self::Vm(source) => source.period(),
            Self::Host(source) => source.period(),
        }
    }
}

impl Entry {
    /// Description of the source, and its state after its last pass.
    fn said(&self) -> Option<(SourceInfo, SourceState)> {
        Some((self.source.info(), self.state.clone()?))
    }

    /// Reads the VMs or the host.
    fn read(&mut self, inventory: &Inventory, heartbeat: &Heartbeat) -> Round {
        let mut round = match &self.source {
            Source::Vm(_) => self.read_vms(inventory, heartbeat),
            Source::Host(source) => {
                heartbeat.step(source.info().name);
                self.read_host(&inventory.topology)
            }
        };
        let state = Some(self.source.state());
        round.news |= self.state != state;
        self.state = state;
        round
    }

    /// Reads all VMs, and forgets those that ended.
    fn read_vms(&mut self, inventory: &Inventory, heartbeat: &Heartbeat) -> Round {
        let mut round = Round::default();
        let Source::Vm(source) = &mut self.source else {
            return round;
        };
        let alive: HashSet<VmKey> = inventory.vms.iter().map(|vm| vm.key).collect();
        for gone in self.asked.difference(&alive) {
            round.news |= self.known.remove(gone).is_some();
            source.forget(*gone);
        }
        self.asked = alive;
        for vm in &inventory.vms {
            heartbeat.step(source.info().name);
            match source.read(vm) {
                Ok(facts) if self.known.get(&vm.key).is_some_and(|k| **k == *facts) => {}
                Ok(facts) => {
                    self.known.insert(vm.key, facts.into());
                    round.news = true;
                }
                Err(ReadError::Gone) => round.news |= self.known.remove(&vm.key).is_some(),
                Err(ReadError::Failed(error)) => {
                    let source = source.info().name;
                    tracing::debug!(source, vm = %vm.name, %error, "cannot read this VM");
                    round.errors += 1;
                }
            }
        }
        round
    }

    fn read_host(&mut self, topology: &Topology) -> Round {
        let mut round = Round::default();
        let Source::Host(source) = &mut self.source else {
            return round;
        };
        match source.read(topology) {
            Ok(facts) if self.of_host.as_ref().is_some_and(|k| **k == *facts) => {}
            Ok(facts) => {
                self.of_host = Some(facts.into());
                round.news = true;
            }
            Err(error) => {
                let source = source.info().name;
                tracing::debug!(source, %error, "cannot read the host");
                round.errors += 1;
            }
        }
        round
    }
}

#[cfg(test)]
mod tests;
