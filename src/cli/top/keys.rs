//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::column::Column;

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    /// Closes what is open; quits where nothing is.
    Escape,
    /// Leaves for the shell until it is called back.
    Suspend,
    Help,
    Pause,
    /// The other table.
    Toggle,
    /// The vCPUs of the VM under the cursor, or what was typed.
    Enter,
    /// Moves the cursor by so many rows.
    Move(isize),
    /// Moves it by so many screens.
    Page(isize),
    First,
    Last,
    /// Sorts by the column so far to the right.
    Column(isize),
    Sort(Column),
    Reverse,
    Graph,
    /// Asks for a VM's name.
    Filter,
    /// Asks for the time between refreshes.
    Delay,
    Refresh,
    Type(char),
    Erase,
}

/// What is said about keys, for `h` and `--help`.
pub(super) const HELP: &[(&str, &str)] = &[
    ("q, Ctrl-C", "quit; Esc closes what is open, or quits"),
    ("Up Down PgUp PgDn Home End", "move; j and k too"),
    ("< >, Left Right", "sort by the column beside"),
    ("N P D C E", "sort by VM, time, delay, CPI, exits"),
    ("r", "turn the order round"),
    ("v", "VMs and what slows them, or vCPUs"),
    ("Enter", "vCPUs of the VM under the cursor; Esc leaves it"),
    ("/", "only VMs with this in their name"),
    ("g", "graph of the last minute: delay, CPI, time"),
    ("d", "seconds between refreshes; Ctrl-L refreshes now"),
    ("Space", "pause, and go on"),
    ("h, ?", "this help"),
];

/// The help as text.
pub(super) fn text() -> String {
    let line = |(keys, what): &(&str, &str)| format!("  {keys:<27} {what}\n");
    let lines: String = HELP.iter().map(line).collect();
    format!("Keys:\n{lines}")
}

/// The action of a key; `typing` says that text is asked for.
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
        // As in top: N and P are what comes nearest to PID and %CPU.
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
    fn letters_are_text_while_text_is_asked_for() {
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
