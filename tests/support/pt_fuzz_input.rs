//! Decodes the fuzzer's bytes: a trace and its cuts.
//!
//! The low two bits of the first byte are the number of cuts; two bytes per cut follow, low byte
//! first; the rest is the trace.
#![allow(dead_code, unreachable_pub)]

/// Cuts, in the given order, and the trace.
pub fn split(data: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return (Vec::new(), &[]);
    };
    let len = usize::from(first & 3) * 2;
    let (cuts, trace) = rest.split_at(len.min(rest.len()));
    let cut = |two: &[u8]| usize::from(u16::from_le_bytes([two[0], two[1]]));
    (cuts.chunks_exact(2).map(cut).collect(), trace)
}

/// The input for these cuts and this trace; cuts after the third or above 65535 are dropped.
pub fn join(cuts: &[usize], trace: &[u8]) -> Vec<u8> {
    let cuts = cuts.iter().filter_map(|cut| u16::try_from(*cut).ok());
    let cuts: Vec<u16> = cuts.take(3).collect();
    let mut data = vec![cuts.len() as u8];
    data.extend(cuts.iter().flat_map(|cut| cut.to_le_bytes()));
    data.extend_from_slice(trace);
    data
}
