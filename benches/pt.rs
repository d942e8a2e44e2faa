//! Speed of reducing an Intel PT trace to its summary: by blocks, packet by packet (the
//! definition), and with a visitor of the crate `iptr-decoder` that computes the same summary; for
//! comparison, the time to copy the trace.
//!
//! Two traces of 256 MiB each: a simulated busy vCPU with the proportions explained in
//! `tests/support/pt_encoder.rs`, and a repeated recorded trace. Times are the lowest CPU time of
//! this thread in several rounds, in which all variants take turns. Instructions per byte are
//! counted if the machine allows it.
//!
//! `cargo bench --bench pt`; exit status 1 if two summaries differ, or if the pass over blocks is
//! less than four times as fast as `iptr-decoder`.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::measure as cpu_time_of;

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use vcpu_exporter::pt::{self, Clocks, Summary};

#[path = "pt/iptr.rs"]
mod iptr;
#[path = "../tests/support/pt_data.rs"]
mod pt_data;
#[path = "../tests/support/pt_encoder.rs"]
mod pt_encoder;

const LEN: usize = 256 << 20;
const ROUNDS: usize = 4;
const LEAST: f64 = 4.0;

fn main() -> ExitCode {
    let mut instructions = Builder::new(Hardware::INSTRUCTIONS).build().ok();
    if instructions.is_none() {
        println!("instructions a byte: skipped: no hardware PMU, or no permission");
    }
    let mut traces = vec![("busy vCPU", pt_encoder::vcpu::realistic(LEN, 1))];
    traces.extend(recorded().map(|trace| ("quipper/aux-cpu3.pt, repeated", trace)));
    let good = traces
        .iter()
        .map(|(name, trace)| measure(name, trace, instructions.as_mut()));
    if good.fold(true, |all, good| all & good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn recorded() -> Option<Vec<u8>> {
    let file = pt_data::dir()?.join("quipper/aux-cpu3.pt");
    let trace = std::fs::read(file).expect("the recorded trace is readable");
    Some(trace.repeat(LEN / trace.len()))
}

/// Measures all variants on one trace; returns whether they agree and ours is fast enough.
fn measure(name: &str, trace: &[u8], mut instructions: Option<&mut Counter>) -> bool {
    let clocks = Clocks::default();
    let mut copy = trace.to_vec(); // already mapped pages
    let mut least = [Cost::MOST; 4];
    let mut good = true;
    println!("{name}: {:.0} MiB", trace.len() as f64 / f64::from(1 << 20));
    for _ in 0..ROUNDS {
        let mut cost = |of: usize, job: &mut dyn FnMut() -> Option<Summary>| {
            let (cost, summary) = Cost::measure(instructions.as_deref_mut(), job);
            least[of] = least[of].min(cost);
            summary
        };
        let blocks = cost(0, &mut || Some(pt::summarise(trace, &[], &clocks)));
        let scalar = cost(1, &mut || Some(pt::scalar::summarise(trace, &[], &clocks)));
        let iptr = cost(2, &mut || iptr::summarise(trace, &clocks).ok());
        cost(3, &mut || {
            copy.copy_from_slice(black_box(trace));
            black_box(&copy);
            None
        });
        good &= blocks == scalar && blocks == iptr;
    }
    if !good {
        println!("  the summaries DIFFER");
    }
    let [blocks, _, iptr, _] = least;
    let of = ["blocks", "packet by packet", "iptr-decoder", "memcpy"];
    for (name, cost) in of.iter().zip(least) {
        cost.print(name, trace.len(), &iptr);
    }
    let ratio = iptr.time.as_secs_f64() / blocks.time.as_secs_f64();
    if ratio < LEAST {
        println!("  less than {LEAST:.0} times as fast as iptr-decoder");
    }
    good && ratio >= LEAST
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    time: Duration,
    instructions: Option<u64>,
}

impl Cost {
    const MOST: Self = Self {
        time: Duration::MAX,
        instructions: None,
    };

    fn measure<T>(counter: Option<&mut Counter>, job: &mut dyn FnMut() -> T) -> (Self, T) {
        let counter = counter.and_then(|c| (c.reset().is_ok() && c.enable().is_ok()).then_some(c));
        let (time, result) = cpu_time_of(job);
        let instructions = counter.and_then(|counter| counter.read().ok());
        (Self { time, instructions }, result)
    }

    fn min(self, other: Self) -> Self {
        if other.time < self.time {
            other
        } else {
            self
        }
    }

    fn print(&self, name: &str, bytes: usize, iptr: &Self) {
        let (time, bytes) = (self.time.as_secs_f64(), bytes as f64);
        let ratio = iptr.time.as_secs_f64() / time;
        let instructions = match self.instructions {
            Some(n) => format!(", {:.2} instructions a byte", n as f64 / bytes),
            None => String::new(),
        };
        println!(
            "  {name:<18}{:>8.1?}  {:>7.0} MB/s  {ratio:>5.2} times iptr-decoder{instructions}",
            self.time,
            bytes / time / 1e6,
        );
    }
}
