//! The table of vCPUs or VMs, with a graph of the last minute at the end of each row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::Frame;

use super::Appearance;
use crate::cli::out;
use crate::cli::top::column::{Column, Row, Subject};
use crate::cli::top::layout::{layout, Layout, GAP};
use crate::cli::top::state::State;
use crate::cli::top::words;

/// Delay ratios from here on are colored: thresholds of KvmVmCpuDelayHigh and
/// KvmVmCpuDelayCritical.
const HIGH: f64 = 0.05;
const CRITICAL: f64 = 0.2;

/// Lines above the rows: caption and titles.
const ABOVE: u16 = 2;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &mut State, look: Appearance) {
    let longest = longest(state);
    let width = usize::from(area.width);
    let layout = layout(state.table, width, longest, true);
    let page = usize::from(area.height.saturating_sub(ABOVE));
    let (rows, cursor, first) = state.visible(page);
    let rows = rows.to_vec();
    let (last, all) = (first + rows.len(), state.len());
    let of = format!(", {}-{last} of {all}", (first + 1).min(all));
    let caption = words::cut(&words::caption(state, &of), width);
    let buffer = frame.buffer_mut();
    let mut lines = area.rows();
    if let Some(line) = lines.next() {
        put(buffer, line, &caption, Modifier::DIM.into());
    }
    if let Some(line) = lines.next() {
        heading(buffer, line, state, &layout);
    }
    for (n, (row, line)) in rows.iter().zip(lines).enumerate() {
        draw_row(buffer, line, *row, state, &layout, look);
        if n == cursor {
            buffer.set_style(line, Modifier::REVERSED);
        }
    }
}

/// Width of the longest name.
fn longest(state: &State) -> usize {
    let vms = state.view.iter().flat_map(|view| &view.vms);
    let widths = vms.map(|vm| Line::raw(vm.name.as_str()).width());
    widths.max().unwrap_or(0)
}

/// Writes text at the left of an area, cut off at its right.
fn put(buffer: &mut Buffer, area: Rect, text: &str, style: Style) {
    buffer.set_stringn(area.x, area.y, text, usize::from(area.width), style);
}

/// Splits a line into one part for each column and one for the graph.
fn cells(line: Rect, layout: &Layout) -> impl Iterator<Item = Rect> {
    let widths: Vec<usize> = layout.columns.iter().map(|(_, width)| *width).collect();
    let mut left = usize::from(line.x);
    let widths = widths.into_iter().chain(layout.graph);
    widths.map(move |width| {
        let cell = Rect::new(left as u16, line.y, width as u16, 1);
        left += width + GAP;
        cell.intersection(line)
    })
}

fn heading(buffer: &mut Buffer, line: Rect, state: &State, layout: &Layout) {
    let style = Style::new().add_modifier(Modifier::REVERSED);
    buffer.set_style(line, style);
    let sorted = state.sort().column;
    let mut places = cells(line, layout);
    for ((column, width), cell) in layout.columns.iter().zip(&mut places) {
        let style = if *column == sorted {
            style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
        } else {
            style
        };
        let title = aligned(*column, column.title(), *width);
        put(buffer, cell, &title, style);
    }
    if let (Some(width), Some(cell)) = (layout.graph, places.next()) {
        let title = state.graph.title();
        let title = if width >= title.len() + 12 {
            format!("{title}, last 60 s")
        } else {
            title.to_owned()
        };
        put(buffer, cell, &title, style);
    }
}

/// Aligns names to the left, numbers to the right.
fn aligned(column: Column, text: &str, width: usize) -> String {
    match column {
        Column::Vm => text.to_owned(),
        _ => format!("{text:>width$}"),
    }
}

fn draw_row(
    buffer: &mut Buffer,
    line: Rect,
    row: Row,
    state: &State,
    layout: &Layout,
    look: Appearance,
) {
    let Some(subject) = state.view.as_ref().and_then(|view| row.subject(view)) else {
        return;
    };
    let mut places = cells(line, layout);
    for ((column, width), cell) in layout.columns.iter().zip(&mut places) {
        let text = column.text(subject);
        let text = match column {
            Column::Vm => fit(&text, *width),
            _ => aligned(*column, &text, *width),
        };
        put(buffer, cell, &text, style(*column, subject, look));
    }
    if let (Some(width), Some(cell)) = (layout.graph, places.next()) {
        let vcpu = subject.vcpu.map(|vcpu| vcpu.index);
        let (history, name) = (&state.history, &subject.vm.name);
        let levels = history.columns(name, vcpu, state.graph, width);
        put(buffer, cell, &graph(&levels, look), look.color(Color::Cyan));
    }
}

/// A name in `width` screen columns; some characters take two.
fn fit(name: &str, width: usize) -> String {
    let mut most = width;
    loop {
        let text = out::shorten(name, most);
        if most == 0 || Line::raw(text.as_ref()).width() <= width {
            return text.into_owned();
        }
        most -= 1;
    }
}

fn style(column: Column, subject: Subject<'_>, look: Appearance) -> Style {
    let number = column.number(subject);
    let over = |least| number.is_some_and(|number| number >= least);
    match column {
        Column::Delay if over(CRITICAL) => look.color(Color::Red).add_modifier(Modifier::BOLD),
        Column::Delay if over(HIGH) => look.color(Color::Yellow).add_modifier(Modifier::BOLD),
        Column::Worst | Column::Cause(_) if over(1.0) => {
            look.color(Color::Red).add_modifier(Modifier::BOLD)
        }
        _ => Style::new(),
    }
}

/// One character for each level; a space if it is unknown.
fn graph(levels: &[Option<f64>], look: Appearance) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let glyphs = if look.unicode { BLOCKS } else { ASCII };
    let glyph = |level: f64| {
        let n = (level * glyphs.len() as f64) as usize;
        glyphs[n.min(glyphs.len() - 1)]
    };
    levels
        .iter()
        .map(|level| level.map_or(' ', glyph))
        .collect()
}
