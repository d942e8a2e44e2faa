//! Exits of each vCPU and what KVM did about them, counted on the vCPU's own thread.
//!
//! Feeds `kvm_vcpu_exits_total{reason}` and `kvm_vcpu_kvm_events_total{event}` from tracepoints of
//! KVM, opened as counting perf events: the kernel counts, nothing is recorded. All of them are hit
//! in the context of the vCPU thread (`vcpu_run`, arch/x86/kvm/x86.c), so that an event attached to
//! the thread sees every one. A hit costs 0.2 to 0.5 µs and a reason held against it less than 0.1
//! (measured on a nested host), an exit itself a microsecond or more.
//!
//! `format` reads the names of exit reasons, `plan` decides what is counted on this machine,
//! `source` opens and reads it. `kvm_stat` is a source of its own: whole-VM counters that KVM
//! keeps anyway, from debugfs.

mod format;
pub mod kvm_stat;
mod plan;
mod source;

use std::collections::BTreeMap;

use crate::host::roots::Roots;

pub use kvm_stat::KvmStat;
pub use source::Exits;

/// Names of Intel's exit reasons by number, as `sources.exits.reasons` has them; none where the
/// kernel's list cannot be read.
pub fn vmx_reasons(roots: &Roots) -> BTreeMap<u16, String> {
    let file = roots.tracing.join("events/kvm/kvm_exit/format");
    let text = roots.read_text(&file).unwrap_or_default();
    format::vmx_names(&text)
}
