//! Columns that sources feed, and the values of one vCPU in one tick.

use std::sync::Arc;

use crate::engine::total::possible;
use crate::host::topology::Topology;
use crate::metric::Metric;

/// Unit of a column's raw values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A count or a plain number.
    Count,
    /// Nanoseconds, exposed as seconds.
    Nanoseconds,
}

/// What a column's totals are kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Activity at the location where the vCPU ran: one total per (vCPU, location) series.
    Placed,
    /// One total per vCPU.
    Vcpu,
}

/// A metric with its fixed labels; each vCPU has a value for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub metric: &'static Metric,
    /// Labels besides vm, vcpu and location, such as `mode="guest"`.
    pub labels: Vec<(&'static str, String)>,
    /// Unit of the raw values.
    pub unit: Unit,
    /// What the totals are kept for.
    pub scope: Scope,
}

/// Number of a column within its scope, assigned by [`Columns::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnId {
    scope: Scope,
    n: u8,
}

impl ColumnId {
    /// Its position among the placed columns.
    pub(crate) fn placed(self) -> Option<usize> {
        (self.scope == Scope::Placed).then_some(self.n.into())
    }
}

/// All columns of the running exporter, fixed at startup.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Columns charged to locations.
    pub placed: Vec<Column>,
    /// Columns of the vCPU as a whole.
    pub vcpu: Vec<Column>,
    /// The placed columns of time and delay, of which the demand for each CPU is made.
    pub demand: Option<[ColumnId; 2]>,
    /// The placed columns of user-defined events, which the series limit drops first.
    pub user_events: ColumnSet,
}

/// A set of columns of one scope: bit n is column n.
pub(crate) type ColumnSet = u128;

/// Maximum number of columns in each scope, the width of [`ColumnSet`].
pub(crate) const MAX_COLUMNS: usize = 128;

impl Columns {
    /// Declares a column.
    ///
    /// # Panics
    /// With more than [`MAX_COLUMNS`] columns; the configuration bounds the number of columns.
    pub(crate) fn add(&mut self, column: Column) -> ColumnId {
        let scope = column.scope;
        let list = match scope {
            Scope::Placed => &mut self.placed,
            Scope::Vcpu => &mut self.vcpu,
        };
        assert!(
            list.len() < MAX_COLUMNS,
            "more than {MAX_COLUMNS} columns of one scope"
        );
        let n = list.len() as u8;
        list.push(column);
        ColumnId { scope, n }
    }

    /// The first placed column of a metric, if a source declared one.
    pub(crate) fn find_placed(&self, metric: &'static Metric) -> Option<ColumnId> {
        let n = self.placed.iter().position(|c| c.metric == metric)?;
        let (scope, n) = (Scope::Placed, u8::try_from(n).ok()?);
        Some(ColumnId { scope, n })
    }
}

/// Values of one vCPU in one tick, filled by its readers and added to the totals by the ledger.
///
/// A column without a value is unknown in this tick, which differs from 0.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The current topology, for readers to look up CPUs.
    pub topology: Arc<Topology>,
    /// Logical CPU that the thread last ran on, once the sched source has read it.
    pub cpu: Option<u32>,
    /// Whether the thread ran or waited to run since the last tick. The sched source reads first
    /// and clears it for an idle thread; the other sources are then skipped.
    pub active: bool,
    /// Online CPUs that the thread may run on; set only in a tick in which they changed.
    pub allowed: Option<Vec<u32>>,
    placed: Values,
    vcpu: Values,
}

#[derive(Debug, Default, Clone)]
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
            ..Self::default()
        }
    }

    fn add(&mut self, n: u8, delta: u64) {
        let sum = &mut self.numbers[usize::from(n)];
        *sum = sum.saturating_add(possible(delta));
        self.added |= 1 << n;
    }

    fn set(&mut self, n: u8, value: u64) {
        self.numbers[usize::from(n)] = value;
        self.set |= 1 << n;
    }

    fn clear(&mut self) {
        self.numbers.fill(0);
        self.added = 0;
        self.set = 0;
        self.withdrawn = 0;
    }
}

impl Reading {
    /// An empty reading for these columns and this topology.
    pub(crate) fn new(columns: &Columns, topology: Arc<Topology>) -> Self {
        Self {
            topology,
            cpu: None,
            active: true,
            allowed: None,
            placed: Values::new(columns.placed.len()),
            vcpu: Values::new(columns.vcpu.len()),
        }
    }

    /// Clears the values for the next vCPU, without allocation.
    pub fn clear(&mut self) {
        self.cpu = None;
        self.active = true;
        self.allowed = None;
        self.placed.clear();
        self.vcpu.clear();
    }

    /// Adds the delta since the last tick to a counter; 0 makes it known.
    pub(crate) fn add(&mut self, column: ColumnId, delta: u64) {
        self.values_mut(column.scope).add(column.n, delta);
    }

    /// Sets a gauge of the vCPU.
    ///
    /// # Panics
    /// On a placed column: a gauge cannot be charged to a location.
    pub(crate) fn set(&mut self, column: ColumnId, value: u64) {
        match column.scope {
            Scope::Placed => unreachable!("a gauge cannot be charged to a location"),
            Scope::Vcpu => self.vcpu.set(column.n, value),
        }
    }

    /// Marks a column as unknown. A counter keeps its totals, which are exposed again once
    /// something is added.
    pub(crate) fn withdraw(&mut self, column: ColumnId) {
        self.values_mut(column.scope).withdrawn |= 1 << column.n;
    }

    fn values_mut(&mut self, scope: Scope) -> &mut Values {
        match scope {
            Scope::Placed => &mut self.placed,
            Scope::Vcpu => &mut self.vcpu,
        }
    }

    /// The withdrawn placed columns.
    pub(crate) fn withdrawn(&self) -> ColumnSet {
        self.placed.withdrawn
    }

    /// The withdrawn vCPU columns.
    pub(crate) fn withdrawn_of_vcpu(&self) -> ColumnSet {
        self.vcpu.withdrawn
    }

    /// The value of a column, or `None` if it is unknown. For tests.
    pub(crate) fn get(&self, column: ColumnId) -> Option<u64> {
        let n = column.n;
        let values = match column.scope {
            Scope::Placed => &self.placed,
            Scope::Vcpu => &self.vcpu,
        };
        ((values.added | values.set) >> n & 1 == 1).then(|| values.numbers[usize::from(n)])
    }

    /// Deltas of the placed columns, and which of them are known.
    pub fn placed(&self) -> (&[u64], ColumnSet) {
        (&self.placed.numbers, self.placed.added)
    }

    /// Values of the vCPU columns: which were added to (counters) and which were set (gauges).
    pub fn vcpu(&self) -> (&[u64], ColumnSet, ColumnSet) {
        (&self.vcpu.numbers, self.vcpu.added, self.vcpu.set)
    }
}
