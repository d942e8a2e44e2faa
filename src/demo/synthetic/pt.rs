//! Recordings of the synthetic host's vCPUs: Intel PT that a vCPU with the model's rates would
//! produce.
//!
//! A recording covers the vCPU's share of the window. In it the guest runs, exits, is handled by
//! the host and entered again, with branches and cycles at the model's rates.

use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::Threads;
use super::model::EXIT_SECONDS;
use super::noise::mix;
use super::rates::VcpuRates;
use crate::sources::pt::{AuxTrace, Capture, RecordError, RecordPt, Request, Step};

/// Conditional branches per instruction.
const BRANCHES: f64 = 0.14;
/// Conditional branches per call, return or other indirect branch.
const INDIRECT: u32 = 24;
/// Most branches in a packet.
const MOST_BRANCHES: u32 = 47;
/// Frequency of the bus clock for core:bus ratios, hertz.
const BUS: f64 = 100e6;

/// Records vCPUs.
pub(super) struct Recorder {
    threads: Threads,
    recordings: AtomicU64,
    seed: u64,
}

impl Recorder {
    pub(super) fn new(threads: Threads, seed: u64) -> Self {
        Self {
            threads,
            recordings: AtomicU64::new(0),
            seed,
        }
    }
}

impl RecordPt for Recorder {
    fn record(&self, tid: i32, request: &Request) -> Result<Capture, RecordError> {
        let known = self.threads.lock().get(&tid).map(|thread| thread.now);
        let rates = known.ok_or_else(|| RecordError {
            step: Step::Open,
            error: std::io::Error::from_raw_os_error(libc::ESRCH),
        })?;
        let number = 1 + self.recordings.fetch_add(1, Ordering::Relaxed);
        let on_cpu = request.window.mul_f64(rates.time);
        let seed = mix(self.seed ^ mix(number));
        let bytes = trace(&rates, on_cpu.as_secs_f64(), seed);
        Ok(Capture {
            trace: AuxTrace {
                bytes,
                ..AuxTrace::default()
            },
            elapsed: request.window,
            on_cpu,
            traced: on_cpu,
        })
    }
}

/// A trace of a vCPU that is on a core for `seconds`.
fn trace(rates: &VcpuRates, seconds: f64, seed: u64) -> Vec<u8> {
    let mut vcpu = Vcpu {
        packets: Packets::default(),
        random: seed,
    };
    let mut left = seconds * rates.hertz;
    let handling = EXIT_SECONDS * rates.hertz;
    // The recording starts in the middle of a run.
    vcpu.packets.begin(rates.hertz);
    while left > 0.0 {
        let between = rates.hertz / rates.exits.max(1.0);
        let run = (between - handling).max(0.1 * between) * vcpu.length();
        vcpu.work(run.min(left), BRANCHES / rates.cpi);
        if run > left {
            break;
        }
        vcpu.packets.cross(false);
        let host = handling * (0.6 + 0.4 * vcpu.length());
        vcpu.work(host, BRANCHES / 1.7);
        vcpu.packets.cross(true);
        left -= run + host;
    }
    vcpu.packets.bytes
}

struct Vcpu {
    packets: Packets,
    random: u64,
}

impl Vcpu {
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random)
    }

    /// Random length of an event, 1 on average.
    fn length(&mut self) -> f64 {
        let unit = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -unit.ln()
    }

    /// Code that runs for `cycles` cycles with `branches` conditional branches in each.
    fn work(&mut self, cycles: f64, branches: f64) {
        let packets = (cycles * branches / f64::from(MOST_BRANCHES))
            .ceil()
            .max(1.0);
        let each = (cycles * branches / packets).round() as u32;
        for _ in 0..packets as u64 {
            self.packets.cyc((cycles / packets) as u64);
            let len = each.clamp(1, MOST_BRANCHES);
            // Five of eight branches are taken.
            let bits = self.next() | self.next() & self.next();
            self.packets.tnt(bits & ((1 << len) - 1), len);
            (0..len / INDIRECT).for_each(|_| self.packets.tip());
        }
    }
}

/// Encodes Intel PT packets: Intel SDM volume 3, section 33.4.2.
#[derive(Default)]
struct Packets {
    bytes: Vec<u8>,
}

impl Packets {
    /// PSB with its status: clock ratio, guest mode, 64-bit code, tracing.
    fn begin(&mut self, hertz: f64) {
        self.bytes.extend([0x02, 0x82].repeat(8));
        let ratio = (hertz / BUS).round().clamp(1.0, 255.0) as u8;
        self.bytes.extend([0x02, 0x03, ratio, 0]);
        self.pip(true);
        self.bytes.extend([0x99, 0x01]);
        self.bytes.extend([0x1d | 1 << 5, 0x10, 0x20]);
        self.bytes.extend([0x02, 0x23]);
    }

    /// CR3, of the guest or the host.
    fn pip(&mut self, guest: bool) {
        self.bytes.extend([0x02, 0x43]);
        let payload = 0x8_2000_u64 << 1 | u64::from(guest);
        self.bytes.extend(&payload.to_le_bytes()[..6]);
    }

    /// VM entry or exit.
    fn cross(&mut self, to_guest: bool) {
        self.bytes.extend([0x1d | 1 << 5, 0x30, 0x40]);
        self.pip(to_guest);
        self.tip();
    }

    /// An indirect branch within 64 KiB.
    fn tip(&mut self) {
        self.bytes.extend([0x0d | 1 << 5, 0x50, 0x60]);
    }

    fn tnt(&mut self, bits: u64, len: u32) {
        self.bytes.extend([0x02, 0xa3]);
        self.bytes.extend(&(1 << len | bits).to_le_bytes()[..6]);
    }

    fn cyc(&mut self, cycles: u64) {
        let mut rest = cycles >> 5;
        self.bytes
            .push((cycles as u8) << 3 | u8::from(rest > 0) << 2 | 3);
        while rest > 0 {
            let payload = (rest as u8 & 0x7f) << 1;
            rest >>= 7;
            self.bytes.push(payload | u8::from(rest > 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pt::{summarise, Clocks};

    #[test]
    fn a_trace_says_what_the_vcpu_did() {
        let rates = VcpuRates {
            time: 1.0,
            hertz: 2.6e9,
            cpi: 1.0,
            exits: 20_000.0,
            ..VcpuRates::default()
        };
        let summary = summarise(&trace(&rates, 0.01, 3), &[], &Clocks::default());
        assert_eq!((summary.packets.err, summary.skipped_bytes), (0, 0));
        assert_eq!((summary.unknown.cycles, summary.ratio), (0, Some((26, 26))));
        let (guest, host) = (summary.guest, summary.host);
        let nanoseconds = (guest.nanoseconds + host.nanoseconds) as f64;
        assert!((9.8e6..10.3e6).contains(&nanoseconds), "{nanoseconds}");
        let branches = (guest.taken + guest.not_taken) as f64 / guest.cycles as f64;
        assert!((0.13..0.15).contains(&branches), "{branches}");
        assert!((150..260).contains(&summary.exits), "{}", summary.exits);
        assert_eq!(summary.exits, summary.entries);
    }
}
