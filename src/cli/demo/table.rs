//! A live table of vCPU activity for a terminal, from two successive snapshots.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::cli::out;
use crate::snapshot::delta::{Columns, Counter, Delta};
use crate::snapshot::{Snapshot, VcpuRow};
use crate::sources::sched;

/// Longest displayed VM name, in characters.
const MAX_NAME: usize = 24;

/// Number of tables that are printed if they cannot be redrawn in place.
const QUIET_AFTER: usize = 3;

/// Shown for an unknown value.
const UNKNOWN: &str = "-";

const SWITCHES: Counter = Counter::new(&sched::CONTEXT_SWITCHES);

/// Rates, the most useful first: a narrow terminal drops them from the right. Title, counter, and
/// whether it counts nanoseconds, which are shown as seconds.
const RATES: [(&str, Counter, bool); 7] = [
    ("time s/s", Counter::new(&sched::TIME), true),
    ("delay s/s", Counter::new(&sched::DELAY), true),
    ("migrations/s", Counter::new(&sched::MIGRATIONS), false),
    ("waits/s", SWITCHES.with("type", "voluntary"), false),
    ("preempted/s", SWITCHES.with("type", "involuntary"), false),
    ("in guest s/s", Counter::new(&sched::GUEST), true),
    ("page faults/s", Counter::new(&sched::PAGE_FAULTS), false),
];

/// Renders the rates between two snapshots. Lines end in a line feed and have at most `width`
/// characters, if the identifying columns allow it.
pub(super) fn render(prev: &Snapshot, now: &Snapshot, width: u16) -> String {
    let delta = Delta::new(prev, now);
    let columns = RATES.map(|(_, counter, _)| delta.columns(&counter));
    let vcpus = now.vcpus.iter().enumerate();
    let rows: Vec<Vec<String>> = vcpus
        .map(|(n, vcpu)| row(&delta, &columns, n, vcpu))
        .collect();
    fit(&rows, usize::from(width))
}

/// The first `height` lines; the last of them says how many are omitted. A table higher than the
/// terminal cannot be redrawn in place.
pub(super) fn clip(text: &str, height: usize) -> Cow<'_, str> {
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
        .chain(RATES.map(|(title, ..)| title))
        .collect();
    let mut columns = titles.len();
    loop {
        let rows = rows.iter().map(|row| &row[..columns]);
        let text = out::table(&titles[..columns], rows, 1);
        let widest = text.lines().map(|line| line.chars().count()).max();
        if widest.unwrap_or(0) <= width || columns <= IDENTIFYING + 1 {
            return text;
        }
        columns -= 1;
    }
}

/// Number of columns before the first rate.
const IDENTIFYING: usize = 5;

fn row(delta: &Delta<'_>, columns: &[Columns], n: usize, vcpu: &VcpuRow) -> Vec<String> {
    let elapsed = delta.span().as_secs_f64();
    let mut cells = identity(vcpu);
    for ((_, _, is_time), columns) in RATES.iter().zip(columns) {
        let (scale, decimals) = if *is_time { (1e-9, 3) } else { (1.0, 0) };
        cells.push(match delta.of_vcpu(n, columns) {
            Some(increase) if elapsed > 0.0 => {
                format!("{:.decimals$}", increase as f64 * scale / elapsed)
            }
            _ => UNKNOWN.to_owned(),
        });
    }
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
pub(super) struct Screen {
    in_place: bool,
    shown: usize,
    lines: usize,
}

impl Screen {
    /// `in_place`: the output is a terminal, where lines can be redrawn.
    pub(super) fn new(in_place: bool) -> Self {
        Self {
            in_place,
            shown: 0,
            lines: 0,
        }
    }

    pub(super) fn show(&mut self, table: &str, out: &mut impl Write) -> io::Result<()> {
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
    pub(super) fn is_done(&self) -> bool {
        !self.in_place && self.shown >= QUIET_AFTER
    }
}

#[cfg(test)]
mod tests;
