//! The format of libipt's `ptdump`: parses its expected dumps, and writes our packets in it.
#![allow(clippy::expect_used, clippy::panic)]

use vcpu_exporter::pt::packet::{Ip, LastIp, Packet};
use vcpu_exporter::pt::stream::{Found, Step};
use vcpu_exporter::pt::Stream;

/// One line of a dump, as far as present: some dumps omit offsets, most omit what follows from
/// earlier packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) offset: Option<usize>,
    /// The packet's bytes.
    pub(crate) raw: Option<String>,
    /// Name and payload, or `error`.
    pub(crate) text: String,
    /// Interpretation of the payload: `cr3 …`, `vmcs …`, `type …`, `em …`, `ip …`.
    pub(crate) meaning: Option<String>,
}

/// The lines of a dump with packets and packet errors, without errors of ptdump's time estimation.
pub(crate) fn expected(dump: &str) -> Vec<Line> {
    let lines = dump.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter_map(line).collect()
}

fn line(line: &str) -> Option<Line> {
    if let Some(error) = line.strip_prefix('[') {
        let (offset, what) = error.split_once(": ").expect("[offset: what]");
        return what.starts_with("error decoding packet").then(|| Line {
            offset: Some(usize::from_str_radix(offset, 16).expect("an offset")),
            raw: None,
            text: "error".to_owned(),
            meaning: None,
        });
    }
    let hex = |word: &str| word.bytes().all(|c| c.is_ascii_hexdigit());
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let offset = (words[0].len() == 16 && hex(words[0])).then(|| words.remove(0));
    // `cfe` is a name.
    let raw = (words[0].len() % 2 == 0 && hex(words[0])).then(|| words.remove(0).to_owned());
    let meaning = (1..words.len()).find(|&i| is_meaning(&words[i..]));
    let (payload, meaning) = words.split_at(meaning.unwrap_or(words.len()));
    Some(Line {
        offset: offset.map(|offset| usize::from_str_radix(offset, 16).expect("an offset")),
        raw,
        text: payload.join(" "),
        meaning: (!meaning.is_empty()).then(|| meaning.join(" ")),
    })
}

/// Whether these words end a line with something other than payload. `tsc` and `fcr` are time
/// estimates.
fn is_meaning(words: &[&str]) -> bool {
    match words {
        ["ip", address] => address.len() == 16,
        ["cr3" | "vmcs" | "type" | "em" | "tsc" | "fcr", _] => true,
        _ => false,
    }
}

/// Our decoding of a trace with all details.
pub(crate) fn ours(trace: &[u8]) -> Vec<Line> {
    let mut last_ip = LastIp::default();
    Stream::new(trace)
        .filter_map(|step| {
            let (text, meaning) = words(&step, &mut last_ip)?;
            let bytes = &trace[step.offset..step.offset + step.len];
            Some(Line {
                offset: Some(step.offset),
                raw: Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
                text,
                meaning,
            })
        })
        .collect()
}

/// Whether `ours` contains everything in `expected`.
pub(crate) fn agree(ours: &Line, expected: &Line) -> bool {
    let told = expected.meaning.as_ref().filter(|meaning| {
        // Time estimates are not part of packets.
        !meaning.starts_with("tsc ") && !meaning.starts_with("fcr ")
    });
    let text = ours.text == expected.text;
    let offset = expected.offset.is_none() || ours.offset == expected.offset;
    let raw = expected.raw.is_none() || ours.raw == expected.raw;
    text && offset && raw && (told.is_none() || ours.meaning.as_ref() == told)
}

fn words(step: &Step, last_ip: &mut LastIp) -> Option<(String, Option<String>)> {
    let packet = match &step.found {
        Found::Packet(packet) => packet,
        Found::Fault(_) => return Some(("error".to_owned(), None)),
        Found::Skipped => return None,
        Found::Trailing => return Some(("trailing".to_owned(), None)),
    };
    if *packet == Packet::Psb {
        last_ip.reset();
    }
    let (name, payload, meaning) = match *packet {
        Packet::Tip(ip) => with_ip("tip", ip, last_ip),
        Packet::TipPge(ip) => with_ip("tip.pge", ip, last_ip),
        Packet::TipPgd(ip) => with_ip("tip.pgd", ip, last_ip),
        Packet::Fup(ip) => with_ip("fup", ip, last_ip),
        ref other => without_ip(other, step.len),
    };
    let text = format!("{name} {payload}").trim_end().to_owned();
    Some((text, meaning))
}

type Words = (&'static str, String, Option<String>);

fn with_ip(name: &'static str, ip: Ip, last_ip: &mut LastIp) -> Words {
    let payload = ip.payload;
    let digits = match ip.compression {
        0 => "?".repeat(16),
        1 => format!("????????????{payload:04x}"),
        2 => format!("????????{payload:08x}"),
        3 => format!("{:016x}", (payload << 16) as i64 >> 16),
        4 => format!("????{payload:012x}"),
        _ => format!("{payload:016x}"),
    };
    let address = last_ip.update(ip);
    let meaning = address.map(|address| format!("ip {address:016x}"));
    (name, format!("{}: {digits}", ip.compression), meaning)
}

fn without_ip(packet: &Packet, len: usize) -> Words {
    let plain = |name, payload: String| (name, payload, None);
    match *packet {
        Packet::Pad => plain("pad", String::new()),
        Packet::Psb => plain("psb", String::new()),
        Packet::PsbEnd => plain("psbend", String::new()),
        Packet::Ovf => plain("ovf", String::new()),
        Packet::TraceStop => plain("stop", String::new()),
        Packet::Tnt(tnt) => {
            let name = if len == 1 { "tnt.8" } else { "tnt.64" };
            let taken = |bit| tnt.bits >> bit & 1 == 1;
            let bits = (0..tnt.len).rev();
            plain(
                name,
                bits.map(|bit| if taken(bit) { '!' } else { '.' }).collect(),
            )
        }
        Packet::Cyc(cycles) => plain("cyc", format!("{cycles:x}")),
        Packet::Tsc(tsc) => plain("tsc", format!("{tsc:x}")),
        Packet::Mtc(ctc) => plain("mtc", format!("{ctc:x}")),
        Packet::Tma(Some(tma)) => plain("tma", format!("{:x}, {:x}", tma.ctc, tma.fast)),
        Packet::Tma(None) => plain("<invalid>", String::new()),
        Packet::Cbr(ratio) => plain("cbr", format!("{ratio:x}")),
        Packet::Mnt(payload) => plain("mnt", format!("{payload:x}")),
        Packet::Pip { non_root, cr3 } => {
            let payload = format!("{cr3:x}") + flag(non_root, ", nr");
            ("pip", payload, Some(format!("cr3 {cr3:016x}")))
        }
        Packet::Vmcs(address) => {
            let meaning = format!("vmcs {address:016x}");
            ("vmcs", format!("{address:x}"), Some(meaning))
        }
        Packet::ModeExec {
            long,
            default,
            interrupts,
        } => mode_exec(long, default, interrupts),
        Packet::ModeTsx {
            in_transaction,
            aborted,
        } => {
            let words = [(in_transaction, "intx"), (aborted, "abrt")];
            plain("mode.tsx", list(&words))
        }
        ref event => of_event(event),
    }
}

fn mode_exec(long: bool, default: bool, interrupts: bool) -> Words {
    let words = [(default, "cs.d"), (long, "cs.l"), (interrupts, "if")];
    let bits = match (long, default) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 16,
    };
    ("mode.exec", list(&words), Some(format!("em {bits}-bit")))
}

fn of_event(packet: &Packet) -> Words {
    let plain = |name, payload: String| (name, payload, None);
    match *packet {
        Packet::PtWrite { payload, wide, ip } => plain(
            "ptw",
            format!("{}: {payload:x}", u8::from(wide)) + flag(ip, ", ip"),
        ),
        Packet::ExStop { ip } => plain("exstop", list(&[(ip, "ip")])),
        Packet::Mwait { hints, extensions } => {
            plain("mwait", format!("{hints:08x}, {extensions:08x}"))
        }
        Packet::Pwre {
            hardware,
            state,
            sub_state,
        } => {
            // C-states count from C1; 15 is C0.
            let state = (state + 1) & 0xf;
            let sub_state = (sub_state + 1) & 0xf;
            plain(
                "pwre",
                format!("c{state:x}.{sub_state:x}") + flag(hardware, ", hw"),
            )
        }
        Packet::Pwrx {
            last,
            deepest,
            wake,
        } => {
            let why = [(wake & 1, "int"), (wake & 4, "st"), (wake & 8, "hw")];
            let why = list(&why.map(|(bit, word)| (bit > 0, word)));
            let (last, deepest) = ((last + 1) & 0xf, (deepest + 1) & 0xf);
            plain("pwrx", format!("{why}: c{last:x}, c{deepest:x}"))
        }
        Packet::Cfe { kind, vector, ip } => cfe(kind, vector, ip),
        Packet::Evd { kind, payload } => {
            let kinds = ["cr2", "vmxq", "vmxr"];
            let name = kinds.get(usize::from(kind)).unwrap_or(&"unknown");
            let meaning = Some(format!("type {name}"));
            ("evd", format!("{kind}: {payload:x}"), meaning)
        }
        Packet::Trig {
            triggers,
            ip,
            multiple,
            instructions,
        } => {
            let count = instructions.map(|count| format!(", icnt: {count}"));
            let flags = flag(ip, ", ip").to_owned() + flag(multiple, ", mult");
            plain(
                "trig",
                format!("{triggers:02x}{flags}{}", count.unwrap_or_default()),
            )
        }
        // libipt does not support blocks.
        ref other => panic!("ptdump has no word for {other:?}"),
    }
}

fn cfe(kind: u8, vector: u8, ip: bool) -> Words {
    const KINDS: [&str; 16] = [
        "unknown",
        "intr",
        "iret",
        "smi",
        "rsm",
        "sipi",
        "init",
        "vmentry",
        "vmexit",
        "vmexit_intr",
        "shutdown",
        "unknown",
        "uintr",
        "uiret",
        "swintr",
        "syscall",
    ];
    let vector = match kind {
        1 | 9 | 12 | 14 => format!(": {vector}"),
        5 => format!(": {vector:x}"),
        _ => String::new(),
    };
    let name = KINDS.get(usize::from(kind)).unwrap_or(&"unknown");
    let payload = format!("{kind}{vector}") + flag(ip, ", ip");
    ("cfe", payload, Some(format!("type {name}")))
}

fn flag(set: bool, word: &str) -> &str {
    if set {
        word
    } else {
        ""
    }
}

fn list(words: &[(bool, &str)]) -> String {
    let set: Vec<&str> = words
        .iter()
        .filter(|(set, _)| *set)
        .map(|word| word.1)
        .collect();
    set.join(", ")
}
