//! Decodes packets 64 bytes at a time: the same summary as [`scalar`]'s, several times as fast.
//!
//! Almost all packets are ordinary: PAD, TNT, MTC, CYC, and TIP that no other packet refers to.
//! Their relative order does not matter, so they are added up in a [`Run`]. Vectors classify all
//! bytes of a block into masks, by the packet that each byte would start. Most packets have one
//! byte, so their positions need no decoding. Only multi-byte packets are visited one after the
//! other, with a table of lengths that was computed for all bytes at once. The sums of their start
//! bits and end bits are subtracted, which gives all bytes that they cover. The remaining mask bits
//! are counted, and branches and cycles are summed by table lookup in vectors. At any other packet,
//! sum and offset return to the [`Stream`] and the [`Summariser`], which continue as for [`scalar`]
//! until packets are ordinary again.
//!
//! `cargo bench --bench pt` measures it.

#![forbid(unsafe_code)]

#[cfg(not(target_arch = "x86_64"))]
mod none;

#[cfg(not(target_arch = "x86_64"))]
use self::none::{Avx2, Scanner};
#[cfg(target_arch = "x86_64")]
use super::avx2::{Avx2, Scanner};
use super::stream::Stream;
use super::summariser::{Run, Summariser};
use super::{parts, scalar, Clocks, Summary};

/// See [`super::summarise`].
pub(super) fn summarise(trace: &[u8], cuts: &[usize], clocks: &Clocks) -> Summary {
    let Some(avx2) = Avx2::detect() else {
        return scalar::summarise(trace, cuts, clocks);
    };
    let mut summariser = Summariser::new(clocks);
    let mut lost = true;
    for (begin, part) in parts(trace, cuts) {
        if begin > 0 {
            summariser.cut();
        }
        let mut scanner = avx2.scanner(part);
        let mut stream = if lost {
            Stream::new(part)
        } else {
            Stream::synchronised(part)
        };
        loop {
            pass_ordinary(&mut scanner, &mut stream, &mut summariser);
            let Some(step) = stream.next() else { break };
            summariser.step(begin, &step);
        }
        lost = stream.lost();
    }
    summariser.finish()
}

/// Skips over ordinary packets, and adds them up.
fn pass_ordinary(scanner: &mut Scanner, stream: &mut Stream, summariser: &mut Summariser) {
    if !summariser.is_plain_tip() {
        return;
    }
    if let Some(at) = stream.at_packet() {
        let mut run = Run::default();
        stream.resume_at(scanner.scan(at, &mut run));
        summariser.run(&run);
    }
}

#[cfg(test)]
mod tests;
