//! Hardware counters of each vCPU, guest and host counted separately.
//!
//! Feeds `kvm_vcpu_{cycles,instructions,ref_cycles,cache_references,cache_misses,branches,
//! branch_misses,dtlb_load_misses,stalled_cycles,dram_loads,topdown_slots,pmu_event}_total`,
//! `kvm_vcpu_software_event_total`, and `kvm_vcpu_pmu_{enabled,running}_seconds_total`.
//!
//! [`events`] defines the events, [`plan`] decides which of them this machine counts, [`perf`]
//! opens and reads them, [`meter`] computes deltas between reads, `guest` detects guests that are
//! not counted at all, and [`source`] combines them.

pub mod counters;
pub mod denied;
pub mod events;
mod guest;
pub mod meter;
mod metrics;
pub mod patient;
pub mod perf;
pub mod plan;
pub mod probe;
pub mod scripted;
pub mod source;

pub use source::Pmu;

pub(crate) use metrics::*;
