//! `pt`: record, reduce and print Intel Processor Trace.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::CommonArgs;

mod decode;
mod input;
mod progress;
mod record;
mod summarise;

/// Flags of `pt`.
#[derive(Debug, Clone, Args)]
pub(super) struct PtArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Record one vCPU once and write the raw trace
    Record(record::RecordArgs),
    /// Summarize traces: branches, cycles, VM entries and exits, for guest and host separately
    Summarise(summarise::SummariseArgs),
    /// Print every packet of a trace
    Decode(decode::DecodeArgs),
}

pub(super) fn run(common: &CommonArgs, args: &PtArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Record(args) => record::run(common, args).map(|()| ExitCode::SUCCESS),
        Command::Summarise(args) => summarise::run(args),
        Command::Decode(args) => decode::run(args),
    }
}
