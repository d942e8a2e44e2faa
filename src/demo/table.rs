//! A live table of what the vCPUs do, from two successive snapshots, for a terminal.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use comfy_table::{presets, CellAlignment, ContentArrangement, Table};

use crate::snapshot::{ColumnRow, Snapshot, VcpuRow};

/// Longest VM name shown, in characters.
const MAX_NAME: usize = 24;

/// How many tables are printed where they cannot be redrawn in place.
const QUIET_AFTER: usize = 3;

/// What is not known.
const UNKNOWN: &str = "-";

/// A number in the table: the growth of one counter, summed over the columns that match.
struct Rate {
    title: &'static str,
    metric: &'static str,
    /// Label the column must carry, if it matters.
    label: Option<(&'static str, &'static str)>,
    /// Nanoseconds to seconds where the counter is a time.
    scale: f64,
    decimals: usize,
}

const fn time(title: &'static str, metric: &'static str) -> Rate {
    Rate {
        title,
        metric,
        label: None,
        scale: 1e-9,
        decimals: 3,
    }
}

const fn count(title: &'static str, metric: &'static str) -> Rate {
    Rate {
        title,
        metric,
        label: None,
        scale: 1.0,
        decimals: 0,
    }
}

const fn labelled(rate: Rate, name: &'static str, value: &'static str) -> Rate {
    Rate {
        label: Some((name, value)),
        ..rate
    }
}

/// The table's rates, most telling first: a narrow terminal loses them from the right.
const RATES: &[Rate] = &[
    time("time s/s", "kvm_vcpu_time_seconds_total"),
    time("delay s/s", "kvm_vcpu_delay_seconds_total"),
    count("migrations/s", "kvm_vcpu_migrations_total"),
    labelled(
        count("waits/s", "kvm_vcpu_context_switches_total"),
        "type",
        "voluntary",
    ),
    labelled(
        count("preempted/s", "kvm_vcpu_context_switches_total"),
        "type",
        "involuntary",
    ),
    time("in guest s/s", "kvm_vcpu_guest_seconds_total"),
    count("page faults/s", "kvm_vcpu_page_faults_total"),
];

/// The table of what happened between two snapshots, at most `width` characters wide if the
/// identifying columns allow; each line ends in a line feed.
pub fn render(prev: &Snapshot, now: &Snapshot, width: u16) -> String {
    let elapsed = now.taken_mono.saturating_duration_since(prev.taken_mono);
    let before = Before::new(prev);
    let rows: Vec<Vec<String>> = now
        .vcpus
        .iter()
        .enumerate()
        .map(|(n, vcpu)| row(&before, now, n, vcpu, elapsed.as_secs_f64()))
        .collect();
    fit(&rows, usize::from(width))
}

/// The first `height` lines, the last of them saying how many are left out: what is higher than
/// the terminal cannot be drawn over.
pub fn clip(text: &str, height: usize) -> Cow<'_, str> {
    let lines = text.lines().count();
    if lines <= height {
        return Cow::Borrowed(text);
    }
    let kept = height.saturating_sub(1);
    let mut clipped: String = text.split_inclusive('\n').take(kept).collect();
    clipped.push_str(&format!("... {} more lines\n", lines - kept));
    Cow::Owned(clipped)
}

/// Drops columns from the right until the table fits.
fn fit(rows: &[Vec<String>], width: usize) -> String {
    let titles: Vec<&str> = ["VM", "vCPU", "CPU", "core", "node"]
        .into_iter()
        .chain(RATES.iter().map(|rate| rate.title))
        .collect();
    let mut columns = titles.len();
    loop {
        let text = draw(&titles[..columns], rows);
        let widest = text.lines().map(|line| line.chars().count()).max();
        if widest.unwrap_or(0) <= width || columns <= IDENTIFYING + 1 {
            return text;
        }
        columns -= 1;
    }
}

/// Columns before the first rate.
const IDENTIFYING: usize = 5;

fn draw(titles: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(titles);
    for row in rows {
        table.add_row(row.iter().take(titles.len()));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    for line in table.lines() {
        // The padding around each cell is of no use at the edges.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

fn row(before: &Before<'_>, now: &Snapshot, n: usize, vcpu: &VcpuRow, elapsed: f64) -> Vec<String> {
    let known = before.vcpus.get(vcpu.labels.text());
    // Another thread under the same name has its own totals: nothing is known of it yet.
    let prev_n = known.filter(|&&n| {
        before
            .snapshot
            .vcpus
            .get(n)
            .is_some_and(|p| p.tid == vcpu.tid)
    });
    let mut cells = identity(vcpu);
    cells.extend(RATES.iter().map(|rate| {
        let grown = prev_n.and_then(|&prev_n| rate.grown(before, prev_n, now, n));
        match grown {
            Some(grown) if elapsed > 0.0 => {
                format!("{:.*}", rate.decimals, grown as f64 * rate.scale / elapsed)
            }
            _ => UNKNOWN.to_owned(),
        }
    }));
    cells
}

fn identity(vcpu: &VcpuRow) -> Vec<String> {
    let vm = vcpu.labels.get("vm").unwrap_or(UNKNOWN);
    let mut cells = vec![printable(vm).into_owned(), vcpu.index.to_string()];
    match vcpu.whereabouts {
        Some(at) => cells.extend([
            at.cpu.to_string(),
            at.place.core.to_string(),
            at.place.numa_node.to_string(),
        ]),
        None => cells.extend([UNKNOWN; 3].map(str::to_owned)),
    }
    cells
}

/// A name fit for a terminal: one that sends control sequences must not reach it.
fn printable(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME && name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Cow::Borrowed(name);
    }
    let visible = |c: char| if c.is_control() { '?' } else { c };
    Cow::Owned(name.chars().take(MAX_NAME).map(visible).collect())
}

/// The earlier snapshot and where to find things in it.
struct Before<'a> {
    snapshot: &'a Snapshot,
    vcpus: HashMap<&'a str, usize>,
    cells: HashMap<&'a str, usize>,
}

impl<'a> Before<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let vcpus = snapshot.vcpus.iter().enumerate();
        let cells = snapshot.cells.iter().enumerate();
        Self {
            snapshot,
            vcpus: vcpus.map(|(n, row)| (row.labels.text(), n)).collect(),
            cells: cells.map(|(n, row)| (row.labels.text(), n)).collect(),
        }
    }
}

impl Rate {
    /// How far the counter of vCPU `n` has grown since `before`, where it was vCPU `prev_n`.
    fn grown(&self, before: &Before<'_>, prev_n: usize, now: &Snapshot, n: usize) -> Option<u64> {
        let placed = matching(&now.placed, self).map(|c| placed_growth(before, now, n, c));
        let own = matching(&now.per_vcpu, self).map(|c| own_growth(before, prev_n, now, n, c));
        placed.chain(own).flatten().reduce(u64::saturating_add)
    }

    fn is(&self, column: &ColumnRow) -> bool {
        column.metric.name == self.metric
            && self
                .label
                .is_none_or(|(name, value)| column.labels.get(name) == Some(value))
    }
}

fn matching<'a>(columns: &'a [ColumnRow], rate: &'a Rate) -> impl Iterator<Item = usize> + 'a {
    let matching = columns.iter().enumerate().filter(|(_, c)| rate.is(c));
    matching.map(|(n, _)| n)
}

/// Growth of a column charged to places: a place new to the vCPU began at 0.
fn placed_growth(before: &Before<'_>, now: &Snapshot, n: usize, column: usize) -> Option<u64> {
    let range = now.vcpus.get(n)?.cells.clone();
    let cells = range.filter_map(|cell| {
        let total = cell_total(now, cell, column)?;
        let label = now.cells.get(cell)?.labels.text();
        let earlier = before.cells.get(label);
        let earlier = earlier.and_then(|&cell| cell_total(before.snapshot, cell, column));
        Some(total.saturating_sub(earlier.unwrap_or(0)))
    });
    cells.reduce(u64::saturating_add)
}

fn own_growth(
    before: &Before<'_>,
    prev_n: usize,
    now: &Snapshot,
    n: usize,
    column: usize,
) -> Option<u64> {
    let total = vcpu_value(now, n, column)?;
    Some(total.saturating_sub(vcpu_value(before.snapshot, prev_n, column)?))
}

fn cell_total(snapshot: &Snapshot, cell: usize, column: usize) -> Option<u64> {
    let known = snapshot.cells.get(cell)?.known;
    let at = cell * snapshot.placed.len() + column;
    (known >> column & 1 == 1).then(|| snapshot.cell_totals.get(at).copied())?
}

fn vcpu_value(snapshot: &Snapshot, vcpu: usize, column: usize) -> Option<u64> {
    let known = snapshot.vcpus.get(vcpu)?.known;
    let at = vcpu * snapshot.per_vcpu.len() + column;
    (known >> column & 1 == 1).then(|| snapshot.vcpu_values.get(at).copied())?
}

/// Shows one table after the other: in place on a terminal, else the first few and then no more.
#[derive(Debug)]
pub struct Screen {
    in_place: bool,
    shown: usize,
    lines: usize,
}

impl Screen {
    /// A screen; `in_place` says that it is a terminal, where lines can be drawn over.
    pub fn new(in_place: bool) -> Self {
        Self {
            in_place,
            shown: 0,
            lines: 0,
        }
    }

    /// Shows a table.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn show(&mut self, table: &str, out: &mut impl Write) -> io::Result<()> {
        if self.in_place && self.lines > 0 {
            // Up to where the last table began, and clear from there (ECMA-48: CPL, ED).
            write!(out, "\x1b[{}F\x1b[J", self.lines)?;
        } else if !self.in_place && self.shown > 0 {
            writeln!(out)?;
        }
        self.shown += 1;
        self.lines = table.lines().count();
        out.write_all(table.as_bytes())?;
        out.flush()
    }

    /// Whether it will show no more.
    pub fn is_done(&self) -> bool {
        !self.in_place && self.shown >= QUIET_AFTER
    }
}

#[cfg(test)]
mod tests;
