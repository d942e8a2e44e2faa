//! Finds Intel PT in a `perf.data` file, and its owner.
//!
//! Reads both forms: the seekable one (`perf record -o FILE`) and the piped one
//! (`perf record -o -`). Uses only the records that Intel PT needs: `AUXTRACE_INFO` describes the
//! recording, `AUXTRACE` contains the trace, and `AUX` reports where tracing restarted and whether
//! data was lost.
//!
//! The crate linux-perf-data does not replace this (0.13, read at commit da5bce4): it allocates and
//! zeroes the size that a trace or section claims before it reads it, copies every trace, does not
//! skip the bytes after `HEADER_TRACING_DATA` of a piped file, reads no record of a file that perf
//! could not finish, and leaves `AUXTRACE_INFO` and the order of the parts to its user.
//!
//! The format: tools/perf/Documentation/perf.data-file-format.txt,
//! tools/lib/perf/include/perf/event.h (records from 64 on) and include/uapi/linux/perf_event.h
//! (the kernel's) in Linux.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use super::Clocks;

mod assemble;
mod attr;
mod info;
mod little_endian;
mod records;
#[cfg(test)]
mod tests;

/// The Intel PT of a `perf.data` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerfData<'a> {
    /// Clocks of the recorded machine.
    pub clocks: Clocks,
    /// Traces of all CPUs or threads, ascending by owner.
    pub streams: Vec<Stream<'a>>,
}

/// The owner of a trace. perf has a buffer for each CPU, or for each thread with `--per-thread`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// All that was traced on this CPU.
    Cpu(u32),
    /// All that this thread did, on every CPU.
    Thread(u32),
}

/// The trace of one CPU or thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream<'a> {
    /// The CPU or thread.
    pub owner: Owner,
    /// Its bytes, in the order of recording.
    pieces: Vec<&'a [u8]>,
    /// Offsets at which tracing restarted, ascending, for [`super::summarise`]. Empty if the file
    /// does not have this information.
    pub cuts: Vec<usize>,
    /// Losses that the kernel reported.
    pub losses: Losses,
}

/// Number of `AUX` records that report losses. They do not report the size.
/// Its fields are keys of `pt summarise --json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Losses {
    /// `PERF_AUX_FLAG_TRUNCATED`: the buffer was full, and tracing paused until it was read.
    pub truncated: u64,
    /// `PERF_AUX_FLAG_PARTIAL`: the trace has gaps (tracing was off in VMX operation).
    pub partial: u64,
    /// `PERF_AUX_FLAG_COLLISION`: another user of Intel PT was active.
    pub(crate) collision: u64,
}

/// An invalid file: the problem and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset:#x}: {problem}")]
#[allow(missing_docs)] // the message describes the fields
pub struct PerfDataError {
    pub offset: usize,
    pub(crate) problem: Problem,
}

/// Problems of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub(crate) enum Problem {
    #[error("not a perf.data file")]
    Magic,
    /// Written by perf of Linux 2.6.
    #[error("the perf.data format predates Linux 3.0; record again with a newer perf")]
    Old,
    #[error("the file is big-endian, but Intel PT exists only on little-endian machines")]
    BigEndian,
    #[error("the file ends within {0}: it was truncated, or perf was killed")]
    Truncated(&'static str),
    #[error("invalid size of {0}")]
    Size(&'static str),
    #[error("the records are compressed; record without -z")]
    Compressed,
    /// There is no `AUXTRACE_INFO`.
    #[error("the file contains no Intel PT; record with -e intel_pt//")]
    NoTrace,
    #[error("the trace is not Intel PT (auxtrace type {0})")]
    OtherTrace(u32),
    /// Two `AUXTRACE` records of one buffer have the same position.
    #[error("two parts of the trace of {0} overlap")]
    Overlap(Owner),
}

/// Whether the bytes start like any kind of `perf.data` file.
pub(crate) fn is_perf_data(bytes: &[u8]) -> bool {
    !matches!(
        records::magic(bytes),
        Err(PerfDataError {
            problem: Problem::Magic,
            ..
        })
    )
}

impl<'a> PerfData<'a> {
    /// Finds the traces in a file's bytes.
    ///
    /// # Errors
    /// If the file is truncated, inconsistent or compressed, or contains no Intel PT.
    pub fn parse(file: &'a [u8]) -> Result<Self, PerfDataError> {
        let (mut attrs, records) = records::open(file)?;
        let mut info = None;
        let mut parts = Vec::new();
        let mut starts = Vec::new();
        for record in records {
            let record = record?;
            match record.kind {
                records::HEADER_ATTR => attrs.extend(attr::Attr::parse(record.body)),
                records::AUXTRACE_INFO => info = Some(info::Info::parse(&record)?),
                records::AUXTRACE => parts.push(assemble::Part::parse(&record)?),
                records::AUX => starts.push(record),
                records::COMPRESSED | records::COMPRESSED2 => {
                    return Err(Problem::Compressed.at(record.offset))
                }
                _ => {}
            }
        }
        let info = info.ok_or(Problem::NoTrace.at(0))?;
        let id = info.sample_id(&attrs);
        let starts: Vec<_> = starts
            .iter()
            .filter_map(|record| assemble::Start::parse(record, id))
            .collect();
        Ok(Self {
            clocks: info.clocks(),
            streams: assemble::streams(parts, &starts, info.is_snapshot())?,
        })
    }
}

impl<'a> Stream<'a> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether the stream has no bytes.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// All bytes, contiguous: copied if the file has several pieces.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self.pieces.as_slice() {
            [] => Cow::Borrowed(&[]),
            [piece] => Cow::Borrowed(piece),
            pieces => Cow::Owned(pieces.concat()),
        }
    }
}

impl Problem {
    fn at(self, offset: usize) -> PerfDataError {
        PerfDataError {
            offset,
            problem: self,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => write!(f, "cpu {cpu}"),
            Self::Thread(tid) => write!(f, "tid {tid}"),
        }
    }
}
