//! What `perf script -D` prints of Intel PT, and our packets in its words.

use std::path::Path;
use std::process::Command;

use vcpu_exporter::pt::packet::{Ip, Tnt};
use vcpu_exporter::pt::Packet;

use crate::pt_data;

/// Bytes that perf is given in one piece.
pub(super) struct Piece {
    /// File and offset in it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// What perf said of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) offset: usize,
    /// Bytes, with the PADs that perf adds to the packet before them.
    pub(super) len: usize,
    pub(super) text: String,
}

/// A file with each piece as the trace of a CPU of its own, in the words of a recording of PT.
fn wrap(template: &Path, pieces: &[Piece]) -> Vec<u8> {
    let template = std::fs::read(template).expect("the template is readable");
    let u64_at = |at: usize| u64::from_le_bytes(template[at..at + 8].try_into().expect("8 bytes"));
    let data = usize::try_from(u64_at(40)).expect("an offset");
    let mut at = data;
    while template[at] != AUXTRACE_INFO {
        at += usize::from(u16::from_le_bytes([template[at + 6], template[at + 7]]));
    }
    let len = usize::from(u16::from_le_bytes([template[at + 6], template[at + 7]]));
    let mut file = template[..data].to_vec();
    file.extend(&template[at..at + len]);
    for (n, piece) in pieces.iter().enumerate() {
        let n = u32::try_from(n).expect("not so many");
        let filling = piece.bytes.len().next_multiple_of(8) - piece.bytes.len();
        file.extend([AUXTRACE, 0, 0, 0, 0, 0, 48, 0]);
        for field in [(piece.bytes.len() + filling) as u64, 0, 1] {
            file.extend(field.to_le_bytes());
        }
        // idx, tid, cpu and a reserved word.
        for field in [n, 0, n, 0] {
            file.extend(field.to_le_bytes());
        }
        file.extend(&piece.bytes);
        file.resize(file.len() + filling, 0);
    }
    let length = (file.len() - data) as u64;
    file[48..56].copy_from_slice(&length.to_le_bytes());
    // No feature sections.
    file[72..104].fill(0);
    file
}

/// Types of records: tools/lib/perf/include/perf/event.h.
const AUXTRACE_INFO: u8 = 70;
const AUXTRACE: u8 = 71;

/// What perf prints of each piece. `None`, with a word why, where there is no perf.
pub(super) fn perf_dump(pieces: &[Piece]) -> Option<Vec<Vec<Line>>> {
    if let Err(error) = Command::new("perf").arg("--version").output() {
        println!("skipped: cannot run perf (package linux-perf): {error}");
        return None;
    }
    let [template, _] = pt_data::perf_data()?;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("perf.data");
    std::fs::write(&file, wrap(&template, pieces)).expect("a file");
    let output = Command::new("perf")
        .args(["script", "-D", "--force", "-i"])
        .arg(&file)
        .output()
        .expect("perf runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let dumps = text.split("Intel Processor Trace data: size").skip(1);
    let dumps: Vec<_> = dumps
        .map(|dump| dump.lines().filter_map(line).collect())
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(dumps.len(), pieces.len(), "{errors}");
    Some(dumps)
}

/// `.  00000060:  06                                              TNT T (1)`
fn line(text: &str) -> Option<Line> {
    let (offset, rest) = text.strip_prefix(".  ")?.split_once(":  ")?;
    // Dumps of whole records have four digits.
    let offset = (offset.len() == 8).then(|| usize::from_str_radix(offset, 16).ok())??;
    let (bytes, text) = rest.split_at_checked(48)?;
    Some(Line {
        offset,
        len: bytes.split_whitespace().count(),
        text: text.trim().to_owned(),
    })
}

/// What perf printed, but for the number of a power event, which holds reserved bits that we drop;
/// its fields follow it.
pub(super) fn payload(text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    if text.starts_with("PWR") {
        words.remove(1);
    }
    words.join(" ")
}

/// What `intel_pt_pkt_desc` (tools/perf/util/intel-pt-decoder/intel-pt-pkt-decoder.c) makes of a
/// packet.
pub(super) fn in_perfs_words(packet: &Packet) -> String {
    let bit = u8::from;
    match *packet {
        Packet::Pad => "PAD".to_owned(),
        Packet::Tnt(tnt) => branches(tnt),
        Packet::Tip(payload) => ip("TIP", payload),
        Packet::TipPge(payload) => ip("TIP.PGE", payload),
        Packet::TipPgd(payload) => ip("TIP.PGD", payload),
        Packet::Fup(payload) => ip("FUP", payload),
        Packet::Cyc(n) => format!("CYC {n:#x}"),
        Packet::ModeExec {
            long,
            default,
            interrupts,
        } => {
            let width = match (long, default) {
                (true, _) => 64,
                (_, true) => 32,
                _ => 16,
            };
            format!("MODE.Exec IF:{} {width}", bit(interrupts))
        }
        Packet::ModeTsx {
            in_transaction,
            aborted,
        } => format!(
            "MODE.TSX TXAbort:{} InTX:{}",
            bit(aborted),
            bit(in_transaction)
        ),
        Packet::Tsc(n) => format!("TSC {n:#x}"),
        Packet::Mtc(n) => format!("MTC {n:#x}"),
        Packet::Tma(Some(tma)) => format!("TMA CTC {:#x} FC {:#x}", tma.ctc, tma.fast),
        Packet::Cbr(n) => format!("CBR {n:#x}"),
        Packet::Psb => "PSB".to_owned(),
        Packet::PsbEnd => "PSBEND".to_owned(),
        // The packet's bits, which are those of CR3 from bit 5 on.
        Packet::Pip { non_root, cr3 } => format!("PIP {:#x} (NR={})", cr3 >> 5, bit(non_root)),
        Packet::Vmcs(base) => format!("VMCS {:#x}", base >> 12),
        Packet::Ovf => "OVF".to_owned(),
        Packet::TraceStop => "TraceSTOP".to_owned(),
        Packet::Mnt(n) => format!("MNT {n:#x}"),
        Packet::PtWrite { payload, ip, .. } => format!("PTWRITE {payload:#x} IP:{}", bit(ip)),
        Packet::ExStop { ip } => format!("EXSTOP IP:{}", bit(ip)),
        Packet::Mwait { hints, extensions } => {
            let whole = u64::from(extensions) << 32 | u64::from(hints);
            format!("MWAIT {whole:#x} Hints {hints:#x} Extensions {extensions:#x}")
        }
        Packet::Pwre {
            hardware,
            state,
            sub_state,
        } => format!(
            "PWRE HW:{} CState:{state} Sub-CState:{sub_state}",
            bit(hardware)
        ),
        Packet::Pwrx {
            last,
            deepest,
            wake,
        } => {
            format!("PWRX Last CState:{last} Deepest CState:{deepest} Wake Reason {wake:#x}")
        }
        Packet::Bbp { kind, short } => {
            format!("BBP SZ {}-byte Type {kind:#x}", if short { 4 } else { 8 })
        }
        Packet::Bip { id, payload } => format!("BIP ID {id:#04x} Value {payload:#x}"),
        Packet::Bep { ip } => format!("BEP IP:{}", bit(ip)),
        Packet::Cfe { kind, vector, ip } => {
            format!("CFE IP:{} Type {kind:#04x} Vector {vector:#x}", bit(ip))
        }
        Packet::Evd { kind, payload } => format!("EVD Type {kind:#04x} Payload {payload:#x}"),
        Packet::Tma(None) | Packet::Trig { .. } => "nothing".to_owned(),
    }
}

fn branches(tnt: Tnt) -> String {
    let letter = |bit| if tnt.bits >> bit & 1 == 1 { 'T' } else { 'N' };
    let letters: String = (0..tnt.len).rev().map(letter).collect();
    format!("TNT {letters} ({})", tnt.len)
}

fn ip(name: &str, ip: Ip) -> String {
    match ip.compression {
        0 => format!("{name} no ip"),
        _ => format!("{name} {:#x}", ip.payload),
    }
}
