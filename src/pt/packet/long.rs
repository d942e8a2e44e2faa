//! Packets that start with 02; the second byte has the type.

#![forbid(unsafe_code)]

use super::{byte, le, Packet, Stop, Tma, Tnt, PSB_LEN};
use crate::pt::Fault;

/// Decodes the packet at the start of `bytes`, whose first byte is 02.
pub(super) fn parse(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    let second = byte(bytes, 1)?;
    let packet = match second {
        0xa3 => (tnt(le(bytes, 2, 6)?)?, 8),
        0x82 => return psb(bytes),
        0x23 => (Packet::PsbEnd, 2),
        0x03 => (cbr(le(bytes, 2, 2)?), 4),
        0x43 => (pip(le(bytes, 2, 6)?), 8),
        0xc8 => (Packet::Vmcs(le(bytes, 2, 5)? << 12), 7),
        0xf3 => (Packet::Ovf, 2),
        0x73 => return tma(bytes),
        0x83 => (Packet::TraceStop, 2),
        0xc3 => return mnt(bytes),
        0x62 | 0xe2 => (Packet::ExStop { ip: top(second) }, 2),
        0xc2 => (mwait(le(bytes, 2, 8)?), 10),
        0x22 => (pwre(le(bytes, 2, 2)?), 4),
        0xa2 => (pwrx(le(bytes, 2, 5)?), 7),
        0x63 => (bbp(byte(bytes, 2)?), 3),
        0x33 | 0xb3 => (Packet::Bep { ip: top(second) }, 2),
        0x13 => (cfe(byte(bytes, 2)?, byte(bytes, 3)?), 4),
        0x53 => (evd(byte(bytes, 2)?, le(bytes, 3, 8)?), 11),
        _ if second & 0x1f == 0x12 => return ptwrite(bytes, second),
        _ => return Err(Stop::Fault(Fault::Unknown)),
    };
    Ok(packet)
}

fn top(byte: u8) -> bool {
    byte & 0x80 != 0
}

/// TNT-64: like TNT-8, in 48 bits.
fn tnt(bits: u64) -> Result<Packet, Stop> {
    match Tnt::below_stop_bit(bits) {
        Tnt { len: 0, .. } => Err(Stop::Fault(Fault::Malformed("TNT"))),
        branches => Ok(Packet::Tnt(branches)),
    }
}

/// PSB: 02 82, eight times.
fn psb(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    let bytes = &bytes[..bytes.len().min(PSB_LEN)];
    let expected = [0x02, 0x82].iter().cycle();
    if !bytes.iter().eq(expected.take(bytes.len())) {
        Err(Stop::Fault(Fault::Malformed("PSB")))
    } else if bytes.len() < PSB_LEN {
        Err(Stop::End)
    } else {
        Ok((Packet::Psb, PSB_LEN))
    }
}

fn cbr(payload: u64) -> Packet {
    Packet::Cbr(payload as u8)
}

fn pip(payload: u64) -> Packet {
    Packet::Pip {
        non_root: payload & 1 == 1,
        cr3: payload >> 1 << 5,
    }
}

/// TMA. With VMX's TSC offset, which KVM always uses, a guest's TMA is garbage and one byte too
/// long on every Xeon SP (erratum SKZ84 and similar ones). Reserved bits reveal it, as in libipt.
fn tma(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    let payload = le(bytes, 2, 5)?;
    let (ctc, reserved, fast) = (payload as u16, payload >> 16 & 0xff, (payload >> 24) as u16);
    if reserved == 0 && fast < 0x200 {
        return Ok((Packet::Tma(Some(Tma { ctc, fast })), 7));
    }
    byte(bytes, 7)?;
    Ok((Packet::Tma(None), 8))
}

fn mnt(bytes: &[u8]) -> Result<(Packet, usize), Stop> {
    match byte(bytes, 2)? {
        0x88 => Ok((Packet::Mnt(le(bytes, 3, 8)?), 11)),
        _ => Err(Stop::Fault(Fault::Unknown)),
    }
}

fn mwait(payload: u64) -> Packet {
    Packet::Mwait {
        hints: payload as u8,
        extensions: (payload >> 32) as u8 & 3,
    }
}

/// PWRE. HW is bit 7, as in perf; libipt uses bit 3.
fn pwre(payload: u64) -> Packet {
    Packet::Pwre {
        hardware: payload & 0x80 != 0,
        state: (payload >> 12) as u8 & 0xf,
        sub_state: (payload >> 8) as u8 & 0xf,
    }
}

fn pwrx(payload: u64) -> Packet {
    Packet::Pwrx {
        last: (payload >> 4) as u8 & 0xf,
        deepest: payload as u8 & 0xf,
        wake: (payload >> 8) as u8 & 0xf,
    }
}

fn bbp(byte: u8) -> Packet {
    Packet::Bbp {
        kind: byte & 0x1f,
        short: top(byte),
    }
}

fn cfe(byte: u8, vector: u8) -> Packet {
    Packet::Cfe {
        kind: byte & 0x1f,
        vector,
        ip: top(byte),
    }
}

fn evd(byte: u8, payload: u64) -> Packet {
    Packet::Evd {
        kind: byte & 0x3f,
        payload,
    }
}

fn ptwrite(bytes: &[u8], second: u8) -> Result<(Packet, usize), Stop> {
    let len = match second >> 5 & 3 {
        0 => 4,
        1 => 8,
        _ => return Err(Stop::Fault(Fault::Malformed("PTWRITE"))),
    };
    let packet = Packet::PtWrite {
        payload: le(bytes, 2, len)?,
        wide: len == 8,
        ip: top(second),
    };
    Ok((packet, 2 + len))
}
