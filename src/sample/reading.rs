//! Columns: what the sources feed, and one vCPU's values of one tick.

use std::sync::Arc;

use super::total::possible;
use crate::host::topology::Topology;

/// What a column's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things, or a plain number.
    Count,
    /// Nanoseconds, shown as seconds.
    Nanoseconds,
}

/// What a column's totals belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Activity, charged to the place where the vCPU ran: one total for each (vCPU, place).
    Placed,
    /// A total of the vCPU as such.
    Vcpu,
}

/// One stream of numbers of a vCPU: a metric and its fixed labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Full Prometheus name, an entry of the catalogue: `kvm_vcpu_cycles_total`.
    pub metric: &'static str,
    /// Labels beyond vm, vcpu and place, such as `mode="guest"`.
    pub labels: Vec<(&'static str, String)>,
    /// Unit of the raw numbers.
    pub unit: Unit,
    /// What it belongs to.
    pub scope: Scope,
}

/// A column's number within its scope; given out by [`Columns::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnId {
    scope: ScopeIndex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ScopeIndex {
    Placed(u8),
    Vcpu(u8),
}

/// All columns of a running exporter, fixed when it starts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Columns charged to places.
    pub placed: Vec<Column>,
    /// Columns of the vCPU as such.
    pub vcpu: Vec<Column>,
}

/// A set of column numbers of one scope: bit n is column n.
pub type ColumnSet = u128;

/// At most this many columns in each scope: the width of [`ColumnSet`].
pub const MAX_COLUMNS: usize = 128;

impl Columns {
    /// Declares a column.
    ///
    /// # Panics
    /// Beyond [`MAX_COLUMNS`]; the number of columns is bounded by the configuration's limits.
    pub fn add(&mut self, column: Column) -> ColumnId {
        let list = match column.scope {
            Scope::Placed => &mut self.placed,
            Scope::Vcpu => &mut self.vcpu,
        };
        assert!(
            list.len() < MAX_COLUMNS,
            "more than {MAX_COLUMNS} columns of one scope"
        );
        let n = list.len() as u8;
        let scope = match column.scope {
            Scope::Placed => ScopeIndex::Placed(n),
            Scope::Vcpu => ScopeIndex::Vcpu(n),
        };
        list.push(column);
        ColumnId { scope }
    }

    /// The first placed column of a metric, if a source has declared one.
    pub fn find_placed(&self, metric: &str) -> Option<ColumnId> {
        let n = self.placed.iter().position(|c| c.metric == metric)?;
        let scope = ScopeIndex::Placed(u8::try_from(n).ok()?);
        Some(ColumnId { scope })
    }
}

/// One vCPU's values of one tick, filled by its readers and charged by the ledger.
///
/// A column that nobody wrote is unknown in this tick, which is not the same as 0.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The machine's CPUs now, for the readers to look up what they found.
    pub topology: Arc<Topology>,
    /// Logical CPU the thread last ran on, once the sched source has read it.
    pub cpu: Option<u32>,
    /// Whether the thread has run, or waited to run, since the last tick. The sched source reads
    /// first and clears it; the other sources are then not asked.
    pub active: bool,
    /// The online CPUs the thread may run on, set only in a tick in which they changed.
    pub allowed: Option<Vec<u32>>,
    placed: Values,
    vcpu: Values,
}

#[derive(Debug, Clone)]
struct Values {
    numbers: Box<[u64]>,
    added: ColumnSet,
    set: ColumnSet,
    withdrawn: ColumnSet,
}

impl Values {
    fn new(len: usize) -> Self {
        Self {
            numbers: vec![0; len].into(),
            added: 0,
            set: 0,
            withdrawn: 0,
        }
    }

    fn add(&mut self, n: u8, delta: u64) {
        let cell = &mut self.numbers[usize::from(n)];
        *cell = cell.saturating_add(possible(delta));
        self.added |= 1 << n;
    }

    fn set(&mut self, n: u8, value: u64) {
        self.numbers[usize::from(n)] = value;
        self.set |= 1 << n;
    }

    fn withdraw(&mut self, n: u8) {
        self.withdrawn |= 1 << n;
    }

    fn clear(&mut self) {
        self.numbers.fill(0);
        self.added = 0;
        self.set = 0;
        self.withdrawn = 0;
    }
}

impl Reading {
    /// An empty reading for these columns on this machine.
    pub fn new(columns: &Columns, topology: Arc<Topology>) -> Self {
        Self {
            topology,
            cpu: None,
            active: true,
            allowed: None,
            placed: Values::new(columns.placed.len()),
            vcpu: Values::new(columns.vcpu.len()),
        }
    }

    /// Empties it for the next vCPU; nothing is allocated.
    pub fn clear(&mut self) {
        self.cpu = None;
        self.active = true;
        self.allowed = None;
        self.placed.clear();
        self.vcpu.clear();
    }

    /// Adds to a counter what happened since the last tick; 0 makes it known.
    pub fn add(&mut self, column: ColumnId, delta: u64) {
        match column.scope {
            ScopeIndex::Placed(n) => self.placed.add(n, delta),
            ScopeIndex::Vcpu(n) => self.vcpu.add(n, delta),
        }
    }

    /// Sets a gauge of the vCPU.
    ///
    /// # Panics
    /// On a placed column: a gauge cannot be charged to a place.
    pub fn set(&mut self, column: ColumnId, value: u64) {
        match column.scope {
            ScopeIndex::Placed(_) => unreachable!("a gauge cannot be charged to a place"),
            ScopeIndex::Vcpu(n) => self.vcpu.set(n, value),
        }
    }

    /// Says that a column is unknown after all. The totals of a counter stay, and are shown again
    /// once something is added.
    pub fn withdraw(&mut self, column: ColumnId) {
        match column.scope {
            ScopeIndex::Placed(n) => self.placed.withdraw(n),
            ScopeIndex::Vcpu(n) => self.vcpu.withdraw(n),
        }
    }

    /// The placed columns that are withdrawn.
    pub fn withdrawn(&self) -> ColumnSet {
        self.placed.withdrawn
    }

    /// The vCPU columns that are withdrawn.
    pub fn withdrawn_of_vcpu(&self) -> ColumnSet {
        self.vcpu.withdrawn
    }

    /// What was added to a column, or `None` while it is unknown. For tests.
    pub fn get(&self, column: ColumnId) -> Option<u64> {
        let (values, n) = match column.scope {
            ScopeIndex::Placed(n) => (&self.placed, n),
            ScopeIndex::Vcpu(n) => (&self.vcpu, n),
        };
        ((values.added | values.set) >> n & 1 == 1).then(|| values.numbers[usize::from(n)])
    }

    /// The placed columns' deltas and which of them are known.
    pub fn placed(&self) -> (&[u64], ColumnSet) {
        (&self.placed.numbers, self.placed.added)
    }

    /// The vCPU columns' values: which were added to (counters) and which were set (gauges).
    pub fn vcpu(&self) -> (&[u64], ColumnSet, ColumnSet) {
        (&self.vcpu.numbers, self.vcpu.added, self.vcpu.set)
    }
}
