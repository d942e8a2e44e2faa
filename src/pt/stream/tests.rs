//! Sequences of packets and invalid bytes.

use super::*;
use crate::pt::packet::Tma;

const PSB: &[u8] = &[
    2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82,
];
const PSBEND: &[u8] = &[2, 0x23];
const BAD: &[u8] = &[0x05];

/// Offset, length, and kind of each step.
fn steps(stream: Stream<'_>) -> Vec<(usize, usize, &'static str)> {
    let word = |found| match found {
        Found::Packet(Packet::Pad) => "pad",
        Found::Packet(Packet::Psb) => "psb",
        Found::Packet(Packet::PsbEnd) => "psbend",
        Found::Packet(Packet::Tma(Some(_))) => "tma",
        Found::Packet(Packet::Tma(None)) => "bad tma",
        Found::Packet(Packet::Tnt(_)) => "tnt",
        Found::Packet(Packet::Bip { .. }) => "bip",
        Found::Packet(_) => "other",
        Found::Fault(_) => "fault",
        Found::Skipped => "skipped",
        Found::Trailing => "trailing",
    };
    stream
        .map(|step| (step.offset, step.len, word(step.found)))
        .collect()
}

fn of(parts: &[&[u8]]) -> Vec<(usize, usize, &'static str)> {
    steps(Stream::new(&parts.concat()))
}

#[test]
fn empty_trace_has_no_steps() {
    assert_eq!(of(&[]), []);
    assert_eq!(steps(Stream::synchronised(&[])), []);
}

#[test]
fn what_is_before_the_first_psb_is_skipped() {
    assert_eq!(of(&[PSB, PSBEND]), [(0, 16, "psb"), (16, 2, "psbend")]);
    assert_eq!(of(&[&[0; 7], PSB]), [(0, 7, "skipped"), (7, 16, "psb")]);
    assert_eq!(of(&[&[0; 7]]), [(0, 7, "skipped")]);
    // Half a PSB before a whole one: the first complete PSB counts, which starts in the half.
    assert_eq!(of(&[&PSB[..6], PSB]), [(0, 16, "psb"), (16, 6, "trailing")]);
    assert_eq!(of(&[&PSB[1..2], PSB]), [(0, 1, "skipped"), (1, 16, "psb")]);
}

#[test]
fn a_synchronised_trace_begins_at_once() {
    let bytes = [&[0, 0b100][..], PSB].concat();
    assert_eq!(
        steps(Stream::synchronised(&bytes)),
        [(0, 1, "pad"), (1, 1, "tnt"), (2, 16, "psb")]
    );
}

#[test]
fn a_fault_skips_all_up_to_the_next_psb_and_no_more() {
    assert_eq!(
        of(&[PSB, BAD, &[0, 0], PSB, &[0]]),
        [
            (0, 16, "psb"),
            (16, 0, "fault"),
            (16, 3, "skipped"),
            (19, 16, "psb"),
            (35, 1, "pad"),
        ]
    );
    // The invalid bytes may include the start of the next PSB: here 02 82 03, then 02 02 82...
    assert_eq!(
        of(&[PSB, &[2, 0x82, 3], &[2], PSB]),
        [
            (0, 16, "psb"),
            (16, 0, "fault"),
            (16, 4, "skipped"),
            (20, 16, "psb"),
        ]
    );
    // An invalid PSB whose tail starts a valid one: it is found from the next byte on.
    let broken = [&[2, 0x82, 2][..], PSB].concat();
    assert_eq!(
        of(&[PSB, &broken]),
        [
            (0, 16, "psb"),
            (16, 0, "fault"),
            (16, 3, "skipped"),
            (19, 16, "psb"),
        ]
    );
}

#[test]
fn a_fault_without_a_psb_after_it_is_the_end() {
    let bytes = [PSB, BAD, &[0; 4]].concat();
    let mut stream = Stream::new(&bytes);
    assert_eq!(
        steps(stream.clone()),
        [(0, 16, "psb"), (16, 0, "fault"), (16, 5, "skipped")]
    );
    stream.by_ref().for_each(drop);
    assert!(stream.lost(), "the offset of the next packet is unknown");
    // A trace that ends inside a packet continues in the next part.
    let bytes = [PSB, &[0x19, 1]].concat();
    let mut stream = Stream::new(&bytes);
    stream.by_ref().for_each(drop);
    assert!(!stream.lost());
}

#[test]
fn a_last_packet_that_is_not_whole_is_no_fault() {
    assert_eq!(
        of(&[PSB, &[0, 0x19, 1, 2]]),
        [(0, 16, "psb"), (16, 1, "pad"), (17, 3, "trailing")]
    );
    assert_eq!(
        of(&[PSB, &PSB[..15]]),
        [(0, 16, "psb"), (16, 15, "trailing")]
    );
}

#[test]
fn a_guests_tma_takes_one_byte_more_with_erratum_skz84() {
    let bad = [2, 0x73, 1, 1, 1, 1, 0, 0x05];
    let good = [2, 0x73, 1, 1, 0, 1, 0];
    assert_eq!(
        of(&[PSB, &bad, &good, &[0]]),
        [
            (0, 16, "psb"),
            (16, 8, "bad tma"),
            (24, 7, "tma"),
            (31, 1, "pad"),
        ]
    );
    let tma = Stream::synchronised(&good).next().map(|step| step.found);
    let expected = Tma {
        ctc: 0x101,
        fast: 1,
    };
    assert_eq!(tma, Some(Found::Packet(Packet::Tma(Some(expected)))));
}

#[test]
fn items_end_with_their_block() {
    let begin = [2, 0x63, 0x84];
    let item = [0x0c, 1, 2, 3, 4];
    let cyc = [0x0b];
    // A TNT outside a block.
    let like_item = [0x0c];
    for end in [&[2, 0x33][..], &[2, 0xf3], &[0x0d], &[0x80]] {
        let found = of(&[PSB, &begin, &item, &cyc, &item, end, &like_item]);
        let words: Vec<_> = found.iter().map(|step| step.2).collect();
        assert_eq!(words[2..5], ["bip", "other", "bip"]);
        assert_eq!(words[6..], ["tnt"], "after {end:02x?}");
    }
    // A fault and the skipped bytes up to the next PSB end a block too.
    let found = of(&[PSB, &begin, BAD, PSB, &like_item]);
    assert_eq!(found.last(), Some(&(36, 1, "tnt")));
}
