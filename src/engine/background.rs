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
use crate::engine::source::{Periodic, Reads};
use crate::engine::{Fact, ReadError, Reason, SourceInfo, SourceState, VmFacts};
use crate::host::roots::Roots;
use crate::stop::Stop;
use crate::telemetry::{Heartbeat, Telemetry};

/// A read of one VM or of the host that takes longer is reported as a hang.
const LONG: Duration = Duration::from_secs(60);

/// Reads its sources, each at its own period.
pub(crate) struct BackgroundCollector {
    sources: Vec<ScheduledSource>,
    roots: Arc<Roots>,
    heartbeat: Heartbeat,
    inventory: Arc<ArcSwap<Inventory>>,
    newest: Arc<ArcSwap<VmFacts>>,
    telemetry: Telemetry,
}

/// One source and its latest facts.
struct ScheduledSource {
    info: SourceInfo,
    source: Periodic,
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
        sources: Vec<(SourceInfo, Periodic)>,
        roots: Arc<Roots>,
        inventory: Arc<ArcSwap<Inventory>>,
        telemetry: Telemetry,
    ) -> Self {
        let now = Instant::now();
        let entry = |(info, source)| ScheduledSource {
            info,
            source,
            due: now,
            asked: HashSet::new(),
            known: Known::new(),
            state: None,
        };
        Self {
            sources: sources.into_iter().map(entry).collect(),
            heartbeat: telemetry.heartbeats.add("slow", LONG, false),
            roots,
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
        self.sources.iter().map(|entry| entry.info).collect()
    }

    /// Reads every source that is due at `now`, and publishes after each source with changes.
    pub(crate) fn pass(&mut self, now: Instant) {
        let inventory = self.inventory.load_full();
        for n in 0..self.sources.len() {
            let entry = &mut self.sources[n];
            if entry.due <= now {
                let round = entry.read(&self.roots, &inventory, &self.heartbeat);
                entry.due = now + entry.source.period;
                let source = entry.info.name;
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
        let state = |entry: &ScheduledSource| Some((entry.info, entry.state.clone()?));
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
    fn read(&mut self, roots: &Roots, inventory: &Inventory, heartbeat: &Heartbeat) -> Round {
        let mut round = Round::default();
        let name = self.info.name;
        let state = match &mut self.source.reads {
            _ if !self.source.enabled => SourceState::Down(Reason::disabled(name)),
            Reads::Host(source) => {
                heartbeat.step(name);
                let found = source.read(roots, &inventory.topology);
                let state = found.state();
                round.news |= keep(&mut self.known, None, found.facts);
                state
            }
            Reads::Vms(source) => {
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
