//! What is known of a trace once its packets are gone.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::Histogram;

/// How fast the clocks run that a trace refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Bus clock in hertz, of which the core clock is a multiple (CBR packets). It is the TSC's
    /// frequency over `max_nonturbo_ratio`: 100 MHz on every Intel core since 2011.
    pub bus: u64,
    /// Frequency of the TSC in hertz, where known. Only traces without CYC packets need it.
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

/// One trace, reduced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many packets of each kind there were.
    pub packets: Packets,
    /// What happened inside the guest (VMX non-root operation: PIP packets with NR = 1).
    pub guest: Side,
    /// What happened outside of it: KVM and the VMM's code on the same thread (NR = 0).
    pub host: Side,
    /// What happened while the trace did not say where: before the first PIP, after an overflow
    /// or an error, in traces of user space alone.
    pub unknown: Side,
    /// VM entries that were seen.
    pub entries: u64,
    /// VM exits that were seen.
    pub exits: u64,
    /// VM exits by VMX basic exit reason (SDM volume 3, appendix C), where event trace told it.
    pub exit_reasons: BTreeMap<u16, u64>,
    /// Length of the guest's runs, from entry to exit, by the cycles in them: empty in a trace
    /// without CYC packets.
    pub guest_runs: Histogram,
    /// Length of the host's work, from exit to the next entry, in the same way.
    pub host_handling: Histogram,
    /// Least and greatest core:bus ratio.
    pub ratio: Option<(u8, u8)>,
    /// Power events.
    pub power: Power,
    /// Bytes that were not decoded: before the first PSB, and from an error to the next PSB.
    pub skipped_bytes: u64,
    /// Bytes of a last packet that the end of the trace cut off.
    pub trailing_bytes: u64,
    /// The first errors, at most [`Summary::ERRORS`]; [`Packets::err`] counts them all.
    pub errors: Vec<FaultAt>,
}

/// What happened on one side, guest or host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Side {
    /// Conditional branches that were taken.
    pub taken: u64,
    /// Conditional branches that were not taken.
    pub not_taken: u64,
    /// Indirect jumps and calls, returns and far transfers.
    pub indirect: u64,
    /// Interrupts, faults and aborts.
    pub asynchronous: u64,
    /// Loads of CR3.
    pub address_spaces: u64,
    /// Core cycles that were not halted, from CYC packets.
    pub cycles: u64,
    /// Time in nanoseconds: the cycles at the core clock of the moment, or in a trace without CYC
    /// packets the spans of TSC packets with nothing else in between.
    pub nanoseconds: u64,
}

/// Packets by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packets {
    /// TNT-8 and TNT-64.
    pub tnt: u64,
    /// Branches in them.
    pub bits: u64,
    /// Those taken.
    pub taken: u64,
    /// TIP.
    pub tip: u64,
    /// FUP.
    pub fup: u64,
    /// TIP.PGE.
    pub pge: u64,
    /// TIP.PGD.
    pub pgd: u64,
    /// CYC.
    pub cyc: u64,
    /// Cycles in them.
    pub cycsum: u64,
    /// PAD.
    pub pad: u64,
    /// MTC.
    pub mtc: u64,
    /// TSC.
    pub tsc: u64,
    /// CBR.
    pub cbr: u64,
    /// TMA.
    pub tma: u64,
    /// MODE.Exec and MODE.TSX.
    pub mode: u64,
    /// PIP.
    pub pip: u64,
    /// PIP of VMX non-root operation.
    pub pipnr: u64,
    /// VMCS.
    pub vmcs: u64,
    /// PSB.
    pub psb: u64,
    /// PSBEND.
    pub psbend: u64,
    /// OVF.
    pub ovf: u64,
    /// All other packets.
    pub other: u64,
    /// Bytes that are no packet.
    pub err: u64,
}

/// Power events by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Power {
    /// MWAIT that asked for a sleep state.
    pub mwait: u64,
    /// Entries of a sleep state (PWRE).
    pub entries: u64,
    /// Exits from one (PWRX).
    pub exits: u64,
    /// Stops of the core clock (EXSTOP).
    pub stops: u64,
}

/// An error and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultAt {
    /// Offset of the packet's first byte in the trace.
    pub offset: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No packet begins with these bytes.
    #[error("no packet begins like this")]
    Unknown,
    /// The packet is known, one of its fields holds what it cannot.
    #[error("a {0} packet with an impossible field")]
    Malformed(&'static str),
}

impl Summary {
    /// How many errors are kept with their offsets.
    pub const ERRORS: usize = 64;

    /// Adds the figures of another trace. Offsets of its errors stay relative to that trace.
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

/// Adds every field, and does not compile when one is forgotten.
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

add_fields!(Side: taken, not_taken, indirect, asynchronous, address_spaces, cycles, nanoseconds);
add_fields!(Power: mwait, entries, exits, stops);
add_fields!(
    Packets: tnt, bits, taken, tip, fup, pge, pgd, cyc, cycsum, pad, mtc, tsc, cbr, tma, mode, pip,
    pipnr, vmcs, psb, psbend, ovf, other, err,
);
