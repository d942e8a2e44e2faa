//! `pt summarise`: reduces a trace to counts, times and histograms.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::input::{self, Trace};
use super::progress::Progress;
use crate::cli::{explain, out};
use crate::pt;

mod json;
mod text;

/// Flags of `pt summarise`.
#[derive(Debug, Clone, Args)]
pub(super) struct SummariseArgs {
    /// Raw AUX data or perf.data files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print a JSON array with one object per trace; null is unknown
    #[arg(long)]
    json: bool,
}

/// A trace and its summary.
#[derive(Debug)]
struct Summarised<'a> {
    file: &'a str,
    trace: &'a Trace<'a>,
    summary: pt::Summary,
}

/// Reports an invalid file on standard error and continues with the next.
pub(super) fn run(args: &SummariseArgs) -> anyhow::Result<ExitCode> {
    let mut objects = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        let show = |all: &Summarised<'_>| {
            if args.json {
                objects.push(json::object(all));
                Ok(())
            } else {
                out::print(&text::page(all))
            }
        };
        if let Err(error) = summarise(file, show) {
            out::say(&explain(&error));
            code = ExitCode::FAILURE;
        }
    }
    if args.json {
        out::print_json(&objects)?;
    }
    Ok(code)
}

fn summarise(
    path: &Path,
    mut show: impl FnMut(&Summarised<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = &input::name(path);
    let bytes = input::read(path).with_context(|| format!("cannot read {file}"))?;
    let traces = Trace::all(&bytes).with_context(|| format!("cannot summarize {file}"))?;
    let progress = Progress::new(bytes.len() as u64);
    for trace in &traces {
        progress.say(format_args!("summarizing {file}, {}", trace.name));
        let summary = pt::summarise(&trace.bytes(), trace.cuts(), &trace.clocks);
        progress.say("");
        show(&Summarised {
            file,
            trace,
            summary,
        })?;
    }
    Ok(())
}

impl Summarised<'_> {
    /// Guest figures, if the trace shows that there is a guest.
    fn guest(&self) -> Option<&pt::ModeSummary> {
        (self.summary.packets.pipnr > 0).then_some(&self.summary.guest)
    }

    /// Host figures, if the trace shows that there is a guest.
    fn host(&self) -> Option<&pt::ModeSummary> {
        let packets = &self.summary.packets;
        (packets.pip > packets.pipnr).then_some(&self.summary.host)
    }

    /// Cycles of one mode, if the trace has any.
    fn cycles(&self, side: &pt::ModeSummary) -> Option<u64> {
        (self.summary.packets.cyc > 0).then_some(side.cycles)
    }

    /// Time of one mode, if the trace has it. TSC packets alone give only part of the time, and
    /// none for a short trace.
    fn nanoseconds(&self, side: &pt::ModeSummary) -> Option<u64> {
        let is_known = match self.summary.packets.cyc {
            0 => side.nanoseconds > 0,
            _ => self.summary.ratio.is_some(),
        };
        is_known.then_some(side.nanoseconds)
    }
}
