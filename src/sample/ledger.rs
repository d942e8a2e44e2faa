//! The ledger: running totals, one cell for each (vCPU, place).
//!
//! What a vCPU did since the last tick is charged to the place where it is found, and each cell
//! is a monotonic series of its own. So no series ever goes down or moves, and the sum over the
//! cells is the vCPU's exact total.

use std::time::{Duration, Instant};

use super::reading::{ColumnSet, Columns, Reading};
use super::Whereabouts;
use crate::config::Placement;
use crate::host::topology::{Place, Topology};

/// Cells are made ahead for a vCPU that may run on at most this many cores: `rate()` cannot see
/// an increase before a series' first scrape, and a series that starts at 0 hides none.
pub const MAX_CELLS_AHEAD: usize = 8;

/// Which place labels a cell carries, and which cell a place belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CellKey {
    /// `physical_package_id` and `core_id`, unless coarser.
    pub core: Option<(i32, i32)>,
    /// NUMA node, unless coarser still.
    pub numa_node: Option<u32>,
}

impl CellKey {
    /// The cell of a place. A place that is not known (a CPU that came online a moment ago)
    /// carries no place labels.
    pub fn of(place: Option<Place>, placement: Placement) -> Self {
        let fine = Self {
            core: place.map(|p| (p.package, p.core)),
            numa_node: place.map(|p| p.numa_node),
        };
        fine.coarsened(placement)
    }

    fn coarsened(self, placement: Placement) -> Self {
        Self {
            core: self.core.filter(|_| placement == Placement::Core),
            numa_node: self.numa_node.filter(|_| placement != Placement::None),
        }
    }
}

/// What one vCPU did at one place.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The place.
    pub key: CellKey,
    /// Total of each placed column.
    pub totals: Box<[u64]>,
    /// Which columns are known here, but for those that are withdrawn.
    known: ColumnSet,
    /// Made ahead, because the vCPU may run here: does not age while that holds.
    pub ahead: bool,
    /// When something was last charged here.
    touched: Instant,
}

/// All totals of one vCPU. Outlives its thread: a vCPU that gets a new thread goes on where the
/// old one stopped.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its cells, in the order in which they were first needed.
    pub cells: Vec<Cell>,
    /// Value of each column of the vCPU as such.
    pub values: Box<[u64]>,
    /// Which of them are known.
    pub known: ColumnSet,
    /// Where it was found last; `None` while nobody knows where that CPU lies.
    pub whereabouts: Option<Whereabouts>,
    /// Index of the cell charged last.
    current: Option<usize>,
    /// Placed columns that are unknown now, whatever was charged before.
    withdrawn: ColumnSet,
}

impl Account {
    /// An empty account.
    pub fn new(columns: &Columns) -> Self {
        Self {
            cells: Vec::new(),
            values: vec![0; columns.vcpu.len()].into(),
            known: 0,
            whereabouts: None,
            current: None,
            withdrawn: 0,
        }
    }

    /// Which placed columns are known in a cell.
    pub fn known_in(&self, cell: &Cell) -> ColumnSet {
        cell.known & !self.withdrawn
    }

    /// Charges one tick's reading, taken at `now`.
    pub fn charge(&mut self, reading: &Reading, placement: Placement, now: Instant) {
        self.keep_values(reading);
        if let Some(allowed) = &reading.allowed {
            self.make_cells_ahead(reading, allowed, placement, now);
        }
        let Some(cpu) = reading.cpu else { return };
        let place = reading.topology.place(cpu);
        self.whereabouts = place.map(|place| Whereabouts { cpu, place });
        let (deltas, added) = reading.placed();
        self.withdrawn = (self.withdrawn | reading.withdrawn()) & !added;
        if added == 0 {
            return;
        }
        let n = self.find_or_make(CellKey::of(place, placement), deltas.len(), now);
        self.current = Some(n);
        let cell = &mut self.cells[n];
        for (total, delta) in cell.totals.iter_mut().zip(deltas) {
            *total = total.saturating_add(*delta);
        }
        cell.known |= added;
        cell.touched = now;
        // A column that is known is known at every place, there with 0.
        for cell in self.cells.iter_mut().filter(|cell| cell.ahead) {
            cell.known |= added;
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
        self.known |= added | set;
    }

    fn make_cells_ahead(
        &mut self,
        reading: &Reading,
        allowed: &[u32],
        placement: Placement,
        now: Instant,
    ) {
        let keys = cells_of(allowed, &reading.topology, placement);
        for cell in &mut self.cells {
            cell.ahead = false;
        }
        if keys.len() > MAX_CELLS_AHEAD {
            return;
        }
        let columns = reading.placed().0.len();
        let known = self.current.map_or(0, |n| self.cells[n].known);
        for key in keys {
            let n = self.find_or_make(key, columns, now);
            self.cells[n].ahead = true;
            self.cells[n].known |= known;
        }
    }

    fn find_or_make(&mut self, key: CellKey, columns: usize, now: Instant) -> usize {
        let current = self.current.filter(|n| self.cells[*n].key == key);
        let found = current.or_else(|| self.cells.iter().position(|cell| cell.key == key));
        found.unwrap_or_else(|| {
            self.cells.push(Cell {
                key,
                totals: vec![0; columns].into(),
                known: 0,
                ahead: false,
                touched: now,
            });
            self.cells.len() - 1
        })
    }

    /// Whether a cell is part of the exposition: the vCPU is there, may go there, or was there
    /// within `ttl`.
    pub fn is_visible(&self, n: usize, ttl: Duration, now: Instant) -> bool {
        let cell = &self.cells[n];
        self.current == Some(n) || cell.ahead || now.saturating_duration_since(cell.touched) < ttl
    }

    /// Merges cells that are the same at a coarser placement; nothing of the totals is lost.
    pub fn coarsen(&mut self, placement: Placement) {
        let current = self.current.map(|n| self.cells[n].key.coarsened(placement));
        let mut merged: Vec<Cell> = Vec::new();
        for mut cell in self.cells.drain(..) {
            cell.key = cell.key.coarsened(placement);
            match merged.iter_mut().find(|m| m.key == cell.key) {
                Some(into) => into.absorb(&cell),
                None => merged.push(cell),
            }
        }
        self.cells = merged;
        self.current = current.and_then(|key| self.cells.iter().position(|c| c.key == key));
    }
}

impl Cell {
    fn absorb(&mut self, other: &Cell) {
        for (total, more) in self.totals.iter_mut().zip(&other.totals) {
            *total = total.saturating_add(*more);
        }
        self.known |= other.known;
        self.ahead |= other.ahead;
        self.touched = self.touched.max(other.touched);
    }
}

/// The cells these CPUs belong to, each once, in order.
fn cells_of(cpus: &[u32], topology: &Topology, placement: Placement) -> Vec<CellKey> {
    let mut keys: Vec<CellKey> = cpus
        .iter()
        .filter_map(|cpu| topology.place(*cpu))
        .map(|place| CellKey::of(Some(place), placement))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::fixture;
    use crate::sample::reading::{Column, ColumnId, Scope, Unit};
    use proptest::prelude::*;
    use std::sync::Arc;

    const TTL: Duration = Duration::from_secs(600);

    /// A column of each scope, and a machine of `cores` cores of two threads, two cores a node.
    fn setup(cores: i32) -> (ColumnId, ColumnId, Columns, Reading) {
        let mut columns = Columns::default();
        let mut add = |scope| {
            columns.add(Column {
                metric: "kvm_vcpu_time_seconds_total",
                labels: Vec::new(),
                unit: Unit::Count,
                scope,
            })
        };
        let (placed, vcpu) = (add(Scope::Placed), add(Scope::Vcpu));
        let cpus = (0..cores * 2).map(|id| fixture::cpu(id as u32, id / 2, id as u32 / 4));
        let topology = Arc::new(Topology {
            cpus: cpus.collect(),
        });
        let reading = Reading::new(&columns, topology);
        (placed, vcpu, columns, reading)
    }

    fn totals(account: &Account) -> Vec<(Option<(i32, i32)>, u64)> {
        let cells = account.cells.iter();
        cells.map(|c| (c.key.core, c.totals[0])).collect()
    }

    #[test]
    fn a_withdrawn_column_is_unknown_everywhere_and_keeps_its_total() {
        let (column, _, columns, mut reading) = setup(2);
        let mut account = Account::new(&columns);
        let mut tick = |cpu: u32, delta: Option<u64>| {
            reading.clear();
            reading.cpu = Some(cpu);
            match delta {
                Some(delta) => reading.add(column, delta),
                None => reading.withdraw(column),
            }
            account.charge(&reading, Placement::Core, Instant::now());
            let cells = account.cells.iter();
            let known = cells.map(|c| (account.known_in(c), c.totals[0]));
            known.collect::<Vec<_>>()
        };
        tick(0, Some(5));
        assert_eq!(tick(2, Some(3)), [(1, 5), (1, 3)]);
        assert_eq!(tick(0, None), [(0, 5), (0, 3)]);
        assert_eq!(tick(0, None), [(0, 5), (0, 3)]);
        assert_eq!(tick(2, Some(0)), [(1, 5), (1, 3)]);
    }

    #[test]
    fn what_was_done_is_charged_to_the_place_at_the_ticks_end() {
        let (column, _, columns, mut reading) = setup(4);
        let mut account = Account::new(&columns);
        for (cpu, delta) in [(0, 5), (7, 3), (1, 2)] {
            reading.clear();
            reading.cpu = Some(cpu);
            reading.add(column, delta);
            account.charge(&reading, Placement::Core, Instant::now());
        }
        // CPUs 0 and 1 are threads of one core.
        assert_eq!(totals(&account), [(Some((0, 0)), 7), (Some((0, 3)), 3)]);
        assert_eq!(account.whereabouts.unwrap().cpu, 1);
    }

    #[test]
    fn reading_that_cannot_be_is_skipped_and_no_total_wraps() {
        let (column, vcpu, columns, mut reading) = setup(1);
        let mut account = Account::new(&columns);
        for delta in [5, u64::MAX, 3, u64::MAX - 3] {
            reading.clear();
            reading.cpu = Some(0);
            reading.add(column, delta);
            reading.add(vcpu, delta);
            account.charge(&reading, Placement::Core, Instant::now());
        }
        assert_eq!(totals(&account), [(Some((0, 0)), 8)]);
        assert_eq!(account.values[0], 8);
        account.cells[0].totals[0] = u64::MAX - 1;
        reading.clear();
        reading.cpu = Some(0);
        reading.add(column, 7);
        account.charge(&reading, Placement::Core, Instant::now());
        assert_eq!(
            totals(&account)[0].1,
            u64::MAX,
            "it does not begin anew at 0"
        );
    }

    #[test]
    fn a_cpu_nobody_knows_yet_has_a_cell_without_place() {
        let (column, _, columns, mut reading) = setup(1);
        let mut account = Account::new(&columns);
        for cpu in [0, 99] {
            reading.clear();
            reading.cpu = Some(cpu);
            reading.add(column, 5);
            account.charge(&reading, Placement::Core, Instant::now());
        }
        assert_eq!(totals(&account), [(Some((0, 0)), 5), (None, 5)]);
        assert_eq!(account.whereabouts, None, "no longer where it was");
    }

    #[test]
    fn few_allowed_cores_have_cells_ahead_that_do_not_age() {
        let (column, _, columns, mut reading) = setup(4);
        let mut account = Account::new(&columns);
        let start = Instant::now();
        reading.cpu = Some(0);
        reading.allowed = Some(vec![0, 1, 2]);
        reading.add(column, 5);
        account.charge(&reading, Placement::Core, start);
        assert_eq!(totals(&account), [(Some((0, 0)), 5), (Some((0, 1)), 0)]);
        assert_eq!(account.cells[1].known, 1, "known to be 0, not unknown");
        assert!(account.is_visible(1, TTL, start + 2 * TTL));
        reading.allowed = Some(vec![0]);
        account.charge(&reading, Placement::Core, start);
        assert!(!account.is_visible(1, TTL, start + 2 * TTL));
    }

    #[test]
    fn many_allowed_cores_have_none() {
        let (column, _, columns, mut reading) = setup(9);
        let mut account = Account::new(&columns);
        reading.cpu = Some(0);
        reading.allowed = Some((0..18).collect());
        reading.add(column, 5);
        account.charge(&reading, Placement::Core, Instant::now());
        assert_eq!(account.cells.len(), 1);
    }

    #[test]
    fn a_cell_that_was_left_hides_after_its_time_and_keeps_its_total() {
        let (column, _, columns, mut reading) = setup(9);
        let mut account = Account::new(&columns);
        let start = Instant::now();
        let mut tick = |cpu, at| {
            reading.clear();
            reading.cpu = Some(cpu);
            reading.add(column, 5);
            account.charge(&reading, Placement::Core, at);
            account.clone()
        };
        tick(0, start);
        let account = tick(2, start + TTL);
        assert!(!account.is_visible(0, TTL, start + TTL));
        assert!(account.is_visible(1, TTL, start + 9 * TTL), "it is there");
        let account = tick(0, start + 2 * TTL);
        assert!(account.is_visible(0, TTL, start + 2 * TTL));
        assert_eq!(account.cells[0].totals[0], 10);
    }

    #[test]
    fn values_of_the_vcpu_are_added_or_set_and_stay() {
        let (_, column, columns, mut reading) = setup(1);
        let mut account = Account::new(&columns);
        let now = Instant::now();
        assert_eq!(account.known, 0);
        reading.add(column, 2);
        account.charge(&reading, Placement::Core, now);
        account.charge(&reading, Placement::Core, now);
        assert_eq!(account.values[0], 4);
        reading.clear();
        reading.set(column, 9);
        account.charge(&reading, Placement::Core, now);
        reading.clear();
        account.charge(&reading, Placement::Core, now);
        assert_eq!((account.values[0], account.known), (9, 1));
    }

    #[test]
    fn coarsening_loses_nothing() {
        let (column, _, columns, mut reading) = setup(4);
        let mut account = Account::new(&columns);
        let now = Instant::now();
        for cpu in [0, 2, 4, 6] {
            reading.clear();
            reading.cpu = Some(cpu);
            reading.add(column, 1 << cpu);
            account.charge(&reading, Placement::Core, now);
        }
        account.coarsen(Placement::NumaNode);
        let nodes: Vec<_> = account
            .cells
            .iter()
            .map(|c| (c.key.numa_node, c.totals[0]))
            .collect();
        assert_eq!(nodes, [(Some(0), 5), (Some(1), 80)]);
        account.charge(&reading, Placement::NumaNode, now);
        assert_eq!(account.cells[1].totals[0], 144);
        account.coarsen(Placement::None);
        assert_eq!(totals(&account), [(None, 149)]);
    }

    proptest! {
        /// The two promises: no total ever goes down, and their sum is what was done.
        #[test]
        fn totals_only_grow_and_add_up(
            steps in prop::collection::vec((0u32..20, 0u64..1000, any::<bool>()), 1..60)
        ) {
            let (column, _, columns, mut reading) = setup(9);
            let mut account = Account::new(&columns);
            let mut done = 0;
            for (cpu, delta, bind) in steps {
                reading.clear();
                reading.cpu = Some(cpu);
                reading.allowed = bind.then(|| vec![cpu, cpu + 2]);
                reading.add(column, delta);
                let before = totals(&account);
                account.charge(&reading, Placement::Core, Instant::now());
                done += delta;
                for (was, is) in before.iter().zip(totals(&account)) {
                    prop_assert!(was.0 == is.0 && was.1 <= is.1);
                }
                prop_assert_eq!(totals(&account).iter().map(|t| t.1).sum::<u64>(), done);
            }
        }
    }
}
