//! Maps keys to actions.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::column::Column;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Closes the innermost prompt, help or VM; quits if none is open.
    Escape,
    /// Suspends the process, as Ctrl-Z does.
    Suspend,
    Help,
    Pause,
    /// Switches to the other table.
    Toggle,
    /// Opens the VM under the cursor, or accepts the typed text.
    Enter,
    /// Moves the cursor by rows.
    Move(isize),
    /// Moves the cursor by screens.
    Page(isize),
    First,
    Last,
    /// Sorts by the column this many positions to the right.
    Column(isize),
    Sort(Column),
    Reverse,
    Graph,
    /// Prompts for a VM name.
    Filter,
    /// Prompts for the refresh interval.
    Delay,
    Refresh,
    Type(char),
    Erase,
}

/// Keys and their effect, for `h` and `--help`.
pub(super) const HELP: &[(&str, &str)] = &[
    ("q, Ctrl-C", "quit; Esc closes what is open, else quits"),
    (
        "Up Down PgUp PgDn Home End",
        "move the cursor; also j and k",
    ),
    ("< >, Left Right", "sort by the previous or next column"),
    ("N P D C E", "sort by VM, time, delay, CPI, exits"),
    ("r", "reverse the order"),
    ("v", "switch between VMs and vCPUs"),
    ("Enter", "vCPUs of the VM under the cursor; Esc goes back"),
    ("/", "show only VMs with this text in their name"),
    ("g", "graph of the last minute: delay, CPI or time"),
    ("d", "seconds between refreshes; Ctrl-L refreshes now"),
    ("Space", "pause or continue"),
    ("h, ?", "this help"),
];

pub(super) fn text() -> String {
    let line = |(keys, what): &(&str, &str)| format!("  {keys:<27} {what}\n");
    let lines: String = HELP.iter().map(line).collect();
    format!("Keys:\n{lines}")
}

/// The action of a key; `typing` means that a prompt is open.
pub(super) fn action(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => control(c),
        KeyCode::Esc => Some(Action::Escape),
        KeyCode::Enter => Some(Action::Enter),
        KeyCode::Char(c) if typing => Some(Action::Type(c)),
        KeyCode::Backspace if typing => Some(Action::Erase),
        KeyCode::Char(c) => letter(c),
        code => movement(code),
    }
}

fn control(letter: char) -> Option<Action> {
    match letter {
        'c' => Some(Action::Quit),
        'l' => Some(Action::Refresh),
        'z' => Some(Action::Suspend),
        _ => None,
    }
}

fn letter(letter: char) -> Option<Action> {
    Some(match letter {
        'q' => Action::Quit,
        'h' | '?' => Action::Help,
        ' ' => Action::Pause,
        'v' => Action::Toggle,
        'j' => Action::Move(1),
        'k' => Action::Move(-1),
        '<' => Action::Column(-1),
        '>' => Action::Column(1),
        'r' | 'R' => Action::Reverse,
        'g' => Action::Graph,
        '/' => Action::Filter,
        'd' | 's' => Action::Delay,
        // As in top(1): N and P stand for what is closest to PID and %CPU.
        'N' => Action::Sort(Column::Vm),
        'P' => Action::Sort(Column::Time),
        'D' => Action::Sort(Column::Delay),
        'C' => Action::Sort(Column::Cpi),
        'E' => Action::Sort(Column::Exits),
        _ => return None,
    })
}

fn movement(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Up => Action::Move(-1),
        KeyCode::Down => Action::Move(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Left => Action::Column(-1),
        KeyCode::Right => Action::Column(1),
        KeyCode::F(1) => Action::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn letters_are_text_while_a_prompt_is_open() {
        let q = press(KeyCode::Char('q'));
        assert_eq!(action(q, false), Some(Action::Quit));
        assert_eq!(action(q, true), Some(Action::Type('q')));
    }

    #[test]
    fn ctrl_c_quits_whatever_is_open() {
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(key, false), Some(Action::Quit));
        assert_eq!(action(key, true), Some(Action::Quit));
    }

    #[test]
    fn a_key_counts_once() {
        let mut key = press(KeyCode::Down);
        key.kind = KeyEventKind::Release;
        assert_eq!(action(key, false), None);
    }

    #[test]
    fn every_letter_of_the_help_does_something() {
        for (keys, _) in HELP {
            for word in keys
                .split([' ', ','])
                .filter(|word| word.chars().count() == 1)
            {
                let key = press(KeyCode::Char(word.chars().next().unwrap()));
                assert!(action(key, false).is_some(), "{word}");
            }
        }
    }
}
