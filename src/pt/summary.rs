//! The figures of a trace.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::Histogram;

/// Frequencies of the clocks that a trace refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Bus clock in hertz; the core clock is a multiple of it (CBR packets). It is the TSC's
    /// frequency over `max_nonturbo_ratio`: 100 MHz on every Intel core since 2011.
    pub bus: u64,
    /// Frequency of the TSC in hertz, if known. Only traces without CYC packets need it.
    pub tsc: Option<u64>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            bus: 100_000_000,
            tsc: None,
        }
    }
}

/// The figures of one trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of packets of each kind.
    pub packets: Packets,
    /// Activity in the guest (VMX non-root operation: PIP packets with NR = 1).
    pub guest: ModeSummary,
    /// Activity in the host: KVM and the VMM's code on the same thread (NR = 0).
    pub host: ModeSummary,
    /// Activity in an unknown mode: before the first PIP, after an overflow or an error, in traces
    /// of user space only.
    pub unknown: ModeSummary,
    /// Number of VM entries.
    pub entries: u64,
    /// Number of VM exits.
    pub exits: u64,
    /// VM exits by VMX basic exit reason (SDM volume 3, appendix C), if event trace is enabled.
    pub exit_reasons: BTreeMap<u16, u64>,
    /// Lengths of guest runs, from entry to exit, computed from cycles: empty without CYC packets.
    pub guest_runs: Histogram,
    /// Lengths of host handling, from exit to the next entry, computed from cycles.
    pub host_handling: Histogram,
    /// Lowest and highest core:bus ratio.
    pub ratio: Option<(u8, u8)>,
    /// Power events.
    pub power: Power,
    /// Bytes that were not decoded: before the first PSB, and from an error to the next PSB.
    pub skipped_bytes: u64,
    /// Bytes of an incomplete packet at the end.
    pub trailing_bytes: u64,
    /// The first errors, at most [`Summary::ERRORS`]; [`Packets::err`] counts all.
    pub errors: Vec<FaultAt>,
}

/// Activity in one mode, guest or host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModeSummary {
    /// Conditional branches taken.
    pub taken: u64,
    /// Conditional branches not taken.
    pub not_taken: u64,
    /// Indirect jumps and calls, returns and far transfers.
    pub indirect: u64,
    /// Interrupts, faults and aborts.
    pub asynchronous: u64,
    /// Loads of CR3.
    pub address_spaces: u64,
    /// Core cycles without halts, from CYC packets.
    pub cycles: u64,
    /// Time in nanoseconds: from cycles and the core clock, or, without CYC packets, from spans
    /// between TSC packets in which the mode did not change.
    pub nanoseconds: u64,
}

/// Packets by kind. Its fields are keys of `pt summarise --json`, as those of `Power`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)] // the names are those of the packets
pub struct Packets {
    pub tnt: u64,
    /// Branches in TNT packets.
    pub bits: u64,
    /// Taken branches in TNT packets.
    pub taken: u64,
    pub tip: u64,
    pub fup: u64,
    /// TIP.PGE.
    pub pge: u64,
    /// TIP.PGD.
    pub pgd: u64,
    pub cyc: u64,
    /// Cycles in CYC packets.
    pub cycsum: u64,
    pub pad: u64,
    pub mtc: u64,
    pub tsc: u64,
    pub cbr: u64,
    pub tma: u64,
    /// MODE.Exec and MODE.TSX.
    pub mode: u64,
    pub pip: u64,
    /// PIP in VMX non-root operation.
    pub pipnr: u64,
    pub vmcs: u64,
    pub psb: u64,
    pub psbend: u64,
    pub ovf: u64,
    /// All other packets.
    pub other: u64,
    /// Bytes that are not packets.
    pub err: u64,
}

/// Power events by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Power {
    /// Requests for a sleep state (MWAIT).
    pub mwait: u64,
    /// Entries of a sleep state (PWRE).
    pub entries: u64,
    /// Exits from a sleep state (PWRX).
    pub exits: u64,
    /// Stops of the core clock (EXSTOP).
    pub stops: u64,
}

/// An error with its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAt {
    /// Offset of the packet's first byte in the trace.
    pub offset: usize,
    /// The error.
    pub fault: Fault,
}

/// Errors in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes start no known packet.
    #[error("unknown packet")]
    Unknown,
    /// A known packet with an invalid field.
    #[error("{0} packet with an invalid field")]
    Malformed(&'static str),
}

impl Summary {
    /// Most errors that are kept with their offsets.
    pub const ERRORS: usize = 64;

    /// Adds the figures of another trace. Offsets of errors stay relative to their trace.
    pub fn add(&mut self, other: &Self) {
        let Self {
            packets,
            guest,
            host,
            unknown,
            entries,
            exits,
            exit_reasons,
            guest_runs,
            host_handling,
            ratio,
            power,
            skipped_bytes,
            trailing_bytes,
            errors,
        } = other;
        self.packets.add(packets);
        self.guest.add(guest);
        self.host.add(host);
        self.unknown.add(unknown);
        add(&mut self.entries, *entries);
        add(&mut self.exits, *exits);
        for (reason, count) in exit_reasons {
            add(self.exit_reasons.entry(*reason).or_default(), *count);
        }
        self.guest_runs.add(guest_runs);
        self.host_handling.add(host_handling);
        self.ratio = match (self.ratio, *ratio) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (mine, theirs) => mine.or(theirs),
        };
        self.power.add(power);
        add(&mut self.skipped_bytes, *skipped_bytes);
        add(&mut self.trailing_bytes, *trailing_bytes);
        let room = Self::ERRORS.saturating_sub(self.errors.len());
        self.errors.extend(errors.iter().take(room));
    }
}

fn add(sum: &mut u64, n: u64) {
    *sum = sum.saturating_add(n);
}

/// Adds every field; a missing field is a compile error.
macro_rules! add_fields {
    ($type:ty: $($field:ident),+ $(,)?) => {
        impl $type {
            fn add(&mut self, other: &Self) {
                let Self { $($field),+ } = other;
                $(add(&mut self.$field, *$field);)+
            }
        }
    };
}

add_fields!(ModeSummary: taken, not_taken, indirect, asynchronous, address_spaces, cycles, nanoseconds);
add_fields!(Power: mwait, entries, exits, stops);
add_fields!(
    Packets: tnt, bits, taken, tip, fup, pge, pgd, cyc, cycsum, pad, mtc, tsc, cbr, tma, mode, pip,
    pipnr, vmcs, psb, psbend, ovf, other, err,
);
