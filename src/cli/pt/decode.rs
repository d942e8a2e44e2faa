//! `pt decode`: one line for each packet, in the format of libipt's `ptdump`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::input::{self, Trace};
use crate::pt::packet::LastIp;
use crate::pt::stream::{Found, Step};
use crate::pt::{Packet, Stream};

mod payload;

/// Flags of `pt decode`.
#[derive(Debug, Clone, Args)]
pub(super) struct DecodeArgs {
    /// Raw AUX data or a perf.data file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &DecodeArgs) -> anyhow::Result<ExitCode> {
    let file = &input::name(&args.file);
    let bytes = input::read(&args.file).with_context(|| format!("cannot read {file}"))?;
    let traces = Trace::all(&bytes).with_context(|| format!("cannot decode {file}"))?;
    match print(&traces, &mut BufWriter::new(io::stdout().lock())) {
        // A reader that left early (`pt decode | head`) is not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.context("cannot write to standard output")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(traces: &[Trace<'_>], out: &mut impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    for trace in traces {
        let bytes = trace.bytes();
        if traces.len() > 1 || trace.name != Trace::RAW {
            writeln!(out, "# {}, {} bytes", trace.name, bytes.len())?;
        }
        let mut ip = LastIp::default();
        let mut cuts = trace.cuts().iter().peekable();
        for step in steps(&bytes, trace.cuts()) {
            if cuts.next_if(|cut| **cut <= step.offset).is_some() {
                writeln!(out, "# tracing restarted")?;
            }
            line.clear();
            write_step(&step, &mut ip, &mut line)?;
            out.write_all(line.trim_ascii_end())?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

/// The packets of each part between `cuts`, with offsets in the whole trace.
fn steps<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = Step> + 'a {
    let mut ends = cuts.iter().copied().chain([bytes.len()]);
    let mut end = 0;
    let mut begin = 0;
    let mut stream = Stream::new(&[]);
    std::iter::from_fn(move || loop {
        if let Some(mut step) = stream.next() {
            step.offset += begin;
            return Some(step);
        }
        begin = end;
        end = ends.next()?;
        let part = &bytes[begin..end];
        stream = if stream.lost() {
            Stream::new(part)
        } else {
            Stream::synchronised(part)
        };
    })
}

/// The line of a step; may end with spaces.
fn write_step(step: &Step, ip: &mut LastIp, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{:016x}  ", step.offset)?;
    match &step.found {
        Found::Packet(packet) => {
            write!(out, "{:<10} ", payload::name(packet, step.len))?;
            payload::write(packet, out)?;
            match address(packet, ip) {
                Some(address) => write!(out, "  ip {address:016x}"),
                None => Ok(()),
            }
        }
        Found::Fault(fault) => write!(out, "error      {fault}"),
        Found::Skipped => write!(out, "skipped    {} bytes", step.len),
        Found::Trailing => write!(out, "truncated  {} bytes of a packet", step.len),
    }
}

/// The whole address, from a packet with part of it.
fn address(packet: &Packet, last: &mut LastIp) -> Option<u64> {
    match packet {
        Packet::Psb => {
            last.reset();
            None
        }
        Packet::Tip(ip) | Packet::TipPge(ip) | Packet::TipPgd(ip) | Packet::Fup(ip) => {
            last.update(*ip)
        }
        _ => None,
    }
}
