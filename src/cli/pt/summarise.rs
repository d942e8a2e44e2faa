//! `pt summarise`: what a trace comes down to.

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
    /// One JSON array with an object for each trace; null is unknown
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

/// A file that is wrong is told on standard error, and does not keep the others from being shown.
pub(super) fn run(args: &SummariseArgs) -> anyhow::Result<ExitCode> {
    let mut objects = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for file in &args.files {
        let show = |all: &Summarised<'_>| match args.json {
            true => {
                objects.push(json::object(all));
                Ok(())
            }
            false => out::print(&text::page(all)),
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
    let traces = Trace::all(&bytes).with_context(|| format!("cannot summarise {file}"))?;
    let progress = Progress::of(bytes.len() as u64);
    for trace in &traces {
        progress.say(format_args!("summarising {file}, {}", trace.name));
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
    /// The guest, where the trace told that there is one.
    fn guest(&self) -> Option<&pt::Side> {
        (self.summary.packets.pipnr > 0).then_some(&self.summary.guest)
    }

    /// The host, likewise.
    fn host(&self) -> Option<&pt::Side> {
        let packets = &self.summary.packets;
        (packets.pip > packets.pipnr).then_some(&self.summary.host)
    }

    /// Cycles of a side, where the trace has any.
    fn cycles(&self, side: &pt::Side) -> Option<u64> {
        (self.summary.packets.cyc > 0).then_some(side.cycles)
    }

    /// Time of a side, where the trace tells it. By TSC packets alone only some of it is ever known,
    /// and of a short trace none.
    fn nanoseconds(&self, side: &pt::Side) -> Option<u64> {
        let is_known = match self.summary.packets.cyc {
            0 => side.nanoseconds > 0,
            _ => self.summary.ratio.is_some(),
        };
        is_known.then_some(side.nanoseconds)
    }
}
