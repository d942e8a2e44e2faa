//! The ledger: running totals, one [`Series`] for each (vCPU, location) series.
//!
//! Activity since the last tick is added to the location where the vCPU runs now. So no total ever
//! decreases or moves, and the sum over all series is the vCPU's exact total.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::Placement;
use crate::engine::reading::{ColumnSet, Columns, Reading};
use crate::engine::total::add;
use crate::engine::CpuLocation;
use crate::host::topology::{Place, Topology};
use crate::metric::Label;

/// Series are created in advance for a vCPU that may run on at most this many cores. `rate()`
/// cannot see an increase before the first scrape of a series; a series that starts at 0 hides
/// none.
pub(crate) const MAX_SERIES_AHEAD: usize = 8;

/// The location labels of a series, which also identify it within the vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SeriesKey {
    /// `physical_package_id` and `core_id`; `None` at coarser placement.
    pub core: Option<(i32, i32)>,
    /// NUMA node; `None` without placement.
    pub numa_node: Option<u32>,
}

impl SeriesKey {
    /// The series of a location. An unknown location (a CPU that has just come online) has no
    /// location labels.
    pub fn new(place: Option<Place>, placement: Placement) -> Self {
        let fine = Self {
            core: place.map(|p| (p.package, p.core)),
            numa_node: place.map(|p| p.numa_node),
        };
        fine.coarsened(placement)
    }

    /// The labels: `package` and `core`, then `numa_node`.
    pub(crate) fn labels(self) -> impl Iterator<Item = Label> {
        let core =
            |(package, core): (i32, i32)| [("package", package.into()), ("core", core.into())];
        let node = self.numa_node.map(|node| ("numa_node", node.into()));
        self.core.into_iter().flat_map(core).chain(node)
    }

    fn coarsened(self, placement: Placement) -> Self {
        Self {
            core: self.core.filter(|_| placement == Placement::Core),
            numa_node: self.numa_node.filter(|_| placement != Placement::None),
        }
    }

    fn is_finest(self) -> bool {
        self.core.is_some()
    }

    /// Whether series of this placement have such keys. The key without labels is the only one
    /// without placement, and that of unknown locations otherwise.
    fn is_of(self, placement: Placement) -> bool {
        match placement {
            Placement::Core => self.core.is_some() || self.numa_node.is_none(),
            Placement::NumaNode => self.core.is_none(),
            Placement::None => self == Self::default(),
        }
    }
}

/// Totals of one vCPU at one location.
#[derive(Debug, Clone)]
pub struct Series {
    /// The location.
    pub key: SeriesKey,
    /// Total of each placed column.
    pub totals: Box<[u64]>,
    /// Columns that are known here, before withdrawn columns are removed.
    known: ColumnSet,
    /// Created in advance because the vCPU may run here; does not age while that holds.
    pub(crate) ahead: bool,
    /// Time of the last charge; `None` hides the series until the next charge.
    touched: Option<Instant>,
    /// Part of the totals that a coarser series includes as well; empty while none does.
    merged: Box<[u64]>,
}

impl Series {
    /// The totals without the part that a coarser series includes. Summed over all series, they are
    /// the vCPU's activity.
    pub fn alone(&self) -> impl Iterator<Item = u64> + '_ {
        let merged = self.merged.iter().copied().chain(std::iter::repeat(0));
        let totals = self.totals.iter().zip(merged);
        totals.map(|(total, merged)| total.saturating_sub(merged))
    }

    /// Adds [`Self::alone`] to these sums. Nearly no series has a part in a coarser one.
    pub(crate) fn add_alone(&self, sums: &mut [u64]) {
        if self.merged.is_empty() {
            sums.iter_mut()
                .zip(&self.totals)
                .for_each(|(sum, total)| add(sum, *total));
        } else {
            sums.iter_mut()
                .zip(self.alone())
                .for_each(|(sum, total)| add(sum, total));
        }
    }
}

/// All totals of one vCPU. They outlive its thread: a new thread of the vCPU continues them.
#[derive(Debug, Clone)]
pub(crate) struct VcpuTotals {
    /// The vCPU's series, in the order of their creation.
    pub series: Vec<Series>,
    /// Value of each vCPU column.
    pub values: Box<[u64]>,
    /// Which vCPU columns are known.
    pub known: ColumnSet,
    /// Where the thread last ran; `None` while the location of that CPU is unknown.
    pub location: Option<CpuLocation>,
    /// Index of the series charged last.
    current: Option<usize>,
    /// Placed columns that are unknown now, even if they were charged before.
    withdrawn: ColumnSet,
    /// Current placement. Series of finer placements keep their totals but are hidden.
    placement: Placement,
}

impl VcpuTotals {
    /// An empty totals with one series per core.
    pub(crate) fn new(columns: &Columns) -> Self {
        Self {
            series: Vec::new(),
            values: vec![0; columns.vcpu.len()].into(),
            known: 0,
            location: None,
            current: None,
            withdrawn: 0,
            placement: Placement::Core,
        }
    }

    /// The placed columns that are known in a series.
    pub(crate) fn known_in(&self, series: &Series) -> ColumnSet {
        series.known & !self.withdrawn
    }

    /// Adds the reading of one tick, taken at `now`.
    pub(crate) fn charge(&mut self, reading: &Reading, now: Instant) {
        self.keep_values(reading);
        if let Some(allowed) = &reading.allowed {
            self.make_series_ahead(reading, allowed, now);
        }
        let Some(cpu) = reading.cpu else { return };
        let place = reading.topology.place(cpu);
        self.location = place.map(|place| CpuLocation { cpu, place });
        let (deltas, added) = reading.placed();
        self.withdrawn = (self.withdrawn | reading.withdrawn()) & !added;
        if added == 0 {
            return;
        }
        let key = SeriesKey::new(place, self.placement);
        let n = self.find_or_make(key, deltas.len(), Some(now));
        self.current = Some(n);
        let series = &mut self.series[n];
        for (total, delta) in series.totals.iter_mut().zip(deltas) {
            *total = total.saturating_add(*delta);
        }
        series.known |= added;
        series.touched = Some(now);
        // A known column is known at every location in advance, with 0.
        for series in self.series.iter_mut().filter(|series| series.ahead) {
            series.known |= added;
        }
    }

    fn keep_values(&mut self, reading: &Reading) {
        let (numbers, added, set) = reading.vcpu();
        for (n, number) in numbers.iter().enumerate() {
            let bit: ColumnSet = 1 << n;
            if set & bit != 0 {
                self.values[n] = *number;
            } else if added & bit != 0 {
                self.values[n] = self.values[n].saturating_add(*number);
            }
        }
        let known = self.known & !reading.withdrawn_of_vcpu();
        self.known = known | added | set;
    }

    fn make_series_ahead(&mut self, reading: &Reading, allowed: &[u32], now: Instant) {
        let keys = keys_of(allowed, &reading.topology, self.placement);
        for series in &mut self.series {
            series.ahead = false;
        }
        if keys.len() > MAX_SERIES_AHEAD {
            return;
        }
        let columns = reading.placed().0.len();
        let known = self.current.map_or(0, |n| self.series[n].known);
        for key in keys {
            let n = self.find_or_make(key, columns, Some(now));
            self.series[n].ahead = true;
            self.series[n].known |= known;
        }
    }

    fn find_or_make(&mut self, key: SeriesKey, columns: usize, touched: Option<Instant>) -> usize {
        let current = self.current.filter(|n| self.series[*n].key == key);
        let found = current.or_else(|| self.series.iter().position(|series| series.key == key));
        found.unwrap_or_else(|| {
            self.series.push(Series {
                key,
                totals: vec![0; columns].into(),
                known: 0,
                ahead: false,
                touched,
                merged: Box::default(),
            });
            self.series.len() - 1
        })
    }

    /// Whether a series is exposed: the vCPU runs there, may run there, or ran there within `ttl`.
    pub(crate) fn is_visible(&self, n: usize, ttl: Duration, now: Instant) -> bool {
        let series = &self.series[n];
        let is_recent = |touched| now.saturating_duration_since(touched) < ttl;
        let lives =
            self.current == Some(n) || series.ahead || series.touched.is_some_and(is_recent);
        lives && series.key.is_of(self.placement)
    }

    /// Changes the placement. Every series continues where it stopped: coarser series take over the
    /// totals of finer ones, and finer ones keep their totals, hidden, until the placement becomes
    /// finer again.
    pub(crate) fn set_placement(&mut self, placement: Placement) {
        for step in [Placement::NumaNode, Placement::None] {
            if self.placement < step && step <= placement {
                self.merge_into(step);
                self.placement = step;
            }
        }
        if placement < self.placement {
            let coarse = self.series.iter_mut().filter(|c| !c.key.is_finest());
            coarse.for_each(|series| (series.touched, series.ahead) = (None, false));
            (self.placement, self.current) = (placement, None);
        }
    }

    fn merge_into(&mut self, coarser: Placement) {
        let current = self.current.map(|n| self.series[n].key.coarsened(coarser));
        for n in 0..self.series.len() {
            let key = self.series[n].key;
            if key.is_of(self.placement) && key != key.coarsened(coarser) {
                self.merge(n, key.coarsened(coarser));
            }
        }
        self.current = current.and_then(|key| self.series.iter().position(|c| c.key == key));
    }

    fn merge(&mut self, n: usize, into: SeriesKey) {
        let columns = self.series[n].totals.len();
        let into = self.find_or_make(into, columns, None);
        let mut fine = self.series[n].clone();
        let coarse = &mut self.series[into];
        for (total, more) in coarse.totals.iter_mut().zip(fine.alone()) {
            *total = total.saturating_add(more);
        }
        coarse.known |= fine.known;
        coarse.ahead |= fine.ahead;
        coarse.touched = coarse.touched.max(fine.touched);
        fine.merged.clone_from(&fine.totals);
        fine.ahead = false;
        self.series[n] = fine;
    }

    /// Forgets the series that are finer than the current placement; they would start from 0 if
    /// needed again.
    pub(crate) fn forget_finer(&mut self) {
        let placement = self.placement;
        let current = self.current.map(|n| self.series[n].key);
        self.series
            .retain(|series| series.key == series.key.coarsened(placement));
        self.current = current.and_then(|key| self.series.iter().position(|c| c.key == key));
    }

    /// Marks columns as unknown: no source counts them for this vCPU now, and a constant total
    /// would look like no activity. Counted again, they continue where they stopped.
    pub(crate) fn withdraw(&mut self, placed: ColumnSet, vcpu: ColumnSet) {
        self.withdrawn |= placed;
        self.known &= !vcpu;
    }
}

/// The series keys of these CPUs.
fn keys_of(cpus: &[u32], topology: &Topology, placement: Placement) -> BTreeSet<SeriesKey> {
    let places = cpus.iter().filter_map(|cpu| topology.place(*cpu));
    let keys = places.map(|place| SeriesKey::new(Some(place), placement));
    keys.collect()
}

#[cfg(test)]
mod tests;
