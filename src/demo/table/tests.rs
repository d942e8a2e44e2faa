//! Tables of hand-built snapshots.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::host::topology::Place;
use crate::sample::reading::Unit;
use crate::sample::Whereabouts;
use crate::snapshot::catalog::find;
use crate::snapshot::{CellRow, Labels};

fn labels(pairs: &[(&'static str, &str)]) -> Arc<Labels> {
    let pairs = pairs.iter().map(|(n, v)| (*n, v.to_string().into()));
    Arc::new(Labels::new(pairs))
}

fn column(metric: &str, fixed: &[(&'static str, &str)], unit: Unit) -> ColumnRow {
    ColumnRow {
        metric: find(metric).unwrap(),
        labels: labels(fixed),
        unit,
        dropped: false,
    }
}

fn vcpu(vm: &str, index: u32, cells: std::ops::Range<usize>) -> VcpuRow {
    VcpuRow {
        labels: labels(&[("vm", vm), ("vcpu", &index.to_string())]),
        placement: None,
        whereabouts: Some(Whereabouts {
            cpu: 5,
            place: Place {
                package: 0,
                core: 2,
                numa_node: 1,
            },
        }),
        index,
        tid: 100 + index as i32,
        cells,
        known: 1,
        last_tick: None,
    }
}

fn cell(vm: &str, index: u32, core: u32) -> CellRow {
    let (index, core) = (index.to_string(), core.to_string());
    CellRow {
        labels: labels(&[("vm", vm), ("vcpu", &index), ("core", &core)]),
        known: 0b111,
    }
}

/// Placed columns: time, voluntary and involuntary switches. Own column: migrations.
fn snapshot(
    taken_mono: Instant,
    vcpus: Vec<VcpuRow>,
    cells: Vec<CellRow>,
    cell_totals: Vec<u64>,
    vcpu_values: Vec<u64>,
) -> Snapshot {
    let switches = "kvm_vcpu_context_switches_total";
    Snapshot {
        taken: SystemTime::UNIX_EPOCH,
        taken_mono,
        tick: 1,
        inventory: Arc::default(),
        cpu_labels: Arc::new([]),
        demand: Vec::new(),
        vms: vec![],
        vcpus,
        cells,
        placed: Arc::new([
            column("kvm_vcpu_time_seconds_total", &[], Unit::Nanoseconds),
            column(switches, &[("type", "voluntary")], Unit::Count),
            column(switches, &[("type", "involuntary")], Unit::Count),
        ]),
        per_vcpu: Arc::new([column("kvm_vcpu_migrations_total", &[], Unit::Count)]),
        cell_totals,
        vcpu_values,
        facts: Arc::new([]),
        sources: vec![],
        pmu_mode: None,
        synthetic: None,
        dropped: vec![],
        series: 0,
    }
}

/// Two snapshots 2 s apart: a vCPU that moved to another core, and one that is new.
fn two() -> (Snapshot, Snapshot) {
    let start = Instant::now();
    let prev = snapshot(
        start,
        vec![vcpu("a", 0, 0..1)],
        vec![cell("a", 0, 1)],
        vec![10_000_000_000, 50, 7],
        vec![3],
    );
    let now = snapshot(
        start + Duration::from_secs(2),
        vec![vcpu("a", 0, 0..2), vcpu("b\u{1b}[2J", 1, 2..3)],
        vec![cell("a", 0, 1), cell("a", 0, 2), cell("b", 1, 1)],
        vec![
            11_000_000_000,
            60,
            7, // the old core
            500_000_000,
            190,
            1, // the new core, from 0
            9,
            9,
            9,
        ],
        vec![9, 9],
    );
    (prev, now)
}

#[test]
fn growth_is_summed_over_places_and_shown_per_second() {
    let (prev, now) = two();
    let text = render(&prev, &now, 200);
    expect_test::expect![[r#"
        VM     vCPU  CPU  core  node  time s/s  delay s/s  migrations/s  waits/s  preempted/s  in guest s/s  page faults/s
        a         0    5     2     1     0.750          -             3      100            0             -              -
        b?[2J     1    5     2     1         -          -             -        -            -             -              -
    "#]]
    .assert_eq(&text);
}

#[test]
fn what_is_not_known_is_not_shown_as_nought() {
    let (prev, mut now) = two();
    for cell in &mut now.cells {
        cell.known = 0;
    }
    assert!(render(&prev, &now, 200).contains(" -          -             3        -"));
}

#[test]
fn another_thread_under_the_same_name_starts_anew() {
    let (prev, mut now) = two();
    now.vcpus[0].tid += 1;
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
fn a_snapshot_that_contradicts_itself_is_survived() {
    let (mut prev, mut now) = two();
    now.cell_totals.truncate(4);
    now.vcpus[0].cells = 0..99;
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
fn what_is_higher_than_the_terminal_is_clipped() {
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
