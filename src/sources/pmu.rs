//! Hardware counters of each vCPU, guest and host counted separately.
//!
//! Feeds `kvm_vcpu_{cycles,instructions,ref_cycles,cache_references,cache_misses,branches,
//! branch_misses,dtlb_load_misses,stalled_cycles,dram_loads,topdown_slots,pmu_event}_total`,
//! `kvm_vcpu_software_event_total`, and `kvm_vcpu_pmu_{enabled,running}_seconds_total`.
//!
//! `events` defines the events, [`plan`] decides which of them this machine counts, [`perf`]
//! opens and reads them, `meter` computes deltas between reads, `guest` detects guests that are
//! not counted at all, and `source` combines them.

pub mod counters;
pub(crate) mod denied;
pub(crate) mod events;
mod guest;
pub(crate) mod meter;
mod metrics;
pub(crate) mod patient;
pub mod perf;
pub mod plan;
pub mod probe;
pub mod scripted;
pub(crate) mod source;

use crate::engine::{Source, SourceInfo};
use crate::host::cpu_model::CpuModel;
use crate::sources::Entry;

pub use source::Pmu;

pub(crate) use metrics::*;

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "pmu",
        needs: "perf_event_open: CAP_PERFMON or root; hardware counters",
        cost: "one descriptor per event and vCPU; one read and at most one interrupt of the \
               vCPU's core per group and tick",
    },
    about: "Hardware counters of each vCPU thread, guest and host separately: perf_event_open(2). Needs `CAP_PERFMON` and a PMU; `vcpu-exporter check` reports what this host has. The event sets branches, dtlb, stalled, dram_loads and topdown are counted only if `sources.pmu.events` lists them.",
    metrics: &[metrics::METRICS],
    make: |with| {
        let model = CpuModel::read(&with.setup.roots).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the CPU model; model-specific events are not counted");
            CpuModel::Unknown
        });
        let (config, counters) = (&with.config().pmu, with.setup.counters.clone());
        let pmu = Pmu::new(config, &with.setup.roots, &model, counters, &mut with.columns);
        with.pmu_mode = pmu.mode();
        Source::of_vcpus(pmu)
    },
};
