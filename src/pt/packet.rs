//! The packet table: decodes one packet.
//!
//! Layouts: Intel SDM volume 3, section 33.4.2 "Packet Definitions". Where public decoders
//! disagree, a comment states the choice and the reason.

#![forbid(unsafe_code)]

mod ip;
mod long;

pub use ip::{Ip, LastIp};

use super::Fault;

/// A packet with its payload, as SDM volume 3 describes it (chapter "Intel Processor Trace").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// Padding.
    Pad,
    /// Conditional branches, taken or not.
    Tnt(Tnt),
    /// Target of an indirect branch, interrupt or other change of flow.
    Tip(Ip),
    /// Tracing was enabled at this address.
    TipPge(Ip),
    /// Tracing was disabled; the address at which execution continued, if it may be reported.
    TipPgd(Ip),
    /// The address that the surrounding packets refer to.
    Fup(Ip),
    /// Core cycles since the last CYC.
    Cyc(u64),
    /// Mode of execution.
    ModeExec {
        /// CS.L: 64-bit code.
        long: bool,
        /// CS.D: 32-bit code.
        default: bool,
        /// RFLAGS.IF, if event trace is enabled.
        interrupts: bool,
    },
    /// Transactional memory.
    ModeTsx {
        /// Inside a transaction.
        in_transaction: bool,
        /// The transaction was aborted.
        aborted: bool,
    },
    /// The time stamp counter, 56 bits. Inside a guest, it is the guest's, with its offset and
    /// scale.
    Tsc(u64),
    /// Eight bits of the crystal clock.
    Mtc(u8),
    /// Relates MTC to TSC. `None` is a TMA affected by erratum SKZ84 inside a guest: garbage, and
    /// one byte longer.
    Tma(Option<Tma>),
    /// Core:bus ratio; 0 means none.
    Cbr(u8),
    /// Synchronization point.
    Psb,
    /// End of the status that follows a PSB.
    PsbEnd,
    /// CR3 was loaded.
    Pip {
        /// In VMX non-root operation, that is in a guest.
        non_root: bool,
        /// Physical address of the page table.
        cr3: u64,
    },
    /// Physical address of the loaded VMCS.
    Vmcs(u64),
    /// The processor lost packets.
    Ovf,
    /// A TraceStop region was entered.
    TraceStop,
    /// Reserved for Intel.
    Mnt(u64),
    /// Data written by the traced program with PTWRITE.
    PtWrite {
        /// Its value.
        payload: u64,
        /// 8 bytes wide, else 4.
        wide: bool,
        /// A FUP follows.
        ip: bool,
    },
    /// The core clock stopped.
    ExStop {
        /// A FUP follows.
        ip: bool,
    },
    /// MWAIT requested a sleep state.
    Mwait {
        /// EAX bits 7:0.
        hints: u8,
        /// ECX bits 1:0.
        extensions: u8,
    },
    /// A sleep state was entered.
    Pwre {
        /// Initiated by hardware.
        hardware: bool,
        /// Thread C-state.
        state: u8,
        /// Thread sub C-state.
        sub_state: u8,
    },
    /// A sleep state was left.
    Pwrx {
        /// Last core C-state.
        last: u8,
        /// Deepest core C-state.
        deepest: u8,
        /// Bits: 0 interrupt, 2 store to the monitored address, 3 autonomous.
        wake: u8,
    },
    /// Start of a block of items.
    Bbp {
        /// Type of the items, which gives their identifiers a meaning.
        kind: u8,
        /// Items have 4 bytes instead of 8.
        short: bool,
    },
    /// An item of a block.
    Bip {
        /// Its identifier.
        id: u8,
        /// Its value.
        payload: u64,
    },
    /// End of a block.
    Bep {
        /// A FUP follows.
        ip: bool,
    },
    /// An event, if event trace is enabled.
    Cfe {
        /// Type: see [`cfe`].
        kind: u8,
        /// Vector of the event, for types that have one.
        vector: u8,
        /// A FUP follows.
        ip: bool,
    },
    /// Data for the event of the next CFE.
    Evd {
        /// Type of the data. Decoders number them differently (libipt: 0 CR2, 1 exit qualification,
        /// 2 exit reason; perf's scripts: one higher).
        kind: u8,
        /// The data.
        payload: u64,
    },
    /// Trigger tracing.
    Trig {
        /// A bit for each trigger that occurred.
        triggers: u8,
        /// A FUP follows.
        ip: bool,
        /// It occurred more than once.
        multiple: bool,
        /// Instructions since the trigger, if reported.
        instructions: Option<u16>,
    },
}

/// Types of [`Packet::Cfe`] that the summary uses: SDM volume 3, table "CFE Packet Type".
pub mod cfe {
    /// Interrupt, fault, exception or NMI.
    pub(crate) const INTR: u8 = 1;
    /// System management interrupt.
    pub(crate) const SMI: u8 = 3;
    pub(crate) const INIT: u8 = 6;
    /// VM entry.
    pub(crate) const VMENTRY: u8 = 7;
    /// VM exit.
    pub(crate) const VMEXIT: u8 = 8;
    /// VM exit by an interrupt, fault, exception or NMI.
    pub(crate) const VMEXIT_INTR: u8 = 9;
    pub(crate) const SHUTDOWN: u8 = 10;
    /// User interrupt.
    pub(crate) const UINTR: u8 = 12;
}

/// Branches of one TNT packet, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tnt {
    /// The oldest is bit `len - 1`; 1 means taken.
    pub bits: u64,
    /// Number of branches, 1 to 47.
    pub len: u8,
}

/// A TMA packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tma {
    /// The crystal clock's low 16 bits.
    pub ctc: u16,
    /// TSC ticks since the crystal clock last counted, 9 bits.
    pub fast: u16,
}

/// Whether packets are inside a block, and the size of its items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Block {
    /// Outside.
    #[default]
    None,
    /// Items of 4 bytes.
    Short,
    /// Items of 8 bytes.
    Long,
}

/// Why no packet was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The bytes end inside the packet.
    End,
    /// The bytes are not a packet.
    Fault(Fault),
}

/// Length of a PSB.
pub(crate) const PSB_LEN: usize = 16;

/// Decodes the packet at the start of `bytes`, and returns its length.
///
/// # Errors
/// [`Stop::End`] if the packet is longer than `bytes`, or `bytes` is empty.
#[inline]
pub(crate) fn parse(bytes: &[u8], block: Block) -> Result<(Packet, usize), Stop> {
    let &first = bytes.first().ok_or(Stop::End)?;
    if block != Block::None && first & 7 == 4 {
        return item(bytes, block);
    }
    match first {
        0x00 => Ok((Packet::Pad, 1)),
        0x02 => long::parse(bytes),
        _ if first & 1 == 0 => Ok((Packet::Tnt(Tnt::short(first)), 1)),
        _ if first & 3 == 3 => cyc(bytes),
        0x19 => Ok((Packet::Tsc(le(bytes, 1, 7)?), 8)),
        0x59 => Ok((Packet::Mtc(byte(bytes, 1)?), 2)),
        0x99 => Ok((mode(byte(bytes, 1)?)?, 2)),
        0xd9 => trig(bytes),
        _ => {
            let packet = match first & 0x1f {
                0x0d => Packet::Tip,
                0x11 => Packet::TipPge,
                0x01 => Packet::TipPgd,
                0x1d => Packet::Fup,
                _ => return Err(Stop::Fault(Fault::Unknown)),
            };
            let (ip, len) = Ip::parse(bytes)?;
            Ok((packet(ip), len))
        }
    }
}

impl Tnt {
    /// TNT-8: the highest bit set is the stop bit, the bits below it except bit 0 are branches.
    fn short(byte: u8) -> Self {
        Self::below_stop_bit(u64::from(byte >> 1))
    }

    /// Branches below the highest bit set; `None` if that is bit 0 or no bit is set.
    fn below_stop_bit(bits: u64) -> Self {
        let len = 63 - (bits | 1).leading_zeros();
        Self {
            bits: bits & !(1 << len),
            len: len as u8,
        }
    }

    /// Number of branches taken.
    pub fn taken(&self) -> u64 {
        u64::from(self.bits.count_ones())
    }
}

/// CYC: 5 bits in the first byte and 7 in each further byte. The lowest bit of a byte (bit 2 in the
/// first) indicates another byte. Bits above 64 are dropped.
fn cyc(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    const LONGEST: usize = 10;
    let first = bytes[0];
    let mut cycles = u64::from(first >> 3);
    let mut more = first & 4 != 0;
    let mut len = 1;
    while more {
        if len == LONGEST {
            return Err(Stop::Fault(Fault::Malformed("CYC")));
        }
        let next = byte(bytes, len)?;
        cycles |= u64::from(next >> 1) << (5 + 7 * (len - 1));
        more = next & 1 != 0;
        len += 1;
    }
    Ok((Packet::Cyc(cycles), len))
}

fn mode(byte: u8) -> Result<Packet, Stop> {
    let bit = |n: u8| byte >> n & 1 == 1;
    match byte >> 5 {
        0 if !(bit(0) && bit(1)) => Ok(Packet::ModeExec {
            long: bit(0),
            default: bit(1),
            interrupts: bit(2),
        }),
        1 => Ok(Packet::ModeTsx {
            in_transaction: bit(0),
            aborted: bit(1),
        }),
        _ => Err(Stop::Fault(Fault::Malformed("MODE"))),
    }
}

fn trig(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    let flags = byte(bytes, 1)?;
    let triggers = byte(bytes, 2)?;
    let (instructions, len) = match flags & 0x40 {
        0 => (None, 3),
        _ => (Some(le(bytes, 3, 2)? as u16), 5),
    };
    let packet = Packet::Trig {
        triggers,
        ip: flags & 0x80 != 0,
        multiple: flags & 0x20 != 0,
        instructions,
    };
    Ok((packet, len))
}

fn item(bytes: &[u8], block: Block) -> Result<(Packet, usize), Stop> {
    let len = if block == Block::Short { 4 } else { 8 };
    let packet = Packet::Bip {
        id: bytes[0] >> 3,
        payload: le(bytes, 1, len)?,
    };
    Ok((packet, 1 + len))
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, Stop> {
    bytes.get(at).copied().ok_or(Stop::End)
}

/// `len` bytes from `at` on as a little-endian number.
fn le(bytes: &[u8], at: usize, len: usize) -> Result<u64, Stop> {
    let bytes = bytes.get(at..at + len).ok_or(Stop::End)?;
    let mut number = [0; 8];
    number[..len].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests;
