//! The `kvm_stat` source: counters that KVM keeps for each VM, from debugfs.
//!
//! Feeds `kvm_vm_kvm_stat_total{stat}`. `<debugfs>/kvm/<task>-<fd>/` has a file for each statistic
//! of the VM, and sums over its vCPUs for each of theirs (`kvm_create_vm_debugfs`,
//! virt/kvm/kvm_main.c). Only counters are read, and of these only what helps to explain a slow VM;
//! gauges, peaks and histograms stand among them without a mark. Root may set any of them
//! back to 0, so that what is shown adds up the increments.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::discover::{Vm, VmKey};
use crate::host::roots::Roots;
use crate::sample::slow::{Fact, FactValue, Origin, VmSource};
use crate::sample::total::Total;
use crate::sample::{identity, ReadError, Reason, SourceInfo, SourceState};

/// Names of counters before Linux 5.14, where they were not those of today. That kernel took the
/// names of its new binary statistics for debugfs too (`debugfs_entries`, then
/// `kvm_vcpu_stats_desc`, arch/x86/kvm/x86.c); all others are the same from 5.8 to 6.18.
const BEFORE_5_14: [(&str, &str); 3] = [
    ("irq_window_exits", "irq_window"),
    ("nmi_window_exits", "nmi_window"),
    ("request_irq_exits", "request_irq"),
];

/// The counters that are read (`KVM_STATS_TYPE_CUMULATIVE` of arch/*/kvm and virt/kvm); a kernel
/// or an architecture has a part of them.
const STATS: &[&str] = &[
    // Exits and their kinds, x86.
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
    // The same, arm64.
    "hvc_exit_stat",
    "wfe_exit_stat",
    "wfi_exit_stat",
    "mmio_exit_user",
    "mmio_exit_kernel",
    // Halts: how KVM waited, and what polling cost.
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

/// The `kvm_stat` source.
pub struct KvmStat {
    config: config::KvmStat,
    roots: Arc<Roots>,
    vms: HashMap<VmKey, Kept>,
}

/// What is kept of one VM.
#[derive(Debug, Default)]
struct Kept {
    /// Its directory, once found: it has it as long as it lives.
    dir: Option<PathBuf>,
    totals: HashMap<&'static str, Total>,
}

impl KvmStat {
    /// The source over these roots.
    pub fn new(config: &config::KvmStat, roots: Arc<Roots>) -> Self {
        Self {
            config: *config,
            roots,
            vms: HashMap::new(),
        }
    }

    /// Why nothing can be read: `kvm/exits` is the sum over all VMs, and of the same kind.
    fn missing(&self) -> Option<Reason> {
        if !self.config.enabled {
            return Some(Reason::disabled("kvm_stat"));
        }
        let dir = self.roots.debug.join("kvm");
        let file = dir.join("exits");
        let error = match self.roots.open(&file) {
            Ok(_) => return None,
            Err(error) => error,
        };
        let reason = |code, fix| Reason {
            code,
            detail: format!("{}: {error}", file.display()),
            fix,
        };
        Some(match error.raw_os_error() {
            // What lockdown says of a file that could also be written (fs/debugfs/file.c).
            Some(libc::EPERM) => reason(
                "lockdown",
                Some(
                    "boot a kernel that is not locked down: Secure Boot off, no lockdown="
                        .to_owned(),
                ),
            ),
            Some(libc::EACCES) => reason(
                "no_permission",
                Some("give the exporter CAP_DAC_READ_SEARCH".to_owned()),
            ),
            Some(libc::ENOENT) if dir.exists() => return None,
            Some(libc::ENOENT) => reason(
                "no_debugfs",
                Some(format!(
                    "mount -t debugfs debugfs {}, and load KVM (modprobe kvm_intel, or kvm_amd)",
                    self.roots.debug.display()
                )),
            ),
            _ => reason("unreadable", None),
        })
    }

    /// The VM's directory: it carries the number of the VM's descriptor and the task that made the
    /// VM, which may be any of the process.
    fn directory(&self, vm: &Vm) -> Option<PathBuf> {
        let kept = self.vms.get(&vm.key).and_then(|kept| kept.dir.as_ref());
        match kept.filter(|dir| dir.is_dir()) {
            Some(dir) => Some(dir.clone()),
            None => self.find_directory(vm),
        }
    }

    fn find_directory(&self, vm: &Vm) -> Option<PathBuf> {
        let kvm = self.roots.debug.join("kvm");
        let names = self.roots.list(&kvm).ok()?;
        let tasks = self.roots.proc.join(format!("{}/task", vm.key.pid));
        let tasks = self.roots.list(&tasks).unwrap_or_default();
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
        // Without descriptors to see, VMs of a process are numbered from 0.
        let nth = || of_process.get(usize::try_from(vm.key.ordinal).ok()?);
        let (_, name) = by_fd.or_else(nth)?;
        Some(kvm.join(name))
    }
}

impl VmSource for KvmStat {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "kvm_stat",
            needs: "KVM debugfs: CAP_DAC_READ_SEARCH, a kernel that is not locked down",
            cost: "about 40 small files a VM and period",
        }
    }

    fn state(&self) -> SourceState {
        self.missing().map_or(SourceState::Up, SourceState::Down)
    }

    fn period(&self) -> Duration {
        self.config.period
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        // The state says so once; there is no error for each VM.
        if self.missing().is_some() {
            return Ok(Vec::new());
        }
        let Some(dir) = self.directory(vm) else {
            return Ok(Vec::new());
        };
        let counts = counts(&self.roots, &dir)?;
        // The directory is named after a PID and a descriptor, which another VM may have by now.
        identity::check(&self.roots, vm.key)?;
        let Kept { dir: kept, totals } = self.vms.entry(vm.key).or_default();
        *kept = Some(dir);
        let total = |(stat, now)| fact(stat, totals.entry(stat).or_default().advance(now));
        Ok(counts.into_iter().map(total).collect())
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
    }
}

/// What the counters of a VM's directory say now, those that this kernel has.
fn counts(roots: &Roots, dir: &Path) -> Result<Vec<(&'static str, u64)>, ReadError> {
    let mut counts = Vec::new();
    for stat in STATS {
        let older = BEFORE_5_14.iter().filter(|(name, _)| name == stat);
        let names = std::iter::once(stat).chain(older.map(|(_, older)| older));
        let texts = names.map(|name| roots.read_text(&dir.join(name)));
        let is_there = |text: &io::Result<String>| !matches!(text, Err(error) if error.kind() == io::ErrorKind::NotFound);
        match texts.into_iter().find(is_there) {
            Some(Ok(text)) => counts.extend(text.trim().parse().ok().map(|now| (*stat, now))),
            Some(Err(error)) => {
                return Err(ReadError::Failed(format!("{}: {error}", dir.display())));
            }
            None => {}
        }
    }
    Ok(counts)
}

fn fact(stat: &str, total: u64) -> Fact {
    Fact {
        metric: "kvm_vm_kvm_stat_total",
        labels: vec![("stat", stat.to_owned())],
        value: FactValue::Int(total),
        origin: Origin::Vm,
    }
}

#[cfg(test)]
mod tests;
