//! Tables of hand-built snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::engine::reading::Unit;
use crate::host::topology::Place;
use crate::snapshot::fixture::{column, empty};

/// Columns by location: time, voluntary and involuntary switches. Column per vCPU: migrations.
fn snapshot(start: Instant, after: u64) -> Snapshot {
    let switches = "kvm_vcpu_context_switches_total";
    let mut snapshot = empty(start, Duration::from_secs(after));
    snapshot.placed = Arc::new([
        column("kvm_vcpu_time_seconds_total", &[], Unit::Nanoseconds),
        column(switches, &[("type", "voluntary")], Unit::Count),
        column(switches, &[("type", "involuntary")], Unit::Count),
    ]);
    snapshot.per_vcpu = Arc::new([column("kvm_vcpu_migrations_total", &[], Unit::Count)]);
    snapshot
}

fn place(core: i32) -> Place {
    Place {
        package: 0,
        core,
        numa_node: 1,
    }
}

/// Two snapshots 2 s apart: one vCPU moved to another core, one is new.
fn two() -> (Snapshot, Snapshot) {
    let start = Instant::now();
    let mut prev = snapshot(start, 0);
    prev.add_vm("a", &[]);
    prev.add_vcpu(&[(4, place(1), &[10_000_000_000, 50, 7])], &[3]);
    let mut now = snapshot(start, 2);
    now.add_vm("a", &[]);
    let old_core = (4, place(1), &[11_000_000_000, 60, 7][..]);
    let new_core = (5, place(2), &[500_000_000, 190, 1][..]);
    now.add_vcpu(&[old_core, new_core], &[9]);
    now.add_vm("b\u{1b}[2J", &[]);
    now.add_vcpu(&[(5, place(2), &[9, 9, 9])], &[9]);
    (prev, now)
}

#[test]
fn deltas_are_summed_over_locations_and_shown_per_second() {
    let (prev, now) = two();
    let text = render(&prev, &now, 200);
    expect_test::expect![[r#"
        VM     vCPU  CPU  core  node  time s/s  delay s/s  migrations/s  waits/s  preempted/s  in guest s/s  page faults/s
        a         0    5     2     1     0.750          -             3      100            0             -              -
        b?[2J     0    5     2     1         -          -             -        -            -             -              -
    "#]]
    .assert_eq(&text);
}

#[test]
fn unknown_is_not_shown_as_zero() {
    let (prev, mut now) = two();
    for vcpu in &mut now.vcpus {
        vcpu.known_totals = 0;
    }
    assert!(render(&prev, &now, 200).contains(" -          -             3        -"));
}

#[test]
fn new_thread_of_a_vcpu_starts_without_rates() {
    let (prev, mut now) = two();
    now.vcpus[0].vcpu.tid += 1;
    assert!(!render(&prev, &now, 200).contains("0.750"));
}

#[test]
fn a_narrow_terminal_loses_columns_from_the_right() {
    let (prev, now) = two();
    let text = render(&prev, &now, 60);
    assert!(text.lines().all(|line| line.len() <= 60), "{text}");
    assert!(text.contains("delay s/s") && !text.contains("preempted/s"));
    assert!(render(&prev, &now, 1).contains("time s/s"));
}

#[test]
fn inconsistent_snapshot_does_not_panic() {
    let (mut prev, mut now) = two();
    now.vcpu_totals.truncate(4);
    prev.vcpu_values.clear();
    assert!(render(&prev, &now, 200).contains('a'));
    assert!(render(&now, &prev, 200).contains('a'));
}

#[test]
fn tables_follow_each_other_or_take_each_others_place() {
    let show = |in_place| {
        let (mut screen, mut out) = (Screen::new(in_place), Vec::new());
        for table in ["a\nb\n", "c\n", "d\n"] {
            assert!(!screen.is_done());
            screen.show(table, &mut out).unwrap();
        }
        (String::from_utf8(out).unwrap(), screen.is_done())
    };
    assert_eq!(show(false), ("a\nb\n\nc\n\nd\n".into(), true));
    let redrawn = "a\nb\n\x1b[2F\x1b[Jc\n\x1b[1F\x1b[Jd\n";
    assert_eq!(show(true), (redrawn.into(), false));
}

#[test]
fn table_higher_than_the_terminal_is_clipped() {
    assert_eq!(clip("a\nb\nc\n", 3), "a\nb\nc\n");
    assert_eq!(clip("a\nb\nc\n", 2), "a\n... 2 more lines\n");
    assert_eq!(clip("a\nb\n", 0), "... 2 more lines\n");
}

proptest! {
    #[test]
    fn no_name_moves_the_cursor(name in any::<String>()) {
        let shown = printable(&name);
        prop_assert!(!shown.chars().any(char::is_control));
        prop_assert!(shown.chars().count() <= MAX_NAME);
    }
}
