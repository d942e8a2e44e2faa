//! No total is lost, and no total decreases.

use super::*;
use crate::engine::fixture;
use crate::engine::reading::{Column, ColumnId, Scope, Unit};
use proptest::prelude::*;
use std::sync::Arc;

const TTL: Duration = Duration::from_secs(600);

/// A column of each scope, on a machine of `cores` cores with two threads each, two cores per
/// node.
fn setup(cores: i32) -> (ColumnId, ColumnId, Columns, Reading) {
    let mut columns = Columns::default();
    let mut add = |scope| {
        columns.add(Column {
            metric: &crate::sources::sched::TIME,
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

fn shown(totals: &VcpuTotals) -> Vec<(Option<(i32, i32)>, u64)> {
    let series = totals.series.iter();
    series.map(|c| (c.key.core, c.totals[0])).collect()
}

type Location = (Option<(i32, i32)>, Option<u32>);

/// The exposed series of the first column.
fn seen(totals: &VcpuTotals) -> Vec<(Location, u64)> {
    let now = Instant::now();
    let visible = |(n, _): &(usize, &Series)| totals.is_visible(*n, TTL, now);
    let series = totals.series.iter().enumerate().filter(visible);
    series
        .map(|(_, c)| ((c.key.core, c.key.numa_node), c.totals[0]))
        .collect()
}

#[test]
fn activity_is_charged_to_the_location_at_the_end_of_the_tick() {
    let (column, _, columns, mut reading) = setup(4);
    let mut totals = VcpuTotals::new(&columns);
    for (cpu, delta) in [(0, 5), (7, 3), (1, 2)] {
        reading.clear();
        reading.cpu = Some(cpu);
        reading.add(column, delta);
        totals.charge(&reading, Instant::now());
    }
    // CPUs 0 and 1 are threads of one core.
    assert_eq!(shown(&totals), [(Some((0, 0)), 7), (Some((0, 3)), 3)]);
    assert_eq!(totals.location.unwrap().cpu, 1);
}

#[test]
fn impossible_delta_is_skipped_and_no_total_wraps() {
    let (column, vcpu, columns, mut reading) = setup(1);
    let mut totals = VcpuTotals::new(&columns);
    for delta in [5, u64::MAX, 3, u64::MAX - 3] {
        reading.clear();
        reading.cpu = Some(0);
        reading.add(column, delta);
        reading.add(vcpu, delta);
        totals.charge(&reading, Instant::now());
    }
    assert_eq!(shown(&totals), [(Some((0, 0)), 8)]);
    assert_eq!(totals.values[0], 8);
    totals.series[0].totals[0] = u64::MAX - 1;
    reading.clear();
    reading.cpu = Some(0);
    reading.add(column, 7);
    totals.charge(&reading, Instant::now());
    assert_eq!(shown(&totals)[0].1, u64::MAX, "it does not restart from 0");
}

#[test]
fn cpu_of_unknown_location_has_a_series_without_location() {
    let (column, _, columns, mut reading) = setup(1);
    let mut totals = VcpuTotals::new(&columns);
    for cpu in [0, 99] {
        reading.clear();
        reading.cpu = Some(cpu);
        reading.add(column, 5);
        totals.charge(&reading, Instant::now());
    }
    assert_eq!(shown(&totals), [(Some((0, 0)), 5), (None, 5)]);
    assert_eq!(totals.location, None, "not the earlier location");
}

#[test]
fn few_allowed_cores_have_series_in_advance_that_do_not_age() {
    let (column, _, columns, mut reading) = setup(4);
    let mut totals = VcpuTotals::new(&columns);
    let start = Instant::now();
    reading.cpu = Some(0);
    reading.allowed = Some(vec![0, 1, 2]);
    reading.add(column, 5);
    totals.charge(&reading, start);
    assert_eq!(shown(&totals), [(Some((0, 0)), 5), (Some((0, 1)), 0)]);
    assert_eq!(totals.series[1].known, 1, "known to be 0, not unknown");
    assert!(totals.is_visible(1, TTL, start + 2 * TTL));
    reading.allowed = Some(vec![0]);
    totals.charge(&reading, start);
    assert!(!totals.is_visible(1, TTL, start + 2 * TTL));
}

#[test]
fn many_allowed_cores_have_no_series_in_advance() {
    let (column, _, columns, mut reading) = setup(9);
    let mut totals = VcpuTotals::new(&columns);
    reading.cpu = Some(0);
    reading.allowed = Some((0..18).collect());
    reading.add(column, 5);
    totals.charge(&reading, Instant::now());
    assert_eq!(totals.series.len(), 1);
}

#[test]
fn left_series_hides_after_its_ttl_and_keeps_its_total() {
    let (column, _, columns, mut reading) = setup(9);
    let mut totals = VcpuTotals::new(&columns);
    let start = Instant::now();
    let mut tick = |cpu, at| {
        reading.clear();
        reading.cpu = Some(cpu);
        reading.add(column, 5);
        totals.charge(&reading, at);
        totals.clone()
    };
    tick(0, start);
    let totals = tick(2, start + TTL);
    assert!(!totals.is_visible(0, TTL, start + TTL));
    assert!(
        totals.is_visible(1, TTL, start + 9 * TTL),
        "the vCPU runs there"
    );
    let totals = tick(0, start + 2 * TTL);
    assert!(totals.is_visible(0, TTL, start + 2 * TTL));
    assert_eq!(totals.series[0].totals[0], 10);
}

#[test]
fn vcpu_values_are_added_or_set_and_persist() {
    let (_, column, columns, mut reading) = setup(1);
    let mut totals = VcpuTotals::new(&columns);
    let now = Instant::now();
    assert_eq!(totals.known, 0);
    reading.add(column, 2);
    totals.charge(&reading, now);
    totals.charge(&reading, now);
    assert_eq!(totals.values[0], 4);
    reading.clear();
    reading.set(column, 9);
    totals.charge(&reading, now);
    reading.clear();
    totals.charge(&reading, now);
    assert_eq!((totals.values[0], totals.known), (9, 1));
}

#[test]
fn coarser_placement_loses_no_total() {
    let (column, _, columns, mut reading) = setup(4);
    let mut totals = VcpuTotals::new(&columns);
    let now = Instant::now();
    for cpu in [0, 2, 4, 6] {
        reading.clear();
        reading.cpu = Some(cpu);
        reading.add(column, 1 << cpu);
        totals.charge(&reading, now);
    }
    totals.set_placement(Placement::NumaNode);
    let node = |n| (None, Some(n));
    assert_eq!(seen(&totals), [(node(0), 5), (node(1), 80)]);
    totals.charge(&reading, now);
    assert_eq!(seen(&totals), [(node(0), 5), (node(1), 144)]);
    totals.set_placement(Placement::None);
    assert_eq!(seen(&totals), [((None, None), 149)]);
    assert_eq!(
        totals.series.iter().flat_map(Series::alone).sum::<u64>(),
        149
    );
    totals.forget_finer();
    assert_eq!(shown(&totals), [(None, 149)]);
}

#[test]
fn finer_series_continue_where_they_stopped() {
    let (column, _, columns, mut reading) = setup(4);
    let mut totals = VcpuTotals::new(&columns);
    let now = Instant::now();
    let mut run = |totals: &mut VcpuTotals, cpu, delta| {
        reading.clear();
        reading.cpu = Some(cpu);
        reading.add(column, delta);
        totals.charge(&reading, now);
    };
    run(&mut totals, 0, 5);
    totals.set_placement(Placement::NumaNode);
    run(&mut totals, 0, 2);
    totals.set_placement(Placement::Core);
    run(&mut totals, 0, 1);
    assert_eq!(seen(&totals), [((Some((0, 0)), Some(0)), 6)]);
    totals.set_placement(Placement::NumaNode);
    assert_eq!(seen(&totals), [((None, Some(0)), 8)]);
}

#[test]
fn a_column_withdrawn_by_the_slot_is_unknown_until_it_is_counted_again() {
    let (column, _, columns, mut reading) = setup(4);
    let mut totals = VcpuTotals::new(&columns);
    reading.cpu = Some(0);
    reading.add(column, 5);
    totals.charge(&reading, Instant::now());
    totals.withdraw(1, 0);
    assert_eq!(totals.known_in(&totals.series[0]), 0);
    totals.charge(&reading, Instant::now());
    assert_eq!(totals.known_in(&totals.series[0]), 1);
    assert_eq!(totals.series[0].totals[0], 10);
}

#[test]
fn withdrawn_gauge_is_unknown_until_it_is_set_again() {
    let (_, gauge, columns, mut reading) = setup(1);
    let mut totals = VcpuTotals::new(&columns);
    let mut known = |change: &dyn Fn(&mut Reading)| {
        reading.clear();
        change(&mut reading);
        totals.charge(&reading, Instant::now());
        totals.known.count_ones()
    };
    assert_eq!(known(&|reading| reading.set(gauge, 3)), 1);
    assert_eq!(known(&|reading| reading.withdraw(gauge)), 0);
    assert_eq!(known(&|_| ()), 0, "still");
    assert_eq!(known(&|reading| reading.set(gauge, 4)), 1);
}

#[test]
fn a_withdrawn_column_is_unknown_everywhere_and_keeps_its_total() {
    let (column, _, columns, mut reading) = setup(2);
    let mut totals = VcpuTotals::new(&columns);
    let mut tick = |cpu: u32, delta: Option<u64>| {
        reading.clear();
        reading.cpu = Some(cpu);
        match delta {
            Some(delta) => reading.add(column, delta),
            None => reading.withdraw(column),
        }
        totals.charge(&reading, Instant::now());
        let series = totals.series.iter();
        let known = series.map(|c| (totals.known_in(c), c.totals[0]));
        known.collect::<Vec<_>>()
    };
    tick(0, Some(5));
    assert_eq!(tick(2, Some(3)), [(1, 5), (1, 3)]);
    assert_eq!(tick(0, None), [(0, 5), (0, 3)]);
    assert_eq!(tick(0, None), [(0, 5), (0, 3)]);
    assert_eq!(tick(2, Some(0)), [(1, 5), (1, 3)]);
}

fn placements() -> impl Strategy<Value = Option<Placement>> {
    let all = [Placement::Core, Placement::NumaNode, Placement::None];
    prop::option::weighted(0.2, prop::sample::select(all.to_vec()))
}

proptest! {
    /// Two invariants: no total decreases, and the totals add up to the activity.
    #[test]
    fn totals_only_grow_and_add_up(
        steps in prop::collection::vec((0u32..20, 0u64..1000, any::<bool>(), placements()), 1..60)
    ) {
        let (column, _, columns, mut reading) = setup(9);
        let mut totals = VcpuTotals::new(&columns);
        let mut done = 0;
        let mut known = std::collections::HashMap::new();
        for (cpu, delta, bind, placement) in steps {
            reading.clear();
            reading.cpu = Some(cpu);
            reading.allowed = bind.then(|| vec![cpu, cpu + 2]);
            reading.add(column, delta);
            let before = shown(&totals);
            totals.charge(&reading, Instant::now());
            done += delta;
            for (was, is) in before.iter().zip(shown(&totals)) {
                prop_assert!(was.0 == is.0 && was.1 <= is.1);
            }
            prop_assert_eq!(totals.series.iter().flat_map(Series::alone).sum::<u64>(), done);
            if let Some(placement) = placement {
                totals.set_placement(placement);
            }
            for (series, total) in seen(&totals) {
                prop_assert!(known.insert(series, total) <= Some(total), "{series:?}");
            }
        }
    }
}
