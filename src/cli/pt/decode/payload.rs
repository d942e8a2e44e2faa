//! Names and payloads of packets in the terms of libipt's `ptdump`. Numbers are hexadecimal unless
//! noted.

use std::io::{self, Write};

use crate::pt::packet::{cfe, Ip, Tnt};
use crate::pt::Packet;

/// Bytes of the longer TNT packet.
const TNT_64: usize = 8;

/// `ptdump`'s name for a packet of this length.
pub(super) fn name(packet: &Packet, len: usize) -> &'static str {
    match packet {
        Packet::Pad => "pad",
        Packet::Tnt(_) if len == TNT_64 => "tnt.64",
        Packet::Tnt(_) => "tnt.8",
        Packet::Tip(_) => "tip",
        Packet::TipPge(_) => "tip.pge",
        Packet::TipPgd(_) => "tip.pgd",
        Packet::Fup(_) => "fup",
        Packet::Cyc(_) => "cyc",
        Packet::ModeExec { .. } => "mode.exec",
        Packet::ModeTsx { .. } => "mode.tsx",
        Packet::Tsc(_) => "tsc",
        Packet::Mtc(_) => "mtc",
        Packet::Tma(_) => "tma",
        Packet::Cbr(_) => "cbr",
        Packet::Psb => "psb",
        Packet::PsbEnd => "psbend",
        Packet::Pip { .. } => "pip",
        Packet::Vmcs(_) => "vmcs",
        Packet::Ovf => "ovf",
        Packet::TraceStop => "stop",
        Packet::Mnt(_) => "mnt",
        Packet::PtWrite { .. } => "ptw",
        Packet::ExStop { .. } => "exstop",
        Packet::Mwait { .. } => "mwait",
        Packet::Pwre { .. } => "pwre",
        Packet::Pwrx { .. } => "pwrx",
        Packet::Bbp { .. } => "bbp",
        Packet::Bip { .. } => "bip",
        Packet::Bep { .. } => "bep",
        Packet::Cfe { .. } => "cfe",
        Packet::Evd { .. } => "evd",
        Packet::Trig { .. } => "trig",
    }
}

/// Writes the payload.
pub(super) fn write(packet: &Packet, out: &mut impl Write) -> io::Result<()> {
    match *packet {
        Packet::Pad | Packet::Psb | Packet::PsbEnd | Packet::Ovf | Packet::TraceStop => Ok(()),
        Packet::Tnt(branches) => tnt(branches, out),
        Packet::Tip(payload)
        | Packet::TipPge(payload)
        | Packet::TipPgd(payload)
        | Packet::Fup(payload) => ip(payload, out),
        Packet::Cyc(n) | Packet::Tsc(n) | Packet::Vmcs(n) | Packet::Mnt(n) => write!(out, "{n:x}"),
        Packet::Mtc(n) | Packet::Cbr(n) => write!(out, "{n:x}"),
        Packet::ModeExec {
            long,
            default,
            interrupts,
        } => flags(
            &[(long, "cs.l"), (default, "cs.d"), (interrupts, "if")],
            out,
        ),
        Packet::ModeTsx {
            in_transaction,
            aborted,
        } => flags(&[(in_transaction, "intx"), (aborted, "abrt")], out),
        Packet::Tma(Some(tma)) => write!(out, "{:x}, {:x}", tma.ctc, tma.fast),
        Packet::Tma(None) => write!(out, "spoiled (erratum SKZ84)"),
        Packet::Pip { non_root, cr3 } => write!(out, "{cr3:x}{}", also(non_root, "nr")),
        Packet::ExStop { ip } | Packet::Bep { ip } => flags(&[(ip, "ip")], out),
        Packet::PtWrite { payload, wide, ip } => {
            write!(out, "{}: {payload:x}{}", u8::from(wide), also(ip, "ip"))
        }
        Packet::Mwait { hints, extensions } => write!(out, "{hints:08x}, {extensions:08x}"),
        Packet::Pwre {
            hardware,
            state,
            sub_state,
        } => {
            let (state, sub_state) = (c_state(state), c_state(sub_state));
            write!(out, "c{state}.{sub_state}{}", also(hardware, "hw"))
        }
        Packet::Pwrx {
            last,
            deepest,
            wake,
        } => {
            let (last, deepest) = (c_state(last), c_state(deepest));
            write!(out, "{}: c{last}, c{deepest}", wake_reason(wake))
        }
        Packet::Bbp { kind, short } => {
            write!(out, "{kind:x}, {} bytes", if short { 4 } else { 8 })
        }
        Packet::Bip { id, payload } => write!(out, "{id:x}: {payload:x}"),
        Packet::Cfe { kind, vector, ip } => event(kind, vector, ip, out),
        Packet::Evd { kind, payload } => write!(out, "{kind}: {payload:x}"),
        Packet::Trig {
            triggers,
            ip,
            multiple,
            instructions,
        } => {
            write!(out, "{triggers:02x}{}", also(ip, "ip"))?;
            write!(out, "{}", also(multiple, "mult"))?;
            instructions.map_or(Ok(()), |n| write!(out, ", icnt: {n}"))
        }
    }
}

/// One character for each branch, oldest first: `!` is taken.
fn tnt(branches: Tnt, out: &mut impl Write) -> io::Result<()> {
    for bit in (0..branches.len).rev() {
        let is_taken = branches.bits >> bit & 1 == 1;
        out.write_all(if is_taken { b"!" } else { b"." })?;
    }
    Ok(())
}

/// The compression of the address, and its digits; missing digits are `?`.
fn ip(ip: Ip, out: &mut impl Write) -> io::Result<()> {
    let bits = 64;
    let came = match ip.compression {
        0 => 0,
        1 => 16,
        2 => 32,
        4 => 48,
        // Sign-extended from bit 47, or complete.
        _ => bits,
    };
    let payload = match ip.compression {
        3 => ((ip.payload << 16) as i64 >> 16) as u64,
        _ => ip.payload,
    };
    write!(out, "{}: ", ip.compression)?;
    for digit in (0..bits).step_by(4).rev() {
        if digit < came {
            write!(out, "{:x}", payload >> digit & 0xf)?
        } else {
            out.write_all(b"?")?
        }
    }
    Ok(())
}

fn flags(flags: &[(bool, &str)], out: &mut impl Write) -> io::Result<()> {
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    let names: Vec<&str> = set.map(|(_, name)| *name).collect();
    write!(out, "{}", names.join(", "))
}

fn also(is_set: bool, flag: &str) -> String {
    if is_set {
        format!(", {flag}")
    } else {
        String::new()
    }
}

/// C-states are numbered from C1, as in hints of MWAIT; all bits set is C0.
fn c_state(encoded: u8) -> u8 {
    encoded.wrapping_add(1) & 0xf
}

fn wake_reason(wake: u8) -> &'static str {
    match wake {
        1 => "int",
        4 => "st",
        8 => "hw",
        _ => "unknown",
    }
}

/// The type in decimal, and the vector if it has one; for a SIPI the page, in hexadecimal.
fn event(kind: u8, vector: u8, ip: bool, out: &mut impl Write) -> io::Result<()> {
    const SIPI: u8 = 5;
    const SWINTR: u8 = 14;
    write!(out, "{kind}")?;
    match kind {
        cfe::INTR | cfe::VMEXIT_INTR | cfe::UINTR | SWINTR => write!(out, ": {vector}")?,
        SIPI => write!(out, ": {vector:x}")?,
        _ => {}
    }
    write!(out, "{}", also(ip, "ip"))
}
