//! State of sources whose thread hangs.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::{ReasonCode, SourceInfo, SourceState, VmFacts, INVENTORY};
use crate::telemetry::{Hang, Heartbeats};

/// Sources whose thread hangs, with the state that replaces their own.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    hangs: Vec<Hang>,
    states: Vec<(SourceInfo, SourceState)>,
}

impl Overdue {
    /// Checks all threads. `infos` are the sources of the background collectors, `facts` the latest
    /// data of each collector.
    pub(super) fn update(
        &mut self,
        heartbeats: &Heartbeats,
        infos: &[SourceInfo],
        facts: &[Arc<VmFacts>],
        now: Instant,
    ) {
        let hangs = heartbeats.hangs(now);
        let same = |a: &Hang, b: &Hang| a.thread == b.thread && a.step == b.step;
        for hang in &hangs {
            if !self.hangs.iter().any(|known| same(known, hang)) {
                tracing::error!(
                    thread = hang.thread,
                    step = hang.step,
                    "{hang}; read /proc/PID/task/TID/stack of the exporter to see where"
                );
            }
        }
        for known in &self.hangs {
            if !hangs.iter().any(|hang| same(known, hang)) {
                tracing::info!(
                    thread = known.thread,
                    step = known.step,
                    "the thread runs again"
                );
            }
        }
        self.states.clear();
        for hang in &hangs {
            self.add(hang, infos, facts);
        }
        self.hangs = hangs;
    }

    /// The source that hangs is down; the others of its thread are degraded.
    fn add(&mut self, hang: &Hang, infos: &[SourceInfo], facts: &[Arc<VmFacts>]) {
        let mut known = infos.iter().chain([&INVENTORY]);
        let Some(info) = known.find(|info| info.name == hang.step) else {
            return;
        };
        let reason = |code: ReasonCode, detail| {
            code.reason(detail)
                .with_fix("see the runbook KvmExporterSampleTooOld, part \"Stuck\"")
        };
        let own = reason(ReasonCode::Hangs, format!("{hang}: no new data"));
        self.states.push((*info, SourceState::Down(own)));
        let has_it = |facts: &&Arc<VmFacts>| facts.sources.iter().any(|(i, _)| i.name == hang.step);
        let with_it = facts.iter().find(has_it);
        for (other, state) in with_it.iter().flat_map(|facts| &facts.sources) {
            if other.name != hang.step && !matches!(state, SourceState::Down(_)) {
                let waits = reason(ReasonCode::Delayed, format!("data is old: {hang}"));
                self.states.push((*other, SourceState::Degraded(waits)));
            }
        }
    }

    /// The state of each affected source, each source once.
    pub(super) fn states(&self) -> &[(SourceInfo, SourceState)] {
        &self.states
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn info(name: &'static str) -> SourceInfo {
        SourceInfo {
            name,
            needs: "",
            cost: "",
        }
    }

    fn said(overdue: &Overdue) -> Vec<(&'static str, &'static str)> {
        let states = overdue.states().iter();
        states
            .map(|(info, state)| (info.name, state.code()))
            .collect()
    }

    #[test]
    fn source_that_hangs_is_down_and_others_of_its_thread_are_delayed() {
        let heartbeats = Heartbeats::default();
        let limit = Duration::from_secs(60);
        let slow = heartbeats.add("slow", limit, false);
        let infos = ["cgroup", "memory", "pt"].map(info);
        let of = |names: &[&'static str]| {
            Arc::new(VmFacts {
                sources: names
                    .iter()
                    .map(|name| (info(name), SourceState::Up))
                    .collect(),
                ..VmFacts::default()
            })
        };
        let facts = [of(&["cgroup", "memory"]), of(&["pt"])];
        let mut overdue = Overdue::default();
        let later = Instant::now() + limit * 2;
        overdue.update(&heartbeats, &infos, &facts, later);
        assert_eq!(said(&overdue), []);
        slow.step("memory");
        overdue.update(&heartbeats, &infos, &facts, later);
        assert_eq!(said(&overdue), [("memory", "hangs"), ("cgroup", "delayed")]);
        // The source hangs in its first read and has not reported a state yet.
        overdue.update(&heartbeats, &infos, &[of(&[]), of(&["pt"])], later);
        assert_eq!(said(&overdue), [("memory", "hangs")]);
        slow.rest();
        overdue.update(&heartbeats, &infos, &facts, later);
        assert_eq!(said(&overdue), []);
    }

    #[test]
    fn an_inventory_that_hangs_is_down() {
        let heartbeats = Heartbeats::default();
        let limit = Duration::from_secs(17);
        heartbeats.add("inventory", limit, true).step("inventory");
        let mut overdue = Overdue::default();
        overdue.update(&heartbeats, &[], &[], Instant::now() + limit * 2);
        assert_eq!(said(&overdue), [("inventory", "hangs")]);
    }
}
