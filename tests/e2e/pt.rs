//! Linux's own decoder reads Intel PT traces as we do: `perf script -D` over every recorded stream,
//! packet by packet, and `pt summarise` against what perf printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vcpu_exporter::pt::perf_data::PerfData;
use vcpu_exporter::pt::stream::{find_psb, Found};
use vcpu_exporter::pt::{Packet, Stream};

use crate::pt_data;

mod perf;

use perf::{in_perfs_words, payload, perf_dump, Line, Piece};

/// Where the comparison of a piece ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Where its bytes do, but for a last packet that is cut off.
    Whole,
    /// Both say that this is no packet.
    Error,
    /// At a packet of trigger tracing, which is younger than perf's decoder.
    Trig,
    /// At a TMA that erratum SKZ84 spoiled, of which perf does not know: it takes the stray byte
    /// behind it for a packet.
    SpoiledTma,
}

/// All pieces whose comparison ends before they do. What follows there is without meaning to perf,
/// which does not look for the next PSB as we do.
const NOT_WHOLE: [(&str, End); 14] = [
    ("dump-all-packets.pt from 0x2", End::Trig),
    ("exstop-trig.pt from 0x0", End::Trig),
    ("fup-tip-trig.pt from 0x0", End::Trig),
    ("mode-trig-trig.pt from 0x0", End::Trig),
    ("psb-fup-ptw-trig.pt from 0x0", End::Trig),
    ("psb-fup-trig.pt from 0x0", End::Trig),
    ("ptdump-bad_opc-resync.pt from 0x7", End::Error),
    ("ptdump-trunc-resync.pt from 0x6", End::Error),
    ("skz84.pt from 0x0", End::SpoiledTma),
    ("tip-trig.pt from 0x0", End::Trig),
    ("tip_pge-trig.pt from 0x0", End::Trig),
    ("tnt-trig.pt from 0x0", End::Trig),
    ("trig-fup.pt from 0x0", End::Trig),
    ("trig.pt from 0x0", End::Trig),
];

/// The pieces of a raw stream that perf, which does not look for a PSB after an error, can read.
fn pieces(file: &Path) -> Vec<Piece> {
    let bytes = std::fs::read(file).expect("a trace");
    let name = file.file_name().expect("a name").to_string_lossy();
    split(&name, &bytes)
}

/// From each PSB that was looked for, at the begin or after an error, to the next such.
fn split(name: &str, bytes: &[u8]) -> Vec<Piece> {
    let skipped = Stream::new(bytes).filter(|step| step.found == Found::Skipped);
    let mut begins: Vec<usize> = skipped.map(|step| step.offset + step.len).collect();
    if find_psb(bytes) == Some(0) {
        begins.insert(0, 0);
    }
    begins.retain(|begin| *begin < bytes.len());
    let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
    let piece = |(begin, end): (&usize, usize)| Piece {
        name: format!("{name} from {begin:#x}"),
        bytes: bytes[*begin..end].to_vec(),
    };
    begins.iter().zip(ends).map(piece).collect()
}

/// Those of every raw stream there is, and of those inside of perf.data files.
fn all_pieces() -> Option<Vec<Piece>> {
    let mut files: Vec<PathBuf> = pt_data::golden()?.into_iter().map(|g| g.file).collect();
    files.extend(pt_data::conformance()?);
    let mut all: Vec<Piece> = files.iter().flat_map(|file| pieces(file)).collect();
    for file in pt_data::perf_data()? {
        let bytes = std::fs::read(file).expect("a perf.data file");
        for stream in PerfData::parse(&bytes).expect("PT").streams {
            all.extend(split(&stream.owner.to_string(), &stream.bytes()));
        }
    }
    Some(all)
}

#[test]
fn perf_reads_every_packet_as_we_do() {
    let Some(pieces) = all_pieces() else {
        return;
    };
    let Some(dumps) = perf_dump(&pieces) else {
        return;
    };
    let mut compared = 0;
    let mut wrong = Vec::new();
    let mut not_whole = Vec::new();
    for (piece, lines) in pieces.iter().zip(&dumps) {
        match compare(piece, lines) {
            Ok((packets, end)) => {
                compared += packets;
                if end != End::Whole {
                    not_whole.push((piece.name.as_str(), end));
                }
            }
            Err(why) => wrong.push(format!("{}: {why}", piece.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{compared} packets of {} pieces agree", pieces.len());
    not_whole.sort_by_key(|(name, _)| *name);
    assert_eq!(not_whole, NOT_WHOLE);
    assert!(compared > 250_000, "{compared}");
}

/// Holds our packets against perf's lines: how many were the same, and why there were no more.
fn compare(piece: &Piece, lines: &[Line]) -> Result<(usize, End), String> {
    let mut lines = lines.iter().filter(|line| line.text != "PAD");
    let mut count = 0;
    for step in Stream::synchronised(&piece.bytes) {
        let ours = match step.found {
            Found::Packet(Packet::Pad) => continue,
            Found::Packet(Packet::Trig { .. }) => return Ok((count, End::Trig)),
            Found::Packet(Packet::Tma(None)) => return Ok((count, End::SpoiledTma)),
            Found::Packet(packet) => in_perfs_words(&packet),
            Found::Fault(_) => "Bad packet!".to_owned(),
            Found::Skipped | Found::Trailing => return Ok((count, End::Whole)),
        };
        let theirs = lines.next();
        let same = theirs.is_some_and(|line| {
            // perf adds up to 7 PADs to the packet before them.
            let fits = (step.len..step.len + 8).contains(&line.len);
            line.offset == step.offset && fits && payload(&line.text) == ours
        });
        if !same {
            let len = step.len;
            return Err(format!(
                "{:#x}: {ours}, {len} bytes; perf {theirs:?}",
                step.offset
            ));
        }
        if matches!(step.found, Found::Fault(_)) {
            return Ok((count, End::Error));
        }
        count += 1;
    }
    match lines.next() {
        Some(line) if line.offset < piece.bytes.len() => Err(format!("perf goes on with {line:?}")),
        _ => Ok((count, End::Whole)),
    }
}

/// `pt summarise --json` of a file: one object a stream.
fn summaries(file: &Path) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .args(["pt", "summarise", "--json"])
        .arg(file)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("an array")
}

/// Counts of packets by the names of `pt summarise`, from nothing but perf's words.
fn counts(lines: &[Line]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let mut add = |name, n| *counts.entry(name).or_default() += n;
        let mut words = line.text.split(' ');
        let name = words.next().unwrap_or_default();
        let rest = words.next().unwrap_or_default();
        match name {
            "TNT" => {
                add("tnt", 1);
                add("bits", rest.len() as u64);
                add("taken", rest.matches('T').count() as u64);
            }
            "CYC" => {
                add("cyc", 1);
                let cycles = u64::from_str_radix(rest.trim_start_matches("0x"), 16);
                add("cycsum", cycles.expect("a number"));
            }
            "PIP" => {
                add("pip", 1);
                add("pipnr", u64::from(line.text.ends_with("(NR=1)")));
            }
            "TIP" => add("tip", 1),
            "TIP.PGE" => add("pge", 1),
            "TIP.PGD" => add("pgd", 1),
            "FUP" => add("fup", 1),
            "MODE.Exec" | "MODE.TSX" => add("mode", 1),
            "MTC" => add("mtc", 1),
            "TSC" => add("tsc", 1),
            "CBR" => add("cbr", 1),
            "TMA" => add("tma", 1),
            "VMCS" => add("vmcs", 1),
            "PSB" => add("psb", 1),
            "PSBEND" => add("psbend", 1),
            "OVF" => add("ovf", 1),
            "PAD" => {}
            _ => add("other", 1),
        }
    }
    counts
}

/// Of the traces of real machines, which have no errors in them.
#[test]
fn pt_summarise_counts_what_perf_prints() {
    let Some(golden) = pt_data::golden() else {
        return;
    };
    let pieces: Vec<Vec<Piece>> = golden.iter().map(|g| pieces(&g.file)).collect();
    assert!(pieces.iter().all(|pieces| pieces.len() == 1));
    let pieces: Vec<Piece> = pieces.into_iter().flatten().collect();
    let Some(dumps) = perf_dump(&pieces) else {
        return;
    };
    for ((golden, piece), lines) in golden.iter().zip(&pieces).zip(dumps) {
        let summary = &summaries(&golden.file)[0];
        // perf was given zeros after the end, which may make a packet of the rest that is none.
        let rest = summary["trailing_bytes"].as_u64().expect("a number");
        let end = piece.bytes.len() - usize::try_from(rest).expect("a length");
        let whole = lines.into_iter().filter(|line| line.offset < end);
        let theirs = counts(&whole.collect::<Vec<_>>());
        let ours = &summary["packets"];
        for (name, ours) in ours.as_object().expect("counts") {
            // perf counts PADs with the packet before them.
            if name != "pad" {
                let theirs = theirs.get(name.as_str()).copied().unwrap_or(0);
                assert_eq!(ours.as_u64(), Some(theirs), "{}: {name}", golden.name);
            }
        }
    }
}
