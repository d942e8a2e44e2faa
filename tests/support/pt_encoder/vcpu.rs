//! A simulated vCPU that runs, enters and leaves its guest, and is traced. It keeps the expected
//! summary of its trace, from its activity and from what the trace contains.

#[path = "vcpu/events.rs"]
mod events;
#[path = "vcpu/losses.rs"]
mod losses;
#[path = "vcpu/packets.rs"]
mod packets;

use vcpu_exporter::pt::{Clocks, ModeSummary, Summary};

use super::random::Random;
use super::Encoder;
use events::Event;

/// A trace and its expected contents.
#[derive(Debug, Clone)]
pub struct Traced {
    pub bytes: Vec<u8>,
    pub cuts: Vec<usize>,
    pub clocks: Clocks,
    pub truth: Summary,
}

/// Tracing options and activity of a vCPU.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// CYC packets at each event.
    cyc: bool,
    /// CFE and EVD packets.
    event_trace: bool,
    /// Numbers EVD packets like perf's scripts, otherwise like libipt.
    evd_of_perf: bool,
    /// MTC and TMA packets, TMA with erratum SKZ84 in the guest.
    mtc: bool,
    /// Overflows, untraced code, and an incomplete last packet.
    losses: bool,
    /// Bytes between PSBs.
    psb_period: usize,
    /// Events with their relative frequencies.
    events: &'static [(u32, Event)],
    /// TNT-64 besides TNT-8.
    tnt64: bool,
}

/// A trace of about `len` bytes, determined by `seed`.
pub fn generate(seed: u64, len: usize) -> Traced {
    let mut random = Random::new(seed);
    let style = Style {
        cyc: !random.one_in(4),
        event_trace: random.flag(),
        evd_of_perf: random.flag(),
        mtc: random.flag(),
        losses: true,
        psb_period: random.pick(&[256, 2048]),
        events: events::ALL,
        tnt64: random.flag(),
    };
    let mut vcpu = Vcpu::new(random, style);
    vcpu.leading_garbage();
    vcpu.psb();
    vcpu.run(len);
    vcpu.finish()
}

/// About `len` bytes of a busy vCPU, traced with pt,branch,tsc,cyc,noretcomp.
///
/// Proportions are those of the busiest recorded trace, quipper/aux-cpu3.pt, from its entry in
/// golden.json (61,274 TNT with 329,792 branches, 159,092 of them taken; 11,534 TIP; 19,142 PAD;
/// 426 PIP; 139 FUP; 9 PSB and 9 TIP.PGE in 137,728 bytes), changed where this vCPU is traced
/// differently:
/// - That trace has compressed returns; without compression each return has a TIP. Compiled code
///   has about one return per eight conditional branches, which makes 0.16 TIP per branch instead
///   of 0.035.
/// - CYC replaces MTC: at a threshold of 0 one precedes each TNT and TIP. The few cycles since the
///   previous packet mostly fit one byte (32), some take two; recorded traces with CYC have no TNT
///   for a better estimate.
/// - A PSB every 2 KiB instead of 16.
/// - A VM exit about every 10,000 bytes: about 10,000 per second at 100 MB/s.
pub fn realistic(len: usize, seed: u64) -> Vec<u8> {
    busy(len, seed).bytes
}

/// [`realistic`] with its expected contents.
pub fn busy(len: usize, seed: u64) -> Traced {
    let style = Style {
        cyc: true,
        event_trace: false,
        evd_of_perf: false,
        mtc: false,
        losses: false,
        psb_period: 2048,
        events: events::BUSY,
        tnt64: false,
    };
    let mut vcpu = Vcpu::new(Random::new(seed), style);
    vcpu.psb();
    vcpu.run(len);
    vcpu.finish()
}

#[derive(Debug)]
struct Vcpu {
    random: Random,
    style: Style,
    out: Encoder,
    cuts: Vec<usize>,
    truth: Summary,
    clocks: Clocks,
    /// Whether it is in the guest, and whether the trace shows this since the last loss.
    guest: bool,
    told: bool,
    enabled: bool,
    ratio: u8,
    /// Picoseconds per cycle, once the trace contains the ratio.
    cycle: Option<u64>,
    /// Picoseconds since the last entry or exit, while the trace contains all of them.
    run: Option<u64>,
    tsc: u64,
    /// The TSC packet from which the next one measures.
    tsc_before: Option<u64>,
    /// TSC ticks and picoseconds in guest mode, host mode and unknown mode.
    ticks: [u64; 3],
    picoseconds: [u64; 3],
    ip: u64,
    next_psb: usize,
}

/// Ratios with a whole number of picoseconds per cycle: no sum of times is rounded.
const RATIOS: &[u8] = &[8, 10, 16, 20, 25, 40, 50];
const TSC_HERTZ: u64 = 2_500_000_000;

impl Vcpu {
    fn new(mut random: Random, style: Style) -> Self {
        let clocks = Clocks {
            bus: 100_000_000,
            tsc: random.flag().then_some(TSC_HERTZ),
        };
        Self {
            out: Encoder::default(),
            cuts: Vec::new(),
            truth: Summary::default(),
            clocks,
            guest: random.flag(),
            told: false,
            enabled: true,
            ratio: random.pick(RATIOS),
            cycle: None,
            run: None,
            tsc: random.scaled(50),
            tsc_before: None,
            ticks: [0; 3],
            picoseconds: [0; 3],
            ip: 0xffff_ffff_8100_0000,
            next_psb: 0,
            random,
            style,
        }
    }

    fn run(&mut self, len: usize) {
        let events = self.style.events;
        let sum: u32 = events.iter().map(|(weight, _)| weight).sum();
        while self.out.bytes.len() < len {
            if self.out.bytes.len() >= self.next_psb {
                self.psb();
            }
            let mut at = self.random.below(u64::from(sum)) as u32;
            for (weight, event) in events {
                if at < *weight {
                    event(self);
                    break;
                }
                at -= weight;
            }
        }
    }

    fn finish(mut self) -> Traced {
        if self.style.losses && self.random.one_in(4) {
            self.partial();
        }
        let by_cycles = self.truth.packets.cyc > 0;
        if !by_cycles {
            // Nothing was measured: no runs of length 0.
            self.truth.guest_runs = Default::default();
            self.truth.host_handling = Default::default();
        }
        let nanoseconds = |i: usize| match self.clocks.tsc {
            _ if by_cycles => self.picoseconds[i] / 1000,
            Some(hertz) => (u128::from(self.ticks[i]) * 1_000_000_000 / u128::from(hertz)) as u64,
            None => 0,
        };
        self.truth.guest.nanoseconds = nanoseconds(0);
        self.truth.host.nanoseconds = nanoseconds(1);
        self.truth.unknown.nanoseconds = nanoseconds(2);
        Traced {
            bytes: self.out.bytes,
            cuts: self.cuts,
            clocks: self.clocks,
            truth: self.truth,
        }
    }

    /// Index of the mode shown by the trace.
    fn side(&self) -> usize {
        match (self.told, self.guest) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        }
    }

    fn here(&mut self) -> &mut ModeSummary {
        match self.side() {
            0 => &mut self.truth.guest,
            1 => &mut self.truth.host,
            _ => &mut self.truth.unknown,
        }
    }
}
