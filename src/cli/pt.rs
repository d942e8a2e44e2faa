//! `pt`: Intel Processor Trace by hand.

use std::process::ExitCode;

use clap::{Args, Subcommand};

mod decode;
mod input;
mod progress;
mod summarise;

/// Flags of `pt`.
#[derive(Debug, Clone, Args)]
pub(super) struct PtArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Reduce traces to figures: branches, cycles, VM entries and exits, guest and host apart
    Summarise(summarise::SummariseArgs),
    /// Print every packet of a trace
    Decode(decode::DecodeArgs),
}

pub(super) fn run(args: &PtArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Summarise(args) => summarise::run(args),
        Command::Decode(args) => decode::run(args),
    }
}
