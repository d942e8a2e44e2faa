//! The totals that each receiver of deltas has received. A delta is counted from the last push that
//! arrived, so the next push includes what a failed push contained.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::metric::Metric;
use crate::snapshot::{Labels, Row, Value, VmKey};

/// Identifies a series: a keyed hash. With a million series, two collide on one of ten million
/// hosts, and both would then be wrong.
type Key = u64;

/// The identity of a series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<'a> {
    pub(super) metric: &'static Metric,
    pub(super) row: Row<'a>,
    /// Labels besides those of the row.
    pub(super) fixed: &'a Labels,
    /// Index of a histogram's bucket; the sum follows the last bucket. 0 for a number.
    pub(super) part: usize,
    /// Start time of the series. A VM that restarts under its name starts a new series.
    pub(super) start: u64,
}

/// The totals of one series after its request has arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingDelta {
    key: Key,
    delivered: u64,
    at: u64,
}

/// One entry; there may be hundreds of thousands.
#[derive(Debug)]
struct Series {
    /// The last total that arrived: the integer, or the bits of the float.
    delivered: u64,
    /// Time of that total: the next delta starts here.
    at: u64,
    /// Hash of the VM; 0 for series that live as long as the exporter.
    vm: u32,
    /// The last round that contained the series.
    round: u32,
}

/// All series of one receiver.
#[derive(Debug)]
pub(super) struct Ledger {
    series: HashMap<Key, Series>,
    hasher: RandomState,
    /// Deltas are reported from this time on.
    since: u64,
    round: u32,
}

impl Ledger {
    /// A ledger that reports deltas from `since` on (nanoseconds since the Unix epoch).
    pub(super) fn new(since: u64) -> Self {
        Self {
            series: HashMap::new(),
            hasher: RandomState::new(),
            since,
            round: 0,
        }
    }

    /// The delta of a series up to `now`, and its start. `None` if the series is new and its start
    /// is before the exporter's: what a VM did earlier is not an increase that the exporter saw.
    pub(super) fn increment(
        &mut self,
        id: Id<'_>,
        now: u64,
        total: Value,
    ) -> Option<(Value, u64, PendingDelta)> {
        let (row, fixed) = (id.row.labels.text(), id.fixed.text());
        let unique = (id.metric.name, row, fixed, id.part, id.start);
        let key = self.hasher.hash_one(unique);
        let (since, round, hasher) = (self.since, self.round, &self.hasher);
        let series = self.series.entry(key).or_insert_with(|| {
            let ours = id.start >= since;
            Series {
                delivered: if ours { 0 } else { bits(total) },
                at: if ours { id.start } else { now },
                vm: id.row.subject.vm().map_or(0, |vm| short(hasher, vm)),
                round,
            }
        });
        series.round = round;
        if series.at >= now {
            return None;
        }
        let Some(increment) = beyond(total, series.delivered) else {
            // A total does not decrease; if it does, restart from the new value.
            (series.delivered, series.at) = (bits(total), now);
            return None;
        };
        let pending = PendingDelta {
            key,
            delivered: bits(total),
            at: now,
        };
        Some((increment, series.at, pending))
    }

    /// Records the totals of a request that has arrived.
    pub(super) fn deliver(&mut self, pending_deltas: Vec<PendingDelta>) {
        for PendingDelta { key, delivered, at } in pending_deltas {
            if let Some(series) = self.series.get_mut(&key) {
                (series.delivered, series.at) = (delivered, at);
            }
        }
    }

    /// Ends a visit of all series. A series that was not visited may return with its total, for
    /// example when a vCPU returns to a core, and is kept until its VM is gone. `vms` are the
    /// current VMs.
    pub(super) fn end_round(&mut self, vms: impl Iterator<Item = VmKey>) {
        let vms: HashSet<u32> = vms.map(|vm| short(&self.hasher, vm)).collect();
        let round = self.round;
        self.series
            .retain(|_, series| series.round == round || vms.contains(&series.vm));
        self.round = self.round.wrapping_add(1);
    }
}

/// Never 0. If two VMs collide, their series are only forgotten later.
fn short(hasher: &RandomState, vm: VmKey) -> u32 {
    hasher.hash_one(vm) as u32 | 1
}

fn bits(value: Value) -> u64 {
    match value {
        Value::Int(n) | Value::Nanoseconds(n) => n,
        Value::Float(x) => x.to_bits(),
    }
}

/// The difference of a total to an earlier one of the same type; `None` if it is lower.
fn beyond(total: Value, before: u64) -> Option<Value> {
    match total {
        Value::Int(n) => n.checked_sub(before).map(Value::Int),
        Value::Nanoseconds(n) => n.checked_sub(before).map(Value::Nanoseconds),
        Value::Float(x) => {
            let increment = x - f64::from_bits(before);
            (increment >= 0.0).then_some(Value::Float(increment))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::metrics::find;
    use crate::snapshot::Subject;

    /// A VM that started then.
    fn vm(start_time: u64) -> VmKey {
        VmKey {
            pid: 1,
            start_time,
            ordinal: 0,
        }
    }

    struct Receiver(Ledger);

    impl Receiver {
        fn new() -> Self {
            Self(Ledger::new(100))
        }

        fn take(
            &mut self,
            start: u64,
            now: u64,
            total: Value,
        ) -> Option<(Value, u64, PendingDelta)> {
            let labels = Labels::new([("vm", "a".into())]);
            let row = Row {
                subject: Subject::Vm(vm(start)),
                labels: &labels,
            };
            let id = Id {
                metric: find("kvm_vcpu_cycles_total").unwrap(),
                row,
                fixed: &Labels::default(),
                part: 0,
                start,
            };
            self.0.increment(id, now, total)
        }

        fn count(&mut self, start: u64, now: u64, n: u64) -> Option<(u64, u64, PendingDelta)> {
            let (increment, start, pending) = self.take(start, now, Value::Int(n))?;
            Some((bits(increment), start, pending))
        }
    }

    #[test]
    fn undelivered_delta_is_in_the_next_push() {
        let mut receiver = Receiver::new();
        let (n, start, pending) = receiver.count(100, 200, 7).unwrap();
        assert_eq!((n, start), (7, 100));
        receiver.0.deliver(vec![pending]);
        let (n, start, _lost) = receiver.count(100, 300, 10).unwrap();
        assert_eq!((n, start), (3, 200));
        let (n, start, pending) = receiver.count(100, 400, 15).unwrap();
        assert_eq!((n, start), (8, 200));
        receiver.0.deliver(vec![pending]);
        let again = receiver.count(100, 400, 15);
        assert!(again.is_none(), "no time has passed");
        let (n, start, _) = receiver.count(100, 500, 15).unwrap();
        assert_eq!((n, start), (0, 400));
    }

    #[test]
    fn every_kind_of_number_has_increments() {
        for (first, second, expected) in [
            (
                Value::Nanoseconds(5),
                Value::Nanoseconds(9),
                Value::Nanoseconds(4),
            ),
            (Value::Float(0.5), Value::Float(2.0), Value::Float(1.5)),
        ] {
            let mut receiver = Receiver::new();
            let (increment, _, pending) = receiver.take(100, 200, first).unwrap();
            assert_eq!(increment, first);
            receiver.0.deliver(vec![pending]);
            assert_eq!(receiver.take(100, 300, second).unwrap().0, expected);
            assert!(
                receiver.take(100, 400, Value::Int(0)).is_none(),
                "backwards"
            );
        }
    }

    #[test]
    fn total_before_the_exporter_is_not_a_delta() {
        let mut receiver = Receiver::new();
        assert!(receiver.count(50, 200, 1_000_000).is_none());
        let (n, start, _) = receiver.count(50, 300, 1_000_001).unwrap();
        assert_eq!((n, start), (1, 200));
    }

    #[test]
    fn restarted_vm_is_new_and_ended_vm_is_forgotten() {
        let mut receiver = Receiver::new();
        let (_, _, pending) = receiver.count(150, 200, 7).unwrap();
        receiver.0.deliver(vec![pending]);
        let (n, start, _) = receiver.count(250, 300, 2).unwrap();
        assert_eq!((n, start), (2, 250));
        receiver.0.end_round(std::iter::empty());
        assert_eq!(receiver.0.series.len(), 2, "they were seen");
        receiver.0.end_round([vm(250)].into_iter());
        assert_eq!(
            receiver.0.series.len(),
            1,
            "it may come back, the first never"
        );
        receiver.0.end_round(std::iter::empty());
        assert!(receiver.0.series.is_empty());
    }
}
