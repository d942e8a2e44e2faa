//! Decodes packets 64 bytes at a time with AVX2; the only file of `pt` with `unsafe`.
//!
//! [`blocks`](super::blocks) describes the method. There are two kinds of unsafe code:
//! - Functions compiled for AVX2 and BMI. An [`Avx2`] proves that the processor has them, and
//!   [`Scanner::scan`] is the only entry.
//! - Loads and stores through pointers. Loads stay within a block and [`AHEAD`] bytes after it;
//!   `scan` checks that these exist before it reads a block. Stores go to [`Lengths`].
#![allow(unsafe_code)] // see above: vectors need intrinsics, which Rust 1.85 has no safe way to call

use std::arch::x86_64::*;

use super::summariser::Run;

/// Bytes that a mask of one word covers.
const BLOCK: usize = 64;
/// Bytes of a vector.
const HALF: usize = 32;
/// Blocks that are classified together.
const BLOCKS: usize = 16;
/// Bytes read after a block: the rest of the longest TIP at its end.
const AHEAD: usize = 8;
/// Stands for a packet that this pass does not handle, in place of its length minus one. As a shift
/// in two steps (by this, then by one more) it clears all bits, which ends the iteration.
const OTHER: u8 = 63;
/// Steps between checks for the end of the iteration: a superfluous step has no effect, a
/// mispredicted branch costs as much as two steps.
const STEPS: usize = 2;

/// Proof that the processor has AVX2 and BMI, as every Intel processor since Haswell does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

/// Reads ordinary packets: PAD, TNT, MTC, TIP, and CYC of up to three bytes.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    /// Offset of the classified blocks.
    classified: Option<usize>,
    blocks: [Block; BLOCKS],
    lengths: Lengths,
}

/// The length minus one of the multi-byte packet that each byte would start. A superfluous step
/// reads the entry after a block.
#[derive(Debug)]
#[repr(align(32))]
struct Lengths([u8; BLOCKS * BLOCK + 1]);

/// One bit per byte of a block, for each type of packet that the byte would start.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// A packet that may have several bytes.
    long: u64,
    tip: u64,
    cyc: u64,
    pad: u64,
}

/// Where packets of a block start.
struct Packets {
    /// Packets that may have several bytes.
    long: u64,
    /// Packets of one byte.
    short: u64,
    next: Next,
}

enum Next {
    /// Bytes of the next block that belong to the last packet.
    Block(usize),
    /// Position in the block of a packet that this pass does not handle.
    Other(usize),
}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let able = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        able.then_some(Self(()))
    }

    pub(super) fn scanner(self, bytes: &[u8]) -> Scanner<'_> {
        Scanner {
            bytes,
            classified: None,
            blocks: [Block::default(); BLOCKS],
            lengths: Lengths([0; BLOCKS * BLOCK + 1]),
        }
    }
}

impl Scanner<'_> {
    /// Adds ordinary packets, from the one at `at` on, to `run`. Returns the offset of the first
    /// packet that is not ordinary, or too close to the end.
    pub(super) fn scan(&mut self, at: usize, run: &mut Run) -> usize {
        // SAFETY: an `Avx2` made this, so the processor has the features.
        unsafe { self.scan_with_avx2(at, run) }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn scan_with_avx2(&mut self, mut at: usize, run: &mut Run) -> usize {
        let mut sums = Sums::new();
        while self.bytes.len() >= at / BLOCK * BLOCK + BLOCK + AHEAD {
            let (base, from) = (at / BLOCK * BLOCK, at % BLOCK);
            let chunk = base / (BLOCK * BLOCKS) * (BLOCK * BLOCKS);
            if self.classified != Some(chunk) {
                self.classify(chunk);
            }
            let block = &self.blocks[(base - chunk) / BLOCK];
            let lengths = self.lengths.0.as_ptr().add(base - chunk);
            let packets = walk(block, lengths, from);
            sums.add(self.bytes.as_ptr().add(base), block, &packets);
            match packets.next {
                Next::Block(reach) => at = base + BLOCK + reach,
                Next::Other(other) => {
                    at = base + other;
                    if !sums.long_tnt(&self.bytes[at..]) {
                        break;
                    }
                    at += 8;
                }
            }
        }
        sums.finish(run);
        at
    }

    /// Classifies the blocks from `chunk` on; the first has at least [`AHEAD`] bytes after it.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn classify(&mut self, chunk: usize) {
        let whole = (self.bytes.len() - chunk - AHEAD) / BLOCK;
        for i in 0..whole.min(BLOCKS) {
            let bytes = self.bytes.as_ptr().add(chunk + i * BLOCK);
            self.blocks[i] = classify(bytes, self.lengths.0.as_mut_ptr().add(i * BLOCK));
        }
        self.classified = Some(chunk);
    }
}

/// Classifies a block and stores its lengths.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn classify(bytes: *const u8, lengths: *mut u8) -> Block {
    let (low, high) = (Half::load(bytes), Half::load(bytes.add(HALF)));
    let block = Block {
        long: mask(low.long, high.long),
        tip: mask(low.tip, high.tip),
        cyc: mask(low.cyc, high.cyc),
        pad: mask(low.pad, high.pad),
    };
    low.write_lengths(bytes, lengths);
    high.write_lengths(bytes.add(HALF), lengths.add(HALF));
    block
}

/// Classes of half a block: each byte is zero, or has at least the highest bit set.
struct Half {
    long: __m256i,
    tip: __m256i,
    cyc: __m256i,
    pad: __m256i,
}

impl Half {
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn load(bytes: *const u8) -> Self {
        /// By the low three bits: even values are TNT and PAD except for 02, 3 is a CYC of one
        /// byte.
        const LONG: [u8; 16] = [0, 0x80, 0, 0, 0, 0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
        let bytes = load(bytes);
        let class = _mm256_shuffle_epi8(table(&LONG), _mm256_and_si256(bytes, all(7)));
        Self {
            long: _mm256_or_si256(class, _mm256_cmpeq_epi8(bytes, all(0x02))),
            tip: _mm256_cmpeq_epi8(_mm256_and_si256(bytes, all(0x1f)), all(0x0d)),
            cyc: is_cyc(bytes),
            pad: _mm256_cmpeq_epi8(bytes, all(0)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn write_lengths(&self, bytes: *const u8, lengths: *mut u8) {
        /// By IPBytes, as in `packet::Ip`.
        const TIP: [u8; 16] = [0, 2, 4, 6, 6, OTHER, 8, OTHER, 0, 0, 0, 0, 0, 0, 0, 0];
        let first = load(bytes);
        let ip_bytes = _mm256_and_si256(_mm256_srli_epi16::<5>(first), all(7));
        let tip = _mm256_shuffle_epi8(table(&TIP), ip_bytes);
        let mtc = _mm256_cmpeq_epi8(first, all(0x59));
        let mut len = _mm256_blendv_epi8(all(OTHER), tip, self.tip);
        len = _mm256_blendv_epi8(len, all(1), mtc);
        len = _mm256_blendv_epi8(len, cyc_lengths(bytes), self.cyc);
        _mm256_store_si256(lengths.cast(), len);
    }
}

/// Lengths minus one of CYCs of several bytes: the lowest bit of each byte after the first
/// indicates another byte.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn cyc_lengths(bytes: *const u8) -> __m256i {
    let third = _mm256_and_si256(load(bytes.add(1)), all(1));
    let fourth = _mm256_and_si256(load(bytes.add(2)), third);
    let other = _mm256_sub_epi8(_mm256_slli_epi16::<6>(fourth), fourth);
    _mm256_or_si256(_mm256_add_epi8(third, all(1)), other)
}

/// Iterates over multi-byte packets, from the one at or after `from`. Bytes inside them do not
/// start packets, whatever their value.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn walk(block: &Block, lengths: *const u8, from: usize) -> Packets {
    let here = u64::MAX << from;
    let mut rest = block.long & here;
    let (mut starts, mut ends) = (0u64, 0u64);
    while rest != 0 {
        for _ in 0..STEPS {
            let start = _blsi_u64(rest);
            let at = _tzcnt_u64(rest);
            let len = *lengths.add(at as usize) & 63;
            starts |= start;
            ends = ends.wrapping_add(start << len << 1);
            rest &= u64::MAX << 1 << (at & 63) << len;
        }
    }
    // Differences of powers of two are runs of ones: the bytes that packets cover. A last packet
    // that reaches the end of the block has no end bit there.
    let short = !ends.wrapping_sub(starts) & here;
    let mut next = Next::Block(0);
    if starts != 0 {
        let last = 63 - _lzcnt_u64(starts) as usize;
        let len = *lengths.add(last);
        if len == OTHER {
            starts ^= 1 << last;
            next = Next::Other(last);
        } else {
            next = Next::Block((last + 1 + usize::from(len)).saturating_sub(BLOCK));
        }
    }
    Packets {
        long: starts,
        short,
        next,
    }
}

/// Sums over packets; those over byte values are in four parts each.
struct Sums {
    counts: Run,
    bits: __m256i,
    /// Bits set in TNT: branches taken, and one stop bit each.
    ones: __m256i,
    /// Five, seven and seven bits of CYC.
    cycles: [__m256i; 3],
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn new() -> Self {
        Self {
            counts: Run::default(),
            bits: all(0),
            ones: all(0),
            cycles: [all(0); 3],
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn add(&mut self, bytes: *const u8, block: &Block, packets: &Packets) {
        let count = |mask: u64| u64::from(mask.count_ones());
        let Packets { long, short, .. } = *packets;
        let first = long | short;
        let tips = count(long & block.tip);
        self.counts.tip += tips;
        self.counts.mtc += count(long) - tips - count(long & block.cyc);
        self.counts.pad += count(short & block.pad);
        self.counts.cyc += count(first & block.cyc);
        self.counts.tnt += count(short & !block.pad & !block.cyc);
        let (low, high) = spread(first);
        self.add_tnt(load(bytes), low);
        self.add_tnt(load(bytes.add(HALF)), high);
        if first & block.cyc != 0 {
            self.add_cyc(load(bytes), low);
            self.add_cyc(load(bytes.add(HALF)), high);
        }
        if long & block.cyc != 0 {
            self.add_long_cyc(bytes, low);
            self.add_long_cyc(bytes.add(HALF), high);
        }
    }

    /// Adds TNT-8 where `first` is set. Even bytes are TNT or PAD, and PAD adds nothing.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn add_tnt(&mut self, bytes: __m256i, first: __m256i) {
        /// Branches, by the nibble with the highest bit set.
        const LOW: [u8; 16] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2];
        const HIGH: [u8; 16] = [0, 3, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6];
        const ONES: [u8; 16] = [0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4];
        let even = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, all(1)), all(0));
        let tnt = _mm256_and_si256(even, first);
        let low = _mm256_and_si256(bytes, all(0xf));
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), all(0xf));
        let bits = _mm256_max_epu8(look_up(&LOW, low), look_up(&HIGH, high));
        let ones = _mm256_add_epi8(look_up(&ONES, low), look_up(&ONES, high));
        self.bits = add_where(self.bits, bits, tnt);
        self.ones = add_where(self.ones, ones, tnt);
    }

    /// Adds the first bytes of CYC.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn add_cyc(&mut self, bytes: __m256i, first: __m256i) {
        let value = _mm256_and_si256(_mm256_srli_epi16::<3>(bytes), all(0x1f));
        let cyc = _mm256_and_si256(is_cyc(bytes), first);
        self.cycles[0] = add_where(self.cycles[0], value, cyc);
    }

    /// Adds the second and third bytes of CYC.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn add_long_cyc(&mut self, bytes: *const u8, first: __m256i) {
        let (second, third) = (load(bytes.add(1)), load(bytes.add(2)));
        let long = _mm256_and_si256(has(load(bytes), all(7)), first);
        let longer = _mm256_and_si256(has(second, all(1)), long);
        let second = _mm256_and_si256(_mm256_srli_epi16::<1>(second), all(0x7f));
        let third = _mm256_and_si256(_mm256_srli_epi16::<1>(third), all(0x7f));
        self.cycles[1] = add_where(self.cycles[1], second, long);
        self.cycles[2] = add_where(self.cycles[2], third, longer);
    }

    /// Adds the TNT-64 at the start of `bytes`; false if there is another packet.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn long_tnt(&mut self, bytes: &[u8]) -> bool {
        let Some(&[0x02, 0xa3, a, b, c, d, e, f]) = bytes.first_chunk() else {
            return false;
        };
        let branches = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        if branches < 2 {
            return false; // an error
        }
        self.counts.tnt += 1;
        self.counts.bits += u64::from(branches.ilog2());
        // `finish` subtracts the stop bits.
        self.counts.taken += u64::from(branches.count_ones());
        true
    }

    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    unsafe fn finish(self, run: &mut Run) {
        let [low, middle, high] = self.cycles;
        run.pad += self.counts.pad;
        run.tnt += self.counts.tnt;
        run.cyc += self.counts.cyc;
        run.tip += self.counts.tip;
        run.mtc += self.counts.mtc;
        run.bits += self.counts.bits + total(self.bits);
        run.taken += self.counts.taken + total(self.ones) - self.counts.tnt;
        run.cycles += total(low) + (total(middle) << 5) + (total(high) << 12);
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn load(bytes: *const u8) -> __m256i {
    _mm256_loadu_si256(bytes.cast())
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn all(byte: u8) -> __m256i {
    _mm256_set1_epi8(byte as i8)
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn table(entries: &[u8; 16]) -> __m256i {
    _mm256_broadcastsi128_si256(_mm_loadu_si128(entries.as_ptr().cast()))
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn look_up(entries: &[u8; 16], nibbles: __m256i) -> __m256i {
    _mm256_shuffle_epi8(table(entries), nibbles)
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn is_cyc(bytes: __m256i) -> __m256i {
    has(bytes, all(3))
}

/// Which bytes have these bits set.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn has(bytes: __m256i, bits: __m256i) -> __m256i {
    _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits)
}

/// The highest bits of the bytes of both vectors.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn mask(low: __m256i, high: __m256i) -> u64 {
    let (low, high) = (_mm256_movemask_epi8(low), _mm256_movemask_epi8(high));
    u64::from(low as u32) | u64::from(high as u32) << 32
}

/// Expands each bit to a byte of all ones or zeros.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn spread(mask: u64) -> (__m256i, __m256i) {
    let mask = _mm256_set1_epi64x(mask as i64);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let ones = 0x0101_0101_0101_0101;
    // For each group of 8 bytes, the byte of the mask with its bits.
    let low = _mm256_setr_epi64x(0, ones, 2 * ones, 3 * ones);
    let high = _mm256_add_epi8(low, all(4));
    (
        has(_mm256_shuffle_epi8(mask, low), bit),
        has(_mm256_shuffle_epi8(mask, high), bit),
    )
}

/// `sums` plus the sums of 8 bytes each where `mask` is set.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn add_where(sums: __m256i, bytes: __m256i, mask: __m256i) -> __m256i {
    let sum = _mm256_sad_epu8(_mm256_and_si256(bytes, mask), all(0));
    _mm256_add_epi64(sums, sum)
}

#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn total(sums: __m256i) -> u64 {
    let sums = _mm_add_epi64(
        _mm256_castsi256_si128(sums),
        _mm256_extracti128_si256::<1>(sums),
    );
    (_mm_cvtsi128_si64(sums) + _mm_extract_epi64::<1>(sums)) as u64
}
