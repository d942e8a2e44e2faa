//! Exits of each vCPU and KVM's handling of them, counted on the vCPU's own thread.
//!
//! Feeds `kvm_vcpu_exits_total{reason}` and `kvm_vcpu_kvm_events_total{event}` from KVM
//! tracepoints, opened as counting perf events: the kernel counts, nothing is recorded. All are
//! hit in the context of the vCPU thread (`vcpu_run`, arch/x86/kvm/x86.c), so an event on the
//! thread counts every hit. A hit costs 0.2 to 0.5 µs and each reason filter less than 0.1 µs
//! (measured on a nested host); an exit itself takes a microsecond or more.
//!
//! `format` parses the names of exit reasons, `plan` decides what this machine counts, `source`
//! opens and reads the events.

mod format;
mod plan;
mod source;

use std::collections::BTreeMap;

use crate::host::roots::Roots;

pub(crate) use source::{ENTRY, EXITS};

/// Intel's exit reasons by number, named as in `sources.exits.reasons`; empty if the kernel's list
/// cannot be read.
pub(crate) fn vmx_reasons(roots: &Roots) -> BTreeMap<u16, String> {
    let file = roots.tracing.join("events/kvm/kvm_exit/format");
    let text = roots.read_text(&file).unwrap_or_default();
    format::vmx_names(&text)
}
