//! One view as plain text, for scripts and without a terminal.

use std::time::Instant;

use super::column::Column;
use super::layout::{layout, Layout};
use super::state::State;
use super::words;
use crate::cli::out;

/// Most lines of verdicts.
const VERDICTS: usize = 10;

/// The whole page, in lines of `width` characters if the names allow it.
pub(super) fn page(state: &State, width: Option<usize>, now: Instant) -> String {
    let Some(view) = &state.view else {
        return String::new();
    };
    let mut text = format!("{}\n", words::title(state, now));
    if let Some(line) = words::synthetic(view) {
        text += &format!("{}\n", line.trim());
    }
    text += &format!("{}\n", words::host(view));
    let wrap = width.unwrap_or(usize::MAX);
    for line in words::verdicts(view, wrap, VERDICTS) {
        text += &format!("{line}\n");
    }
    if state.len() > 0 {
        text += &format!("\n{}:\n{}", words::caption(state, ""), table(state, width));
    }
    text
}

fn table(state: &State, width: Option<usize>) -> String {
    let Some(view) = &state.view else {
        return String::new();
    };
    let names = view.vms.iter().map(|vm| vm.name.chars().count());
    let longest = names.max().unwrap_or(0);
    // Without a width, show all columns and whole names.
    let Layout { columns, .. } = layout(
        state.table,
        width.unwrap_or(5 * longest + 500),
        longest,
        false,
    );
    let line = |cell: &dyn Fn(Column) -> String| {
        let cells = columns.iter().map(|(column, width)| {
            let text = cell(*column);
            match column {
                Column::Vm => format!("{:<width$}", out::shorten(&text, *width)),
                _ => format!("{text:>width$}"),
            }
        });
        let cells: Vec<String> = cells.collect();
        format!("{}\n", cells.join(" ").trim_end())
    };
    let mut text = line(&|column| column.title().to_owned());
    for row in state.rows() {
        if let Some(subject) = row.subject(view) {
            text += &line(&|column| column.text(subject));
        }
    }
    text
}
