//! Interprets packets: guest or host, event or status, durations.
//!
//! The scalar and the block pass both use this: one passes packet by packet, the other sums of
//! packets whose order does not matter. So they can differ only in decoding bytes.

#![forbid(unsafe_code)]

use super::packet::{cfe, Packet};
use super::stream::{Found, Step};
use super::{Clocks, Fault, FaultAt, Histogram, ModeSummary, Summary};

/// Builds a summary from packets.
#[derive(Debug)]
pub(super) struct Summariser {
    summary: Summary,
    clocks: Clocks,
    side: Which,
    /// Tracing is enabled: cycles belong to the traced thread.
    enabled: bool,
    /// Cycles that are not attributed yet.
    cycles: u64,
    /// Length of a cycle at the current core:bus ratio, if known.
    cycle: Option<CycleLength>,
    /// What the next FUP or TIP refers to.
    bound: Bound,
    /// Within the status between PSB and PSBEND; whether it contained a FUP, which means that
    /// tracing is enabled.
    status: Option<HadFup>,
    /// Time since the last VM entry or exit in picoseconds; `None` after a loss.
    since_crossing: Option<u64>,
    /// The last TSC; `None` after an event that may have changed its meaning.
    tsc: Option<u64>,
    /// TSC ticks of each mode, and its time by cycles in picoseconds.
    ticks: [u64; 3],
    picoseconds: [u64; 3],
    /// The EVD with the highest number since the last CFE.
    event_data: Option<(u8, u64)>,
}

/// Sums of packets whose relative order does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) pad: u64,
    pub(super) tnt: u64,
    pub(super) bits: u64,
    pub(super) taken: u64,
    pub(super) cyc: u64,
    pub(super) cycles: u64,
    /// TIP for which [`Summariser::is_plain_tip`] holds.
    pub(super) tip: u64,
    pub(super) mtc: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Guest,
    Host,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Nothing,
    /// The next FUP belongs to the packet before it, and is not an event.
    FupToCome,
    /// After a FUP: with a TIP or TIP.PGD it is an event.
    Fup,
    /// The next TIP belongs to a VM entry or exit.
    TipToCome,
}

type HadFup = bool;

/// A duration in picoseconds with 32 fractional bits.
type CycleLength = u64;

impl Summariser {
    pub(super) fn new(clocks: &Clocks) -> Self {
        Self {
            summary: Summary::default(),
            clocks: *clocks,
            side: Which::Unknown,
            enabled: true,
            cycles: 0,
            cycle: None,
            bound: Bound::Nothing,
            status: None,
            since_crossing: None,
            tsc: None,
            ticks: [0; 3],
            picoseconds: [0; 3],
            event_data: None,
        }
    }

    /// Processes a step in the part of the trace that starts at `begin`.
    #[inline]
    pub(super) fn step(&mut self, begin: usize, step: &Step) {
        match &step.found {
            Found::Packet(packet) => self.packet(packet),
            Found::Fault(fault) => self.fault(begin + step.offset, *fault),
            Found::Skipped => self.summary.skipped_bytes += step.len as u64,
            Found::Trailing => self.summary.trailing_bytes += step.len as u64,
        }
    }

    /// Processes one packet.
    fn packet(&mut self, packet: &Packet) {
        self.count(packet);
        match *packet {
            Packet::Pad => {}
            Packet::Cyc(cycles) => self.cycles = self.cycles.saturating_add(cycles),
            Packet::Tnt(branches) => {
                let len = u64::from(branches.len);
                self.branches(len, branches.taken());
            }
            Packet::Tip(_) => self.tip(),
            Packet::TipPge(_) => self.switched(true),
            Packet::TipPgd(_) => self.switched(false),
            Packet::Fup(_) => self.fup(),
            Packet::Pip { non_root, .. } => self.pip(non_root),
            Packet::Tsc(tsc) => self.tsc(tsc),
            Packet::Cbr(ratio) => self.ratio(ratio),
            Packet::Psb => self.status = Some(false),
            Packet::PsbEnd => self.status_ends(),
            Packet::Ovf => {
                self.lost();
                self.bound = Bound::FupToCome;
            }
            Packet::ModeExec { .. } | Packet::ModeTsx { aborted: false, .. } => {
                self.owns_next_fup();
            }
            Packet::PtWrite { ip, .. } | Packet::Bep { ip } | Packet::Trig { ip, .. } => {
                self.status = None;
                if ip {
                    self.owns_next_fup();
                }
            }
            Packet::ExStop { ip } => {
                self.summary.power.stops += 1;
                if ip {
                    self.owns_next_fup();
                }
            }
            Packet::Mwait { .. } => self.summary.power.mwait += 1,
            Packet::Pwre { .. } => self.summary.power.entries += 1,
            Packet::Pwrx { .. } => self.summary.power.exits += 1,
            Packet::Evd {
                kind: kind @ 1..=3,
                payload,
            } => {
                self.event_data = self.event_data.max(Some((kind, payload)));
            }
            Packet::Cfe { kind, ip, .. } => self.event(kind, ip),
            _ => {}
        }
    }

    /// Processes many packets.
    pub(super) fn run(&mut self, run: &Run) {
        let packets = &mut self.summary.packets;
        packets.pad += run.pad;
        packets.tnt += run.tnt;
        packets.bits += run.bits;
        packets.taken += run.taken;
        packets.cyc += run.cyc;
        packets.cycsum = packets.cycsum.saturating_add(run.cycles);
        packets.tip += run.tip;
        packets.mtc += run.mtc;
        self.cycles = self.cycles.saturating_add(run.cycles);
        if run.tnt > 0 {
            self.branches(run.bits, run.taken);
        }
        if run.tip > 0 {
            self.status = None;
            self.here().indirect += run.tip;
        }
    }

    /// Whether a TIP is just an indirect branch, so that it may be part of a [`Run`].
    pub(super) fn is_plain_tip(&self) -> bool {
        self.bound == Bound::Nothing
    }

    /// Tracing restarts, possibly on another CPU.
    pub(super) fn cut(&mut self) {
        self.lost();
        self.cycle = None;
    }

    /// Processes an error at `offset`.
    fn fault(&mut self, offset: usize, fault: Fault) {
        self.lost();
        self.summary.packets.err += 1;
        if self.summary.errors.len() < Summary::ERRORS {
            self.summary.errors.push(FaultAt { offset, fault });
        }
    }

    pub(super) fn finish(mut self) -> Summary {
        self.settle();
        let by_cycles = self.summary.packets.cyc > 0;
        if !by_cycles {
            // Without cycles, all runs would have length 0.
            self.summary.guest_runs = Histogram::default();
            self.summary.host_handling = Histogram::default();
        }
        for which in [Which::Guest, Which::Host, Which::Unknown] {
            let nanoseconds = match self.clocks.tsc {
                _ if by_cycles => self.picoseconds[which as usize] / 1000,
                Some(hertz) => nanoseconds(self.ticks[which as usize], hertz),
                None => 0,
            };
            self.side = which;
            self.here().nanoseconds = nanoseconds;
        }
        self.summary
    }

    fn count(&mut self, packet: &Packet) {
        let packets = &mut self.summary.packets;
        let counter = match packet {
            Packet::Pad => &mut packets.pad,
            Packet::Tnt(branches) => {
                packets.bits += u64::from(branches.len);
                packets.taken += branches.taken();
                &mut packets.tnt
            }
            Packet::Tip(_) => &mut packets.tip,
            Packet::TipPge(_) => &mut packets.pge,
            Packet::TipPgd(_) => &mut packets.pgd,
            Packet::Fup(_) => &mut packets.fup,
            Packet::Cyc(cycles) => {
                packets.cycsum = packets.cycsum.saturating_add(*cycles);
                &mut packets.cyc
            }
            Packet::Mtc(_) => &mut packets.mtc,
            Packet::Tsc(_) => &mut packets.tsc,
            Packet::Cbr(_) => &mut packets.cbr,
            Packet::Tma(_) => &mut packets.tma,
            Packet::ModeExec { .. } | Packet::ModeTsx { .. } => &mut packets.mode,
            Packet::Pip { non_root, .. } => {
                packets.pipnr += u64::from(*non_root);
                &mut packets.pip
            }
            Packet::Vmcs(_) => &mut packets.vmcs,
            Packet::Psb => &mut packets.psb,
            Packet::PsbEnd => &mut packets.psbend,
            Packet::Ovf => &mut packets.ovf,
            _ => &mut packets.other,
        };
        *counter += 1;
    }

    fn here(&mut self) -> &mut ModeSummary {
        match self.side {
            Which::Guest => &mut self.summary.guest,
            Which::Host => &mut self.summary.host,
            Which::Unknown => &mut self.summary.unknown,
        }
    }

    fn branches(&mut self, all: u64, taken: u64) {
        self.bound = Bound::Nothing;
        // Not part of a PSB's status: its end was lost.
        self.status = None;
        let here = self.here();
        here.taken += taken;
        here.not_taken += all - taken;
    }

    fn tip(&mut self) {
        self.status = None;
        match self.bound {
            Bound::Fup => self.here().asynchronous += 1,
            Bound::TipToCome => {}
            Bound::Nothing | Bound::FupToCome => self.here().indirect += 1,
        }
        self.bound = Bound::Nothing;
    }

    /// Processes TIP.PGE and TIP.PGD.
    fn switched(&mut self, on: bool) {
        self.settle();
        if !on && self.bound == Bound::Fup {
            self.here().asynchronous += 1;
        }
        self.status = None;
        self.bound = Bound::Nothing;
        self.enabled = on;
        self.since_crossing = None;
        self.tsc = None;
    }

    fn fup(&mut self) {
        if let Some(had_fup) = &mut self.status {
            *had_fup = true;
            return;
        }
        if !self.enabled {
            self.settle();
            self.enabled = true;
        }
        self.bound = match self.bound {
            Bound::FupToCome => Bound::Nothing,
            _ => Bound::Fup,
        };
    }

    /// The packet's own FUP follows, unless the packet is between a FUP and its TIP.
    fn owns_next_fup(&mut self) {
        if self.status.is_none() && self.bound == Bound::Nothing {
            self.bound = Bound::FupToCome;
        }
    }

    /// With event trace, the FUP of an interrupt belongs to both the CFE and the TIP; the FUP of an
    /// IRET, for example, belongs only to the CFE.
    fn event(&mut self, kind: u8, ip: bool) {
        self.status = None;
        let data = self.event_data.take();
        if let (cfe::VMEXIT | cfe::VMEXIT_INTR, Some((_, reason))) = (kind, data) {
            // Of an exit's data, the reason has the highest number in both libipt and perf, which
            // number them differently. Its low half is the basic reason: SDM table 25-16.
            let reasons = &mut self.summary.exit_reasons;
            *reasons.entry(reason as u16).or_default() += 1;
        }
        let asynchronous = matches!(
            kind,
            cfe::INTR
                | cfe::SMI
                | cfe::INIT
                | cfe::VMENTRY
                | cfe::VMEXIT
                | cfe::VMEXIT_INTR
                | cfe::SHUTDOWN
                | cfe::UINTR
        );
        if ip && !asynchronous {
            self.owns_next_fup();
        }
    }

    fn pip(&mut self, non_root: bool) {
        let to = if non_root { Which::Guest } else { Which::Host };
        let from = self.side;
        if from == to {
            if self.status.is_none() {
                self.here().address_spaces += 1;
            }
            return;
        }
        self.settle();
        self.side = to;
        self.tsc = None;
        // A status with another mode than the known one: the transition was lost. If the mode is
        // unknown, a PIP may be a load of CR3, unless a FUP precedes it: loads have none.
        let crossing =
            self.status.is_none() && (from != Which::Unknown || self.bound == Bound::Fup);
        if crossing {
            self.cross(to);
        } else {
            self.since_crossing = None;
        }
    }

    /// Processes a VM entry or exit.
    fn cross(&mut self, to: Which) {
        let (count, lengths) = match to {
            Which::Guest => (&mut self.summary.entries, &mut self.summary.host_handling),
            _ => (&mut self.summary.exits, &mut self.summary.guest_runs),
        };
        *count += 1;
        if let Some(picoseconds) = self.since_crossing {
            lengths.observe(picoseconds / 1000);
        }
        self.since_crossing = self.cycle.map(|_| 0);
        self.bound = Bound::TipToCome;
    }

    fn tsc(&mut self, now: u64) {
        if let (Some(before), true) = (self.tsc.replace(now), self.enabled) {
            let ticks = &mut self.ticks[self.side as usize];
            *ticks = ticks.saturating_add(now.saturating_sub(before));
        }
    }

    fn ratio(&mut self, ratio: u8) {
        self.settle();
        self.cycle = cycle_length(ratio, self.clocks.bus);
        if self.cycle.is_none() {
            self.since_crossing = None;
            return;
        }
        let (least, most) = self.summary.ratio.unwrap_or((ratio, ratio));
        self.summary.ratio = Some((least.min(ratio), most.max(ratio)));
    }

    fn status_ends(&mut self) {
        if let Some(had_fup) = self.status.take() {
            if had_fup && self.bound == Bound::FupToCome {
                // It belongs to an overflow before the PSB whose own OVF is missing (erratum
                // SKD010).
                self.bound = Bound::Nothing;
            }
            if self.enabled != had_fup {
                self.settle();
                self.enabled = had_fup;
            }
        }
    }

    /// Resets all knowledge after a loss.
    fn lost(&mut self) {
        self.settle();
        self.side = Which::Unknown;
        self.status = None;
        self.bound = Bound::Nothing;
        self.since_crossing = None;
        self.tsc = None;
        self.event_data = None;
    }

    /// Attributes the cycles since the last call to the current mode.
    fn settle(&mut self) {
        let cycles = std::mem::take(&mut self.cycles);
        if cycles == 0 || !self.enabled {
            return;
        }
        let here = self.here();
        here.cycles = here.cycles.saturating_add(cycles);
        if let Some(length) = self.cycle {
            let picoseconds = (u128::from(cycles) * u128::from(length)) >> 32;
            let picoseconds = u64::try_from(picoseconds).unwrap_or(u64::MAX);
            let time = &mut self.picoseconds[self.side as usize];
            *time = time.saturating_add(picoseconds);
            if let Some(since) = &mut self.since_crossing {
                *since = since.saturating_add(picoseconds);
            }
        }
    }
}

/// `None` if the ratio or the bus clock is 0.
fn cycle_length(ratio: u8, bus: u64) -> Option<CycleLength> {
    const PICOSECONDS: u128 = 1_000_000_000_000 << 32;
    let hertz = u128::from(ratio) * u128::from(bus);
    let length = PICOSECONDS.checked_div(hertz)?;
    u64::try_from(length).ok()
}

fn nanoseconds(ticks: u64, hertz: u64) -> u64 {
    let nanoseconds = u128::from(ticks) * 1_000_000_000;
    let nanoseconds = nanoseconds.checked_div(u128::from(hertz)).unwrap_or(0);
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
