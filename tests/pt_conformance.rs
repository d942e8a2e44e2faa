//! The decoder on recorded traces against the counts of three other decoders, and on libipt's
//! conformance streams against libipt's own dumps.

use crate::support::pt_data;
use crate::support::ptdump;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vcpu_exporter::pt::packet::{LastIp, Packet};
use vcpu_exporter::pt::stream::Found;
use vcpu_exporter::pt::{self, scalar, Clocks, Packets, Stream};

#[test]
fn packets_of_recorded_traces_are_as_other_decoders_count_them() {
    let Some(golden) = pt_data::golden() else {
        return;
    };
    for golden in golden {
        let name = &golden.name;
        let trace = fs::read(&golden.file).expect("the trace");
        let clocks = Clocks::default();
        for summarise in [pt::summarise, scalar::summarise] {
            let summary = summarise(&trace, &[], &clocks);
            assert_eq!(by_name(&summary.packets), golden.counts, "{name}");
            let trailing = summary.trailing_bytes;
            assert_eq!(summary.skipped_bytes, golden.first_psb as u64, "{name}");
            assert!(
                trailing < 16,
                "{name}: {trailing} bytes are a packet or more"
            );
            assert_eq!(summary.errors, [], "{name}");
        }
        assert_eq!(pt_data::ip_hash(ips(&trace)), golden.ip_hash, "{name}");
    }
}

/// Every count under the name of its field.
fn by_name(packets: &Packets) -> BTreeMap<String, u64> {
    // No `..`: a new field must be compared too.
    let Packets {
        tnt,
        bits,
        taken,
        tip,
        fup,
        pge,
        pgd,
        cyc,
        cycsum,
        pad,
        mtc,
        tsc,
        cbr,
        tma,
        mode,
        pip,
        pipnr,
        vmcs,
        psb,
        psbend,
        ovf,
        other,
        err,
    } = *packets;
    let all = [
        ("tnt", tnt),
        ("bits", bits),
        ("taken", taken),
        ("tip", tip),
        ("fup", fup),
        ("pge", pge),
        ("pgd", pgd),
        ("cyc", cyc),
        ("cycsum", cycsum),
        ("pad", pad),
        ("mtc", mtc),
        ("tsc", tsc),
        ("cbr", cbr),
        ("tma", tma),
        ("mode", mode),
        ("pip", pip),
        ("pipnr", pipnr),
        ("vmcs", vmcs),
        ("psb", psb),
        ("psbend", psbend),
        ("ovf", ovf),
        ("other", other),
        ("err", err),
    ];
    all.map(|(name, count)| (name.to_owned(), count)).into()
}

/// The addresses in all packets that have one.
fn ips(trace: &[u8]) -> Vec<u64> {
    let mut last = LastIp::default();
    Stream::new(trace)
        .filter_map(|step| match step.found {
            Found::Packet(
                Packet::Tip(ip) | Packet::TipPge(ip) | Packet::TipPgd(ip) | Packet::Fup(ip),
            ) => last.update(ip),
            Found::Packet(Packet::Psb) => {
                last.reset();
                None
            }
            _ => None,
        })
        .collect()
}

/// Conformance streams on which we differ from libipt's dump. An entry: the stream; lines only in
/// the dump; lines only in ours; the reason.
const DISAGREEMENTS: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "dump-all-packets",
        &["0 psbend", "e3 pwre c0.0, hw"],
        &["e3 pwre c0.0"],
        "PSBEND: the stream starts before its first PSB, where packets are undefined. ptdump was \
         run without synchronization. PWRE: as below",
    ),
    ("mwait-pwre-exstop_ip-fup-ovf", &["1c pwre c1.0, hw"], &["1c pwre c1.0"], PWRE),
    ("mwait-pwre-exstop_ip-ovf", &["1c pwre c1.0, hw"], &["1c pwre c1.0"], PWRE),
    ("mwait-pwre-ovf", &["1c pwre c1.0, hw"], &["1c pwre c1.0"], PWRE),
    ("ovf-pwre-pwrx-tip_pge", &["16 pwre c1.0, hw"], &["16 pwre c1.0"], PWRE),
    (
        "ptdump-trunc-resync",
        &["psb", "fup 3: 00000000a0001000", "psbend"],
        &[],
        "The MNT before the error contains the start of a PSB. libipt correctly searches the \
         packet before the error for a PSB too. We never read a byte twice, so that every byte \
         is counted once; a PSB lost this way costs only the packets up to the next one",
    ),
    ("pwre-exstop_ip-pwrx", &["1b pwre c1.0, hw"], &["1b pwre c1.0"], PWRE),
    (
        "skd007",
        &["19 ovf"],
        &["19 cyc 3e", "1b cyc 1e"],
        "Erratum SKD007: an OVF replaces the tail of a CYC. libipt is right for the client cores \
         that it was run for (Skylake to Comet Lake). On all other cores, including servers, the \
         bytes are two valid CYC",
    ),
    ("tip_pge-pwre-pwrx-tip_pgd", &["1b pwre c1.0, hw"], &["1b pwre c1.0"], PWRE),
    (
        "tma-reserved_ctc",
        &["19 error"],
        &["19 trailing"],
        "A TMA with reserved bits set is an error for libipt, except on CPUs with erratum SKZ84. We \
         do not know the CPU and assume the erratum, whose TMA is one byte longer than the rest of \
         the trace",
    ),
    (
        "tma-reserved_fc",
        &["19 error"],
        &["19 trailing"],
        "As tma-reserved_ctc",
    ),
    (
        "tsc-tma-cbr-mtc-cyc-no_cyc",
        &[],
        &["27 cyc 3", "28 cyc 1"],
        "ptdump was run without CYC",
    ),
];

/// As in perf's decoder.
const PWRE: &str = "libipt takes bit 3 of a PWRE for HW. We take bit 7, as perf does";

#[test]
fn conformance_streams_are_read_as_libipt_reads_them() {
    let Some(streams) = pt_data::conformance() else {
        return;
    };
    assert_eq!(streams.len(), 230);
    let mut found = BTreeMap::new();
    let mut packets = 0;
    for stream in &streams {
        let (count, differences) = compare(stream);
        packets += count;
        if let Some(differences) = differences {
            let name = stream.file_stem().expect("a name").to_string_lossy();
            found.insert(name.into_owned(), differences);
        }
    }
    println!("{packets} packets in {} streams", streams.len());
    let explained = DISAGREEMENTS.iter().map(|(name, theirs, ours, _)| {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        ((*name).to_owned(), (lines(theirs), lines(ours)))
    });
    // An obsolete entry fails like a disagreement without an entry.
    assert_eq!(found, explained.collect());
}

/// Lines only in the dump, and lines only in ours.
type Differences = (Vec<String>, Vec<String>);

/// Number of packets in the dump, and the differences.
fn compare(stream: &Path) -> (usize, Option<Differences>) {
    let trace = fs::read(stream).expect("the stream");
    let dump = fs::read_to_string(
        stream.with_extension("").to_string_lossy().into_owned() + "-ptdump.exp",
    );
    let expected = ptdump::expected(&dump.expect("the dump"));
    let ours = ptdump::ours(&trace);
    let (mut theirs_only, mut ours_only) = (Vec::new(), Vec::new());
    let mut rest = ours.iter().peekable();
    for line in &expected {
        // Up to the packet at this offset, extra packets are ours.
        while let Some(our) = rest.peek() {
            if line.offset.is_none() || our.offset >= line.offset {
                break;
            }
            ours_only.extend(rest.next().map(|our| say(our, line)));
        }
        match rest.peek() {
            Some(our) if ptdump::agree(our, line) => drop(rest.next()),
            Some(our) if line.offset.is_none() || our.offset == line.offset => {
                ours_only.push(say(our, line));
                theirs_only.push(say(line, line));
                rest.next();
            }
            _ => theirs_only.push(say(line, line)),
        }
    }
    ours_only.extend(rest.map(|our| say(our, our)));
    let differ = !theirs_only.is_empty() || !ours_only.is_empty();
    (expected.len(), differ.then_some((theirs_only, ours_only)))
}

/// A line in as many words as `like`.
fn say(line: &ptdump::Line, like: &ptdump::Line) -> String {
    let offset = line.offset.filter(|_| like.offset.is_some());
    let offset = offset.map(|offset| format!("{offset:x} "));
    offset.unwrap_or_default() + &line.text
}
