//! The slow lane: sources about a VM as a whole or the host as such, that are too dear or too rare
//! for the tick.
//!
//! It is a thread of its own, so that a file that takes seconds never holds up a tick. Each source
//! has its own period. One about VMs reads one VM after the other; what it read last stays until it
//! reads that VM again, and goes with the VM. What was read is published where it is new.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Buckets, ReadError, SourceInfo, SourceState};
use crate::discover::{Inventory, Vm, VmKey};
use crate::host::topology::Topology;
use crate::stop::Stop;
use crate::telemetry::{Heartbeat, SourceLabel, Telemetry};

/// One thing known about a VM or the host: a sample of a metric of the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Full Prometheus name, an entry of the catalogue.
    pub metric: &'static str,
    /// Labels beyond `vm`, which those about the host do not have.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: FactValue,
    /// Where a counter began at 0; of no matter for anything else.
    pub origin: Origin,
}

/// Where the counting began whose total a fact is. OTLP gives it to each series as its start, and
/// reports no increment of what was counted before the exporter started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The exporter counts, from when it first saw the VM or the host.
    #[default]
    Exporter,
    /// The kernel counts for the VM, from when the VM started.
    Vm,
    /// The kernel counts for the host, or for a group that may be older than the VM: from boot at
    /// the earliest.
    Boot,
}

/// A fact's value.
#[derive(Debug, Clone, PartialEq)]
pub enum FactValue {
    /// A whole number in the metric's unit.
    Int(u64),
    /// Nanoseconds, shown as seconds.
    Nanoseconds(u64),
    /// Any other number in the metric's unit.
    Float(f64),
    /// Durations in buckets, shown as seconds.
    Histogram(Arc<Buckets>),
}

impl FactValue {
    /// How many series it makes.
    pub fn series(&self) -> usize {
        match self {
            Self::Int(_) | Self::Nanoseconds(_) | Self::Float(_) => 1,
            Self::Histogram(buckets) => buckets.series(),
        }
    }
}

/// One measured thing about VMs.
pub trait VmSource: Send {
    /// What it is.
    fn info(&self) -> SourceInfo;
    /// Whether it delivers now.
    fn state(&self) -> SourceState;
    /// Time from one reading of a VM to the next.
    fn period(&self) -> Duration;
    /// Reads one VM. Unknown facts are left out.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the VM ended; [`ReadError::Failed`] leaves the facts of the
    /// reading before.
    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError>;
    /// The VM is no more: lets go of what is kept for it.
    fn forget(&mut self, vm: VmKey);
}

/// One measured thing about the host as such.
pub trait HostSource: Send {
    /// What it is.
    fn info(&self) -> SourceInfo;
    /// Whether it delivers now.
    fn state(&self) -> SourceState;
    /// Time from one reading to the next.
    fn period(&self) -> Duration;
    /// Reads the host, whose CPUs are those of `topology`. Unknown facts are left out.
    ///
    /// # Errors
    /// [`ReadError::Failed`] leaves the facts of the reading before.
    fn read(&mut self, topology: &Topology) -> Result<Vec<Fact>, ReadError>;
}

/// What a lane beside the sampler's knows.
#[derive(Debug, Default)]
pub struct VmFacts {
    /// Facts of each VM, in as many lists as are replaced one by one.
    pub vms: HashMap<VmKey, Vec<Arc<[Fact]>>>,
    /// Facts of the host, source by source.
    pub host: Vec<Arc<[Fact]>>,
    /// State of each source.
    pub sources: Vec<(SourceInfo, SourceState)>,
}

impl VmFacts {
    /// How many series the facts make that are known of the host and of the VMs in `inventory`.
    pub fn count(&self, inventory: &Inventory) -> usize {
        let known = inventory.vms.iter().filter_map(|vm| self.vms.get(&vm.key));
        let facts = known.flatten().chain(&self.host);
        let facts = facts.flat_map(|facts| facts.iter());
        facts.map(|fact| fact.value.series()).sum()
    }
}

/// One reading of a VM or the host that takes longer hangs.
const LONG: Duration = Duration::from_secs(60);

/// Reads slow sources on their own periods.
pub struct SlowLane {
    sources: Vec<Lane>,
    heartbeat: Heartbeat,
    inventory: Arc<ArcSwap<Inventory>>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// One source and what it said last.
struct Lane {
    source: Source,
    due: Instant,
    /// The VMs it was asked about last, whatever it answered.
    asked: HashSet<VmKey>,
    known: HashMap<VmKey, Arc<[Fact]>>,
    of_host: Option<Arc<[Fact]>>,
    /// Its state after its last round of readings.
    state: Option<SourceState>,
}

/// A source, by what it is about.
enum Source {
    Vm(Box<dyn VmSource>),
    Host(Box<dyn HostSource>),
}

/// What a round of readings came to.
#[derive(Debug, Default)]
struct Round {
    /// Readings that failed.
    errors: u64,
    /// Whether anything is known now that was not, or no longer.
    news: bool,
}

impl SlowLane {
    /// A lane over the host and whatever VMs `inventory` holds.
    pub fn new(
        vm_sources: Vec<Box<dyn VmSource>>,
        host_sources: Vec<Box<dyn HostSource>>,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let now = Instant::now();
        let lane = |source| Lane {
            source,
            due: now,
            asked: HashSet::new(),
            known: HashMap::new(),
            of_host: None,
            state: None,
        };
        let vm_sources = vm_sources.into_iter().map(Source::Vm);
        let host_sources = host_sources.into_iter().map(Source::Host);
        Self {
            sources: vm_sources.chain(host_sources).map(lane).collect(),
            heartbeat: telemetry.heartbeats.add("slow", LONG, false),
            inventory,
            newest: Arc::default(),
            telemetry,
        }
    }

    /// Where the newest facts are found.
    pub fn newest(&self) -> Arc<ArcSwap<VmFacts>> {
        self.newest.clone()
    }

    /// What its sources are.
    pub fn infos(&self) -> Vec<SourceInfo> {
        self.sources.iter().map(|lane| lane.source.info()).collect()
    }

    /// Reads every source that is due at `now`, and publishes after each that has news.
    pub fn pass(&mut self, now: Instant) {
        let inventory = self.inventory.load_full();
        for n in 0..self.sources.len() {
            let lane = &mut self.sources[n];
            if lane.due <= now {
                let round = lane.read(&inventory, &self.heartbeat);
                lane.due = now + lane.source.period();
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
                .filter_map(|lane| lane.known.get(&vm.key));
            (vm.key, known.cloned().collect())
        };
        let of_host = self.sources.iter().filter_map(|lane| lane.of_host.clone());
        // A source that has not read yet has nothing to say of itself.
        let states = self.sources.iter().filter_map(Lane::said);
        self.newest.store(Arc::new(VmFacts {
            vms: inventory.vms.iter().map(facts).collect(),
            host: of_host.collect(),
            sources: states.collect(),
        }));
    }

    /// When the next source is due; much later without sources.
    fn next_due(&self) -> Instant {
        let due = self.sources.iter().map(|lane| lane.due).min();
        due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Passes whenever a source is due, until told to stop. A VM that appears in between is read
    /// with the next pass of each source.
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

impl Lane {
    /// What the source is, and its state after its last round.
    fn said(&self) -> Option<(SourceInfo, SourceState)> {
        Some((self.source.info(), self.state.clone()?))
    }

    /// Reads what the source is about.
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

    /// Reads all VMs, and forgets those that are gone.
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
                    tracing::debug!(source, vm = %vm.name, %error, "a VM could not be read");
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
                tracing::debug!(source, %error, "the host could not be read");
                round.errors += 1;
            }
        }
        round
    }
}

#[cfg(test)]
mod tests;
