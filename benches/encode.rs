//! CPU time of a scrape: `cargo bench --bench encode`.
//!
//! Results are the lowest thread CPU time of many runs, because the machine may be busy, and the
//! ratio to prometheus-client, measured in the same run on the same data, which is comparable
//! between machines. Two hosts, 25 samples per vCPU.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::least;

use flate2::write::GzEncoder;
use flate2::Compression;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text;
use vcpu_exporter::snapshot::Snapshot;
use vcpu_exporter::telemetry::Registry;
use vcpu_exporter::telemetry::Telemetry;

#[path = "../tests/support/oracle.rs"]
mod oracle;
#[path = "../tests/support/snapshots.rs"]
mod snapshots;

/// Limit of the CPU time of a scrape with 1,000 vCPUs, including gzip.
const BUDGET: Duration = Duration::from_millis(12);

fn main() {
    for (vcpus, runs) in [(1_000, 100), (10_000, 20)] {
        measure(vcpus, runs);
    }
}

fn measure(vcpus: usize, runs: usize) {
    let snapshot = Arc::new(snapshots::Host::of_vcpus(vcpus).snapshot());
    let (_telemetry, own) = Telemetry::new();
    let samples = snapshot.count_series();
    let each = |time: Duration| time.as_nanos() as f64 / samples as f64;

    let mut body = Vec::new();
    let ours = least(runs, || encode(&snapshot, &Registry::default(), &mut body));
    println!("{vcpus} vCPUs, {samples} series, {} bytes", body.len());
    println!(
        "  encode             {ours:>9.2?}  {:.1} ns a sample",
        each(ours)
    );

    let collector = oracle::registry(&snapshot, &Registry::default());
    let mut text = String::new();
    let theirs = least(runs, || {
        text.clear();
        oracle::encode_into(&collector, &mut text);
    });
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "  prometheus-client  {theirs:>9.2?}  {:.1} ns a sample, {ratio:.1} times ours",
        each(theirs)
    );

    let mut zipped = Vec::new();
    let gzip = least(runs, || compress(&body, &mut zipped));
    println!(
        "  gzip level 1       {gzip:>9.2?}  to {} bytes",
        zipped.len()
    );

    let scrape = least(runs, || {
        encode(&snapshot, &own, &mut body);
        compress(&body, &mut zipped);
    });
    let verdict = match (vcpus, scrape <= BUDGET) {
        (1_000, true) => format!("  within the budget of {BUDGET:?}"),
        (1_000, false) => format!("  OVER the budget of {BUDGET:?}"),
        _ => String::new(),
    };
    println!("  whole scrape       {scrape:>9.2?}{verdict}");
}

fn encode(snapshot: &Snapshot, own: &Registry, body: &mut Vec<u8>) {
    body.clear();
    text::encode(
        Format::OpenMetrics,
        snapshot,
        own,
        snapshot.taken_mono,
        body,
    );
}

fn compress(body: &[u8], zipped: &mut Vec<u8>) {
    zipped.clear();
    let mut gzip = GzEncoder::new(zipped, Compression::new(1));
    gzip.write_all(body).expect("a Vec takes everything");
    gzip.finish().expect("a Vec takes everything");
}
