//! Deltas between two snapshots of the same exporter.

use std::collections::HashMap;
use std::time::Duration;

use super::{metrics, ColumnRow, CpuRow, FactRow, Snapshot, VcpuRow};
use crate::discover::VmKey;
use crate::engine::demand::OfCpu;
use crate::metric::{FactValue, Metric};

/// Selects counters of a vCPU: the columns of a metric, all of them or those with given labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counter {
    metric: &'static Metric,
    labels: [Option<(&'static str, &'static str)>; 2],
}

impl Counter {
    /// All columns of a metric.
    pub(crate) const fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            labels: [None; 2],
        }
    }

    /// Only the columns whose fixed label `name` is `value`. At most two labels; a third replaces
    /// the second.
    pub(crate) const fn with(mut self, name: &'static str, value: &'static str) -> Self {
        let n = if self.labels[0].is_none() { 0 } else { 1 };
        self.labels[n] = Some((name, value));
        self
    }

    fn is(&self, column: &ColumnRow) -> bool {
        let mut labels = self.labels.iter().flatten();
        column.metric == self.metric
            && labels.all(|(name, value)| column.labels.get(name) == Some(value))
    }

    fn among(&self, columns: &[ColumnRow]) -> Vec<usize> {
        let numbered = columns.iter().enumerate();
        let mine = numbered.filter(|(_, column)| self.is(column));
        mine.map(|(n, _)| n).collect()
    }
}

/// Column positions of a [`Counter`], looked up once for all vCPUs.
#[derive(Debug)]
pub(crate) struct Columns {
    placed: Vec<usize>,
    own: Vec<usize>,
}

/// Two snapshots, with an index from the later to the earlier one.
#[derive(Debug)]
pub(crate) struct Delta<'a> {
    before: &'a Snapshot,
    now: &'a Snapshot,
    vcpus: HashMap<(VmKey, u32), usize>,
}

impl<'a> Delta<'a> {
    /// The deltas since `before`.
    pub(crate) fn new(before: &'a Snapshot, now: &'a Snapshot) -> Self {
        let vcpus = before.vcpus.iter().zip(0..);
        Self {
            before,
            now,
            vcpus: vcpus.map(|(row, n)| (key(row), n)).collect(),
        }
    }

    /// Time between the two snapshots.
    pub(crate) fn span(&self) -> Duration {
        let (now, before) = (self.now.taken_mono, self.before.taken_mono);
        now.saturating_duration_since(before)
    }

    /// The column positions of `counter`.
    pub(crate) fn columns(&self, counter: &Counter) -> Columns {
        Columns {
            placed: counter.among(&self.now.placed),
            own: counter.among(&self.now.per_vcpu),
        }
    }

    /// Delta of the counter for vCPU `n`, summed over its columns, in their raw unit. `None` if it
    /// is unknown or if the vCPU is new; a new thread makes the vCPU new.
    pub(crate) fn of_vcpu(&self, n: usize, columns: &Columns) -> Option<u64> {
        let before = self.earlier(n)?;
        let placed = columns.placed.iter().map(|&c| {
            let total = vcpu_total(self.now, n, c)?;
            // A column that was unknown before had not started to count.
            let earlier = vcpu_total(self.before, before, c).unwrap_or(0);
            Some(total.saturating_sub(earlier))
        });
        let own = columns.own.iter().map(|&c| {
            let earlier = vcpu_value(self.before, before, c)?;
            Some(vcpu_value(self.now, n, c)?.saturating_sub(earlier))
        });
        placed.chain(own).flatten().reduce(u64::saturating_add)
    }

    /// The delta of vCPU `n` by series, for counters charged to locations. A series that was not
    /// visible before is new or returned with its old total: it gets at most what the other series
    /// leave of the vCPU's delta.
    pub(crate) fn by_series(&self, n: usize, columns: &Columns) -> Vec<(usize, u64)> {
        let (Some(all), Some(vcpu)) = (self.of_vcpu(n, columns), self.now.vcpus.get(n)) else {
            return Vec::new();
        };
        let earlier = self.earlier(n).and_then(|n| self.before.vcpus.get(n));
        let total = |snapshot: &Snapshot, series| {
            let totals = columns.placed.iter();
            let totals = totals.filter_map(|&c| series_total(snapshot, series, c));
            totals.reduce(u64::saturating_add)
        };
        let known = vcpu.series.clone().filter_map(|series| {
            let now = total(self.now, series)?;
            let key = self.now.series.get(series)?.key;
            let mut earlier = earlier.map_or(0..0, |vcpu| vcpu.series.clone());
            let same = |n: usize| self.before.series.get(n).is_some_and(|s| s.key == key);
            let before = earlier.find(|&n| same(n));
            let before = before.map(|n| total(self.before, n).unwrap_or(0));
            Some((series, now, before))
        });
        let known: Vec<_> = known.collect();
        let increase =
            |&(_, now, before): &(usize, u64, Option<u64>)| Some(now.saturating_sub(before?));
        let mut left = all.saturating_sub(known.iter().filter_map(increase).sum());
        let share = |series: &(usize, u64, Option<u64>)| {
            let increase = increase(series).unwrap_or_else(|| {
                let mine = series.1.min(left);
                left -= mine;
                mine
            });
            (series.0, increase)
        };
        known.iter().map(share).collect()
    }

    /// Delta of the vCPUs' demand for each logical CPU, in nanoseconds.
    pub(crate) fn demand(&self) -> impl Iterator<Item = (&'a CpuRow, OfCpu)> + '_ {
        let before = self.before.demand.iter();
        let before: HashMap<u32, OfCpu> = before.map(|row| (row.cpu, row.demand)).collect();
        self.now.demand.iter().filter_map(move |row| {
            let earlier = before.get(&row.cpu)?;
            let increase = OfCpu {
                time: row.demand.time.saturating_sub(earlier.time),
                delay: row.demand.delay.saturating_sub(earlier.delay),
            };
            Some((row, increase))
        })
    }

    /// Position of vCPU `n` in the earlier snapshot, if its thread is the same.
    fn earlier(&self, n: usize) -> Option<usize> {
        let now = self.now.vcpus.get(n)?;
        let before = *self.vcpus.get(&key(now))?;
        let same_thread = self.before.vcpus.get(before)?.vcpu.tid == now.vcpu.tid;
        same_thread.then_some(before)
    }
}

fn key(row: &VcpuRow) -> (VmKey, u32) {
    (row.vm, row.vcpu.index)
}

fn vcpu_total(snapshot: &Snapshot, vcpu: usize, column: usize) -> Option<u64> {
    let known = snapshot.vcpus.get(vcpu)?.known_totals;
    let at = vcpu * snapshot.placed.len() + column;
    (known >> column & 1 == 1).then(|| snapshot.vcpu_totals.get(at).copied())?
}

fn vcpu_value(snapshot: &Snapshot, vcpu: usize, column: usize) -> Option<u64> {
    let known = snapshot.vcpus.get(vcpu)?.known;
    let at = vcpu * snapshot.per_vcpu.len() + column;
    (known >> column & 1 == 1).then(|| snapshot.vcpu_values.get(at).copied())?
}

fn series_total(snapshot: &Snapshot, series: usize, column: usize) -> Option<u64> {
    let known = snapshot.series.get(series)?.known;
    let at = series * snapshot.placed.len() + column;
    (known >> column & 1 == 1).then(|| snapshot.series_totals.get(at).copied())?
}

/// Delta of a fact between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FactDelta {
    /// In the metric's unit.
    pub by: f64,
    /// Time between the two readings, accurate to one tick.
    pub over: Duration,
}

impl FactDelta {
    /// The delta per second.
    pub(crate) fn rate(self) -> f64 {
        self.by / self.over.as_secs_f64()
    }
}

/// The rows of one metric; `facts` is in catalog order.
pub(crate) fn facts_of<'a>(facts: &'a [FactRow], metric: &'static Metric) -> &'a [FactRow] {
    let wanted = metrics::position(metric);
    let rest = &facts[facts.partition_point(|row| metrics::position(row.metric) < wanted)..];
    &rest[..rest.partition_point(|row| metrics::position(row.metric) == wanted)]
}

/// The facts of a counter that were read at least twice, each with its delta.
pub(crate) fn fact_deltas<'a>(
    snapshot: &'a Snapshot,
    metric: &'static Metric,
) -> impl Iterator<Item = (&'a FactRow, FactDelta)> {
    let before = facts_of(&snapshot.facts_before, metric).iter();
    let before: HashMap<&str, &FactRow> = before.map(|row| (row.labels.text(), row)).collect();
    let now = facts_of(&snapshot.facts, metric).iter();
    now.filter_map(move |row| {
        let earlier = before.get(row.labels.text())?;
        let over = row.since.saturating_duration_since(earlier.since);
        let by = number(&row.value)? - number(&earlier.value)?;
        (!over.is_zero() && by >= 0.0).then_some((row, FactDelta { by, over }))
    })
}

/// Value of a fact in the metric's unit; `None` for a histogram.
pub(crate) fn number(value: &FactValue) -> Option<f64> {
    Some(value.sample().ok()?.as_f64())
}

#[cfg(test)]
mod tests;
