//! Hardware counters of each vCPU, guest and host apart.
//!
//! Feeds `kvm_vcpu_{cycles,instructions,ref_cycles,cache_references,cache_misses,branches,
//! branch_misses,dtlb_load_misses,stalled_cycles,dram_loads,topdown_slots,pmu_event}_total`,
//! `kvm_vcpu_software_event_total`, and `kvm_vcpu_pmu_{enabled,running}_seconds_total`.
//!
//! [`events`] knows what can be counted, [`plan`] decides what is counted on this machine,
//! [`perf`] opens and reads it, [`meter`] turns readings into what happened since the last one,
//! `guest` whether guests are counted at all, and [`source`] puts them together.

pub mod counters;
pub mod denied;
pub mod events;
mod guest;
pub mod meter;
pub mod patient;
pub mod perf;
pub mod plan;
pub mod probe;
pub mod scripted;
pub mod source;

pub use source::Pmu;
