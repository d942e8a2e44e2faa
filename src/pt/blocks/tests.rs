//! Compares the block pass with the scalar definition.

use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, Index};

use crate::pt::{scalar, summarise, Clocks};

const PSB: [u8; 16] = [
    2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82,
];
const TNT: u8 = 0b1101_0110;
/// A CYC of one byte.
const CYC: u8 = 9 << 3 | 3;

#[track_caller]
fn same(trace: &[u8], cuts: &[usize]) {
    let clocks = Clocks::default();
    let (blocks, scalar) = (
        summarise(trace, cuts, &clocks),
        scalar::summarise(trace, cuts, &clocks),
    );
    assert_eq!(blocks, scalar, "cuts {cuts:?} of {trace:02x?}");
}

/// Reports that these tests compare nothing on a processor without AVX2.
#[test]
fn there_is_a_pass_over_blocks() {
    if super::Avx2::detect().is_none() {
        println!("skipped: no AVX2, so that there is nothing but the definition");
    }
}

#[test]
fn each_byte_at_each_position_of_a_block() {
    for fill in [0, TNT, CYC] {
        for byte in 0..=u8::MAX {
            for position in 0..64 {
                let mut trace = [&PSB[..], &[fill; 192]].concat();
                trace[64 + position] = byte;
                same(&trace, &[]);
            }
        }
    }
}

#[test]
fn long_packets_at_each_position_of_a_block() {
    for packet in PACKETS {
        for position in 0..64 {
            let before = [&PSB[..], &[TNT; 48], &[CYC, 0].repeat(32)[..position]].concat();
            // Payload that looks like packets.
            for after in [[TNT; 160], [CYC; 160]] {
                let trace = [&before[..], packet, &[0x2d, 0x4d, 0x0d, 2], &after].concat();
                same(&trace, &[]);
            }
        }
    }
}

#[test]
fn a_trace_that_ends_at_each_position_of_a_block() {
    let ordinary: &[&[u8]] = &[
        &[TNT],
        &[0x8d, 2, 0x82, 2, 0x82, 2, 0x82],
        &[0xff, 0xff, 2],
        &[0xcd, 1, 2, 3, 4, 5, 6, 7, 8],
    ];
    let trace = [&PSB[..], &ordinary.concat().repeat(20)].concat();
    for len in 0..trace.len() {
        same(&trace[..len], &[]);
        same(&trace, &[len]);
    }
}

#[test]
fn recorded_traces_at_each_offset_from_a_block() {
    let Some(dir) = recorded() else { return };
    for name in ["quipper/aux-cpu0.pt", "dynamorio/pt.bin"] {
        let trace = std::fs::read(dir.join(name)).unwrap();
        for offset in 0..64 {
            // Bytes before the first PSB are skipped, and shift it within its block.
            let moved = [&vec![0xff; offset][..], &trace].concat();
            same(&moved, &[]);
            same(&moved[..moved.len() - offset], &[moved.len() / 2]);
        }
    }
    same(
        &std::fs::read(dir.join("quipper/aux-cpu3.pt")).unwrap(),
        &[],
    );
}

/// Directory of recorded traces, which are not part of the repository.
fn recorded() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/pt");
    let dir = std::env::var_os("VCPU_PT_DATA").map_or_else(beside, PathBuf::from);
    if dir.join("golden.json").is_file() {
        return Some(dir);
    }
    let dir = dir.display();
    println!("skipped: no Intel PT traces in {dir} (VCPU_PT_DATA)");
    None
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..1000), psb: Index) {
        let (head, tail) = bytes.split_at(psb.index(bytes.len() + 1));
        same(&[head, &PSB, tail].concat(), &[]);
    }

    #[test]
    fn packets_as_they_come(
        head in vec(any::<u8>(), 0..64),
        packets in vec(packet(), 0..400),
        cuts in vec(any::<Index>(), 0..3),
    ) {
        let trace = [&head[..], &PSB, &packets.concat()].concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(trace.len())).collect();
        cuts.sort_unstable();
        same(&trace, &cuts);
    }
}

/// Mostly packets that the block pass handles.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let tnt = any::<u8>().prop_map(|byte| vec![byte & !1 | 4]);
    let pad = (1..80usize).prop_map(|len| vec![0; len]);
    let cyc = (any::<u64>(), 20..64u32).prop_map(|(cycles, shift)| cyc(cycles >> shift));
    let compression = select(&[(0, 0), (1, 2), (2, 4), (3, 6), (4, 6), (6, 8)][..]);
    let tip = (compression, any::<[u8; 8]>())
        .prop_map(|((compression, len), ip)| [&[compression << 5 | 0x0d], &ip[..len]].concat());
    let mtc = any::<u8>().prop_map(|ctc| vec![0x59, ctc]);
    let other = select(PACKETS).prop_map(<[u8]>::to_vec);
    prop_oneof![20 => tnt, 2 => pad, 10 => cyc, 10 => tip, 2 => mtc, 2 => other]
}

fn cyc(cycles: u64) -> Vec<u8> {
    let mut rest = cycles >> 5;
    let mut bytes = vec![(cycles as u8) << 3 | u8::from(rest > 0) << 2 | 3];
    while rest > 0 {
        bytes.push((rest as u8 & 0x7f) << 1 | u8::from(rest >> 7 > 0));
        rest >>= 7;
    }
    bytes
}

/// Packets of several bytes.
const PACKETS: &[&[u8]] = &[
    &PSB,
    &[2, 0x23],
    &[0x2d, 1, 2],
    &[0x4d, 1, 2, 3, 4],
    &[0x6d, 1, 2, 3, 4, 5, 6],
    &[0xcd, 1, 2, 3, 4, 5, 6, 7, 8],
    &[0x1d],
    &[0x7d, 1, 2, 3, 4, 5, 6],
    &[0x31, 1, 2],
    &[0x01],
    &[0x07, 2],
    &[0xff, 0xff, 2],
    &[0xff, 0xff, 0xff, 2],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe],
    &[0x59, 0x59],
    &[0x99, 1],
    &[0x19, 1, 2, 3, 4, 5, 6, 7],
    &[2, 3, 20, 0],
    &[2, 0x43, 1, 1, 0, 0, 0, 0],
    &[2, 0x43, 0, 2, 0, 0, 0, 0],
    &[2, 0xa3, 0x55, 1, 2, 0, 4, 0],
    &[2, 0xa3, 1, 0, 0, 0, 0, 0],
    &[2, 0xa3, 0, 0, 0, 0, 0, 0],
    &[2, 0x73, 1, 2, 3, 4, 5, 6],
    &[2, 0xf3],
    &[2, 0xe2],
    &[2, 0x63, 0x80, 0x0c, 1, 2, 3, 4],
    &[2, 0x63, 0, 0x0c, 1, 2, 3, 4, 5, 6, 7, 8],
    &[2, 0x33],
    &[2, 0x13, 0x81, 14],
    &[0xd9, 0x40, 1, 2, 3],
];
