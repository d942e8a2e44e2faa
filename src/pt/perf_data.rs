//! Intel PT inside a `perf.data` file: which bytes are whose trace.
//!
//! Both forms are read, the seekable one (`perf record -o FILE`) and the one `perf record -o -`
//! writes to a pipe, as far as Intel PT needs: the `AUXTRACE_INFO` record that describes the
//! recording, `AUXTRACE` records with the trace itself and `AUX` records, which say where in it
//! tracing began anew and whether something was lost. All other records are skipped.
//!
//! The format: tools/perf/Documentation/perf.data-file-format.txt, tools/lib/perf/include/perf/event.h
//! (records from 64 on) and include/uapi/linux/perf_event.h (the kernel's) in Linux.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

use super::Clocks;

mod assemble;
mod info;
mod records;
#[cfg(test)]
mod tests;

/// What a `perf.data` file holds of Intel PT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerfData<'a> {
    /// Clocks of the machine that was traced.
    pub clocks: Clocks,
    /// Each CPU's or thread's trace, ascending by owner.
    pub streams: Vec<Stream<'a>>,
}

/// Whose trace it is. perf keeps a buffer for each CPU, or for each thread where it was told to
/// record threads alone (`--per-thread`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// All that was traced on this CPU.
    Cpu(u32),
    /// All that this thread did, on any CPU.
    Thread(u32),
}

/// The trace of one CPU or thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream<'a> {
    /// Whose it is.
    pub owner: Owner,
    /// Its bytes, in the order in which they were written.
    pieces: Vec<&'a [u8]>,
    /// Offsets into its bytes, ascending, at which tracing began anew: what [`super::summarise`]
    /// takes. Empty where the file does not say.
    pub cuts: Vec<usize>,
    /// What the kernel said of it.
    pub losses: Losses,
}

/// How many `AUX` records said that something is missing. They do not say how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// `PERF_AUX_FLAG_TRUNCATED`: the buffer was full, and tracing stopped until it was read.
    pub truncated: u64,
    /// `PERF_AUX_FLAG_PARTIAL`: there are gaps (tracing was off while VMX was on).
    pub partial: u64,
    /// `PERF_AUX_FLAG_COLLISION`: somebody else's trace was in the way.
    pub collision: u64,
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at offset {offset:#x}: {problem}")]
pub struct PerfDataError {
    /// Offset in the file.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not `PERFILE2`.
    #[error("this is no perf.data file")]
    Magic,
    /// Written by perf of Linux 2.6.
    #[error("this form of perf.data is from before Linux 3.0; record it anew")]
    Old,
    /// The magic number is there with its bytes reversed.
    #[error("the file was written on a big-endian machine, and Intel PT was on none")]
    BigEndian,
    /// It ends within something.
    #[error("the file ends within {0}: it was cut off, or perf could not finish it")]
    Truncated(&'static str),
    /// A size that no such thing has.
    #[error("{0} has an impossible size")]
    Size(&'static str),
    /// `perf record -z`.
    #[error("its records are compressed; record without -z")]
    Compressed,
    /// No `AUXTRACE_INFO`.
    #[error("there is no Intel PT in it; record with -e intel_pt//")]
    NoTrace,
    /// `AUXTRACE_INFO` of another type.
    #[error("the trace in it is not of Intel PT (auxtrace type {0})")]
    OtherTrace(u32),
    /// Two `AUXTRACE` records of one buffer hold the same position of it.
    #[error("two parts of the trace of {0} overlap")]
    Overlap(Owner),
}

/// Whether these bytes begin as a `perf.data` file does, of whatever kind, rather than as a trace.
pub fn is_perf_data(bytes: &[u8]) -> bool {
    !matches!(
        records::magic(bytes),
        Err(PerfDataError {
            problem: Problem::Magic,
            ..
        })
    )
}

impl<'a> PerfData<'a> {
    /// Finds the traces in the bytes of a file.
    ///
    /// # Errors
    /// When it is cut off, contradicts itself, is compressed or has no Intel PT in it.
    pub fn parse(file: &'a [u8]) -> Result<Self, PerfDataError> {
        let (mut attrs, records) = records::open(file)?;
        let mut info = None;
        let mut parts = Vec::new();
        let mut starts = Vec::new();
        for record in records {
            let record = record?;
            match record.kind {
                records::HEADER_ATTR => attrs.extend(info::Attr::of_record(&record)),
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
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len()).sum()
    }

    /// Whether nothing was traced.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| piece.is_empty())
    }

    /// All its bytes in one piece: copied where the file has them in several.
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
