//! Assembles streams from records: orders the parts of each buffer, and finds where tracing
//! restarted.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::attr::SampleId;
use super::little_endian::{u32_at, u64_at};
use super::records::Record;
use super::{Losses, Owner, PerfDataError, Problem, Stream};

/// Stands for no CPU or no thread.
const NONE: u32 = u32::MAX;

/// perf pads each part with zeros to a multiple of this (`PERF_AUXTRACE_RECORD_ALIGNMENT`,
/// tools/perf/util/auxtrace.h).
const ALIGNMENT: u64 = 8;

/// A part of a trace: `struct perf_record_auxtrace` and the bytes after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    owner: Owner,
    /// Position of its first byte in all data that passed through the buffer.
    position: u64,
    bytes: &'a [u8],
    /// Offset of its record in the file.
    offset: usize,
}

impl<'a> Part<'a> {
    /// Parses the record's body: size, offset, reference, 8 bytes each; idx, tid, cpu, 4 bytes
    /// each.
    pub(super) fn parse(record: &Record<'a>) -> Result<Self, PerfDataError> {
        let size = Problem::Size("an AUXTRACE record").at(record.offset);
        let position = u64_at(record.body, 8).ok_or(size)?;
        let tid = u32_at(record.body, 28).ok_or(size)?;
        let owner = match u32_at(record.body, 32).ok_or(size)? {
            NONE => Owner::Thread(tid),
            cpu => Owner::Cpu(cpu),
        };
        Ok(Self {
            owner,
            position,
            bytes: record.behind,
            offset: record.offset,
        })
    }

    /// Position after its last byte.
    fn end(&self) -> u64 {
        self.position.saturating_add(self.bytes.len() as u64)
    }
}

/// Start of uninterrupted tracing: `PERF_RECORD_AUX`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    cpu: Option<u32>,
    tid: Option<u32>,
    /// Position of its first byte, as in [`Part`].
    position: u64,
    flags: u64,
}

impl Start {
    /// Parses the record's body: aux_offset, aux_size, flags, 8 bytes each; then the sample id.
    /// `None` if the owner is unknown.
    pub(super) fn parse(record: &Record<'_>, id: Option<SampleId>) -> Option<Self> {
        let (cpu, tid) = id?.cpu_and_tid(record.body.get(24..)?);
        Some(Self {
            cpu,
            tid,
            position: u64_at(record.body, 0)?,
            flags: u64_at(record.body, 16)?,
        })
    }

    /// Possible owners: the record does not report whether its buffer belongs to a CPU or to a
    /// thread.
    fn owners(self) -> impl Iterator<Item = Owner> {
        let cpu = self.cpu.map(Owner::Cpu);
        cpu.into_iter().chain(self.tid.map(Owner::Thread))
    }
}

/// One stream for each owner.
pub(super) fn streams<'a>(
    parts: Vec<Part<'a>>,
    starts: &[Start],
    is_snapshot: bool,
) -> Result<Vec<Stream<'a>>, PerfDataError> {
    let mut owners: BTreeMap<Owner, Vec<Part<'a>>> = BTreeMap::new();
    for part in parts {
        owners.entry(part.owner).or_default().push(part);
    }
    let mut starts_of: BTreeMap<Owner, Vec<Start>> = BTreeMap::new();
    for start in starts {
        for owner in start.owners().filter(|owner| owners.contains_key(owner)) {
            starts_of.entry(owner).or_default().push(*start);
        }
    }
    let stream = |(owner, mut parts): (Owner, Vec<Part<'a>>)| {
        let starts = starts_of.remove(&owner).unwrap_or_default();
        let mut cuts = if is_snapshot {
            Vec::new()
        } else {
            parts.sort_by_key(|part| part.position);
            trim(&mut parts)?;
            starts_within(&parts, &starts)
        };
        cuts.extend(jumps(&parts, is_snapshot));
        cuts.sort_unstable();
        cuts.dedup();
        let len: usize = parts.iter().map(|part| part.bytes.len()).sum();
        cuts.retain(|cut| (1..len).contains(cut));
        Ok(Stream {
            owner,
            pieces: parts.iter().map(|part| part.bytes).collect(),
            cuts,
            losses: Losses::count(&starts),
        })
    };
    owners.into_iter().map(stream).collect()
}

/// Removes the padding of all parts but the last.
fn trim(parts: &mut [Part<'_>]) -> Result<(), PerfDataError> {
    for n in 1..parts.len() {
        let [part, next] = [parts[n - 1], parts[n]];
        let excess = part.end().saturating_sub(next.position);
        let kept = part.bytes.len() as u64 - excess.min(part.bytes.len() as u64);
        let kept = usize::try_from(kept).unwrap_or(part.bytes.len());
        if excess >= ALIGNMENT || part.bytes[kept..].iter().any(|byte| *byte != 0) {
            return Err(Problem::Overlap(part.owner).at(next.offset));
        }
        parts[n - 1].bytes = &part.bytes[..kept];
    }
    Ok(())
}

/// Offsets in the stream of the starts that are within its parts.
fn starts_within(parts: &[Part<'_>], starts: &[Start]) -> Vec<usize> {
    let mut offset = 0;
    let mut ascending: Vec<u64> = starts.iter().map(|start| start.position).collect();
    ascending.sort_unstable();
    let mut cuts = Vec::new();
    for part in parts {
        let from = ascending.partition_point(|start| *start < part.position);
        let to = ascending.partition_point(|start| *start < part.end());
        let within = ascending[from..to]
            .iter()
            .map(|start| start - part.position);
        cuts.extend(within.filter_map(|n| Some(offset + usize::try_from(n).ok()?)));
        offset += part.bytes.len();
    }
    cuts
}

/// Offsets in the stream at which a part does not continue the one before. In snapshot mode, that
/// is every part, because positions do not show how snapshots follow each other.
fn jumps(parts: &[Part<'_>], is_snapshot: bool) -> Vec<usize> {
    let mut offset = 0;
    let jump = |pair: &[Part<'_>]| {
        offset += pair[0].bytes.len();
        (is_snapshot || pair[0].end() != pair[1].position).then_some(offset)
    };
    parts.windows(2).filter_map(jump).collect()
}

impl Losses {
    /// `PERF_AUX_FLAG_*` of linux/perf_event.h.
    fn count(starts: &[Start]) -> Self {
        let count = |flag| starts.iter().filter(|s| s.flags & flag != 0).count() as u64;
        Self {
            truncated: count(1),
            partial: count(4),
            collision: count(8),
        }
    }
}
