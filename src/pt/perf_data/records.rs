//! The structure of a `perf.data` file: its header, and its records in order.

#![forbid(unsafe_code)]

use super::attr::Attr;
use super::little_endian::{u16_at, u32_at, u64_at};
use super::{PerfDataError, Problem};

/// `PERF_RECORD_AUX`, the kernel's.
pub(super) const AUX: u32 = 11;
/// `PERF_RECORD_HEADER_ATTR`: an event of a piped file.
pub(super) const HEADER_ATTR: u32 = 64;
/// `PERF_RECORD_HEADER_TRACING_DATA`, whose size excludes the bytes after it.
const HEADER_TRACING_DATA: u32 = 66;
/// `PERF_RECORD_AUXTRACE_INFO`.
pub(super) const AUXTRACE_INFO: u32 = 70;
/// `PERF_RECORD_AUXTRACE`, followed by its part of the trace.
pub(super) const AUXTRACE: u32 = 71;
/// `PERF_RECORD_COMPRESSED`.
pub(super) const COMPRESSED: u32 = 81;
/// `PERF_RECORD_COMPRESSED2`.
pub(super) const COMPRESSED2: u32 = 83;

/// `struct perf_event_header`: type, misc, size.
const HEADER: usize = 8;

/// Length of `struct perf_pipe_file_header`; `struct perf_file_header` is longer.
const PIPE_HEADER: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Offset in the file.
    pub(super) offset: usize,
    pub(super) kind: u32,
    /// The record without its header.
    pub(super) body: &'a [u8],
    /// Bytes after it that its size excludes.
    pub(super) behind: &'a [u8],
}

/// All records of a file. Ends after the first error.
#[derive(Debug)]
pub(super) struct Records<'a> {
    file: &'a [u8],
    next: usize,
    end: usize,
}

/// Checks the magic number.
pub(super) fn magic(file: &[u8]) -> Result<(), PerfDataError> {
    match file.get(..8) {
        Some(b"PERFILE2") => Ok(()),
        Some(b"2ELIFREP" | b"ELIFFREP") => Err(Problem::BigEndian.at(0)),
        Some(b"PERFFILE") => Err(Problem::Old.at(0)),
        _ => Err(Problem::Magic.at(0)),
    }
}

/// The events in the header, and the records.
pub(super) fn open(file: &[u8]) -> Result<(Vec<Attr>, Records<'_>), PerfDataError> {
    magic(file)?;
    let field = |at| u64_at(file, at).ok_or(Problem::Truncated("its header").at(file.len()));
    let size = field(8)?;
    if size == PIPE_HEADER {
        let (next, end) = (16, file.len());
        return Ok((Vec::new(), Records { file, next, end }));
    }
    // struct perf_file_header: magic, size, attr_size, then sections (offset, size) of attrs and data.
    let attr_size = field(16)?;
    let attrs = section(file, field(24)?, field(32)?, "its list of events")?;
    let (start, length) = (field(40)?, field(48)?);
    // perf writes the length last; it is 0 if perf was killed.
    let length = match length {
        0 => (file.len() as u64).saturating_sub(start),
        length => length,
    };
    let data = section(file, start, length, "its records")?;
    let attr_size = usize::try_from(attr_size).ok().filter(|size| *size > 0);
    let attr_size = attr_size.ok_or(Problem::Size("its list of events").at(16))?;
    let records = Records {
        file,
        next: data.start,
        end: data.end,
    };
    let attrs = file[attrs].chunks_exact(attr_size);
    Ok((attrs.filter_map(Attr::parse).collect(), records))
}

/// A section of the file that its header describes.
fn section(
    file: &[u8],
    start: u64,
    length: u64,
    what: &'static str,
) -> Result<std::ops::Range<usize>, PerfDataError> {
    let end = start.checked_add(length);
    let end = end.and_then(|end| usize::try_from(end).ok());
    match (usize::try_from(start), end) {
        (Ok(start), Some(end)) if end <= file.len() => Ok(start..end),
        _ => Err(Problem::Truncated(what).at(file.len())),
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Result<Record<'a>, PerfDataError> {
        let offset = self.next;
        let rest = &self.file[offset..self.end];
        let truncated = Problem::Truncated("a record").at(offset);
        let kind = u32_at(rest, 0).ok_or(truncated)?;
        let size = usize::from(u16_at(rest, 6).ok_or(truncated)?);
        if size < HEADER {
            return Err(Problem::Size("a record").at(offset));
        }
        let body = rest.get(HEADER..size).ok_or(truncated)?;
        let behind = match kind {
            AUXTRACE => u64_at(body, 0).ok_or(Problem::Size("an AUXTRACE record").at(offset))?,
            HEADER_TRACING_DATA => u32_at(body, 0).map_or(0, u64::from),
            _ => 0,
        };
        let what = match kind {
            AUXTRACE => "a part of the trace",
            _ => "tracing data",
        };
        let rest = &rest[size..];
        let behind = usize::try_from(behind).ok().and_then(|n| rest.get(..n));
        let behind = behind.ok_or(Problem::Truncated(what).at(offset))?;
        self.next = offset + size + behind.len();
        Ok(Record {
            offset,
            kind,
            body,
            behind,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, PerfDataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.next = self.end;
        }
        Some(record)
    }
}
