//! Counters that follow a script, for tests, benches and the synthetic host: what the groups of
//! each thread read, and where opening or reading fails.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counters::{Attr, CounterError, CounterGroup, OpenCounters, Times};

/// One read of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The kernel's totals: time enabled and running in ns, and a count for each event; missing
    /// counts read as 0.
    Totals(Times, Vec<u64>),
    /// The read fails with this errno.
    Fails(i32),
}

impl Step {
    /// Totals of a group that was enabled and running for these times in ns.
    pub fn totals(enabled: u64, running: u64, counts: &[u64]) -> Self {
        Self::Totals(Times { enabled, running }, counts.to_vec())
    }
}

/// Decides which events the scripted kernel refuses, by thread and attributes, and with which
/// errno.
pub(crate) type Refuse = Box<dyn Fn(i32, &Attr) -> Option<i32> + Send + Sync>;

/// A simulated kernel. A group without a script counts steadily: each read is 1 s later, and event
/// n has advanced by (n + 1) million.
pub struct Scripted {
    refuse: Refuse,
    counters: usize,
    descriptors: usize,
    scripts: HashMap<(i32, usize), Vec<Step>>,
    open: Open,
}

/// The open groups of each thread.
type Open = Arc<Mutex<HashMap<i32, Vec<Slot>>>>;

/// A group's events; `None` if it was closed while others of its thread are open.
type Slot = Option<Vec<Attr>>;

impl Default for Scripted {
    fn default() -> Self {
        Self {
            refuse: Box::new(|_, _| None),
            counters: usize::MAX,
            descriptors: usize::MAX,
            scripts: HashMap::new(),
            open: Open::default(),
        }
    }
}

impl Scripted {
    /// Opens everything and counts steadily.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses events by thread and attributes. Thread 0 is the exporter's own, used by the probe.
    #[must_use]
    pub fn refusing(
        mut self,
        refuse: impl Fn(i32, &Attr) -> Option<i32> + Send + Sync + 'static,
    ) -> Self {
        self.refuse = Box::new(refuse);
        self
    }

    /// Groups of more events than this open but never run.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_counters(mut self, counters: usize) -> Self {
        self.counters = counters;
        self
    }

    /// Opening more descriptors than this fails with EMFILE.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn with_descriptors(mut self, descriptors: usize) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Scripts the reads of group number `group` on a thread. After its last step, a group repeats
    /// that read for ever, as that of an exited thread does.
    #[must_use]
    pub fn script(mut self, tid: i32, group: usize, steps: Vec<Step>) -> Self {
        self.scripts.insert((tid, group), steps);
        self
    }

    /// The open groups of a thread.
    pub fn opened(&self, tid: i32) -> Vec<Vec<Attr>> {
        let open = lock(&self.open);
        open.get(&tid)
            .into_iter()
            .flatten()
            .flatten()
            .cloned()
            .collect()
    }

    /// Number of open descriptors.
    pub fn descriptors(&self) -> usize {
        let open = lock(&self.open);
        open.values().flatten().flatten().map(Vec::len).sum()
    }

    fn admit(&self, tid: i32, events: &[Attr]) -> Result<(), CounterError> {
        let left = match self.descriptors {
            usize::MAX => usize::MAX,
            most => most.saturating_sub(self.descriptors()),
        };
        for (event, attr) in events.iter().enumerate() {
            let full = event >= left;
            let errno = full.then_some(libc::EMFILE);
            if let Some(errno) = errno.or_else(|| (self.refuse)(tid, attr)) {
                let error = io::Error::from_raw_os_error(errno);
                return Err(CounterError { event, error });
            }
        }
        Ok(())
    }
}

fn lock(open: &Open) -> MutexGuard<'_, HashMap<i32, Vec<Slot>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenCounters for Scripted {
    fn open(&self, tid: i32, events: &[Attr]) -> Result<Box<dyn CounterGroup>, CounterError> {
        self.admit(tid, events)?;
        let mut open = lock(&self.open);
        let slots = open.entry(tid).or_default();
        slots.push(Some(events.to_vec()));
        let number = slots.len() - 1;
        Ok(Box::new(ScriptedGroup {
            tid,
            number,
            events: events.len(),
            runs: events.len() <= self.counters,
            steps: self.scripts.get(&(tid, number)).cloned(),
            read: 0,
            open: self.open.clone(),
        }))
    }
}

struct ScriptedGroup {
    tid: i32,
    number: usize,
    events: usize,
    runs: bool,
    steps: Option<Vec<Step>>,
    read: usize,
    open: Open,
}

impl ScriptedGroup {
    fn steady(&self, counts: &mut [u64]) -> Times {
        let seconds = self.read as u64;
        let running = if self.runs { seconds } else { 0 };
        for (n, count) in (1..).zip(counts) {
            *count = running * n * 1_000_000;
        }
        Times {
            enabled: seconds * 1_000_000_000,
            running: running * 1_000_000_000,
        }
    }
}

impl CounterGroup for ScriptedGroup {
    fn read(&mut self, counts: &mut [u64]) -> io::Result<Times> {
        self.read += 1;
        let Some(steps) = &self.steps else {
            return Ok(self.steady(counts));
        };
        match steps.get(self.read - 1).or(steps.last()) {
            Some(Step::Totals(times, totals)) => {
                let totals = totals.iter().copied().chain(std::iter::repeat(0));
                counts.iter_mut().zip(totals).for_each(|(c, t)| *c = t);
                Ok(*times)
            }
            Some(Step::Fails(errno)) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(Times::default()),
        }
    }

    fn descriptors(&self) -> usize {
        self.events
    }
}

impl Drop for ScriptedGroup {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        let Some(slots) = open.get_mut(&self.tid) else {
            return;
        };
        if let Some(slot) = slots.get_mut(self.number) {
            *slot = None;
        }
        // Drop threads without groups, as threads start and exit all the time.
        if slots.iter().all(Option::is_none) {
            open.remove(&self.tid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pmu::events;

    #[test]
    fn exited_threads_are_dropped() {
        let scripted = Scripted::new();
        let events: Vec<Attr> = events::software().iter().map(|(_, attr)| *attr).collect();
        for tid in 0..100 {
            let groups = [(); 2].map(|()| scripted.open(tid, &events).unwrap());
            assert_eq!((scripted.opened(tid).len(), scripted.descriptors()), (2, 6));
            drop(groups);
        }
        assert!(lock(&scripted.open).is_empty());
        assert_eq!(scripted.descriptors(), 0);
    }
}
