//! Decodes one packet at a time: slow, but the definition of a summary.

#![forbid(unsafe_code)]

use super::stream::Stream;
use super::summariser::Summariser;
use super::{parts, Clocks, Summary};

/// See [`super::summarise`].
pub fn summarise(trace: &[u8], cuts: &[usize], clocks: &Clocks) -> Summary {
    let mut summariser = Summariser::new(clocks);
    let mut lost = true;
    for (begin, part) in parts(trace, cuts) {
        if begin > 0 {
            summariser.cut();
        }
        let mut stream = if lost {
            Stream::new(part)
        } else {
            Stream::synchronised(part)
        };
        for step in stream.by_ref() {
            summariser.step(begin, &step);
        }
        lost = stream.lost();
    }
    summariser.finish()
}
