//! All ways to summarize a trace agree on any bytes: block by block and packet by packet, and for
//! generated traces the known contents.
//!
//! `PROPTEST_CASES` sets the number of cases of each kind; a failure prints its seed.

use crate::support::pt_data;

use std::fs;

use crate::support::pt_checks::{check, same};
use crate::support::pt_encoder::random::Random;
use crate::support::pt_encoder::vcpu::{busy, generate, Traced};
use proptest::prelude::*;
use proptest::sample::Index;
use vcpu_exporter::pt::{self, scalar};

const PSB: [u8; 16] = [
    2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82,
];

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn comes_down_to_its_truth(trace: &Traced) {
    let Traced {
        bytes,
        cuts,
        clocks,
        truth,
    } = trace;
    assert_eq!(&scalar::summarise(bytes, cuts, clocks), truth);
    assert_eq!(&pt::summarise(bytes, cuts, clocks), truth);
    check(bytes, cuts);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn made_up_traces_come_down_to_their_truth(seed: u64, len in 0usize..20_000) {
        comes_down_to_its_truth(&generate(seed, len));
    }

    #[test]
    fn busy_vcpus_come_down_to_their_truth(seed: u64, len in 0usize..20_000) {
        comes_down_to_its_truth(&busy(len, seed));
    }

    #[test]
    fn cuts_anywhere_change_both_ways_alike(
        seed: u64,
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let trace = generate(seed, 4_000).bytes;
        // In any order: cuts out of order are ignored.
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(trace.len() + 2)).collect();
        check(&trace, &cuts);
    }

    #[test]
    fn broken_traces_are_read_alike(
        seed: u64,
        busy_one: bool,
        damage in prop::collection::vec(any::<(Index, Damage)>(), 1..10),
    ) {
        let mut trace = if busy_one { busy(4_000, seed) } else { generate(seed, 4_000) };
        for (at, damage) in damage {
            damage.to(&mut trace.bytes, at);
        }
        check(&trace.bytes, &trace.cuts);
    }

    #[test]
    fn random_bytes_are_read_alike(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        psbs in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        for psb in psbs {
            let at = psb.index(bytes.len() + 1);
            bytes.splice(at..at, PSB);
        }
        check(&bytes, &[]);
    }

    /// Mostly whole packets, in an order that no processor would produce.
    #[test]
    fn packets_in_any_order_are_read_alike(seed: u64, count in 0usize..600) {
        let mut random = Random::new(seed);
        let mut bytes = PSB.to_vec();
        for _ in 0..count {
            bytes.extend_from_slice(random.pick(PACKETS));
        }
        check(&bytes, &[]);
    }
}

/// Whole packets of each length and kind.
const PACKETS: &[&[u8]] = &[
    &[0],
    &[0b1101_0110],
    &[0b0000_0100],
    &[0b1111_1110],
    &[0x0b],
    &[0xff, 0xfe],
    &[0xff, 0xff, 0x02],
    &[0x07, 1, 1, 1, 2],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0e],
    &[0x0d],
    &[0x2d, 2, 0x82],
    &[0x4d, 1, 2, 3, 4],
    &[0x6d, 1, 2, 3, 4, 5, 6],
    &[0x8d, 2, 0x82, 2, 0x82, 2, 0x82],
    &[0xcd, 1, 2, 3, 4, 5, 6, 7, 8],
    &[0x1d],
    &[0x3d, 1, 2],
    &[0x7d, 1, 2, 3, 4, 5, 6],
    &[0x11],
    &[0x31, 1, 2],
    &[0x01],
    &[0x99, 1],
    &[0x99, 0x21],
    &[0x99, 0x22],
    &[0x59, 0x02],
    &[0x19, 1, 2, 3, 4, 5, 6, 7],
    &[0x19, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[2, 0x43, 1, 0, 0, 0, 0, 0],
    &[2, 0x43, 0, 2, 0, 0, 0, 0],
    &[2, 0xc8, 1, 2, 3, 4, 5],
    &[2, 3, 20, 0],
    &[2, 3, 0, 0],
    &[2, 0xa3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[2, 0xa3, 2, 0, 0, 0, 0, 0],
    &[2, 0x73, 1, 2, 0, 3, 0],
    &[2, 0x73, 1, 2, 3, 4, 5, 6],
    &PSB,
    &[2, 0x23],
    &[2, 0xf3],
    &[2, 0x83],
    &[2, 0x63, 0x80],
    &[2, 0x63, 0x00],
    &[4, 1, 2, 3, 4],
    &[2, 0xb3],
    &[2, 0xe2],
    &[2, 0x22, 0x80, 0x34],
    &[2, 0xa2, 1, 2, 3, 4, 5],
    &[2, 0x92, 1, 2, 3, 4],
    &[2, 0x13, 0x88, 0],
    &[2, 0x13, 0x82, 0],
    &[2, 0x53, 2, 30, 0, 0, 0, 0, 0, 0, 0],
    &[0xd9, 0xc0, 1, 2, 3],
];

/// Damage by faulty hardware or a hostile guest.
#[derive(Debug, Clone)]
enum Damage {
    Flip(u8),
    Set(u8),
    Insert(Vec<u8>),
    Delete(usize),
    Psb,
}

impl Arbitrary for Damage {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            (0u8..8).prop_map(|bit| Self::Flip(1 << bit)),
            any::<u8>().prop_map(Self::Set),
            prop::collection::vec(any::<u8>(), 1..20).prop_map(Self::Insert),
            (1usize..40).prop_map(Self::Delete),
            Just(Self::Psb),
        ]
        .boxed()
    }
}

impl Damage {
    fn to(&self, bytes: &mut Vec<u8>, at: Index) {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match self {
            Self::Flip(bit) => bytes[at] ^= bit,
            Self::Set(byte) => bytes[at] = *byte,
            Self::Insert(more) => drop(bytes.splice(at..at, more.iter().copied())),
            Self::Delete(len) => drop(bytes.drain(at..bytes.len().min(at + len))),
            Self::Psb => drop(bytes.splice(at..at, PSB)),
        }
    }
}

/// Block-wise reading is most likely wrong at the start and end of a trace, of one block or of
/// many.
#[test]
fn a_trace_that_ends_anywhere_is_read_alike() {
    for (seed, len) in [(0, 700), (1, 700), (2, 700), (3, 2_300)] {
        let trace = generate(seed, len);
        for end in 0..=trace.bytes.len() {
            same(&trace.bytes[..end], &trace.cuts);
        }
        for begin in 0..trace.bytes.len() {
            same(&trace.bytes[begin..], &[]);
        }
    }
}

#[test]
fn recorded_traces_are_read_alike_wherever_they_are_cut() {
    /// Offsets at either end of large traces.
    const EDGE: usize = 2_048;
    /// A cut affects a block or two around it.
    const AROUND: usize = 200;
    let Some(golden) = pt_data::golden() else {
        return;
    };
    let mut random = Random::new(1);
    for golden in golden {
        let trace = fs::read(&golden.file).expect("the trace");
        let len = trace.len();
        check(&trace, &[]);
        for _ in 0..4 {
            let mut cuts = [0; 3].map(|_| random.below(len as u64) as usize);
            cuts.sort_unstable();
            check(&trace, &cuts);
        }
        let middle = len.saturating_sub(2 * EDGE) / 2;
        for at in (0..len).filter(|at| at.abs_diff(len / 2) >= middle) {
            let begin = at.saturating_sub(AROUND);
            let around = &trace[begin..len.min(at + AROUND)];
            // Synchronized, and not always at the same place in a block.
            let cut = PSB.len() + at - begin;
            same(&[&PSB, around].concat(), &[cut]);
        }
    }
}

#[test]
fn conformance_streams_are_read_alike_wherever_they_are_cut() {
    let Some(streams) = pt_data::conformance() else {
        return;
    };
    for stream in streams {
        let trace = fs::read(&stream).expect("the stream");
        for at in 0..=trace.len() {
            same(&trace, &[at]);
            same(&trace[..at], &[]);
            same(&trace[at..], &[]);
        }
        check(&trace, &[]);
    }
}
