//! What the screen shows, changed by keys and views. Knows neither the terminal nor the clock.

use std::time::{Duration, Instant};

use super::column::{Column, Row, Table};
use super::history::{Graph, History};
use super::keys::Action;
use super::order::{self, Sort};
use crate::diagnosis::{Cause, View};

/// Range of the refresh interval in seconds.
pub(super) const DELAYS: std::ops::RangeInclusive<f64> = 0.25..=3600.0;

/// Most characters of a typed text: longer than any name.
const MAX_TYPED: usize = 128;

/// What the event loop does after a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    Suspend,
    /// Request a view now, and then at this interval; `None` pauses.
    Ask(Option<Duration>),
}

/// An open prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) about: About,
    pub(super) text: String,
}

/// What a prompt asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Filter,
    Delay,
}

/// VM and vCPU of a row, so that the cursor follows it.
type Key = (String, Option<u32>);

/// The whole state of the screen.
#[derive(Debug)]
pub(super) struct State {
    /// The source of views, in words.
    pub(super) source: String,
    pub(super) view: Option<View>,
    pub(super) history: History,
    /// When the latest view arrived.
    heard: Option<Instant>,
    /// Why the last request failed.
    pub(super) trouble: Option<String>,
    pub(super) delay: Duration,
    pub(super) table: Table,
    /// Name of the VM whose vCPUs are shown.
    pub(super) opened: Option<String>,
    pub(super) filter: String,
    pub(super) graph: Graph,
    pub(super) prompt: Option<Prompt>,
    pub(super) help: bool,
    pub(super) paused: bool,
    sorts: [Sort; 2],
    rows: Vec<Row>,
    /// `None`: the cursor stays on the first row, whatever it is.
    cursor: Option<Key>,
    /// Index of the cursor's row.
    at: usize,
    /// Index of the first visible row.
    top: usize,
    /// Number of visible rows.
    page: usize,
}

impl State {
    pub(super) fn new(source: String, table: Table, delay: Duration) -> Self {
        let sort = |table: Table| Sort {
            column: table.first_sort(),
            reversed: false,
        };
        Self {
            source,
            view: None,
            history: History::default(),
            heard: None,
            trouble: None,
            delay,
            table,
            opened: None,
            filter: String::new(),
            graph: Graph::Delay,
            prompt: None,
            help: false,
            paused: false,
            sorts: [sort(Table::Vcpus), sort(Table::Vms)],
            rows: Vec::new(),
            cursor: None,
            at: 0,
            top: 0,
            page: 1,
        }
    }

    /// Takes a view, or the reason why a request failed.
    pub(super) fn hear(&mut self, answer: Result<View, String>, now: Instant) {
        if self.paused {
            return;
        }
        match answer {
            Ok(view) => {
                self.history.learn(&view);
                self.view = Some(view);
                self.heard = Some(now);
                self.trouble = None;
                self.arrange();
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    /// Age of the displayed tick, in seconds.
    pub(super) fn age(&self, now: Instant) -> Option<f64> {
        let since = now.saturating_duration_since(self.heard?);
        Some(self.view.as_ref()?.age + since.as_secs_f64())
    }

    /// The order of the current table.
    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.table as usize]
    }

    /// The visible rows, the index of the cursor among them, and the index of the first among all
    /// rows; `page` is the height.
    pub(super) fn visible(&mut self, page: usize) -> (&[Row], usize, usize) {
        self.page = page.max(1);
        let lowest = (self.at + 1).saturating_sub(self.page);
        let end = self.rows.len().saturating_sub(self.page);
        self.top = self.top.clamp(lowest, self.at.max(lowest)).min(end);
        let until = self.rows.len().min(self.top + page);
        (&self.rows[self.top..until], self.at - self.top, self.top)
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Performs a key's action.
    pub(super) fn apply(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Escape => return self.escape(),
            Action::Enter => return self.enter(),
            Action::Refresh => return Effect::Ask(self.pace()),
            Action::Pause => {
                self.paused = !self.paused;
                return Effect::Ask(self.pace());
            }
            Action::Help => self.help = !self.help,
            Action::Graph => self.graph = self.graph.next(),
            Action::Toggle => self.toggle(),
            Action::Filter => self.ask(About::Filter),
            Action::Delay => self.ask(About::Delay),
            Action::Type(c) => self.type_in(c),
            Action::Erase => self.erase(),
            Action::Move(rows) => self.move_by(rows),
            Action::Page(screens) => self.move_by(screens.saturating_mul(self.page as isize)),
            Action::First => self.go_to(0),
            Action::Last => self.go_to(usize::MAX),
            Action::Column(by) => self.sort_beside(by),
            Action::Sort(column) => self.sort_by(column),
            Action::Reverse => {
                let sort = &mut self.sorts[self.table as usize];
                sort.reversed = !sort.reversed;
                self.arrange();
            }
        }
        Effect::Nothing
    }

    fn pace(&self) -> Option<Duration> {
        (!self.paused).then_some(self.delay)
    }

    /// Closes the innermost of prompt, help, VM and filter; else quits.
    fn escape(&mut self) -> Effect {
        if let Some(prompt) = self.prompt.take() {
            if prompt.about == About::Filter {
                self.filter.clear();
            }
        } else if self.help {
            self.help = false;
        } else if let Some(vm) = self.opened.take() {
            self.table = Table::Vms;
            self.cursor = Some((vm, None));
        } else if !self.filter.is_empty() {
            self.filter.clear();
        } else {
            return Effect::Quit;
        }
        self.arrange();
        Effect::Nothing
    }

    fn enter(&mut self) -> Effect {
        if let Some(prompt) = self.prompt.take() {
            return match prompt.about {
                About::Filter => Effect::Nothing,
                About::Delay => self.take_delay(&prompt.text),
            };
        }
        if self.help {
            self.help = false;
        } else if self.opened.is_none() {
            let under = self.rows.get(self.at).copied();
            self.opened = under.and_then(|row| Some(self.key(row)?.0));
            self.table = Table::Vcpus;
            self.cursor = None;
            self.arrange();
        }
        Effect::Nothing
    }

    fn take_delay(&mut self, text: &str) -> Effect {
        match delay(text) {
            Ok(delay) => {
                self.delay = delay;
                Effect::Ask(self.pace())
            }
            Err(why) => {
                self.trouble = Some(why);
                Effect::Nothing
            }
        }
    }

    fn toggle(&mut self) {
        self.opened = None;
        self.table = match self.table {
            Table::Vcpus => Table::Vms,
            Table::Vms => Table::Vcpus,
        };
        self.cursor = None;
        self.arrange();
    }

    fn ask(&mut self, about: About) {
        let text = match about {
            About::Filter => self.filter.clone(),
            About::Delay => String::new(),
        };
        self.help = false;
        self.prompt = Some(Prompt { about, text });
    }

    fn type_in(&mut self, c: char) {
        if let Some(prompt) = &mut self.prompt {
            if prompt.text.chars().count() < MAX_TYPED {
                prompt.text.push(c);
            }
        }
        self.filter_as_typed();
    }

    fn erase(&mut self) {
        if let Some(prompt) = &mut self.prompt {
            prompt.text.pop();
        }
        self.filter_as_typed();
    }

    fn filter_as_typed(&mut self) {
        if let Some(Prompt {
            about: About::Filter,
            text,
        }) = &self.prompt
        {
            self.filter.clone_from(text);
            self.arrange();
        }
    }

    fn move_by(&mut self, rows: isize) {
        self.go_to(self.at.saturating_add_signed(rows));
    }

    fn go_to(&mut self, position: usize) {
        self.at = position.min(self.rows.len().saturating_sub(1));
        let row = self.rows.get(self.at).filter(|_| self.at > 0).copied();
        self.cursor = row.and_then(|row| self.key(row));
    }

    fn sort_beside(&mut self, by: isize) {
        let columns = self.table.columns();
        let sorted = self.sort().column;
        let at = columns.iter().position(|column| *column == sorted);
        let beside = at.unwrap_or(0).saturating_add_signed(by);
        self.sort_by(columns[beside.min(columns.len() - 1)]);
    }

    fn sort_by(&mut self, column: Column) {
        let has = |column: &Column| self.table.columns().contains(column);
        // `E` sorts vCPUs by exits, and VMs by the cause "exits".
        let cause = Column::Cause(Cause::Exits);
        let column = [column, cause].into_iter().find(has).unwrap_or(column);
        let reversed = false;
        self.sorts[self.table as usize] = Sort { column, reversed };
        self.arrange();
    }

    /// Selects and sorts the rows, and restores the cursor.
    fn arrange(&mut self) {
        let view = self.view.as_ref();
        self.rows = view.map_or_else(Vec::new, |view| {
            let opened = self.opened.as_deref();
            order::rows(view, self.table, self.sort(), opened, &self.filter)
        });
        let found = match &self.cursor {
            Some(key) => self
                .rows
                .iter()
                .position(|row| self.key(*row).as_ref() == Some(key)),
            None => Some(0),
        };
        // If the cursor's row is gone, the cursor stays at its position.
        self.at = found
            .unwrap_or(self.at)
            .min(self.rows.len().saturating_sub(1));
    }

    fn key(&self, row: Row) -> Option<Key> {
        let subject = row.subject(self.view.as_ref()?)?;
        Some((subject.vm.name.clone(), subject.vcpu.map(|vcpu| vcpu.index)))
    }
}

/// Parses a refresh interval in seconds.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    let seconds = text.trim().parse().ok().filter(|n| DELAYS.contains(n));
    let (least, most) = DELAYS.into_inner();
    let expected = || format!("expected seconds from {least} to {most}");
    seconds.map(Duration::from_secs_f64).ok_or_else(expected)
}

#[cfg(test)]
mod tests;
