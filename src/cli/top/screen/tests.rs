use super::*;
use crate::cli::top::fixture::{in_trouble, state, three, view, vm};
use crate::cli::top::keys::HELP;
use crate::cli::top::{keys::Action, plain};
use crate::diagnosis::{Cause, View};
use expect_test::{expect, expect_file};
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::Terminal;

const PLAIN: Appearance = Appearance {
    colors: false,
    unicode: true,
};

fn buffer(
    state: &mut State,
    now: Instant,
    (width, height): (u16, u16),
    look: Appearance,
) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let frame = terminal.draw(|frame| draw(frame, state, look, now));
    frame.unwrap().buffer.clone()
}

/// The screen as text, without trailing spaces.
fn seen(state: &mut State, now: Instant, size: (u16, u16)) -> String {
    let buffer = buffer(state, now, size, PLAIN);
    let line = |y| {
        let cells = (0..size.0).map(|x| buffer[(x, y)].symbol());
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    (0..size.1).map(line).collect()
}

/// Half a minute of three VMs; the delay of one increases.
fn some_seconds() -> (State, Instant) {
    let (mut state, now) = state(three());
    for second in 1..30 {
        let mut later = three();
        later.taken += f64::from(second);
        later.vms[0].vcpus[0].numbers.delay_ratio = Some(0.01 * f64::from(second % 24));
        state.hear(Ok(super::super::safe::view(later)), now);
    }
    (state, now)
}

#[test]
fn vcpus_on_a_small_and_on_a_wide_screen() {
    let (mut state, now) = some_seconds();
    expect_file!["tests/vcpus-80x24.txt"].assert_eq(&seen(&mut state, now, (80, 24)));
    expect_file!["tests/vcpus-160x40.txt"].assert_eq(&seen(&mut state, now, (160, 40)));
}

#[test]
fn vms_on_a_small_and_on_a_wide_screen() {
    let (mut state, now) = some_seconds();
    state.apply(Action::Toggle);
    expect_file!["tests/vms-80x24.txt"].assert_eq(&seen(&mut state, now, (80, 24)));
    expect_file!["tests/vms-160x40.txt"].assert_eq(&seen(&mut state, now, (160, 40)));
}

#[test]
fn the_help_fits_a_small_screen() {
    let (mut state, now) = some_seconds();
    state.apply(Action::Help);
    let help = seen(&mut state, now, (80, 24));
    for (keys, what) in HELP {
        assert!(help.contains(keys) && help.contains(what), "{what}\n{help}");
    }
    assert!(help.contains("this VM slows down."), "{help}");
}

#[test]
fn as_plain_text() {
    let (state, now) = state(three());
    expect![[r#"
        kvm-07: sampled 0.4 s ago, rates over 8.0 s, http://127.0.0.1:9752
        3 VMs, 6 vCPUs on 8 CPUs: vCPUs want 3.2 CPUs (41%), get 2.5; degraded: pmu
        ! db-2: vCPU 0 waits 23 % of the time it wants to run: batch-1 uses 0.90 of core 0/0.

        vCPUs by delay%, highest first:
        VM     vCPU CPU core node  time delay%   CPI  MPKI exits/s moves/s counted
        db-2      0   -    -    -  0.50   23.0  1.25     -   12.3k       -    100%
        db-2      1   1    0    0  0.50    8.0     -     -   12.3k       -    100%
        web-2     0   -    -    -  0.50    2.0  1.25     -   12.3k       -    100%
        web-10    0   -    -    -  0.50    1.0  1.25     -   12.3k       -    100%
        web-10    1   1    0    0  0.50    0.0     -     -   12.3k       -    100%
        web-10    2   2    1    0  0.50      -     -     -   12.3k       -    100%
    "#]]
    .assert_eq(&plain::page(&state, None, now));
}

#[test]
fn synthetic_host_has_a_banner_in_reverse_video() {
    let mut made_up = three();
    made_up.synthetic = Some("troubles".to_owned());
    let (mut state, now) = state(made_up);
    let buffer = buffer(&mut state, now, (80, 24), PLAIN);
    assert!(seen(&mut state, now, (80, 24)).contains("SYNTHETIC HOST, scenario troubles"));
    assert!(buffer[(1, 1)].modifier.contains(Modifier::REVERSED));
    assert!(plain::page(&state, None, now).contains("SYNTHETIC HOST"));
}

#[test]
fn empty_host_says_that_no_vm_runs() {
    let (mut state, now) = state(view(1.0, vec![]));
    let text = seen(&mut state, now, (80, 24));
    assert!(
        text.contains("No KVM VM is running on this host."),
        "{text}"
    );
    let mut gaps = view(1.0, vec![]);
    gaps.visibility_gaps.push("processes of others".to_owned());
    state.hear(Ok(gaps), now);
    let text = seen(&mut state, now, (80, 24));
    assert!(text.contains("is seen on this host") && text.contains("processes of others"));
}

#[test]
fn failed_request_keeps_the_last_view() {
    let (mut state, now) = state(three());
    state.hear(Err("no answer".to_owned()), now);
    let text = seen(&mut state, now, (80, 24));
    assert!(
        text.contains("showing the last sample: no answer"),
        "{text}"
    );
    assert!(text.contains("db-2"), "{text}");
}

/// Names, verdicts and texts with control characters.
fn hostile() -> View {
    let evil = "\x1b[2J\x07\u{9b}31m\u{202e}evil\r\n";
    let mut view = view(1.0, vec![vm(evil, &[Some(0.1)])]);
    view.vms[0] = in_trouble(view.vms[0].clone(), Cause::Delay, 2.0, evil);
    view.vms.push(vm(&"very-long-".repeat(1000), &[Some(0.2)]));
    view.vms
        .push(vm("東京東京東京東京東京東京東京東京", &[Some(0.3)]));
    view.synthetic = Some(evil.to_owned());
    view.visibility_gaps = vec![evil.to_owned()];
    view.sources[0].name = evil.to_owned();
    view.age = f64::MAX;
    view.window = f64::MAX;
    view.host.demand = Some(f64::MAX);
    view
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let (mut state, now) = state(hostile());
    let obeyed = |c: char| c.is_control() || c == '\u{202e}';
    for action in [Action::Toggle, Action::Enter, Action::Help, Action::Filter] {
        state.apply(Action::Type('\u{9b}'));
        for size in [(30, 8), (80, 24), (300, 60)] {
            let buffer = buffer(&mut state, now, size, PLAIN);
            let symbols = buffer.content.iter().map(|cell| cell.symbol());
            assert!(!symbols.collect::<String>().contains(obeyed));
        }
        state.apply(action);
    }
    let text = plain::page(&state, None, now);
    assert!(!text.replace('\n', "").contains(obeyed), "{text}");
}

#[test]
fn no_size_is_too_small_to_draw_on() {
    let (mut state, now) = state(hostile());
    for table in 0..2 {
        for width in (1..200).step_by(19) {
            for height in (1..30).step_by(3) {
                buffer(&mut state, now, (width, height), PLAIN);
            }
        }
        state.apply(if table == 0 {
            Action::Toggle
        } else {
            Action::Help
        });
    }
}

#[test]
fn without_colors_there_are_none() {
    let (mut state, now) = state(three());
    let plain = buffer(&mut state, now, (160, 40), PLAIN);
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset));
    let look = Appearance {
        colors: true,
        ..PLAIN
    };
    let colored = buffer(&mut state, now, (160, 40), look);
    assert!(colored.content.iter().any(|cell| cell.fg == Color::Red));
    let symbols =
        |buffer: &Buffer| -> String { buffer.content.iter().map(|cell| cell.symbol()).collect() };
    assert_eq!(symbols(&plain), symbols(&colored));
}

#[test]
fn a_terminal_of_ascii_gets_ascii() {
    let (mut state, now) = some_seconds();
    let look = Appearance {
        unicode: false,
        ..PLAIN
    };
    let buffer = buffer(&mut state, now, (160, 40), look);
    assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()));
}
