//! A live table of vCPU activity for a terminal, from two successive snapshots.

use std::borrow::Cow;
use std::io::{self, Write};

use comfy_table::{presets, CellAlignment, ContentArrangement, Table};

use crate::metric::Metric;
use crate::snapshot::delta::{Columns, Counter, Delta};
use crate::snapshot::{Snapshot, VcpuRow};
use crate::sources::sched;

/// Longest displayed VM name, in characters.
const MAX_NAME: usize = 24;

/// Number of tables that are printed if they cannot be redrawn in place.
const QUIET_AFTER: usize = 3;

/// Shown for an unknown value.
const UNKNOWN: &str = "-";

/// A column: the delta of one counter, summed over the columns that match.
struct Rate {
    title: &'static str,
    counter: Counter,
    /// Factor from nanoseconds to seconds, for times.
    scale: f64,
    decimals: usize,
}

const fn time(title: &'static str, metric: &'static Metric) -> Rate {
    Rate {
        title,
        counter: Counter::of(metric),
        scale: 1e-9,
        decimals: 3,
    }
}

const fn count(title: &'static str, metric: &'static Metric) -> Rate {
    Rate {
        title,
        counter: Counter::of(metric),
        scale: 1.0,
        decimals: 0,
    }
}

const fn switches(title: &'static str, kind: &'static str) -> Rate {
    let rate = count(title, &sched::CONTEXT_SWITCHES);
    Rate {
        counter: rate.counter.with("type", kind),
        ..rate
    }
}

/// Rates, the most useful first: a narrow terminal drops them from the right.
const RATES: &[Rate] = &[
    time("time s/s", &sched::TIME),
    time("delay s/s", &sched::DELAY),
    count("migrations/s", &sched::MIGRATIONS),
    switches("waits/s", "voluntary"),
    switches("preempted/s", "involuntary"),
    time("in guest s/s", &sched::GUEST),
    count("page faults/s", &sched::PAGE_FAULTS),
];

/// Renders the rates between two snapshots. Lines end in a line feed and have at most `width`
/// characters, if the identifying columns allow it.
pub fn render(prev: &Snapshot, now: &Snapshot, width: u16) -> String {
    let delta = Delta::new(prev, now);
    let columns = |rate: &Rate| delta.columns(&rate.counter);
    let columns: Vec<Columns> = RATES.iter().map(columns).collect();
    let vcpus = now.vcpus.iter().enumerate();
    let rows: Vec<Vec<String>> = vcpus
        .map(|(n, vcpu)| row(&delta, &columns, n, vcpu))
        .collect();
    fit(&rows, usize::from(width))
}

/// The first `height` lines; the last of them says how many are omitted. A table higher than the
/// terminal cannot be redrawn in place.
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

/// Number of columns before the first rate.
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
        // Remove the padding at both ends of the line.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

fn row(delta: &Delta<'_>, columns: &[Columns], n: usize, vcpu: &VcpuRow) -> Vec<String> {
    let elapsed = delta.span().as_secs_f64();
    let mut cells = identity(vcpu);
    cells.extend(RATES.iter().zip(columns).map(
        |(rate, columns)| match delta.of_vcpu(n, columns) {
            Some(increase) if elapsed > 0.0 => {
                format!(
                    "{:.*}",
                    rate.decimals,
                    increase as f64 * rate.scale / elapsed
                )
            }
            _ => UNKNOWN.to_owned(),
        },
    ));
    cells
}

fn identity(vcpu: &VcpuRow) -> Vec<String> {
    let vm = vcpu.labels.get("vm").unwrap_or(UNKNOWN);
    let mut cells = vec![printable(vm).into_owned(), vcpu.vcpu.index.to_string()];
    match vcpu.location {
        Some(at) => cells.extend([
            at.cpu.to_string(),
            at.place.core.to_string(),
            at.place.numa_node.to_string(),
        ]),
        None => cells.extend([UNKNOWN; 3].map(str::to_owned)),
    }
    cells
}

/// Escapes control characters in a name.
fn printable(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME && name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Cow::Borrowed(name);
    }
    let visible = |c: char| if c.is_control() { '?' } else { c };
    Cow::Owned(name.chars().take(MAX_NAME).map(visible).collect())
}

/// Displays successive tables: in place on a terminal, else only the first few.
#[derive(Debug)]
pub struct Screen {
    in_place: bool,
    shown: usize,
    lines: usize,
}

impl Screen {
    /// `in_place`: the output is a terminal, where lines can be redrawn.
    pub fn new(in_place: bool) -> Self {
        Self {
            in_place,
            shown: 0,
            lines: 0,
        }
    }

    /// Displays a table.
    ///
    /// # Errors
    /// If writing to `out` fails.
    pub fn show(&mut self, table: &str, out: &mut impl Write) -> io::Result<()> {
        if self.in_place && self.lines > 0 {
            // Move to the start of the last table and clear from there (ECMA-48: CPL, ED).
            write!(out, "\x1b[{}F\x1b[J", self.lines)?;
        } else if !self.in_place && self.shown > 0 {
            writeln!(out)?;
        }
        self.shown += 1;
        self.lines = table.lines().count();
        out.write_all(table.as_bytes())?;
        out.flush()
    }

    /// Whether it will display no more tables.
    pub fn is_done(&self) -> bool {
        !self.in_place && self.shown >= QUIET_AFTER
    }
}

#[cfg(test)]
mod tests;
