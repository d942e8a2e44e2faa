//! The `kvm_stat` source: what KVM itself counts for each VM and vCPU.
//!
//! Read from the descriptors of statistics that the VMM holds (`descriptors`), which have
//! everything that this kernel counts, also under lockdown and of a VMM that is stopped. A VMM that
//! holds none has the counters of whole VMs in debugfs (`debugfs`), where that is readable.
//! `kvm_vm_kvm_stat_info` has the method. Root may reset the statistics to 0 through debugfs, so
//! the exposed totals are sums of deltas.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::discover::{Vcpu, Vm, VmKey};
use crate::engine::total::Total;
use crate::engine::{
    Fact, Origin, ReadError, Reason, ReasonCode, Source, SourceInfo, SourceState, VmSource,
};
use crate::host::kvm_stats::Schema;
use crate::host::readers::{LateAnswers, Payer};
use crate::host::roots::Roots;
use crate::host::task::{is_gone, shows_own_pids};
use crate::metric::{metrics, Buckets, FactValue, Keys, Label, Metric};
use crate::sources::Entry;

mod counters;
mod debugfs;
mod descriptors;

use counters::{Counters, Sums};
use descriptors::{KernelStats, ReadStats, StatsFds};

metrics! { METRICS of "kvm_stat":
    KVM_STAT = Metric::counter("kvm_vm_kvm_stat_total", Keys::Vm, &["stat"],
        "KVM's own counters of the VM and all its vCPUs, by KVM's names; names that end in _ns are nanoseconds");
    KVM_STAT_CURRENT = Metric::gauge("kvm_vm_kvm_stat_current", Keys::Vm, &["stat"],
        "KVM's own gauges and peaks of the VM, by KVM's names: pages_4k, pages_2m and pages_1g are mappings of guest memory by size");
    HALT = Metric::histogram("kvm_vm_halt_seconds", Keys::Vm, &["outcome"],
        "How long halted vCPUs of the VM waited: poll_success (woken while KVM polled), poll_fail (KVM polled in vain) and wait (asleep)");
    INFO = Metric::info("kvm_vm_kvm_stat_info", Keys::Vm, &["method"],
        "How KVM's statistics of the VM are read: descriptor (those that the VMM holds) or debugfs");
    VCPU_KVM_STAT = Metric::counter("kvm_vcpu_kvm_stat_total", Keys::Vcpu, &["stat"],
        "KVM's own counters of the vCPU, by KVM's names; names that end in _ns are nanoseconds");
    VCPU_KVM_STAT_CURRENT = Metric::gauge("kvm_vcpu_kvm_stat_current", Keys::Vcpu, &["stat"],
        "KVM's own gauges and peaks of the vCPU, by KVM's names: blocking is 1 while the vCPU is halted");
    VCPU_HALT = Metric::histogram("kvm_vcpu_halt_seconds", Keys::Vcpu, &["outcome"],
        "How long the halted vCPU waited: poll_success, poll_fail and wait");
}

/// Outcomes of a halt: the label, KVM's histogram, and the sum that belongs to it
/// (`KVM_GENERIC_VCPU_STATS` of linux/kvm_host.h).
const HALTS: [(&str, &str, &str); 3] = [
    (
        "poll_success",
        "halt_poll_success_hist",
        "halt_poll_success_ns",
    ),
    ("poll_fail", "halt_poll_fail_hist", "halt_poll_fail_ns"),
    ("wait", "halt_wait_hist", "halt_wait_ns"),
];

/// Bounds of [`HALT`] in nanoseconds, 1 µs to 1.1 s: every second of KVM's powers of two. A wait as
/// long as a bound is counted above it.
const BOUNDS: [u64; 11] = [
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
];

/// How long a pass waits for the statistics of one VM; reading takes 4 us for each vCPU.
const PATIENCE: Duration = Duration::from_millis(100);

/// Late statistics that no pass takes within this time are dropped.
const KEPT: Duration = Duration::from_secs(60);

/// Reads KVM's statistics.
pub struct KvmStat {
    roots: Arc<Roots>,
    own_pids: bool,
    of_vcpus: bool,
    reader: Arc<dyn ReadStats>,
    late: LateAnswers<VmKey, Answer>,
    /// Kinds of files that were seen: of vCPUs and of VMs.
    schemas: Vec<Arc<Schema>>,
    vms: HashMap<VmKey, VmState>,
}

/// Descriptors of a VM, and the contents of each.
type Answer = (StatsFds, io::Result<Vec<Vec<u8>>>);

/// State of one VM.
#[derive(Default)]
struct VmState {
    /// Its vCPUs when its descriptors were searched; `None` to search again.
    searched: Option<Vec<Vcpu>>,
    fds: StatsFds,
    payer: Option<Payer>,
    vcpus: BTreeMap<u32, Counters>,
    own: Counters,
    /// Its directory in debugfs, once found; it stays the same for the life of the VM.
    dir: Option<PathBuf>,
    totals: HashMap<&'static str, Total>,
    /// Why there is nothing of this VM.
    trouble: Option<Reason>,
}

/// Why a VM's descriptors were not read.
enum Unread {
    /// The process blocks it.
    Blocked,
    /// It has none, or they cannot be read.
    Unreadable(Reason),
    /// This time.
    Failed(ReadError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        let what = "cannot read the VMM's descriptors of statistics";
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Unreadable(
                ReasonCode::NoPermission
                    .reason(format!("{what}: {error}"))
                    .with_fix("give the exporter CAP_SYS_PTRACE, and allow pidfd_getfd(2)"),
            ),
            io::ErrorKind::Unsupported => {
                let why = format!("{what}: {error} (pidfd_getfd(2) is in Linux from 5.6 on)");
                Self::Unreadable(ReasonCode::NoData.reason(why))
            }
            _ if is_gone(&error) => Self::Failed(ReadError::Gone),
            _ => Self::Failed(ReadError::Failed(format!("{what}: {error}"))),
        }
    }
}

impl KvmStat {
    /// Reads the descriptors and debugfs of this machine.
    pub fn new(config: config::KvmStat, roots: Arc<Roots>) -> Self {
        Self::with_reader(config, roots, Arc::new(KernelStats::new()))
    }

    fn with_reader(config: config::KvmStat, roots: Arc<Roots>, reader: Arc<dyn ReadStats>) -> Self {
        Self {
            own_pids: shows_own_pids(&roots),
            roots,
            of_vcpus: config.vcpus,
            reader,
            late: LateAnswers::new(PATIENCE, KEPT),
            schemas: Vec::new(),
            vms: HashMap::new(),
        }
    }

    /// What the VM's descriptors say.
    fn by_descriptors(&mut self, vm: &Vm, state: &mut VmState) -> Result<Vec<Fact>, Unread> {
        if !self.own_pids {
            let why = "PIDs here are of another namespace";
            return Err(Unread::Unreadable(ReasonCode::PidNamespace.reason(why)));
        }
        if state.searched.as_ref() != Some(&vm.vcpus) {
            state.fds = StatsFds::find(&self.roots, vm.key.pid)?;
            state.searched = Some(vm.vcpus.clone());
        }
        if state.fds.is_empty() {
            return Err(Unread::Unreadable(no_descriptors()));
        }
        if let Err(error) = self.read_all(vm, state) {
            // The VMM may have closed or replaced them.
            state.searched = None;
            return Err(error);
        }
        // The PID may belong to another process by now.
        let same = vm.key.process().check(&self.roots);
        same.map_err(ReadError::from)?;
        Ok(self.facts(vm, state))
    }

    /// Reads on another thread, because the process can block it for any time.
    fn read_all(&mut self, vm: &Vm, state: &mut VmState) -> Result<(), Unread> {
        let (pid, roots) = (vm.key.pid, &self.roots);
        let payer = *state
            .payer
            .get_or_insert_with(|| Payer::of_thread(roots, pid));
        self.late.sweep();
        let answer = self.late.ask(vm.key, PATIENCE, || {
            let (reader, fds) = (self.reader.clone(), state.fds.clone());
            let read = move || {
                let files = reader.read(pid, &fds.all());
                (fds, files)
            };
            roots.readers.begin(payer, read).ok()
        });
        // A late answer may be of other descriptors than those known now.
        let (fds, files) = answer.map_err(|_| Unread::Blocked)?;
        let ids: Vec<u32> = fds.vcpus.keys().copied().collect();
        for (n, file) in files?.iter().enumerate() {
            let schema = counters::schema(&mut self.schemas, file);
            let odd = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let counters = match ids.get(n) {
                Some(id) => state.vcpus.entry(*id).or_default(),
                None => &mut state.own,
            };
            counters.advance(schema.map_err(odd)?, file);
        }
        Ok(())
    }

    fn facts(&self, vm: &Vm, state: &VmState) -> Vec<Fact> {
        let mut sums = Sums::default();
        state.vcpus.values().for_each(|vcpu| sums.add(vcpu));
        sums.add(&state.own);
        let mut facts = vec![info("descriptor")];
        show(&mut facts, &[], &sums, [&KVM_STAT, &HALT]);
        show_current(&mut facts, &[], &state.own, &KVM_STAT_CURRENT);
        if self.of_vcpus {
            let ids: Vec<u32> = state.fds.vcpus.keys().copied().collect();
            for (id, index) in indexes(&ids, &vm.vcpus) {
                let Some(vcpu) = state.vcpus.get(&id) else {
                    continue;
                };
                let label = [("vcpu", index.into())];
                let own = Sums::of_one(vcpu);
                show(&mut facts, &label, &own, [&VCPU_KVM_STAT, &VCPU_HALT]);
                show_current(&mut facts, &label, vcpu, &VCPU_KVM_STAT_CURRENT);
            }
        }
        facts
    }

    /// The counters of the VM in debugfs.
    fn by_debugfs(&self, vm: &Vm, state: &mut VmState) -> Result<Vec<Fact>, ReadError> {
        let Some(dir) = debugfs::directory(&self.roots, vm, state.dir.as_ref()) else {
            return Ok(Vec::new());
        };
        let counts = debugfs::counts(&self.roots, &dir)?;
        // The directory is named by PID and descriptor, which may belong to another VM by now.
        vm.key.process().check(&self.roots)?;
        state.dir = Some(dir);
        let totals = &mut state.totals;
        let total = |(stat, now)| {
            let total = totals.entry(stat).or_default().advance(now);
            counter(&KVM_STAT, &[], stat.into(), total)
        };
        let counters = counts.into_iter().map(total);
        Ok(counters.chain([info("debugfs")]).collect())
    }

    fn read_vm(&mut self, vm: &Vm, state: &mut VmState) -> Result<Vec<Fact>, ReadError> {
        let unreadable = match self.by_descriptors(vm, state) {
            Ok(facts) => {
                state.trouble = None;
                return Ok(facts);
            }
            Err(Unread::Failed(error)) => return Err(error),
            Err(Unread::Blocked) => {
                let detail = "the process blocks copies of its descriptors (execve(2) in progress)";
                state.trouble = Some(ReasonCode::Blocked.reason(detail));
                return Err(ReadError::Failed(detail.to_owned()));
            }
            Err(Unread::Unreadable(reason)) => reason,
        };
        match debugfs::missing(&self.roots) {
            None => {
                state.trouble = None;
                self.by_debugfs(vm, state)
            }
            // The state reports the reason once, instead of an error for each VM.
            Some(reason) => {
                let detail = format!("{}, and: {}", unreadable.detail, reason.detail);
                state.trouble = Some(Reason { detail, ..reason });
                Ok(Vec::new())
            }
        }
    }
}

impl VmSource for KvmStat {
    fn state(&self) -> SourceState {
        let troubles = self.vms.values().filter_map(|vm| vm.trouble.as_ref());
        let all = troubles.clone().count() == self.vms.len();
        match Reason::first_of("VMs without counters", troubles) {
            Some(reason) if all => SourceState::Down(reason),
            Some(reason) => SourceState::Degraded(reason),
            // VMs without descriptors would have nothing.
            None if self.vms.is_empty() => {
                debugfs::missing(&self.roots).map_or(SourceState::Up, SourceState::Degraded)
            }
            None => SourceState::Up,
        }
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        let mut state = self.vms.remove(&vm.key).unwrap_or_default();
        let read = self.read_vm(vm, &mut state);
        self.vms.insert(vm.key, state);
        read
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
        self.late.forget(|of| *of == vm);
    }
}

/// KVM's ids, each with the index of its vCPU. QEMU on x86 sets the id to the APIC ID, which may
/// have gaps: then both are in the same order. None if there are not as many.
fn indexes(ids: &[u32], vcpus: &[Vcpu]) -> Vec<(u32, u32)> {
    let mut indexes: Vec<u32> = vcpus.iter().map(|vcpu| vcpu.index).collect();
    if ids.iter().all(|id| indexes.binary_search(id).is_ok()) {
        indexes = ids.to_vec();
    } else if ids.len() != indexes.len() {
        indexes.clear();
    }
    ids.iter().copied().zip(indexes).collect()
}

fn counter(
    metric: &'static Metric,
    subject: &[Label],
    stat: Cow<'static, str>,
    total: u64,
) -> Fact {
    let labels = subject.iter().cloned().chain([("stat", stat.into())]);
    Fact::int(metric, labels, total).since(Origin::Vm)
}

fn info(method: &'static str) -> Fact {
    Fact::int(&INFO, [("method", method.into())], 1)
}

/// Shows counters by name, and how long halts took. A histogram that is not of halts is shown by
/// the number of its values.
fn show(
    facts: &mut Vec<Fact>,
    subject: &[Label],
    sums: &Sums,
    [counters, halts]: [&'static Metric; 2],
) {
    let numbers = sums.by_name();
    for (name, numbers) in &numbers {
        if !HALTS.iter().any(|(_, histogram, _)| histogram == name) {
            let total = numbers.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
            facts.push(counter(counters, subject, counters::label(name), total));
        }
    }
    for (outcome, histogram, sum) in HALTS {
        if let (Some(counts), Some([sum])) = (numbers.get(histogram), numbers.get(sum)) {
            let value = FactValue::Histogram(Arc::new(Buckets::from_powers(&BOUNDS, counts, *sum)));
            let labels = subject.iter().cloned().chain([("outcome", outcome.into())]);
            facts.push(Fact::new(halts, labels, value).since(Origin::Vm));
        }
    }
}

fn show_current(
    facts: &mut Vec<Fact>,
    subject: &[Label],
    counters: &Counters,
    metric: &'static Metric,
) {
    facts.extend(counters.current().map(|(stat, now)| {
        let label = ("stat", counters::label(stat).into());
        Fact::int(metric, subject.iter().cloned().chain([label]), now)
    }));
}

fn no_descriptors() -> Reason {
    ReasonCode::NoData.reason("the VMM holds no descriptors of statistics (QEMU does from 8.1 on)")
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "kvm_stat",
        needs: "a VMM that holds descriptors of KVM's statistics, as QEMU from 8.1 on, and \
                CAP_SYS_PTRACE; else KVM debugfs: CAP_DAC_READ_SEARCH and no kernel lockdown",
        cost: "4 us per vCPU and period with descriptors (12 us with series of each vCPU), else 40 small files per VM",
    },
    about: include_str!("kvm_stat.md"),
    metrics: &[METRICS],
    make: |with| {
        let config = with.config().kvm_stat;
        Source::of_vms(
            config.enabled,
            config.period,
            KvmStat::new(config, with.roots()),
        )
    },
};

#[cfg(test)]
mod tests;
