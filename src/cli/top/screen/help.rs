//! The help: keys, and the meaning of the columns.

use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::Frame;

use crate::cli::out;
use crate::cli::top::keys;

/// One line each.
const COLUMNS: &[&str] = &[
    "time: CPUs used. delay%: share of its runnable time that it waits for a CPU.",
    "CPI: cycles per instruction. MPKI: cache misses per 1000 instructions. Both in the guest.",
    "counted: share of time its counters ran. VM causes are multiples of their thresholds.",
    "pushes: the worst score of another VM that this VM slows down.",
];

/// Width of the keys' column.
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
