//! The synthetic host: a tree of files, counters and recordings that follow one state.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::counters::{Counting, Threads};
use super::guest::{SyntheticGuest, EXPORTER};
use super::machine;
use super::model::Model;
use super::pt::Recorder;
use super::scenario::{Scenario, NODES};
use super::state::State;
use super::timeline::happenings;
use super::tree::Tree;
use crate::sources::pmu::counters::OpenCounters;
use crate::sources::pt::RecordPt;

/// Shortest time between updates of files that are read less often.
const SLOW: Duration = Duration::from_millis(250);

/// A simulated host.
#[derive(Debug)]
pub struct Host {
    tree: Tree,
    scenario: Arc<Scenario>,
    state: State,
    guests: Vec<Option<SyntheticGuest>>,
    threads: Threads,
    seed: u64,
    /// Steps between updates of slow files, and the step of the next.
    slow_every: u64,
    slow_due: u64,
    logged_until: Duration,
}

impl Host {
    /// A host that follows a scenario from its start at `speed`. It changes once in each `step` of
    /// real time.
    ///
    /// # Errors
    /// If its directory cannot be written.
    pub fn new(scenario: Arc<Scenario>, seed: u64, speed: f64, step: Duration) -> io::Result<Self> {
        let tree = Tree::new()?;
        machine::make(&tree, scenario.memory_node)?;
        let state = State::new(Model::new(scenario.clone(), seed), step, speed);
        let slow_every = SLOW.as_nanos().div_ceil(step.as_nanos().max(1));
        let mut host = Self {
            guests: scenario.vms.iter().map(|_| None).collect(),
            tree,
            scenario,
            state,
            threads: Threads::default(),
            seed,
            slow_every: u64::try_from(slow_every).unwrap_or(u64::MAX).max(1),
            slow_due: 0,
            logged_until: Duration::ZERO,
        };
        host.write()?;
        Ok(host)
    }

    /// The host's root directory.
    pub fn root(&self) -> &Path {
        self.tree.root()
    }

    /// The simulated counters.
    pub fn counters(&self) -> Arc<dyn OpenCounters> {
        Arc::new(self.threads.clone())
    }

    /// The simulated Intel PT.
    pub fn recorder(&self) -> Arc<dyn RecordPt> {
        Arc::new(Recorder::new(self.threads.clone(), self.seed))
    }

    /// Start time of the exporter in clock ticks since the host's boot; VMs that exist from the
    /// beginning are older.
    pub fn born_after(&self) -> u64 {
        EXPORTER
    }

    /// Advances the host to `elapsed` since its start, and returns the events since the last call.
    ///
    /// # Errors
    /// If its directory cannot be written.
    pub fn advance(&mut self, elapsed: Duration) -> io::Result<Vec<String>> {
        if self.state.advance(elapsed) {
            self.write()?;
        }
        let now = self.state.script();
        let happened = happenings(&self.scenario, self.logged_until, now);
        self.logged_until = now;
        Ok(happened)
    }

    fn write(&mut self) -> io::Result<()> {
        let slow = self.state.steps() >= self.slow_due;
        if slow {
            self.slow_due = self.state.steps() + self.slow_every;
            machine::update(&self.tree, &self.state)?;
        }
        let llc = self.misses();
        let changed = self.start_and_end()?;
        for (guest, totals) in self.guests.iter_mut().zip(&self.state.vms) {
            let (Some(guest), Some(totals)) = (guest, totals) else {
                continue;
            };
            guest.update(&self.tree, totals)?;
            if slow {
                guest.update_slow(&self.tree, totals, llc)?;
            }
        }
        self.count();
        if changed {
            machine::memory(&self.tree, self.memory(), self.scenario.memory_node)?;
        }
        Ok(())
    }

    /// Creates the files of VMs that started and removes those of VMs that ended.
    fn start_and_end(&mut self) -> io::Result<bool> {
        let mut changed = false;
        let nodes = self.scenario.nodes();
        for (n, (guest, totals)) in self.guests.iter_mut().zip(&self.state.vms).enumerate() {
            match (guest.take(), totals) {
                (Some(old), None) => old.remove(&self.tree)?,
                (None, Some(totals)) => {
                    let mut new = SyntheticGuest::new(n, &self.scenario.vms[n], nodes, totals);
                    new.make(&self.tree, totals)?;
                    new.update_slow(&self.tree, totals, [1.0; 2])?;
                    *guest = Some(new);
                }
                (same, _) => {
                    *guest = same;
                    continue;
                }
            }
            changed = true;
        }
        Ok(changed)
    }

    /// Updates the simulated counters.
    fn count(&self) {
        let mut threads = self.threads.lock();
        threads.clear();
        for (guest, totals) in self.guests.iter().zip(&self.state.vms) {
            let (Some(guest), Some(totals)) = (guest, totals) else {
                continue;
            };
            let rates = &totals.rates.vcpus;
            for (n, (vcpu, rates)) in totals.vcpus.iter().zip(rates).enumerate() {
                let counting = Counting {
                    counts: vcpu.counts,
                    enabled: vcpu.thread.time,
                    running: vcpu.running,
                    now: *rates,
                };
                threads.insert(guest.tid(n), counting);
            }
        }
    }

    /// Misses per second of each last-level cache.
    fn misses(&self) -> [f64; 2] {
        let all = self.state.vms.iter().flatten().map(|vm| vm.misses());
        all.fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d])
    }

    /// Bytes of VMs on each node.
    fn memory(&self) -> [u64; NODES] {
        let guests = self.guests.iter().flatten();
        let all = guests.map(|guest| guest.memory(false));
        all.fold([0; NODES], |[a, b, c], [d, e, f]| [a + d, b + e, c + f])
    }
}
