//! Describes the recording: the `AUXTRACE_INFO` record.

#![forbid(unsafe_code)]

use super::attr::{Attr, SampleId};
use super::little_endian::{u32_at, u64_at};
use super::records::Record;
use super::{PerfDataError, Problem};
use crate::pt::Clocks;

/// `PERF_AUXTRACE_INTEL_PT` (tools/perf/util/auxtrace.h).
const INTEL_PT: u32 = 1;

/// Private fields of Intel PT's `AUXTRACE_INFO`, 8 bytes each: the first enum of
/// tools/perf/util/intel-pt.h, filled by `intel_pt_info_fill`
/// (tools/perf/arch/x86/util/intel-pt.c).
#[derive(Debug, Clone, Copy)]
enum Field {
    PmuType = 0,
    TimeShift = 1,
    TimeMult = 2,
    SnapshotMode = 8,
    MaxNonturboRatio = 15,
}

/// Offset of the fields in the record's body: after its type and a reserved word.
const FIELDS: usize = 8;

/// The `AUXTRACE_INFO` record of an Intel PT recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info<'a>(&'a [u8]);

impl<'a> Info<'a> {
    pub(super) fn parse(record: &Record<'a>) -> Result<Self, PerfDataError> {
        let size = Problem::Size("the AUXTRACE_INFO record").at(record.offset);
        match u32_at(record.body, 0).ok_or(size)? {
            INTEL_PT => Ok(Self(record.body.get(FIELDS..).ok_or(size)?)),
            other => Err(Problem::OtherTrace(other).at(record.offset)),
        }
    }

    /// `None` if an older perf did not write the field.
    fn field(&self, field: Field) -> Option<u64> {
        u64_at(self.0, field as usize * 8)
    }

    /// Whether buffers were overwritten until a snapshot was requested.
    pub(super) fn is_snapshot(&self) -> bool {
        self.field(Field::SnapshotMode).is_some_and(|on| on != 0)
    }

    /// The kernel converts TSC to nanoseconds by `(tsc * mult) >> shift` (perf_event_open(2),
    /// fields `time_mult` and `time_shift`), from which the TSC's frequency follows.
    pub(super) fn clocks(&self) -> Clocks {
        let shift = self.field(Field::TimeShift).filter(|shift| *shift < 64);
        let mult = self.field(Field::TimeMult).filter(|mult| *mult > 0);
        let hertz = |(shift, mult)| (1_000_000_000u128 << shift) / u128::from(mult);
        let tsc = shift.zip(mult).map(hertz);
        let tsc = tsc.and_then(|hertz| u64::try_from(hertz).ok());
        let tsc = tsc.filter(|hertz| *hertz > 0);
        let ratio = self.field(Field::MaxNonturboRatio);
        let bus = tsc.zip(ratio).and_then(|(tsc, n)| tsc.checked_div(n));
        let bus = bus.filter(|hertz| *hertz > 0);
        Clocks {
            bus: bus.unwrap_or(Clocks::default().bus),
            tsc,
        }
    }

    /// The sample id at the end of `AUX` records. `None` if the PT event is not in the file, or
    /// several PT events disagree.
    pub(super) fn sample_id(&self, attrs: &[Attr]) -> Option<SampleId> {
        let kind = self.field(Field::PmuType)?;
        let mut ids = attrs.iter().filter(|attr| u64::from(attr.kind) == kind);
        let id = ids.next()?.sample_id;
        ids.all(|other| other.sample_id == id).then_some(id)?
    }
}
