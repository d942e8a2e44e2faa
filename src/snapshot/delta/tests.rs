//! Deltas between hand-built snapshots.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::engine::reading::Unit;
use crate::host::topology::Place;
use crate::snapshot::fixture::{column, empty, labels};
use crate::sources::{cgroup, exits, sched};

const TIME: Counter = Counter::new(&sched::TIME);
const SWITCHES: &str = "kvm_vcpu_context_switches_total";
const WAITS: Counter = Counter::new(&sched::CONTEXT_SWITCHES).with("type", "voluntary");
const MIGRATIONS: Counter = Counter::new(&sched::MIGRATIONS);

fn place(core: i32) -> Place {
    Place {
        package: 0,
        core,
        numa_node: 0,
    }
}

/// One vCPU after this many seconds, with these series as (core, time, waits).
fn snapshot(start: Instant, after: u64, series: &[(i32, [u64; 2])], migrations: u64) -> Snapshot {
    let mut snapshot = empty(start, Duration::from_secs(after));
    snapshot.placed = Arc::new([
        column("kvm_vcpu_time_seconds_total", &[], Unit::Nanoseconds),
        column(SWITCHES, &[("type", "voluntary")], Unit::Count),
    ]);
    snapshot.per_vcpu = Arc::new([column("kvm_vcpu_migrations_total", &[], Unit::Count)]);
    snapshot.add_vm("a", &[]);
    let series: Vec<_> = series
        .iter()
        .map(|(c, totals)| (1, place(*c), &totals[..]))
        .collect();
    snapshot.add_vcpu(&series, &[migrations]);
    snapshot
}

fn increase(before: &Snapshot, now: &Snapshot, counter: &Counter) -> Option<u64> {
    let delta = Delta::new(before, now);
    delta.of_vcpu(0, &delta.columns(counter))
}

#[test]
fn delta_is_summed_over_locations() {
    let start = Instant::now();
    let before = snapshot(start, 0, &[(1, [10, 50])], 3);
    let now = snapshot(start, 2, &[(1, [11, 60]), (2, [5, 190])], 9);
    let delta = Delta::new(&before, &now);
    assert_eq!(delta.span(), Duration::from_secs(2));
    let of = |counter| delta.of_vcpu(0, &delta.columns(counter));
    assert_eq!(of(&TIME), Some(6));
    assert_eq!(of(&WAITS), Some(200));
    assert_eq!(of(&MIGRATIONS), Some(6));
    let other = Counter::new(&sched::CONTEXT_SWITCHES).with("type", "involuntary");
    assert_eq!((of(&other), of(&Counter::new(&exits::EXITS))), (None, None));
    assert_eq!(delta.by_series(0, &delta.columns(&TIME)), [(0, 1), (1, 5)]);
}

#[test]
fn series_that_returns_adds_no_delta() {
    let start = Instant::now();
    // The vCPU ran on core 2 long ago: its series there was hidden but part of the vCPU's totals.
    let mut before = snapshot(start, 0, &[(1, [10, 0])], 0);
    before.vcpu_totals[0] = 10 + 5000;
    let now = snapshot(start, 5, &[(1, [13, 0]), (2, [5004, 0])], 0);
    assert_eq!(increase(&before, &now, &TIME), Some(7));
    let delta = Delta::new(&before, &now);
    assert_eq!(delta.by_series(0, &delta.columns(&TIME)), [(0, 3), (1, 4)]);
}

#[test]
fn delta_of_new_vcpu_is_unknown() {
    let start = Instant::now();
    let before = snapshot(start, 0, &[(1, [10, 50])], 3);
    let mut now = snapshot(start, 2, &[(1, [11, 60])], 9);
    now.vcpus[0].vcpu.tid += 1;
    assert_eq!(increase(&before, &now, &TIME), None);
    let mut now = snapshot(start, 2, &[(1, [11, 60])], 9);
    now.vcpus[0].known_totals = 0b10;
    assert_eq!(increase(&before, &now, &TIME), None);
    assert_eq!(increase(&before, &now, &WAITS), Some(10));
    assert_eq!(increase(&empty(start, Duration::ZERO), &now, &WAITS), None);
}

#[test]
fn inconsistent_snapshots_do_not_panic() {
    let start = Instant::now();
    let mut before = snapshot(start, 0, &[(1, [10, 50])], 3);
    let mut now = snapshot(start, 2, &[(1, [11, 60])], 9);
    now.vcpus[0].series = 0..99;
    now.vcpu_totals.clear();
    before.vcpu_values.clear();
    for (before, now) in [(&before, &now), (&now, &before)] {
        let delta = Delta::new(before, now);
        for counter in [TIME, WAITS, MIGRATIONS] {
            let columns = delta.columns(&counter);
            delta.of_vcpu(0, &columns);
            delta.by_series(0, &columns);
        }
    }
}

#[test]
fn fact_delta_spans_two_readings() {
    let (start, metric) = (Instant::now(), "kvm_vm_cpu_periods_total");
    let read = |after, value| {
        let mut snapshot = empty(start, Duration::from_secs(after));
        snapshot.add_fact("kvm_vm_vcpus", &[("vm", "a")], FactValue::Int(7));
        snapshot.add_fact(metric, &[("vm", "a")], value);
        snapshot.add_fact("kvm_exporter_series", &[], FactValue::Int(7));
        snapshot.facts
    };
    let mut snapshot = empty(start, Duration::from_secs(65));
    let reported = |snapshot: &Snapshot| -> Vec<f64> {
        fact_deltas(snapshot, &cgroup::CPU_PERIODS)
            .map(|(row, increase)| {
                assert_eq!(row.labels, labels(&[("vm", "a")]));
                increase.rate()
            })
            .collect()
    };
    snapshot.facts_before = read(20, FactValue::Int(100));
    snapshot.facts = read(60, FactValue::Int(500));
    assert_eq!(reported(&snapshot), [10.0]);
    // Not read again since, or restarted from 0.
    snapshot.facts_before = snapshot.facts.clone();
    assert!(reported(&snapshot).is_empty());
    snapshot.facts = read(62, FactValue::Int(1));
    assert!(reported(&snapshot).is_empty());
    assert!(facts_of(&snapshot.facts, &cgroup::CPU_QUOTA_CORES).is_empty());
}
