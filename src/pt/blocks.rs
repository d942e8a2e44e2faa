//! Packets 64 bytes at a time: the same summary as [`scalar`]'s, several times as fast.
//!
//! Nearly all packets of a trace are ordinary: PAD, TNT, MTC, CYC, and TIP that no other packet
//! lays claim to. Their order among each other does not matter, so they are summed up in a [`Run`].
//! For that, vectors sort all bytes of a block into masks, by what packet each would begin. Most
//! packets are one byte, whose place needs no looking for: only those of more are walked from one
//! to the next, by a table of lengths, made ahead for every byte at once; two sums of bits hold
//! where they begin and end, and their difference is all the bytes they cover. What is left of the
//! masks is counted, and branches and cycles are summed by table look-up in vectors. At any other
//! packet, sum and offset go back to the [`Stream`] and the [`Summariser`], which read on as
//! they do for [`scalar`] until packets are ordinary again.
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

/// Passes over ordinary packets, where there are any.
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
