//! Draws the state. All text was sanitized before (safe.rs). Only visible rows are drawn.

use std::time::Instant;

use ratatui::layout::{Constraint, Layout as Split, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::Frame;

use super::column::Table;
use super::state::{About, State};
use super::words;

mod help;
mod table;

/// Smallest usable screen, columns and rows.
const LEAST: (u16, u16) = (30, 8);

/// Colors and characters. Colors only repeat what a mark, a number or a word says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appearance {
    /// Use colors (`NO_COLOR` is not set).
    pub(super) colors: bool,
    /// The terminal's locale is UTF-8.
    pub(super) unicode: bool,
}

impl Appearance {
    /// From the environment (no-color.org; locale(7)).
    pub(super) fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let locale = locale.unwrap_or_default().to_lowercase();
        Self {
            colors: set("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    fn color(self, color: Color) -> Style {
        if self.colors {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, look: Appearance, now: Instant) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("needs {}x{}", LEAST.0, LEAST.1);
        return lines(frame, area, vec![Line::from(text)]);
    }
    let head = head(state, look, area, now);
    let [top, middle, bottom] = Split::vertical([
        Constraint::Length(head.len() as u16),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    lines(frame, top, head);
    if state.help {
        help::draw(frame, middle)
    } else {
        table::draw(frame, middle, state, look)
    }
    lines(frame, bottom, vec![foot(state, usize::from(area.width))]);
}

/// Draws lines from the top of an area; the rest is cut off.
fn lines(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    for (line, row) in lines.iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

/// The lines above the table.
fn head(state: &State, look: Appearance, area: Rect, now: Instant) -> Vec<Line<'static>> {
    let width = usize::from(area.width);
    let text = |text: &str| words::cut(text, width);
    let title = words::title(state, now);
    let mut head = vec![Line::styled(text(&title), Modifier::BOLD)];
    if let Some(trouble) = &state.trouble {
        let since = state.view.as_ref();
        let since = since.map_or("", |_| "showing the last sample: ");
        let style = look.color(Color::Red).add_modifier(Modifier::REVERSED);
        head.push(Line::styled(text(&format!(" {since}{trouble} ")), style));
    }
    let Some(view) = &state.view else {
        return head;
    };
    if let Some(banner) = words::synthetic(view) {
        let style = look.color(Color::Yellow);
        let style = style.add_modifier(Modifier::REVERSED | Modifier::BOLD);
        head.push(Line::styled(text(&banner), style));
    }
    head.push(Line::from(text(&words::host(view))));
    if state.help {
        return head;
    }
    let most = 1 + usize::from(area.height) / 6;
    for line in words::verdicts(view, width, most) {
        let style = if line.starts_with('!') {
            look.color(Color::Yellow).add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        };
        head.push(Line::styled(line, style));
    }
    head
}

/// The last line: keys, or the open prompt.
fn foot(state: &State, width: usize) -> Line<'static> {
    match &state.prompt {
        Some(prompt) => {
            let question = match prompt.about {
                About::Filter => {
                    "Show VMs whose name contains (Enter keeps the filter, Esc removes it): "
                }
                About::Delay => "Seconds between refreshes (0.25 to 3600): ",
            };
            let text = super::safe::text(&prompt.text, usize::MAX);
            Line::styled(format!("{question}{text}_"), Modifier::BOLD)
        }
        None => Line::styled(keys(state, width), Modifier::DIM),
    }
}

/// The keys that are useful now, as many as fit.
fn keys(state: &State, width: usize) -> String {
    let back = state.opened.is_some().then_some("Esc back");
    let (other, enter) = match state.table {
        Table::Vcpus => ("v VMs", None),
        Table::Vms => ("v vCPUs", Some("Enter opens")),
    };
    let keys = ["q quit", "h help", other, "/ filter", "< > sort"];
    let more = ["r reverse", "g graph", "Space pause", "d delay"];
    let all = back.into_iter().chain(enter).chain(keys).chain(more);
    let mut line = String::new();
    for key in all {
        if line.len() + 2 + key.len() > width {
            break;
        }
        line += key;
        line += "  ";
    }
    line
}

#[cfg(test)]
mod tests;
