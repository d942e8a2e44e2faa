//! What each receiver of increments has had: an increment is counted from the last push that
//! arrived, so that what one push could not deliver is in the next.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::snapshot::{Labels, Metric, Value};

/// Tells series apart: a keyed hash. Of a million series two have the same once in ten million
/// hosts, and these two would then be wrong.
type Key = u64;

/// Which series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id<'a> {
    /// Of this metric.
    pub(super) metric: &'static Metric,
    /// With these labels.
    pub(super) labels: [&'a Labels; 2],
    /// Which bucket of a histogram; its sum is the one after the last. 0 for a number.
    pub(super) part: usize,
    /// When it began to count: with a new start it is another, because a VM that came back under
    /// its name is.
    pub(super) start: u64,
}

/// What a request takes a series to, once it has arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    key: Key,
    delivered: u64,
    at: u64,
}

/// There may be hundreds of thousands.
#[derive(Debug)]
struct Series {
    /// The total that arrived last: the number, or the float's bits.
    delivered: u64,
    /// When that was so: the next increment starts there.
    at: u64,
    start: u64,
    /// A hash of the name of its VM; 0 for those that stay as long as the exporter.
    vm: u32,
    /// The last round it was seen in.
    round: u32,
}

/// All series of one receiver.
#[derive(Debug)]
pub(super) struct Ledger {
    series: HashMap<Key, Series>,
    hasher: RandomState,
    /// Since when increments are ours to report.
    since: u64,
    round: u32,
}

impl Ledger {
    /// For a receiver that gets what was counted from `since` on (nanoseconds, Unix epoch).
    pub(super) fn new(since: u64) -> Self {
        Self {
            series: HashMap::new(),
            hasher: RandomState::new(),
            since,
            round: 0,
        }
    }

    /// The increment of a series up to `now`, and its start; `None` when it is only now that it is
    /// known from where to count: what a VM did before the exporter began was never an increase
    /// that it saw.
    pub(super) fn increment(
        &mut self,
        id: Id<'_>,
        now: u64,
        total: Value,
    ) -> Option<(Value, u64, Promise)> {
        let [row, fixed] = id.labels.map(Labels::text);
        let unique = (id.metric.name, row, fixed, id.part, id.start);
        let key = self.hasher.hash_one(unique);
        let (since, round, hasher) = (self.since, self.round, &self.hasher);
        let series = self.series.entry(key).or_insert_with(|| {
            let ours = id.start >= since;
            let vm = id.labels[0].get("vm");
            Series {
                delivered: if ours { 0 } else { bits(total) },
                at: if ours { id.start } else { now },
                start: id.start,
                vm: vm.map_or(0, |vm| short(hasher, vm)),
                round,
            }
        });
        series.round = round;
        if series.at >= now {
            return None;
        }
        let Some(increment) = beyond(total, series.delivered) else {
            // It went backwards, which it does not: begin again from here.
            (series.delivered, series.at) = (bits(total), now);
            return None;
        };
        let promise = Promise {
            key,
            delivered: bits(total),
            at: now,
        };
        Some((increment, series.at, promise))
    }

    /// What a request that has arrived promised.
    pub(super) fn deliver(&mut self, promises: Vec<Promise>) {
        for Promise { key, delivered, at } in promises {
            if let Some(series) = self.series.get_mut(&key) {
                (series.delivered, series.at) = (delivered, at);
            }
        }
    }

    /// Ends a walk over all series. One that was not seen may come back where it stopped, as a
    /// place a vCPU returns to, until its VM is gone: these are the VMs there are, and since when.
    pub(super) fn end_round<'a>(&mut self, vms: impl Iterator<Item = (&'a str, u64)>) {
        let hasher = &self.hasher;
        let vms: HashMap<u32, u64> = vms.map(|(vm, at)| (short(hasher, vm), at)).collect();
        let round = self.round;
        self.series.retain(|_, series| {
            let lives = vms.get(&series.vm).is_some_and(|at| *at <= series.start);
            series.round == round || lives
        });
        self.round = self.round.wrapping_add(1);
    }
}

/// Never 0. Two VMs of one hash would only be forgotten later.
fn short(hasher: &RandomState, vm: &str) -> u32 {
    hasher.hash_one(vm) as u32 | 1
}

fn bits(value: Value) -> u64 {
    match value {
        Value::Int(n) | Value::Nanoseconds(n) => n,
        Value::Float(x) => x.to_bits(),
    }
}

/// How far a total is beyond one of the same kind; `None` where it is not.
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
    use crate::snapshot::catalog::find;

    struct Receiver(Ledger);

    impl Receiver {
        fn new() -> Self {
            Self(Ledger::new(100))
        }

        fn take(&mut self, start: u64, now: u64, total: Value) -> Option<(Value, u64, Promise)> {
            let row = Labels::new([("vm", "a".into())]);
            let id = Id {
                metric: find("kvm_vcpu_cycles_total").unwrap(),
                labels: [&row, &Labels::default()],
                part: 0,
                start,
            };
            self.0.increment(id, now, total)
        }

        fn count(&mut self, start: u64, now: u64, n: u64) -> Option<(u64, u64, Promise)> {
            let (increment, start, promise) = self.take(start, now, Value::Int(n))?;
            Some((bits(increment), start, promise))
        }
    }

    #[test]
    fn what_did_not_arrive_is_in_the_next() {
        let mut receiver = Receiver::new();
        let (n, start, promise) = receiver.count(100, 200, 7).unwrap();
        assert_eq!((n, start), (7, 100));
        receiver.0.deliver(vec![promise]);
        let (n, start, _lost) = receiver.count(100, 300, 10).unwrap();
        assert_eq!((n, start), (3, 200));
        let (n, start, promise) = receiver.count(100, 400, 15).unwrap();
        assert_eq!((n, start), (8, 200));
        receiver.0.deliver(vec![promise]);
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
            let (increment, _, promise) = receiver.take(100, 200, first).unwrap();
            assert_eq!(increment, first);
            receiver.0.deliver(vec![promise]);
            assert_eq!(receiver.take(100, 300, second).unwrap().0, expected);
            assert!(
                receiver.take(100, 400, Value::Int(0)).is_none(),
                "backwards"
            );
        }
    }

    #[test]
    fn what_was_before_the_exporter_is_no_increment() {
        let mut receiver = Receiver::new();
        assert!(receiver.count(50, 200, 1_000_000).is_none());
        let (n, start, _) = receiver.count(50, 300, 1_000_001).unwrap();
        assert_eq!((n, start), (1, 200));
    }

    #[test]
    fn a_vm_that_starts_anew_is_another_and_one_that_is_gone_is_forgotten() {
        let mut receiver = Receiver::new();
        let (_, _, promise) = receiver.count(150, 200, 7).unwrap();
        receiver.0.deliver(vec![promise]);
        let (n, start, _) = receiver.count(250, 300, 2).unwrap();
        assert_eq!((n, start), (2, 250));
        receiver.0.end_round(std::iter::empty());
        assert_eq!(receiver.0.series.len(), 2, "they were seen");
        receiver.0.end_round([("a", 250)].into_iter());
        assert_eq!(
            receiver.0.series.len(),
            1,
            "it may come back, the first never"
        );
        receiver.0.end_round(std::iter::empty());
        assert!(receiver.0.series.is_empty());
    }
}
