//! The JSON output of `pt summarise`.

use serde::Serialize;

use super::Summarised;
use crate::pt::perf_data::Losses;
use crate::pt::{Histogram, ModeSummary, Packets, Power};

/// The keys are a stable interface for scripts. All numbers are integers.
#[derive(Debug, Serialize)]
pub(super) struct Object {
    file: String,
    stream: String,
    bytes: usize,
    /// How often tracing restarted.
    cuts: usize,
    packets: Packets,
    guest: Option<JsonSide>,
    host: Option<JsonSide>,
    unknown: JsonSide,
    entries: u64,
    exits: u64,
    exit_reasons: std::collections::BTreeMap<u16, u64>,
    histograms: Histograms,
    core_bus_ratio: Option<Ratio>,
    power: Power,
    losses: Option<Losses>,
    skipped_bytes: u64,
    trailing_bytes: u64,
    errors: Vec<Error>,
}

#[derive(Debug, Serialize)]
struct JsonSide {
    taken: u64,
    not_taken: u64,
    indirect: u64,
    asynchronous: u64,
    address_spaces: u64,
    cycles: Option<u64>,
    nanoseconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Histograms {
    guest_runs: JsonHistogram,
    host_handling: JsonHistogram,
}

#[derive(Debug, Serialize)]
struct JsonHistogram {
    count: u64,
    sum_nanoseconds: u64,
    /// Non-empty buckets, ascending, not cumulative.
    buckets: Vec<Bucket>,
}

#[derive(Debug, Serialize)]
struct Bucket {
    /// Longest duration in the bucket, in nanoseconds; null means no bound.
    le: Option<u64>,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Ratio {
    least: u8,
    most: u8,
}

#[derive(Debug, Serialize)]
struct Error {
    offset: usize,
    error: String,
}

pub(super) fn object(all: &Summarised<'_>) -> Object {
    let summary = &all.summary;
    let side = |side| json_side(all, side);
    let errors = summary.errors.iter().map(|at| Error {
        offset: at.offset,
        error: at.fault.to_string(),
    });
    Object {
        file: all.file.to_owned(),
        stream: all.trace.name.clone(),
        bytes: all.trace.len(),
        cuts: all.trace.cuts().len(),
        packets: summary.packets,
        guest: all.guest().map(side),
        host: all.host().map(side),
        unknown: side(&summary.unknown),
        entries: summary.entries,
        exits: summary.exits,
        exit_reasons: summary.exit_reasons.clone(),
        histograms: Histograms {
            guest_runs: histogram(&summary.guest_runs),
            host_handling: histogram(&summary.host_handling),
        },
        core_bus_ratio: summary.ratio.map(|(least, most)| Ratio { least, most }),
        power: summary.power,
        losses: all.trace.losses(),
        skipped_bytes: summary.skipped_bytes,
        trailing_bytes: summary.trailing_bytes,
        errors: errors.collect(),
    }
}

fn json_side(all: &Summarised<'_>, side: &ModeSummary) -> JsonSide {
    JsonSide {
        taken: side.taken,
        not_taken: side.not_taken,
        indirect: side.indirect,
        asynchronous: side.asynchronous,
        address_spaces: side.address_spaces,
        cycles: all.cycles(side),
        nanoseconds: all.nanoseconds(side),
    }
}

fn histogram(histogram: &Histogram) -> JsonHistogram {
    let last = Histogram::BUCKETS - 1;
    let bucket = |(n, count): (usize, &u64)| Bucket {
        le: (n < last).then(|| 1 << n),
        count: *count,
    };
    let filled = histogram.counts().iter().enumerate();
    let filled = filled.filter(|(_, count)| **count > 0);
    JsonHistogram {
        count: histogram.count(),
        sum_nanoseconds: histogram.sum(),
        buckets: filled.map(bucket).collect(),
    }
}
