//! Memory with the layout of a perf event's rings.
//!
//! Written from linux/perf_event.h, independently of the code that reads it: `data_head` is at byte
//! 1024 of the first page, `aux_head` at 1056, and a record is type, misc and size, then its body.

use std::sync::atomic::{AtomicU64, Ordering};

/// `PERF_RECORD_AUX`
pub const AUX: u32 = 11;

/// Rings of any size at any position.
#[derive(Debug)]
pub struct PerfImage {
    /// The first page, with the positions.
    pub page: Vec<AtomicU64>,
    /// The ring of records.
    pub data: Vec<AtomicU64>,
    /// The ring of trace.
    pub aux: Vec<AtomicU64>,
}

/// Byte offset in the page: where the kernel writes the next record.
pub const DATA_HEAD: usize = 1024;
/// Where the reader reads the next record.
pub const DATA_TAIL: usize = 1032;
/// Where the hardware writes trace.
pub const AUX_HEAD: usize = 1056;
/// Where the reader reads trace.
pub const AUX_TAIL: usize = 1064;

impl PerfImage {
    /// Empty rings of `data` and `aux` bytes at positions `data_at` and `aux_at`.
    pub fn new(data: usize, aux: usize, data_at: u64, aux_at: u64) -> Self {
        let zeros = |bytes: usize| (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
        let image = Self {
            page: zeros(4096),
            data: zeros(data),
            aux: zeros(aux),
        };
        for (offset, position) in [
            (DATA_HEAD, data_at),
            (DATA_TAIL, data_at),
            (AUX_HEAD, aux_at),
            (AUX_TAIL, aux_at),
        ] {
            image.set(offset, position);
        }
        image
    }

    /// Writes a position in the page.
    pub fn set(&self, offset: usize, position: u64) {
        self.page[offset / 8].store(position, Ordering::Relaxed);
    }

    /// Reads a position in the page.
    pub fn get(&self, offset: usize) -> u64 {
        self.page[offset / 8].load(Ordering::Relaxed)
    }

    /// Appends trace, as the hardware does.
    pub fn trace(&self, bytes: &[u8]) {
        let head = self.get(AUX_HEAD);
        put(&self.aux, head, bytes);
        self.set(AUX_HEAD, head.wrapping_add(bytes.len() as u64));
    }

    /// Appends a record with this body, as the kernel does.
    pub fn record(&self, kind: u32, body: &[u64]) {
        let size = u16::try_from(8 + body.len() * 8).unwrap_or(u16::MAX);
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(size.to_ne_bytes());
        bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        let head = self.get(DATA_HEAD);
        put(&self.data, head, &bytes);
        self.set(DATA_HEAD, head.wrapping_add(bytes.len() as u64));
    }

    /// Appends trace and its AUX record.
    pub fn stretch(&self, bytes: &[u8], flags: u64) {
        let begin = self.get(AUX_HEAD);
        self.trace(bytes);
        self.record(AUX, &[begin, bytes.len() as u64, flags]);
    }
}

/// Byte by byte, unlike the reader.
fn put(ring: &[AtomicU64], position: u64, bytes: &[u8]) {
    for (n, byte) in (0u64..).zip(bytes) {
        let at = (position.wrapping_add(n) % (ring.len() as u64 * 8)) as usize;
        let mut word = ring[at / 8].load(Ordering::Relaxed).to_ne_bytes();
        word[at % 8] = *byte;
        ring[at / 8].store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}
