//! Intel Processor Trace: packets, and the few numbers a trace of one vCPU comes down to.
//!
//! Pure: bytes in, figures out, no file, no clock and no other module of this crate. The guest
//! shapes the bytes of its own trace, so every byte is hostile here: whatever comes in, a
//! [`Summary`] comes out.
//!
//! - [`packet`] is the packet table: one packet from the start of some bytes.
//! - [`stream`] walks packets with their offsets: synchronisation, resynchronisation, blocks.
//! - [`perf_data`] finds the traces in a file that `perf record` wrote.
//! - `summariser` is the state machine that tells guest from host and packets from events.
//! - [`scalar`] joins the two, a packet at a time: the definition of what a summary is.
//! - `blocks` makes the same summary from 64 bytes at a time, where the processor can; `avx2` is
//!   the part of it that needs `unsafe`.
//!
//! Packets and their meaning: Intel SDM volume 3, chapter 33 "Intel Processor Trace".

// `unsafe` is in `avx2` alone. Each other file forbids it; here that would be for `avx2` too.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod blocks;
pub mod histogram;
pub mod packet;
pub mod perf_data;
pub mod scalar;
pub mod stream;
mod summariser;
pub mod summary;

pub use histogram::Histogram;
pub use packet::Packet;
pub use stream::Stream;
pub use summary::{Clocks, Fault, FaultAt, Packets, Power, Side, Summary};

/// Reduces one trace to its figures.
///
/// `cuts` are offsets into `trace`, ascending, at which tracing began anew (each AUX record but
/// the first): packets go on there, yet nothing that was going on before is still known.
///
/// The same as [`scalar::summarise`], and faster where the processor has AVX2.
pub fn summarise(trace: &[u8], cuts: &[usize], clocks: &Clocks) -> Summary {
    blocks::summarise(trace, cuts, clocks)
}

/// The parts of `trace` between `cuts`, and where each begins. Cuts that are out of order or
/// beyond the end are no cuts.
fn parts<'a>(trace: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = (usize, &'a [u8])> {
    let mut rest = trace;
    let mut begin = 0;
    let ends = cuts.iter().copied().chain([trace.len()]);
    ends.filter_map(move |end| {
        let len = end
            .checked_sub(begin)
            .filter(|len| (1..=rest.len()).contains(len))?;
        let (part, after) = rest.split_at(len);
        rest = after;
        let at = begin;
        begin = end;
        Some((at, part))
    })
}
