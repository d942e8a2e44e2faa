//! The help: keys and what the columns mean.

use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::Frame;

use crate::cli::out;
use crate::cli::top::keys;

/// What the columns mean, a line each.
const COLUMNS: &[&str] = &[
    "time: seconds a second on a core. delay%: of the time it wanted to run, waiting for a core.",
    "CPI, MPKI: cycles an instruction, cache misses a thousand instructions, in the guest.",
    "counted: of its time, with counters that counted. VMs: causes over their thresholds.",
];

/// Columns of the screen for keys.
const KEYS: usize = 28;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let mut lines = vec![Line::default()];
    for (keys, what) in keys::HELP {
        let what = out::wrap(what, width, KEYS);
        let text = format!("{keys:<KEYS$}{what}");
        lines.extend(text.lines().map(|line| Line::from(line.to_owned())));
    }
    lines.push(Line::default());
    for text in COLUMNS {
        let text = out::wrap(text, width, 0);
        lines.extend(text.lines().map(|line| Line::from(line.to_owned())));
    }
    super::lines(frame, area, lines);
}
