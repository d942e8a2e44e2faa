use super::*;
use crate::cli::top::fixture::{view, vm};
use crate::expose::view::VmView;

const WHOLE: usize = SECONDS;

/// How many of the last seconds are known, and the newest of them.
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
fn what_was_seen_less_often_is_known_for_the_window_of_its_rates() {
    // Rates are over 8 s: 105 is known whole, of 130 the last 8 s alone.
    let history = seen_at(&[100.0, 105.0, 130.0], |_| web(0.2));
    assert_eq!(known(&history, "web", 0), (1 + 5 + 8, Some(1.0)));
    let columns = history.columns("web", Some(0), Graph::Delay, WHOLE);
    assert_eq!(columns[WHOLE - 9], None);
}

#[test]
fn who_came_and_went_has_no_past() {
    let mut history = seen_at(&[100.0, 101.0], |_| web(0.1));
    history.learn(&view(102.0, vec![vm("db", &[Some(0.1)])]));
    assert_eq!(known(&history, "web", 0), (0, None));
    assert_eq!(history.rings(), 2);
    history.learn(&view(103.0, web(0.1)));
    assert_eq!(known(&history, "web", 0), (1, Some(0.5)));
    // Another thread under the same name is another vCPU.
    let mut other = web(0.2);
    other[0].vcpus[0].tid = 9;
    history.learn(&view(104.0, other));
    assert_eq!(known(&history, "web", 0), (1, Some(1.0)));
}

#[test]
fn a_clock_that_goes_back_or_far_ahead_begins_anew() {
    for then in [50.0, 161.0, 1e300] {
        let history = seen_at(&[99.0, 100.0, then], |_| web(0.1));
        assert_eq!(known(&history, "web", 0).0, 1, "{then}");
    }
    seen_at(&[-5.0, f64::MAX, 0.0, 1.0], |_| web(0.1));
}

#[test]
fn unknown_is_no_zero() {
    let unknown = |_| vec![vm("web", &[None])];
    assert_eq!(known(&seen_at(&[1.0, 2.0], unknown), "web", 0), (0, None));
    let zero = seen_at(&[1.0, 2.0], |_| web(0.0));
    assert_eq!(known(&zero, "web", 0), (2, Some(0.0)));
    let nobody = zero.columns("gone", None, Graph::Time, 12);
    assert_eq!(nobody, vec![None; 12]);
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
fn a_thousand_vcpus_take_little() {
    assert!(std::mem::size_of::<Ring>() <= 200);
}
