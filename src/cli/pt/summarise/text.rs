//! The text output of `pt summarise`.

use std::fmt::Write;

use super::Summarised;
use crate::cli::out::{self, or_dash};
use crate::pt::{Histogram, ModeSummary, Packets, Power, Summary};

/// Width of the first column.
const COLUMN: usize = 15;

/// All figures of one trace, and an empty line.
pub(super) fn page(all: &Summarised<'_>) -> String {
    let summary = &all.summary;
    let mut page = format!("{}, {}\n", all.file, all.trace.name);
    page += &sides(all);
    page += &line("VM entries", summary.entries);
    page += &line("VM exits", exits(summary));
    page += &timed("guest runs", &summary.guest_runs);
    page += &timed("host handling", &summary.host_handling);
    match summary.ratio {
        Some((least, most)) if least == most => page += &line("core:bus ratio", least),
        Some((least, most)) => page += &line("core:bus ratio", format!("{least} to {most}")),
        None => {}
    }
    page += &named("power", power(&summary.power));
    page += &named("packets", packets(&summary.packets));
    page += &line("bytes", bytes(all));
    page += &named("lost", lost(all));
    for at in &summary.errors {
        page += &line("error", format!("at offset {:#x}: {}", at.offset, at.fault));
    }
    let more = summary.packets.err - summary.errors.len().min(summary.packets.err as usize) as u64;
    if more > 0 {
        page += &line("", format!("and {more} more"));
    }
    page += "\n";
    page
}

fn line(name: &str, value: impl ToString) -> String {
    format!("{name:COLUMN$} {}\n", value.to_string())
}

/// Figures other than 0; no line if all are 0.
fn named(name: &str, figures: Vec<String>) -> String {
    if figures.is_empty() {
        String::new()
    } else {
        let width = out::width().unwrap_or(usize::MAX);
        line(name, out::wrap(&figures.join(", "), width, COLUMN + 1))
    }
}

const HEADER: [&str; 8] = [
    "SIDE",
    "TAKEN",
    "NOT TAKEN",
    "INDIRECT",
    "ASYNC",
    "CR3 LOADS",
    "CYCLES",
    "TIME",
];

fn sides(all: &Summarised<'_>) -> String {
    let sides = [
        ("guest", all.guest()),
        ("host", all.host()),
        ("unknown", Some(&all.summary.unknown)),
    ];
    let row = |(name, side): (&str, Option<&ModeSummary>)| {
        let mut row = vec![format!("{name:width$}", width = COLUMN - 1)];
        match side {
            Some(side) => row.extend(figures(all, side)),
            None => row.resize(HEADER.len(), "-".to_owned()),
        }
        row
    };
    out::table(&HEADER, sides.map(row), HEADER.len())
}

fn figures(all: &Summarised<'_>, side: &ModeSummary) -> [String; 7] {
    [
        side.taken.to_string(),
        side.not_taken.to_string(),
        side.indirect.to_string(),
        side.asynchronous.to_string(),
        side.address_spaces.to_string(),
        or_dash(all.cycles(side)),
        or_dash(all.nanoseconds(side).map(duration)),
    ]
}

fn exits(summary: &Summary) -> String {
    let mut text = summary.exits.to_string();
    for (n, (reason, count)) in summary.exit_reasons.iter().enumerate() {
        let before = if n == 0 { ": " } else { ", " };
        let _ = match reason_name(*reason) {
            Some(name) => write!(text, "{before}{name} {count}"),
            None => write!(text, "{before}reason {reason} {count}"),
        };
    }
    text
}

/// Names of common exits, as in KVM's tracepoints (`VMX_EXIT_REASONS`,
/// arch/x86/include/uapi/asm/vmx.h).
fn reason_name(reason: u16) -> Option<&'static str> {
    const NAMES: [(u16, &str); 24] = [
        (0, "EXCEPTION_NMI"),
        (1, "EXTERNAL_INTERRUPT"),
        (2, "TRIPLE_FAULT"),
        (7, "INTERRUPT_WINDOW"),
        (8, "NMI_WINDOW"),
        (10, "CPUID"),
        (12, "HLT"),
        (14, "INVLPG"),
        (15, "RDPMC"),
        (16, "RDTSC"),
        (18, "VMCALL"),
        (24, "VMRESUME"),
        (28, "CR_ACCESS"),
        (29, "DR_ACCESS"),
        (30, "IO_INSTRUCTION"),
        (31, "MSR_READ"),
        (32, "MSR_WRITE"),
        (40, "PAUSE_INSTRUCTION"),
        (44, "APIC_ACCESS"),
        (45, "EOI_INDUCED"),
        (48, "EPT_VIOLATION"),
        (49, "EPT_MISCONFIG"),
        (52, "PREEMPTION_TIMER"),
        (56, "APIC_WRITE"),
    ];
    let found = NAMES.iter().find(|(number, _)| *number == reason);
    found.map(|(_, name)| *name)
}

/// Longest bar, in characters.
const BAR: u64 = 40;

/// Count and mean, with a bar for each power of two from the lowest to the highest bucket.
fn timed(name: &str, histogram: &Histogram) -> String {
    let count = histogram.count();
    let Some(mean) = histogram.sum().checked_div(count) else {
        return line(name, "none timed");
    };
    let mut text = line(name, format!("{count} timed, mean {}", duration(mean)));
    let counts = histogram.counts();
    let is_filled = |count: &u64| *count > 0;
    let first = counts.iter().position(is_filled).unwrap_or(0);
    let last = counts.iter().rposition(is_filled).unwrap_or(0);
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    for (n, count) in counts.iter().enumerate().take(last + 1).skip(first) {
        let bound = if n == Histogram::BUCKETS - 1 {
            format!("> {}", duration(1 << (n - 1)))
        } else {
            format!("<= {}", duration(1 << n))
        };
        // A non-empty bucket has at least one character.
        let bar = (u128::from(*count) * u128::from(BAR)).div_ceil(u128::from(most));
        let bar = "#".repeat(bar as usize);
        let row = format!("{:COLUMN$} {bound:>11} {count:>10} {bar}", "");
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// Three significant digits and the unit.
fn duration(nanoseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "µs")];
    let unit = UNITS.iter().find(|(length, _)| nanoseconds >= *length);
    let Some((length, unit)) = unit else {
        return format!("{nanoseconds} ns");
    };
    let value = nanoseconds as f64 / *length as f64;
    let digits = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

fn some(figures: &[(u64, &str)]) -> Vec<String> {
    let figures = figures.iter().filter(|(count, _)| *count > 0);
    figures.map(|(n, name)| format!("{name} {n}")).collect()
}

fn power(power: &Power) -> Vec<String> {
    some(&[
        (power.mwait, "MWAIT"),
        (power.entries, "sleeps"),
        (power.exits, "wake-ups"),
        (power.stops, "clock stops"),
    ])
}

fn packets(p: &Packets) -> Vec<String> {
    some(&[
        (p.tnt, "TNT"),
        (p.tip, "TIP"),
        (p.fup, "FUP"),
        (p.pge, "TIP.PGE"),
        (p.pgd, "TIP.PGD"),
        (p.cyc, "CYC"),
        (p.mtc, "MTC"),
        (p.tsc, "TSC"),
        (p.tma, "TMA"),
        (p.cbr, "CBR"),
        (p.mode, "MODE"),
        (p.pip, "PIP"),
        (p.vmcs, "VMCS"),
        (p.psb, "PSB"),
        (p.psbend, "PSBEND"),
        (p.ovf, "OVF"),
        (p.pad, "PAD"),
        (p.other, "other"),
        (p.err, "errors"),
    ])
}

fn bytes(all: &Summarised<'_>) -> String {
    let summary = &all.summary;
    let cuts = all.trace.cuts().len() as u64;
    let mut figures = vec![all.trace.len().to_string()];
    figures.extend(some(&[
        (summary.skipped_bytes, "skipped"),
        (summary.trailing_bytes, "truncated"),
        (cuts, "restarts"),
    ]));
    figures.join(", ")
}

/// Missing parts, by who reported them.
fn lost(all: &Summarised<'_>) -> Vec<String> {
    let losses = all.trace.losses().unwrap_or_default();
    some(&[
        (all.summary.packets.ovf, "CPU overflows"),
        (losses.truncated, "full buffers"),
        (losses.partial, "gaps"),
        (losses.collision, "collisions"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let all = [0, 999, 1000, 1024, 65_536, 1 << 20, 268_435_456, 1 << 39];
        let texts = all.map(duration);
        let expected = [
            "0 ns", "999 ns", "1.00 µs", "1.02 µs", "65.5 µs", "1.05 ms", "268 ms", "550 s",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_histogram_shows_what_lies_between_its_least_and_most() {
        let mut histogram = Histogram::default();
        for n in [700, 800, 900, 5000, u64::MAX / 2] {
            histogram.observe(n);
        }
        let text = timed("guest runs", &histogram);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 31);
        assert_eq!(lines[0], "guest runs      5 timed, mean 1844674407 s");
        let row = |n: usize| lines[n].split_whitespace().collect::<Vec<_>>();
        assert_eq!(row(1), ["<=", "1.02", "µs", "3", &"#".repeat(40)]);
        assert_eq!(row(2), ["<=", "2.05", "µs", "0"]);
        assert_eq!(row(31), [">", "550", "s", "1", &"#".repeat(14)]);
        assert_eq!(
            timed("x", &Histogram::default()),
            "x               none timed\n"
        );
    }

    #[test]
    fn exit_reasons_have_kvms_names() {
        let summary = Summary {
            exits: 4,
            exit_reasons: [(12, 3), (999, 1)].into(),
            ..Summary::default()
        };
        assert_eq!(exits(&summary), "4: HLT 3, reason 999 1");
    }
}
