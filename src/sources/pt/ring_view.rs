//! Reads the two rings of a perf event from memory in the kernel's layout.
//!
//! The layout is `struct perf_event_mmap_page` and `enum perf_event_type` of linux/perf_event.h;
//! see "MMAP layout" in perf_event_open(2). The memory may be the kernel's or a test's. It changes
//! while it is read and is not trusted: positions count modulo the rings' own sizes, a record must
//! fit into the rest, and what is inconsistent is skipped and reported.

use std::sync::atomic::{AtomicU64, Ordering};

const WORD: u64 = size_of::<u64>() as u64;

/// Words of the page: byte positions that never decrease. The kernel writes the heads, the reader
/// writes the tails.
pub const DATA_HEAD: usize = 1024 / 8;
/// Position up to which records were read.
pub const DATA_TAIL: usize = 1032 / 8;
/// Position up to which the AUX area was written.
pub const AUX_HEAD: usize = 1056 / 8;
/// Position up to which the AUX area was read.
pub const AUX_TAIL: usize = 1064 / 8;

/// `PERF_RECORD_LOST`: records that did not fit into the ring.
pub(crate) const RECORD_LOST: u32 = 2;
/// `PERF_RECORD_AUX`: a part of the AUX area is complete.
pub(crate) const RECORD_AUX: u32 = 11;
/// `PERF_RECORD_ITRACE_START`: tracing of the thread started.
pub(crate) const RECORD_ITRACE_START: u32 = 12;

/// `PERF_AUX_FLAG_TRUNCATED`: the area was full.
pub(crate) const FLAG_TRUNCATED: u64 = 0x1;
/// `PERF_AUX_FLAG_PARTIAL`: the trace has gaps.
pub(crate) const FLAG_PARTIAL: u64 = 0x4;
/// `PERF_AUX_FLAG_COLLISION`: another sample collided with the trace.
pub(crate) const FLAG_COLLISION: u64 = 0x8;

/// The mapped memory of one event.
#[derive(Debug, Clone, Copy)]
pub struct PerfRingView<'a> {
    /// The page of positions.
    pub page: &'a [AtomicU64],
    /// The ring of records.
    pub data: &'a [AtomicU64],
    /// The AUX area.
    pub aux: &'a [AtomicU64],
}

/// The drained trace and what its records reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuxTrace {
    /// Content of the AUX area.
    pub bytes: Vec<u8>,
    /// Offsets in `bytes`, ascending, at which each AUX record after the first starts.
    pub cuts: Vec<usize>,
    /// The flags of all AUX records combined: `FLAG_TRUNCATED`, `FLAG_PARTIAL`, …
    pub flags: u64,
    /// Number of `ITRACE_START` records.
    pub starts: u32,
    /// Whether records were lost, so that cuts or flags may be missing.
    pub lost: bool,
    /// Whether positions or records were inconsistent.
    pub(crate) damaged: bool,
}

impl PerfRingView<'_> {
    /// Copies all unread data, then returns its space to the kernel.
    pub fn drain(&self) -> AuxTrace {
        let mut drained = AuxTrace::default();
        let records = self.span(DATA_HEAD, DATA_TAIL, self.data);
        let trace = self.span(AUX_HEAD, AUX_TAIL, self.aux);
        drained.damaged = records.damaged || trace.damaged;
        drained.bytes = copy(self.aux, trace.tail, trace.length);
        self.walk(&records, trace.tail, &mut drained);
        // After the copies: from here on the kernel may overwrite what was read.
        self.store(DATA_TAIL, records.head);
        self.store(AUX_TAIL, trace.head);
        drained
    }

    /// The unread part of a ring.
    fn span(&self, head: usize, tail: usize, ring: &[AtomicU64]) -> Span {
        // Acquire: makes everything visible that the kernel wrote before it moved the head.
        let load = |word: usize, order| self.page.get(word).map_or(0, |w| w.load(order));
        let (head, tail) = (load(head, Ordering::Acquire), load(tail, Ordering::Relaxed));
        let length = head.wrapping_sub(tail);
        let fits = length <= ring.len() as u64 * WORD;
        Span {
            head,
            tail,
            length: if fits { length as usize } else { 0 },
            damaged: !fits,
        }
    }

    fn store(&self, word: usize, position: u64) {
        if let Some(word) = self.page.get(word) {
            word.store(position, Ordering::Release);
        }
    }

    /// Parses the records; the trace starts at position `begin`.
    fn walk(&self, records: &Span, begin: u64, drained: &mut AuxTrace) {
        let words = Ring(self.data);
        let (mut at, mut left) = (records.tail, records.length as u64);
        while left > 0 {
            let Some(record) = words.record(at, left) else {
                drained.damaged = true;
                return;
            };
            match record.kind {
                RECORD_AUX if record.size >= 4 * WORD => {
                    let [offset, size, flags] = [1, 2, 3].map(|n| words.word(at + n * WORD));
                    drained.flags |= flags;
                    drained.cut(offset.wrapping_sub(begin), size);
                }
                RECORD_AUX => drained.damaged = true,
                RECORD_ITRACE_START => drained.starts = drained.starts.saturating_add(1),
                RECORD_LOST => drained.lost = true,
                _ => {}
            }
            at = at.wrapping_add(record.size);
            left -= record.size;
        }
    }
}

impl AuxTrace {
    /// Adds the start of an AUX record, `offset` bytes into the trace. The first starts at 0.
    fn cut(&mut self, offset: u64, size: u64) {
        if size == 0 || offset == 0 {
            return;
        }
        let before = self.cuts.last().copied().unwrap_or(0);
        match usize::try_from(offset) {
            Ok(offset) if before < offset && offset < self.bytes.len() => self.cuts.push(offset),
            _ => self.damaged = true,
        }
    }
}

/// The unread part of a ring: positions, and the number of bytes, bounded by the ring's size.
struct Span {
    head: u64,
    tail: u64,
    length: usize,
    damaged: bool,
}

/// The header of a record: `struct perf_event_header`.
struct Header {
    kind: u32,
    size: u64,
}

/// The record ring, addressed by position.
struct Ring<'a>(&'a [AtomicU64]);

impl Ring<'_> {
    fn word(&self, position: u64) -> u64 {
        let words = self.0.len().max(1) as u64;
        let index = position / WORD % words;
        self.0
            .get(index as usize)
            .map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// The header of the record at `position`, if a record of at most `left` bytes fits there.
    /// Records start and end at multiples of 8.
    fn record(&self, position: u64, left: u64) -> Option<Header> {
        let [a, b, c, d, _, _, low, high] = self.word(position).to_ne_bytes();
        let size = u64::from(u16::from_ne_bytes([low, high]));
        let whole = position % WORD == 0 && size % WORD == 0;
        (whole && (WORD..=left).contains(&size)).then(|| Header {
            kind: u32::from_ne_bytes([a, b, c, d]),
            size,
        })
    }
}

/// `length` bytes from `position`, wrapping at the end of the ring. `length` is at most the ring's
/// size.
fn copy(ring: &[AtomicU64], position: u64, length: usize) -> Vec<u8> {
    if ring.is_empty() || length == 0 {
        return Vec::new();
    }
    let start = (position % (ring.len() as u64 * WORD)) as usize;
    let (first, skip) = (start / 8, start % 8);
    let words = (skip + length).div_ceil(8);
    let mut bytes = Vec::with_capacity(words * 8);
    // Twice the ring is enough: the first word may be the last one too.
    for word in ring[first..].iter().chain(ring).take(words) {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes.truncate(skip + length);
    bytes.drain(..skip);
    bytes
}

#[cfg(test)]
mod tests;
