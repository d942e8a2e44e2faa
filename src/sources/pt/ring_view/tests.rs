use proptest::prelude::*;

use super::*;
use crate::fake_host::perf_image::{self, PerfImage};

const PAGE: usize = 4096;

fn drain(image: &PerfImage) -> AuxTrace {
    let PerfImage { page, data, aux } = image;
    PerfRingView { page, data, aux }.drain()
}

fn counting(from: u8, length: usize) -> Vec<u8> {
    (0..length).map(|n| from.wrapping_add(n as u8)).collect()
}

#[test]
fn one_record_is_drained_and_its_space_returned() {
    let image = PerfImage::new(PAGE, 2 * PAGE, 0, 0);
    image.record(RECORD_ITRACE_START, &[1]);
    let bytes = counting(7, 5001);
    image.stretch(&bytes, 0);
    let expected = AuxTrace {
        bytes,
        starts: 1,
        ..AuxTrace::default()
    };
    assert_eq!(drain(&image), expected);
    assert_eq!(image.get(perf_image::AUX_TAIL), 5001);
    assert_eq!(
        image.get(perf_image::DATA_TAIL),
        image.get(perf_image::DATA_HEAD)
    );
    assert_eq!(drain(&image), AuxTrace::default(), "nothing is left");
}

#[test]
fn each_further_record_is_a_cut() {
    let image = PerfImage::new(PAGE, PAGE, 0, 0);
    image.stretch(&counting(0, 100), 0);
    image.stretch(&[], FLAG_PARTIAL);
    image.stretch(&counting(100, 11), 0);
    image.record(14, &[]); // PERF_RECORD_SWITCH
    image.stretch(&counting(200, 30), FLAG_TRUNCATED);
    let drained = drain(&image);
    assert_eq!(drained.cuts, [100, 111]);
    assert_eq!(drained.bytes.len(), 141);
    assert_eq!(drained.flags, FLAG_PARTIAL | FLAG_TRUNCATED);
    assert!(!drained.damaged && !drained.lost);
}

#[test]
fn both_rings_wrap() {
    // Positions only increase; the rings wrap within a record and within a word.
    let (data_at, aux_at) = (10 * PAGE as u64 - 16, 7 * PAGE as u64 - 13);
    let image = PerfImage::new(PAGE, PAGE, data_at, aux_at);
    let bytes = counting(3, PAGE - 100);
    image.stretch(&bytes[..50], 0);
    image.stretch(&bytes[50..], FLAG_COLLISION);
    let drained = drain(&image);
    assert_eq!(drained.bytes, bytes);
    assert_eq!((drained.cuts, drained.flags), (vec![50], FLAG_COLLISION));
    assert!(!drained.damaged);
}

#[test]
fn full_area_is_read_once() {
    for at in [0, 3, 8, 4095] {
        let image = PerfImage::new(PAGE, PAGE, 0, at);
        let bytes = counting(9, PAGE);
        image.stretch(&bytes, FLAG_TRUNCATED);
        assert_eq!(drain(&image).bytes, bytes, "from {at}");
    }
}

#[test]
fn positions_wrap_too() {
    let image = PerfImage::new(PAGE, PAGE, 0, u64::MAX - 9);
    image.stretch(&counting(1, 20), 0);
    image.stretch(&counting(1, 20), 0);
    let drained = drain(&image);
    assert_eq!((drained.bytes.len(), drained.cuts), (40, vec![20]));
}

#[test]
fn lost_records_are_reported() {
    let image = PerfImage::new(PAGE, PAGE, 0, 0);
    image.trace(&[1, 2, 3]);
    image.record(RECORD_LOST, &[5, 17]);
    let drained = drain(&image);
    assert!(drained.lost && !drained.damaged);
    assert_eq!(drained.bytes, [1, 2, 3]);
}

#[test]
fn head_beyond_the_ring_is_damage() {
    for (offset, ahead) in [
        (perf_image::AUX_HEAD, PAGE as u64 + 1),
        (perf_image::AUX_HEAD, u64::MAX),
        (perf_image::DATA_HEAD, PAGE as u64 + 8),
    ] {
        let image = PerfImage::new(PAGE, PAGE, 0, 0);
        image.set(offset, ahead);
        let drained = drain(&image);
        assert!(drained.damaged, "{offset} {ahead}");
        assert!(drained.bytes.is_empty() && drained.cuts.is_empty());
    }
}

#[test]
fn inconsistent_records_end_the_parsing() {
    let odd_size = |size: u64| {
        let image = PerfImage::new(PAGE, PAGE, 0, 0);
        image.stretch(&[1; 16], 0);
        image.data[4].store(u64::from(RECORD_AUX) | size << 48, Ordering::Relaxed);
        image.set(perf_image::DATA_HEAD, 64);
        drain(&image)
    };
    for size in [0, 4, 12, 40, 0xfff8] {
        let drained = odd_size(size);
        assert!(drained.damaged, "size {size}");
        assert_eq!(
            drained.bytes, [1; 16],
            "the trace does not depend on the records"
        );
    }
    // An AUX record that is too short for its fields.
    assert!(odd_size(16).damaged);
    assert!(odd_size(32).cuts.is_empty());
}

#[test]
fn cuts_beyond_the_trace_or_backwards_are_skipped() {
    let image = PerfImage::new(PAGE, PAGE, 0, 0);
    image.trace(&[0; 100]);
    for offset in [10, 50, 50, 20, 100, 5000, u64::MAX, 60] {
        image.record(RECORD_AUX, &[offset, 1, 0]);
    }
    let drained = drain(&image);
    assert_eq!(drained.cuts, [10, 50, 60]);
    assert!(drained.damaged);
}

#[test]
fn missing_memory_is_empty() {
    let empty = PerfRingView {
        page: &[],
        data: &[],
        aux: &[],
    };
    assert_eq!(empty.drain(), AuxTrace::default());
    let image = PerfImage::new(0, 0, 8, 8);
    image.set(perf_image::DATA_HEAD, 16);
    assert!(drain(&image).damaged);
}

proptest! {
    /// Records of any lengths at any position are read as written.
    #[test]
    fn written_bytes_are_read(
        at: u64,
        data_at in 0u64..1 << 40,
        stretches in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0u64..16), 0..20),
    ) {
        let image = PerfImage::new(PAGE, 2 * PAGE, data_at * 8, at);
        let (mut all, mut cuts, mut flags) = (Vec::new(), Vec::new(), 0);
        for (bytes, flag) in &stretches {
            if !bytes.is_empty() && !all.is_empty() {
                cuts.push(all.len());
            }
            image.stretch(bytes, *flag);
            all.extend_from_slice(bytes);
            flags |= flag;
        }
        let drained = drain(&image);
        let expected = AuxTrace { bytes: all, cuts, flags, ..AuxTrace::default() };
        prop_assert_eq!(drained, expected);
    }

    /// With arbitrary memory, the result is within bounds and nothing panics.
    #[test]
    fn any_memory_is_drained(
        positions in prop::array::uniform4(prop_oneof![any::<u64>(), 0u64..10_000]),
        data in prop::collection::vec(prop_oneof![
            any::<u64>(),
            (0u64..16, 0u64..12).prop_map(|(kind, words)| kind | (words * 8) << 48),
            0u64..9000,
        ], 0..64),
        aux in 0usize..64,
    ) {
        let image = PerfImage::new(data.len() * 8, aux * 8, 0, 0);
        for (word, value) in image.data.iter().zip(&data) {
            word.store(*value, Ordering::Relaxed);
        }
        let offsets = [1024, 1032, 1056, 1064];
        offsets.iter().zip(positions).for_each(|(offset, at)| image.set(*offset, at));
        let drained = drain(&image);
        prop_assert!(drained.bytes.len() <= aux * 8);
        prop_assert!(drained.cuts.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(drained.cuts.iter().all(|cut| (1..drained.bytes.len()).contains(cut)));
        let again = drain(&image);
        prop_assert!(again.bytes.is_empty() && again.cuts.is_empty());
    }
}
