use super::*;
use crate::cli::top::fixture::{view, vm};
use crate::diagnosis::VmView;

const WHOLE: usize = SECONDS;

/// Number of known seconds, and the value of the latest.
fn known(history: &History, vm: &str, vcpu: u32) -> (usize, Option<f64>) {
    let columns = history.columns(vm, Some(vcpu), Graph::Delay, WHOLE);
    let known = columns.iter().flatten().count();
    (known, columns[WHOLE - 1])
}

fn seen_at(seconds: &[f64], vms: impl Fn(f64) -> Vec<VmView>) -> History {
    let mut history = History::default();
    for second in seconds {
        history.learn(&view(*second, vms(*second)));
    }
    history
}

fn web(delay: f64) -> Vec<VmView> {
    vec![vm("web", &[Some(delay)])]
}

#[test]
fn each_second_is_kept_once_and_for_a_minute() {
    let history = seen_at(&[100.0, 101.0, 101.5, 102.0], |_| web(0.1));
    assert_eq!(known(&history, "web", 0), (3, Some(0.5)));
    let seconds: Vec<f64> = (100..300).map(f64::from).collect();
    let history = seen_at(&seconds, |_| web(0.1));
    assert_eq!(known(&history, "web", 0), (60, Some(0.5)));
}

#[test]
fn rates_fill_the_seconds_of_their_window() {
    // Rates cover 8 s: all seconds to 105 are known, before 130 only the last 8.
    let history = seen_at(&[100.0, 105.0, 130.0], |_| web(0.2));
    assert_eq!(known(&history, "web", 0), (1 + 5 + 8, Some(1.0)));
    let columns = history.columns("web", Some(0), Graph::Delay, WHOLE);
    assert_eq!(columns[WHOLE - 9], None);
}

#[test]
fn returning_vm_or_new_thread_starts_a_new_history() {
    let mut history = seen_at(&[100.0, 101.0], |_| web(0.1));
    history.learn(&view(102.0, vec![vm("db", &[Some(0.1)])]));
    assert_eq!(known(&history, "web", 0), (0, None));
    assert_eq!(history.rings(), 2);
    history.learn(&view(103.0, web(0.1)));
    assert_eq!(known(&history, "web", 0), (1, Some(0.5)));
    // A new thread is a new vCPU.
    let mut other = web(0.2);
    other[0].vcpus[0].tid = 9;
    history.learn(&view(104.0, other));
    assert_eq!(known(&history, "web", 0), (1, Some(1.0)));
}

#[test]
fn clock_jump_clears_the_history() {
    for then in [50.0, 161.0, 1e300] {
        let history = seen_at(&[99.0, 100.0, then], |_| web(0.1));
        assert_eq!(known(&history, "web", 0).0, 1, "{then}");
    }
    seen_at(&[-5.0, f64::MAX, 0.0, 1.0], |_| web(0.1));
}

#[test]
fn unknown_is_not_zero() {
    let unknown = |_| vec![vm("web", &[None])];
    assert_eq!(known(&seen_at(&[1.0, 2.0], unknown), "web", 0), (0, None));
    let zero = seen_at(&[1.0, 2.0], |_| web(0.0));
    assert_eq!(known(&zero, "web", 0), (2, Some(0.0)));
    let gone = zero.columns("gone", None, Graph::Time, 12);
    assert_eq!(gone, vec![None; 12]);
}

#[test]
fn narrow_columns_show_the_highest_of_their_seconds() {
    let seconds: Vec<f64> = (100..160).map(f64::from).collect();
    let history = seen_at(&seconds, |s| web(if s == 131.0 { 0.2 } else { 0.02 }));
    let columns = history.columns("web", Some(0), Graph::Delay, 12);
    let full = columns.iter().filter(|level| **level == Some(1.0)).count();
    assert_eq!((columns.len(), full), (12, 1));
    assert_eq!(columns[6], Some(1.0));
}

#[test]
fn ring_has_at_most_200_bytes() {
    assert!(std::mem::size_of::<Ring>() <= 200);
}
