use super::*;
use crate::cli::top::fixture::{state, three, view, vm};

/// Names and vCPUs of the rows, from top to bottom.
fn rows(state: &State) -> Vec<String> {
    let view = state.view.as_ref().unwrap();
    let row = |row: &Row| {
        let subject = row.subject(view).unwrap();
        match subject.vcpu {
            Some(vcpu) => format!("{}/{}", subject.vm.name, vcpu.index),
            None => subject.vm.name.clone(),
        }
    };
    state.rows().iter().map(row).collect()
}

fn type_in(state: &mut State, text: &str) {
    for c in text.chars() {
        state.apply(Action::Type(c));
    }
}

#[test]
fn highest_delay_sorts_first_and_unknown_last() {
    let (mut state, _) = state(three());
    let expected = [
        "db-2/0", "db-2/1", "web-2/0", "web-10/0", "web-10/1", "web-10/2",
    ];
    assert_eq!(rows(&state), expected);
    state.apply(Action::Reverse);
    let expected = [
        "web-10/1", "web-10/0", "web-2/0", "db-2/1", "db-2/0", "web-10/2",
    ];
    assert_eq!(rows(&state), expected);
}

#[test]
fn columns_are_chosen_to_the_left_and_right_and_by_letter() {
    let (mut state, _) = state(three());
    state.apply(Action::Column(1));
    assert_eq!(state.sort().column, Column::Cpi);
    for _ in 0..99 {
        state.apply(Action::Column(-1));
    }
    assert_eq!(state.sort().column, Column::Vm);
    assert_eq!(rows(&state)[2..4], ["web-2/0", "web-10/0"]);
    for _ in 0..99 {
        state.apply(Action::Column(1));
    }
    assert_eq!(state.sort().column, Column::Counted);
    state.apply(Action::Toggle);
    state.apply(Action::Sort(Column::Exits));
    assert_eq!(state.sort().column, Column::Cause(Cause::Exits));
}

#[test]
fn enter_opens_a_vm_and_escape_goes_back_to_it() {
    let (mut state, _) = state(three());
    state.apply(Action::Toggle);
    assert_eq!(rows(&state), ["db-2", "web-2", "web-10"]);
    state.apply(Action::Last);
    state.apply(Action::Enter);
    assert_eq!(rows(&state), ["web-10/0", "web-10/1", "web-10/2"]);
    assert_eq!(state.apply(Action::Escape), Effect::Nothing);
    let (_, cursor, _) = state.visible(10);
    assert_eq!((state.table, cursor), (Table::Vms, 2));
    assert_eq!(state.apply(Action::Escape), Effect::Quit);
}

#[test]
fn a_filter_works_while_it_is_typed_and_escape_ends_it() {
    let (mut state, _) = state(three());
    state.apply(Action::Filter);
    type_in(&mut state, "WEB-1x");
    assert_eq!(state.len(), 0);
    state.apply(Action::Erase);
    assert_eq!(state.len(), 3);
    state.apply(Action::Enter);
    assert_eq!((state.len(), state.prompt.clone()), (3, None));
    assert_eq!(state.apply(Action::Escape), Effect::Nothing);
    assert_eq!(state.len(), 6);
}

#[test]
fn the_time_between_refreshes_is_checked() {
    let (mut state, _) = state(three());
    for (text, effect) in [
        ("0.5", Effect::Ask(Some(Duration::from_millis(500)))),
        ("0", Effect::Nothing),
        ("NaN", Effect::Nothing),
        ("1e99", Effect::Nothing),
        ("x", Effect::Nothing),
    ] {
        state.apply(Action::Delay);
        type_in(&mut state, text);
        assert_eq!(state.apply(Action::Enter), effect, "{text}");
    }
    assert_eq!(state.delay, Duration::from_millis(500));
    assert!(state.trouble.unwrap().contains("0.25"));
}

#[test]
fn pause_stops_requests_and_keeps_the_view() {
    let (mut state, now) = state(three());
    assert_eq!(state.apply(Action::Pause), Effect::Ask(None));
    state.hear(Ok(view(1001.0, vec![])), now);
    assert_eq!(state.len(), 6);
    assert_eq!(state.apply(Action::Pause), Effect::Ask(Some(state.delay)));
}

#[test]
fn failed_request_keeps_the_view_and_its_age() {
    let (mut state, now) = state(three());
    state.hear(Err("gone".to_owned()), now);
    assert_eq!((state.len(), state.trouble.as_deref()), (6, Some("gone")));
    let age = state.age(now + Duration::from_secs(10)).unwrap();
    assert!((age - 10.4).abs() < 1e-9, "{age}");
    state.hear(Ok(three()), now);
    assert_eq!(state.trouble, None);
}

#[test]
fn the_cursor_stays_with_its_row_and_on_top_with_none() {
    let (mut state, now) = state(three());
    let cursor = |state: &mut State| {
        let (_, cursor, first) = state.visible(100);
        rows(state)[first + cursor].clone()
    };
    state.apply(Action::Move(2));
    assert_eq!(cursor(&mut state), "web-2/0");
    let mut later = three();
    later.vms[1].vcpus[0].numbers.delay_ratio = Some(0.9);
    state.hear(Ok(later.clone()), now);
    assert_eq!(cursor(&mut state), "web-2/0");
    later.vms.remove(1);
    state.hear(Ok(later), now);
    assert_eq!(cursor(&mut state), "db-2/0");
    state.apply(Action::First);
    state.apply(Action::Reverse);
    assert_eq!(cursor(&mut state), "web-10/1");
}

#[test]
fn only_what_fits_is_visible_and_the_cursor_always_is() {
    let vms = (0..100).map(|n| vm(&format!("vm-{n}"), &[Some(0.1); 10]));
    let (mut state, now) = state(view(1.0, vms.collect()));
    assert_eq!(state.visible(10).0.len(), 10);
    state.apply(Action::Last);
    let (rows, cursor, first) = state.visible(10);
    assert_eq!((rows.len(), cursor, first), (10, 9, 990));
    state.apply(Action::Page(-1));
    let (_, cursor, first) = state.visible(10);
    assert_eq!(first + cursor, 989);
    // Most VMs end, and the screen gets higher.
    state.hear(Ok(three()), now);
    let (rows, cursor, first) = state.visible(40);
    assert_eq!((rows.len(), cursor, first), (6, 5, 0));
}

#[test]
fn keys_on_an_empty_host_do_no_harm() {
    let (mut state, _) = state(view(1.0, vec![]));
    for action in [
        Action::Move(1),
        Action::Move(-1),
        Action::Page(3),
        Action::Last,
        Action::Toggle,
        Action::Enter,
        Action::Reverse,
        Action::First,
    ] {
        state.apply(action);
        assert_eq!(state.visible(5).0, []);
    }
}
