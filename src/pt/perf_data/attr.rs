//! The attributes of events, and what they add to each record.

#![forbid(unsafe_code)]

use super::little_endian::{u32_at, u64_at};

/// The required fields of a `struct perf_event_attr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attr {
    /// Type of the PMU.
    pub(super) kind: u32,
    pub(super) sample_id: Option<SampleId>,
}

/// Bit `sample_id_all` of the attribute's flags.
const SAMPLE_ID_ALL: u64 = 1 << 18;

impl Attr {
    /// `None` if the attribute is truncated.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let sample_type = u64_at(bytes, 24)?;
        let flags = u64_at(bytes, 40)?;
        Some(Self {
            kind: u32_at(bytes, 0)?,
            sample_id: (flags & SAMPLE_ID_ALL != 0).then_some(SampleId(sample_type)),
        })
    }
}

/// The `PERF_SAMPLE_*` fields at the end of every record that is not a sample: `struct sample_id`
/// of perf_event_open(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleId(u64);

impl SampleId {
    const TID: u64 = 1 << 1;
    const TIME: u64 = 1 << 2;
    const ID: u64 = 1 << 6;
    const CPU: u64 = 1 << 7;
    const STREAM_ID: u64 = 1 << 9;
    const IDENTIFIER: u64 = 1 << 16;

    /// CPU and TID, from the bytes after a record's own fields; each is `None` if absent.
    pub(super) fn cpu_and_tid(self, trailer: &[u8]) -> (Option<u32>, Option<u32>) {
        // In this order, 8 bytes each: pid and tid, time, id, stream id, cpu and a reserved word.
        let order = [
            Self::TID,
            Self::TIME,
            Self::ID,
            Self::STREAM_ID,
            Self::CPU,
            Self::IDENTIFIER,
        ];
        let at = |field: u64| {
            let before = order.iter().take_while(|other| **other != field);
            let before = before.filter(|other| self.0 & **other != 0).count();
            (self.0 & field != 0).then_some(before * 8)
        };
        let cpu = at(Self::CPU).and_then(|at| u32_at(trailer, at));
        let tid = at(Self::TID).and_then(|at| u32_at(trailer, at + 4));
        (cpu, tid)
    }
}
