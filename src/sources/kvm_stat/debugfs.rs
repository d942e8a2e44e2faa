//! KVM's counters of whole VMs in debugfs: for VMMs that hold no descriptors of statistics.
//!
//! `<debugfs>/kvm/<task>-<fd>/` has a file for each statistic of the VM, and the sum over its
//! vCPUs for each of theirs (`kvm_create_vm_debugfs`, virt/kvm/kvm_main.c). Only counters are read,
//! and only those that help to explain a slow VM; gauges, peaks and histograms are in the same
//! directory, unmarked.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::discover::Vm;
use crate::engine::{ReadError, Reason, ReasonCode};
use crate::host::roots::Roots;

/// Names of counters before Linux 5.14 that differ from today's. That kernel adopted the names of
/// its new binary statistics in debugfs too (`debugfs_entries`, then `kvm_vcpu_stats_desc`,
/// arch/x86/kvm/x86.c); all other names are the same from 5.8 to 6.18.
const BEFORE_5_14: [(&str, &str); 3] = [
    ("irq_window_exits", "irq_window"),
    ("nmi_window_exits", "nmi_window"),
    ("request_irq_exits", "request_irq"),
];

/// The counters that are read (`KVM_STATS_TYPE_CUMULATIVE` in arch/*/kvm and virt/kvm); each
/// kernel and architecture has some of them.
const STATS: &[&str] = &[
    // Exits and their types, x86.
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "irq_window_exits",
    "nmi_window_exits",
    "request_irq_exits",
    "signal_exits",
    "hypercalls",
    "insn_emulation",
    "irq_injections",
    "nmi_injections",
    "nested_run",
    "directed_yield_attempted",
    "directed_yield_successful",
    "preemption_reported",
    "preemption_other",
    // Exits and their types, arm64.
    "hvc_exit_stat",
    "wfe_exit_stat",
    "wfi_exit_stat",
    "mmio_exit_user",
    "mmio_exit_kernel",
    // Halts: how KVM waited, and the cost of polling.
    "halt_attempted_poll",
    "halt_successful_poll",
    "halt_wakeup",
    "halt_poll_success_ns",
    "halt_poll_fail_ns",
    "halt_wait_ns",
    // Guest memory.
    "pf_taken",
    "pf_fixed",
    "pf_emulate",
    "tlb_flush",
    "remote_tlb_flush",
    "remote_tlb_flush_requests",
    "mmu_shadow_zapped",
    "mmu_recycled",
];

/// Why nothing can be read, from a test of `kvm/exits`, the sum over all VMs.
pub(super) fn missing(roots: &Roots) -> Option<Reason> {
    let dir = roots.debug.join("kvm");
    let file = dir.join("exits");
    let error = match roots.open(&file) {
        Ok(_) => return None,
        Err(error) => error,
    };
    let detail = format!("cannot read {}: {error}", file.display());
    Some(match error.raw_os_error() {
        // The error of lockdown for a file that is also writable (fs/debugfs/file.c).
        Some(libc::EPERM) => ReasonCode::Lockdown
            .reason(detail)
            .with_fix("boot without kernel lockdown: Secure Boot off, no lockdown= parameter"),
        Some(libc::EACCES) => ReasonCode::NoPermission
            .reason(detail)
            .with_fix("give the exporter CAP_DAC_READ_SEARCH"),
        Some(libc::ENOENT) if dir.exists() => return None,
        Some(libc::ENOENT) => ReasonCode::NoDebugfs.reason(detail).with_fix(format!(
            "mount -t debugfs debugfs {}, and load KVM (modprobe kvm_intel or kvm_amd)",
            roots.debug.display()
        )),
        _ => ReasonCode::Unreadable.reason(detail),
    })
}

/// The VM's directory. Its name has the VM's descriptor and the task that created the VM, which
/// may be any thread of the process.
pub(super) fn directory(roots: &Roots, vm: &Vm, known: Option<&PathBuf>) -> Option<PathBuf> {
    match known.filter(|dir| dir.is_dir()) {
        Some(dir) => Some(dir.clone()),
        None => find_directory(roots, vm),
    }
}

fn find_directory(roots: &Roots, vm: &Vm) -> Option<PathBuf> {
    let kvm = roots.debug.join("kvm");
    let names = roots.list(&kvm).ok()?;
    let tasks = roots.proc.join(format!("{}/task", vm.key.pid));
    let tasks = roots.list(&tasks).unwrap_or_default();
    let tasks: HashSet<String> = tasks.into_iter().collect();
    let mut of_process: Vec<(u32, &String)> = names
        .iter()
        .filter_map(|name| {
            let (task, fd) = name.split_once('-')?;
            let own = task.parse() == Ok(vm.key.pid) || tasks.contains(task);
            Some((fd.parse().ok()?, name)).filter(|_| own)
        })
        .collect();
    of_process.sort_unstable();
    let by_fd = of_process.iter().find(|(fd, _)| *fd == vm.key.ordinal);
    // If descriptors are not visible, the VMs of a process are numbered from 0.
    let nth = || of_process.get(usize::try_from(vm.key.ordinal).ok()?);
    let (_, name) = by_fd.or_else(nth)?;
    Some(kvm.join(name))
}

/// Current values of the counters in a VM's directory, as far as this kernel has them.
pub(super) fn counts(roots: &Roots, dir: &Path) -> Result<Vec<(&'static str, u64)>, ReadError> {
    let mut counts = Vec::new();
    for stat in STATS {
        let older = BEFORE_5_14.iter().filter(|(name, _)| name == stat);
        let names = std::iter::once(stat).chain(older.map(|(_, older)| older));
        let texts = names.map(|name| roots.read_text(&dir.join(name)));
        let is_there = |text: &io::Result<String>| !matches!(text, Err(error) if error.kind() == io::ErrorKind::NotFound);
        match texts.into_iter().find(is_there) {
            Some(Ok(text)) => counts.extend(text.trim().parse().ok().map(|now| (*stat, now))),
            Some(Err(error)) => {
                return Err(ReadError::Failed(format!(
                    "cannot read {}: {error}",
                    dir.display()
                )));
            }
            None => {}
        }
    }
    Ok(counts)
}
