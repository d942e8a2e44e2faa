//! Intel Processor Trace: decodes packets, and reduces the trace of one vCPU to a few figures.
//!
//! Pure: no file, no clock, no other module of this crate. The guest controls the bytes of its
//! trace, so every input is untrusted: the result is always a [`Summary`].
//!
//! - [`packet`] is the packet table: it decodes one packet.
//! - [`stream`] iterates over packets with their offsets: synchronization, resynchronization,
//!   blocks.
//! - [`perf_data`] finds traces in a file of `perf record`.
//! - `summariser` is the state machine that separates guest from host, and events from status.
//! - [`scalar`] joins the two, one packet at a time: it defines what a summary is.
//! - `blocks` computes the same summary from 64 bytes at a time if the processor can; `avx2` is its
//!   part that needs `unsafe`.
//!
//! Packets and their meaning: Intel SDM volume 3, chapter 33 "Intel Processor Trace".

// Only `avx2` has `unsafe`. Each other file forbids it; forbidding it here would include `avx2`.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod blocks;
pub(crate) mod histogram;
pub mod packet;
pub mod perf_data;
pub mod scalar;
pub mod stream;
mod summariser;
pub(crate) mod summary;

pub use histogram::Histogram;
pub use packet::Packet;
pub use stream::Stream;
pub(crate) use summary::Power;
pub use summary::{Clocks, Fault, FaultAt, ModeSummary, Packets, Summary};

/// Reduces a trace to its figures.
///
/// `cuts` are offsets into `trace`, ascending, at which tracing restarted (each AUX record but the
/// first). A packet starts there, but all state from before is unknown.
///
/// Same result as [`scalar::summarise`], but faster if the processor has AVX2.
pub fn summarise(trace: &[u8], cuts: &[usize], clocks: &Clocks) -> Summary {
    blocks::summarise(trace, cuts, clocks)
}

/// The parts of `trace` between `cuts`, with their offsets. Cuts that are out of order or beyond
/// the end are ignored.
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
