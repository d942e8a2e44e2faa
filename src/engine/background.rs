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
use crate::engine::{ReadError, Reason, ReasonCode, SourceInfo, SourceState};
use crate::host::topology::Topology;
use crate::metric::{Label, Metric};
use crate::stop::Stop;
use crate::telemetry::{Heartbeat, Telemetry};

pub use crate::metric::FactValue;

/// A fact about a VM or the host: a sample of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// A metric of the VM or the host, and not of a vCPU.
    pub metric: &'static Metric,
    /// Labels besides `vm`; facts about the host have no `vm`.
    pub labels: Vec<Label>,
    /// In the unit of the metric, or in nanoseconds for seconds.
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

    /// A fact with an integer.
    pub fn int(
        metric: &'static Metric,
        labels: impl IntoIterator<Item = Label>,
        value: u64,
    ) -> Self {
        Self::new(metric, labels, FactValue::Int(value))
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

/// A source of the background collector.
pub struct Source {
    /// Name, requirements and cost.
    pub info: SourceInfo,
    /// Whether the configuration enables it; if not, it is never read.
    pub enabled: bool,
    /// Time between two reads of a VM or of the host.
    pub period: Duration,
    /// Reads its subject.
    pub(crate) reader: SourceReader,
}

/// The reader of a source, by its subject.
pub(crate) enum SourceReader {
    /// Reads whole VMs.
    Vm(Box<dyn VmSource>),
    /// Reads the host, whose CPUs are those of the topology.
    Host(Box<dyn FnMut(&Topology) -> Found + Send>),
}

/// A source about whole VMs.
pub trait VmSource: Send {
    /// Whether the source delivers data now.
    fn state(&self) -> SourceState;
    /// Reads one VM. Unknown facts are omitted.
    ///
    /// # Errors
    /// [`ReadError::Gone`] if the VM ended. [`ReadError::Failed`] keeps the facts of the previous
    /// read.
    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError>;
    /// Releases everything kept for a VM that ended.
    fn forget(&mut self, vm: VmKey);
}

/// The facts about the host that a source found.
#[derive(Debug, Default)]
pub struct Found {
    /// All facts that are known.
    pub facts: Vec<Fact>,
    /// Why some facts are missing; without facts, why all are.
    pub missing: Option<Reason>,
}

impl Found {
    /// No facts, for this reason.
    pub fn nothing(reason: Reason) -> Self {
        Self {
            facts: Vec::new(),
            missing: Some(reason),
        }
    }

    /// The state of the source: without facts, it always has a reason.
    pub fn state(&self) -> SourceState {
        let no_data = || ReasonCode::NoData.reason("this machine's kernel reports no such data");
        match (self.facts.is_empty(), self.missing.clone()) {
            (true, reason) => SourceState::Down(reason.unwrap_or_else(no_data)),
            (false, Some(reason)) => SourceState::Degraded(reason),
            (false, None) => SourceState::Up,
        }
    }
}

impl From<Vec<Fact>> for Found {
    fn from(facts: Vec<Fact>) -> Self {
        let missing = None;
        Self { facts, missing }
    }
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
    pub(crate) fn count(&self, inventory: &Inventory) -> usize {
        let known = inventory.vms.iter().filter_map(|vm| self.vms.get(&vm.key));
        let facts = known.flatten().chain(&self.host);
        let facts = facts.flat_map(|facts| facts.iter());
        facts.map(|fact| fact.value.series()).sum()
    }
}

/// A read of one VM or of the host that takes longer is reported as a hang.
const LONG: Duration = Duration::from_secs(60);

/// Reads its sources, each at its own period.
pub(crate) struct BackgroundCollector {
    sources: Vec<ScheduledSource>,
    heartbeat: Heartbeat,
    inventory: Arc<ArcSwap<Inventory>>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// One source and its latest facts.
struct ScheduledSource {
    source: Source,
    due: Instant,
    /// The VMs of the last pass, with or without facts.
    asked: HashSet<VmKey>,
    known: Known,
    /// Its state after its last pass.
    state: Option<SourceState>,
}

/// Facts of each VM; those of the host have no VM.
type Known = HashMap<Option<VmKey>, Arc<[Fact]>>;

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
    pub(crate) fn new(
        sources: Vec<Source>,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let now = Instant::now();
        let entry = |source| ScheduledSource {
            source,
            due: now,
            asked: HashSet::new(),
            known: Known::new(),
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
    pub(crate) fn newest(&self) -> Arc<ArcSwap<VmFacts>> {
        self.newest.clone()
    }

    /// Descriptions of all sources.
    pub(crate) fn infos(&self) -> Vec<SourceInfo> {
        self.sources.iter().map(|entry| entry.source.info).collect()
    }

    /// Reads every source that is due at `now`, and publishes after each source with changes.
    pub(crate) fn pass(&mut self, now: Instant) {
        let inventory = self.inventory.load_full();
        for n in 0..self.sources.len() {
            let entry = &mut self.sources[n];
            if entry.due <= now {
                let round = entry.read(&inventory, &self.heartbeat);
                entry.due = now + entry.source.period;
                let source = entry.source.info.name;
                self.telemetry.count_read_errors(source, round.errors);
                if round.news {
                    self.publish(&inventory);
                }
            }
        }
        self.heartbeat.rest();
    }

    fn publish(&self, inventory: &Inventory) {
        let facts = |subject: Option<VmKey>| {
            let known = self.sources.iter().map(|entry| entry.known.get(&subject));
            known.flatten().cloned().collect()
        };
        let vms = inventory.vms.iter().map(|vm| vm.key);
        // A source that was not read yet has no state.
        let state = |entry: &ScheduledSource| Some((entry.source.info, entry.state.clone()?));
        self.newest.store(Arc::new(VmFacts {
            vms: vms.map(|vm| (vm, facts(Some(vm)))).collect(),
            host: facts(None),
            sources: self.sources.iter().filter_map(state).collect(),
        }));
    }

    /// When the next source is due; in an hour if there are no sources.
    fn next_due(&self) -> Instant {
        let due = self.sources.iter().map(|entry| entry.due).min();
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Reads sources as they become due, until `stop`. A VM that appears in between is read with
    /// the next pass of each source.
    pub(crate) fn run(mut self, stop: &Stop) {
        while !stop.wait_until(self.next_due()) {
            self.pass(Instant::now());
        }
    }
}

impl ScheduledSource {
    /// Reads the VMs or the host.
    fn read(&mut self, inventory: &Inventory, heartbeat: &Heartbeat) -> Round {
        let mut round = Round::default();
        let name = self.source.info.name;
        let state = match &mut self.source.reader {
            _ if !self.source.enabled => SourceState::Down(Reason::disabled(name)),
            SourceReader::Host(read) => {
                heartbeat.step(name);
                let found = read(&inventory.topology);
                let state = found.state();
                round.news |= keep(&mut self.known, None, found.facts);
                state
            }
            SourceReader::Vm(source) => {
                let alive: HashSet<VmKey> = inventory.vms.iter().map(|vm| vm.key).collect();
                for gone in self.asked.difference(&alive) {
                    round.news |= self.known.remove(&Some(*gone)).is_some();
                    source.forget(*gone);
                }
                self.asked = alive;
                for vm in &inventory.vms {
                    heartbeat.step(name);
                    let read = source.read(vm);
                    round.add(name, vm, read, &mut self.known);
                }
                source.state()
            }
        };
        round.news |= self.state.as_ref() != Some(&state);
        self.state = Some(state);
        round
    }
}

impl Round {
    /// Takes what a source read of a VM.
    fn add(
        &mut self,
        source: &str,
        vm: &Vm,
        read: Result<Vec<Fact>, ReadError>,
        known: &mut Known,
    ) {
        match read {
            Ok(facts) => self.news |= keep(known, Some(vm.key), facts),
            Err(ReadError::Gone) => self.news |= known.remove(&Some(vm.key)).is_some(),
            Err(ReadError::Failed(error)) => {
                tracing::debug!(source, vm = %vm.name, %error, "cannot read this VM");
                self.errors += 1;
            }
        }
    }
}

/// Keeps the facts of a VM or the host, and returns whether they changed.
fn keep(known: &mut Known, subject: Option<VmKey>, facts: Vec<Fact>) -> bool {
    let changed = known.get(&subject).is_none_or(|known| **known != *facts);
    if changed {
        known.insert(subject, facts.into());
    }
    changed
}

#[cfg(test)]
mod tests;
