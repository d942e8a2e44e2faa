//! Values of the last minute for each vCPU and VM, as one ring of bytes for each graph.
//!
//! Time is the exporter's, in whole seconds: a view that arrives twice adds nothing, and seconds
//! without a view stay unknown.

use std::collections::HashMap;

use crate::diagnosis::{Numbers, View};

/// Seconds kept.
pub(super) const SECONDS: usize = 60;

/// Upper bound of a time, so that adding seconds cannot overflow.
const LATEST: u64 = 1 << 53;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Graph {
    Delay,
    Cpi,
    Time,
}

const GRAPHS: [Graph; 3] = [Graph::Delay, Graph::Cpi, Graph::Time];

impl Graph {
    /// The next graph, cyclically.
    pub(super) fn next(self) -> Self {
        GRAPHS[(self as usize + 1) % GRAPHS.len()]
    }

    /// Title with the range of the graph. All rows have the same scale, so they can be compared.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Delay => "delay 0-20%",
            Self::Cpi => "CPI 0-4",
            Self::Time => "time 0-1",
        }
    }

    /// Fraction of a full column, which is a critical delay (alert KvmVmCpuDelayCritical), a CPI
    /// that few programs reach, or one core.
    fn fraction(self, numbers: &Numbers) -> Option<f64> {
        match self {
            Self::Delay => numbers.delay_ratio.map(|ratio| ratio / 0.2),
            Self::Cpi => numbers.cpi.map(|cpi| cpi / 4.0),
            Self::Time => numbers.time,
        }
    }
}

/// Fraction of a full column, from 0 to `FULL`.
type Level = u8;

const FULL: Level = 200;

const UNKNOWN: Level = Level::MAX;

/// The last minute of all VMs in the latest view.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Second of the latest view.
    now: Option<u64>,
    vms: HashMap<String, VmHistory>,
}

#[derive(Debug, Default)]
struct VmHistory {
    /// Second of the latest view that contained the VM.
    seen: u64,
    whole: Ring,
    vcpus: HashMap<u32, Ring>,
}

/// Second `s` is at index `s % SECONDS`.
#[derive(Debug)]
struct Ring {
    seen: u64,
    /// TID of the vCPU; a new thread starts a new history.
    tid: i32,
    slots: [[Level; SECONDS]; GRAPHS.len()],
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            seen: 0,
            tid: 0,
            slots: [[UNKNOWN; SECONDS]; GRAPHS.len()],
        }
    }
}

impl Ring {
    fn update(
        &mut self,
        tid: i32,
        new: &std::ops::RangeInclusive<u64>,
        known: &std::ops::RangeInclusive<u64>,
        numbers: &Numbers,
    ) {
        let is_new = self.seen == 0 || self.tid != tid;
        if is_new {
            *self = Self::default();
        }
        (self.seen, self.tid) = (*new.end(), tid);
        self.forget(new.clone());
        // The past of a new vCPU is unknown, whatever the window.
        let since = if is_new { new.end() } else { known.start() };
        self.learn(*since..=*new.end(), numbers);
    }

    fn forget(&mut self, seconds: std::ops::RangeInclusive<u64>) {
        for second in seconds {
            for slots in &mut self.slots {
                slots[at(second)] = UNKNOWN;
            }
        }
    }

    fn learn(&mut self, seconds: std::ops::RangeInclusive<u64>, numbers: &Numbers) {
        for (graph, slots) in GRAPHS.iter().zip(&mut self.slots) {
            let level = level(graph.fraction(numbers));
            for second in seconds.clone() {
                slots[at(second)] = level;
            }
        }
    }
}

fn at(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

fn level(fraction: Option<f64>) -> Level {
    let level = |fraction: f64| (fraction.clamp(0.0, 1.0) * f64::from(FULL)) as Level;
    fraction.map_or(UNKNOWN, level)
}

impl History {
    /// Adds a view, and drops VMs that are not in it.
    pub(super) fn learn(&mut self, view: &View) {
        let now = (view.taken.max(0.0) as u64).min(LATEST);
        let kept = SECONDS as u64;
        let before = self
            .now
            .filter(|before| (*before..*before + kept).contains(&now));
        if before.is_none() {
            // The first view, a long pause, or a clock that went back.
            self.vms.clear();
        }
        self.now = Some(now);
        let new = before.map_or(now, |before| (before + 1).min(now))..=now;
        // Rates cover the window, so they also fill seconds without a view.
        let window = view.window.clamp(1.0, SECONDS as f64) as u64;
        let known = (*new.start()).max(now.saturating_sub(window - 1))..=now;
        for vm in &view.vms {
            let of_vm = self.vms.entry(vm.name.clone()).or_default();
            of_vm.seen = now;
            of_vm.whole.update(0, &new, &known, &vm.numbers);
            for vcpu in &vm.vcpus {
                let ring = of_vm.vcpus.entry(vcpu.index).or_default();
                ring.update(vcpu.tid, &new, &known, &vcpu.numbers);
            }
            of_vm.vcpus.retain(|_, ring| ring.seen == now);
        }
        self.vms.retain(|_, vm| vm.seen == now);
    }

    /// The last minute in `columns` columns, oldest first: the highest fraction of a full column in
    /// each; `None` where it is unknown. `columns` divides [`SECONDS`].
    pub(super) fn columns(
        &self,
        vm: &str,
        vcpu: Option<u32>,
        graph: Graph,
        columns: usize,
    ) -> Vec<Option<f64>> {
        let of_vm = self.vms.get(vm);
        let ring = match vcpu {
            Some(index) => of_vm.and_then(|vm| vm.vcpus.get(&index)),
            None => of_vm.map(|vm| &vm.whole),
        };
        let (Some(ring), Some(now)) = (ring, self.now) else {
            return vec![None; columns];
        };
        let slots = &ring.slots[graph as usize];
        let each = (SECONDS / columns.max(1)).max(1) as u64;
        // Columns start at multiples of their width, so that the graph scrolls without flicker.
        let last = now / each;
        let column = |back: u64| {
            let first = last.checked_sub(back)? * each;
            let seconds =
                first.max((now + 1).saturating_sub(SECONDS as u64))..=now.min(first + each - 1);
            let levels = seconds.map(|second| slots[at(second)]);
            let highest = levels.filter(|level| *level != UNKNOWN).max()?;
            Some(f64::from(highest) / f64::from(FULL))
        };
        (0..columns as u64).rev().map(column).collect()
    }

    /// Number of rings.
    #[cfg(test)]
    fn rings(&self) -> usize {
        self.vms.values().map(|vm| 1 + vm.vcpus.len()).sum()
    }
}

#[cfg(test)]
mod tests;
