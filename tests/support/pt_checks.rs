//! Invariants of any trace, whatever its bytes.
#![allow(dead_code, unreachable_pub, clippy::panic)]

use vcpu_exporter::pt::stream::Found;
use vcpu_exporter::pt::{self, scalar, Clocks, Packet, Stream, Summary};

/// Summarizes the trace in every way and checks the invariants of the summary.
pub fn check(trace: &[u8], cuts: &[usize]) -> Summary {
    let summary = same(trace, cuts);
    figures_agree(&summary);
    offsets_are_inside(&summary, trace.len());
    every_byte_has_its_place(trace);
    summary
}

/// Summarizes the trace in every way and requires equal results.
pub fn same(trace: &[u8], cuts: &[usize]) -> Summary {
    let clocks = Clocks {
        tsc: Some(2_500_000_000),
        ..Clocks::default()
    };
    let summary = scalar::summarise(trace, cuts, &clocks);
    let fast = pt::summarise(trace, cuts, &clocks);
    assert_eq!(fast, summary, "{trace:02x?} cut at {cuts:?}");
    summary
}

/// Related figures must be consistent.
fn figures_agree(summary: &Summary) {
    let packets = &summary.packets;
    let sides = [&summary.guest, &summary.host, &summary.unknown];
    let sum = |of: fn(&pt::ModeSummary) -> u64| sides.iter().map(|side| of(side)).sum::<u64>();
    assert!(packets.taken <= packets.bits);
    assert!((packets.tnt..=packets.tnt * 47).contains(&packets.bits));
    assert_eq!(sum(|side| side.taken), packets.taken);
    assert_eq!(sum(|side| side.not_taken), packets.bits - packets.taken);
    assert!(sum(|side| side.indirect) <= packets.tip);
    assert!(sum(|side| side.asynchronous) <= packets.fup);
    assert!(sum(|side| side.address_spaces) <= packets.pip);
    let cycles = sides
        .iter()
        .fold(0u64, |sum, side| sum.saturating_add(side.cycles));
    assert!(cycles <= packets.cycsum || packets.cycsum == u64::MAX);
    assert!(summary.entries + summary.exits <= packets.pip);
    assert!(packets.pipnr <= packets.pip && summary.entries <= packets.pipnr);
    // Runs lie between crossings.
    assert!(summary.guest_runs.count() <= summary.exits);
    assert!(summary.host_handling.count() <= summary.entries);
    if let Some((least, most)) = summary.ratio {
        assert!(0 < least && least <= most && packets.cbr > 0);
    }
}

fn offsets_are_inside(summary: &Summary, len: usize) {
    let errors = &summary.errors;
    assert!(
        errors.is_sorted_by(|a, b| a.offset < b.offset),
        "{errors:?}"
    );
    assert!(errors.iter().all(|error| error.offset < len), "{errors:?}");
    let kept = summary.packets.err.min(Summary::ERRORS as u64);
    assert_eq!(errors.len() as u64, kept);
}

/// Steps are contiguous up to the end and make progress.
fn every_byte_has_its_place(trace: &[u8]) {
    for stream in [Stream::new(trace), Stream::synchronised(trace)] {
        let mut at = 0;
        let mut fault = false;
        for step in stream {
            assert_eq!(step.offset, at);
            at += step.len;
            match step.found {
                Found::Fault(_) => assert!(step.len == 0 && !fault),
                Found::Packet(packet) => {
                    assert!(step.len > 0);
                    // After an error only a PSB is accepted.
                    assert!(!fault || packet == Packet::Psb);
                }
                Found::Skipped => assert!(step.len > 0),
                Found::Trailing => assert_eq!(at, trace.len()),
            }
            fault = matches!(step.found, Found::Fault(_)) || fault && step.found == Found::Skipped;
        }
        assert_eq!(at, trace.len());
    }
}
