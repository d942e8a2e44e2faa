//! The `memory` source: the NUMA nodes and page sizes of a guest's memory.
//!
//! Two methods, the cheap one first:
//!
//! - `cgroup`: the kernel's own counters, if a VM has a cgroup v2 group to itself with the memory
//!   controller. They include the VMM's own memory, some tens of megabytes. Private memory of a
//!   confidential VM (guest_memfd) is only in these counters.
//! - `walk`: the page tables of the mappings that are guest RAM, from /proc/PID/smaps and
//!   numa_maps. It is exact, but takes about 60 ns for each resident page and file (measured on
//!   Linux 6.18; 1.5 µs for a huge page), and the VMM cannot change its mappings meanwhile.
//!
//! So a VM is walked only if the walk is expected to fit `sources.memory.budget`. A walk that
//! exceeds the budget is stopped, and the VM is not walked again for an hour, then longer each
//! time. All walks together take at most the share of one core that `pace` allows. `clear_refs`,
//! which could separate hot from cold memory, is never written: it flushes the guest's TLB.
//!
//! Feeds `kvm_vm_memory_bytes`, `kvm_vm_memory_backing_bytes`, `kvm_vm_memory_info` and
//! `kvm_vm_memory_sample_timestamp_seconds`.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config;
use crate::discover::{Vm, VmKey};
use crate::engine::schedule::back_off;
use crate::engine::{Fact, ReadError, Source, SourceInfo, SourceState, VmSource};
use crate::host::cgroup::{Hierarchy, Mounts};
use crate::host::fds::Descriptors;
use crate::host::memory::{parse_resident, text, Nodes, Resident};
use crate::host::readers::Payer;
use crate::host::roots::Roots;
use crate::host::task::{Task, TaskError};
use crate::metric::{metrics, FactValue, Keys, Metric};
use crate::sources::Entry;

mod cgroup;
mod pace;
mod ram;
mod unknown;
mod walk;

use pace::Bucket;
use unknown::UnknownMemory;
use walk::{Failure, Walked};

metrics! { METRICS of "memory":
    MEMORY = Metric::gauge("kvm_vm_memory_bytes", Keys::Vm, &["numa_node"],
        "Resident memory of the guest by NUMA node; with method cgroup (kvm_vm_memory_info) it includes the VMM's own memory");
    MEMORY_BACKING = Metric::gauge("kvm_vm_memory_backing_bytes", Keys::Vm, &["backing"],
        "Resident memory of the guest by page size: 4k (the base page size), thp, hugetlb_2m, hugetlb_1g");
    MEMORY_INFO = Metric::info("kvm_vm_memory_info", Keys::Vm, &["method"],
        "How the VM's memory was measured: cgroup, numa_maps (with smaps) or smaps");
    MEMORY_SAMPLE_TIMESTAMP = Metric::gauge("kvm_vm_memory_sample_timestamp_seconds", Keys::Vm, &[],
        "Unix time at which the VM's memory was read");
}

/// Each period has this many slices; the VMs that are due are read in each slice. So no walk waits
/// for all others, and a new VM waits at most one slice.
const SLICES: u32 = 12;

/// Shortest slice.
const LEAST_SLICE: Duration = Duration::from_secs(1);

/// Time allowed beyond the budget: a walk stops only between two reads from the kernel.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause after a VM's first walk that exceeded the budget; it doubles each time.
const REST: Duration = Duration::from_secs(3600);

/// Longest such pause.
const MOST_REST: Duration = Duration::from_secs(24 * 3600);

/// The `memory` source.
pub struct Memory {
    config: config::Memory,
    roots: Arc<Roots>,
    /// The cgroup v2 hierarchy, once it is mounted.
    unified: Option<Hierarchy>,
    vms: HashMap<VmKey, VmState>,
    bucket: Bucket,
}

struct VmState {
    due: Instant,
    /// Whether it waits for its turn to be walked.
    waits: bool,
    /// Number of consecutive walks that exceeded the budget.
    overruns: u32,
    facts: Vec<Fact>,
    trouble: Option<UnknownMemory>,
}

/// Memory of a VM in one read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    /// Value of the `method` label.
    method: &'static str,
    /// Bytes on each node; `None` if unknown.
    nodes: Option<Nodes>,
    /// Bytes by `backing` label.
    backing: BTreeMap<String, u64>,
}

/// Result of a read of a VM.
enum VmRead {
    /// Its memory, and why part of it is unknown.
    Found(Sample, Option<UnknownMemory>),
    Unknown(UnknownMemory),
    /// The VM is too small to separate guest RAM from the VMM's own memory.
    Nothing,
    /// It is not its turn to be walked.
    Waits,
    Gone,
}

impl Memory {
    /// A source that reads below `roots`.
    pub fn new(config: &config::Memory, roots: Arc<Roots>) -> Self {
        Self {
            config: config.clone(),
            unified: Mounts::detect(&roots).unified,
            roots,
            vms: HashMap::new(),
            bucket: Bucket::new(Instant::now()),
        }
    }

    /// Time between two passes over the VMs.
    fn period(&self) -> Duration {
        LEAST_SLICE.max(self.config.period / SLICES)
    }

    fn read_at(&mut self, vm: &Vm, now: Instant) -> Result<Vec<Fact>, ReadError> {
        let kept = self.vms.entry(vm.key).or_insert_with(|| VmState::new(now));
        if kept.due > now {
            return Ok(kept.facts.clone());
        }
        let look = self.sample(vm, now);
        let look = match vm.key.process().check(&self.roots) {
            Ok(()) => look,
            Err(error) => Failure::from(error).into(),
        };
        let (period, roots) = (self.config.period, &self.roots);
        let Some(kept) = self.vms.get_mut(&vm.key) else {
            return Ok(Vec::new());
        };
        kept.waits = matches!(look, VmRead::Waits);
        (kept.facts, kept.trouble) = match look {
            VmRead::Waits => return Ok(kept.facts.clone()),
            VmRead::Gone => {
                self.vms.remove(&vm.key);
                return Err(ReadError::Gone);
            }
            VmRead::Found(sample, trouble) => (facts(&sample, roots), trouble),
            VmRead::Unknown(trouble) => (Vec::new(), Some(trouble)),
            VmRead::Nothing => (Vec::new(), None),
        };
        kept.due = now + period.max(kept.rest());
        Ok(kept.facts.clone())
    }

    fn sample(&mut self, vm: &Vm, now: Instant) -> VmRead {
        let (pid, process) = (vm.key.pid, vm.key.process());
        let resident = match resident(&self.roots, process) {
            Ok(resident) => resident,
            Err(error) => return Failure::from(error).into(),
        };
        let shares = |other: &VmKey| other.process() == process && *other != vm.key;
        if self.vms.keys().any(shares) {
            return VmRead::Unknown(UnknownMemory::SharedProcess);
        }
        let guest_memfd = holds_guest_memfd(&self.roots, pid);
        if let Some(sample) = resident.and_then(|r| self.by_cgroup(pid, r, guest_memfd)) {
            return VmRead::Found(sample, None);
        }
        if guest_memfd {
            return VmRead::Unknown(UnknownMemory::GuestMemfd);
        }
        if self.config.budget.is_zero() {
            return VmRead::Unknown(UnknownMemory::WalksOff);
        }
        let numa = walk::Numa::read(&self.roots);
        let huge = pace::HugePages::read(&self.roots);
        let expected = resident.map_or(Duration::ZERO, |r| pace::expected(r, huge, numa.files()));
        if expected > self.config.budget {
            return VmRead::Unknown(UnknownMemory::TooLarge(self.config.budget));
        }
        if !self.is_its_turn(vm.key, now) {
            return VmRead::Waits;
        }
        match self.walk(vm.key, resident, &numa) {
            VmRead::Unknown(UnknownMemory::NoRam) if resident.is_some_and(ram::is_tiny) => {
                VmRead::Nothing
            }
            look => look,
        }
    }

    fn by_cgroup(&mut self, pid: i32, resident: Resident, guest_memfd: bool) -> Option<Sample> {
        if self.unified.is_none() {
            self.unified = Mounts::detect(&self.roots).unified;
        }
        let path = self.roots.proc.join(format!("{pid}/cgroup"));
        let text = text::small(&self.roots, &path).ok()?;
        let process = cgroup::MemoryOwner {
            cgroup: std::str::from_utf8(&text).ok()?,
            resident,
            guest_memfd,
        };
        cgroup::sample(&self.roots, self.unified.as_mut()?, process)
    }

    /// Whether a walk may start: time is left, and no other VM has waited longer.
    fn is_its_turn(&mut self, vm: VmKey, now: Instant) -> bool {
        let due = self.vms.get(&vm).map_or(now, |kept| kept.due);
        let longer = |kept: &VmState| kept.waits && kept.due < due;
        self.bucket.has_time(now) && !self.vms.values().any(longer)
    }

    fn walk(&mut self, vm: VmKey, before: Option<Resident>, numa: &walk::Numa) -> VmRead {
        let budget = self.config.budget;
        let Some((walked, took)) = self.walk_aside(vm, before, numa) else {
            return VmRead::Unknown(UnknownMemory::Blocked);
        };
        self.bucket.take(took);
        let overrun = took >= budget;
        if let Some(kept) = self.vms.get_mut(&vm) {
            kept.overruns = if overrun { kept.overruns + 1 } else { 0 };
        }
        match walked {
            Ok((sample, _)) if overrun => {
                VmRead::Found(sample, Some(UnknownMemory::TooSlow(budget)))
            }
            Ok((sample, trouble)) => VmRead::Found(sample, trouble),
            Err(Failure::Spent) => VmRead::Unknown(UnknownMemory::TooSlow(budget)),
            Err(failure) => failure.into(),
        }
    }

    /// Walks on a separate thread, because the process can block the reads for any time; `None` if
    /// it does.
    fn walk_aside(
        &self,
        vm: VmKey,
        before: Option<Resident>,
        numa: &walk::Numa,
    ) -> Option<(Result<Walked, Failure>, Duration)> {
        let (roots, numa, budget) = (self.roots.clone(), numa.clone(), self.config.budget);
        let walk = move || {
            let start = Instant::now();
            let spent = || start.elapsed() >= budget;
            let all = |resident: Option<Resident>| resident.map_or(0, Resident::all);
            let grown = || {
                let after = resident(&roots, vm.process()).ok().flatten();
                all(after).saturating_sub(all(before))
            };
            let walked = walk::walk(&roots, vm.pid, &numa, spent, grown);
            (walked, start.elapsed())
        };
        let payer = Payer::of_thread(&self.roots, vm.pid);
        let ticket = self.roots.readers.begin(payer, walk).ok()?;
        ticket.wait(budget + PATIENCE)
    }
}

/// Memory counters of the process; `None` if its kernel does not report them.
fn resident(roots: &Roots, process: Task) -> Result<Option<Resident>, TaskError> {
    let path = process.dir(roots).join("status");
    match text::small(roots, &path) {
        Ok(status) => Ok(parse_resident(&status)),
        Err(error) => Err(TaskError::new(path, error)),
    }
}

impl From<Failure> for VmRead {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gone => VmRead::Gone,
            Failure::Unknown(trouble) => VmRead::Unknown(trouble),
            // Only a walk can run out of time, and it handles that itself.
            Failure::Spent => VmRead::Waits,
        }
    }
}

impl VmState {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            waits: false,
            overruns: 0,
            facts: Vec::new(),
            trouble: None,
        }
    }

    fn rest(&self) -> Duration {
        match self.overruns {
            0 => Duration::ZERO,
            n => back_off(REST, MOST_REST, n),
        }
    }
}

impl VmSource for Memory {
    fn state(&self) -> SourceState {
        let all = self.vms.values();
        unknown::state(all.map(|kept| kept.trouble.as_ref()))
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        self.read_at(vm, Instant::now())
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
    }
}

/// The facts of a sample. Host nodes without memory of the VM have 0.
fn facts(sample: &Sample, roots: &Roots) -> Vec<Fact> {
    let mut facts = Vec::new();
    if let Some(known) = &sample.nodes {
        let mut nodes: Nodes = walk::nodes(roots).iter().map(|node| (*node, 0)).collect();
        nodes.extend(known);
        facts.extend(nodes.iter().map(|(node, bytes)| {
            let label = ("numa_node", (*node).into());
            Fact::int(&MEMORY, [label], *bytes)
        }));
    }
    facts.extend(sample.backing.iter().map(|(backing, bytes)| {
        let label = ("backing", backing.clone().into());
        Fact::int(&MEMORY_BACKING, [label], *bytes)
    }));
    let method = ("method", sample.method.into());
    facts.push(Fact::int(&MEMORY_INFO, [method], 1));
    let taken = SystemTime::now().duration_since(UNIX_EPOCH);
    let taken = taken.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    let metric = &MEMORY_SAMPLE_TIMESTAMP;
    facts.push(Fact::new(metric, [], FactValue::Nanoseconds(taken)));
    facts
}

/// Whether the process has an open guest_memfd (Linux 6.8, virt/kvm/guest_memfd.c): private memory
/// of a guest, which is in none of the process's own counters and page tables. `false` if its
/// descriptors cannot be read.
fn holds_guest_memfd(roots: &Roots, pid: i32) -> bool {
    let mut found = false;
    let look = |_, target: &[u8]| {
        // `anon_inode:[kvm-gmem]`, or a file of that name in KVM's own file system.
        let target = String::from_utf8_lossy(target);
        let name = target.rsplit([':', '/']).next().unwrap_or_default();
        found |= name.trim_end_matches(" (deleted)") == "[kvm-gmem]";
        if found {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let descriptors = Descriptors::list(roots, &roots.proc.join(pid.to_string()));
    descriptors.and_then(|fds| fds.targets(look)).is_ok() && found
}

/// A `backing` map with 0 bytes in base pages and in transparent huge pages.
fn no_memory() -> BTreeMap<String, u64> {
    BTreeMap::from([(base_pages(), 0), ("thp".to_owned(), 0)])
}

/// The `backing` label of memory that is not in huge pages.
fn base_pages() -> String {
    crate::host::memory::size_name(rustix::param::page_size() as u64)
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "memory",
        needs: "a cgroup v2 group for each VM, else CAP_SYS_PTRACE to walk its page tables",
        cost: "a few small files per VM; page table walks take at most 2 % of a core",
    },
    about: include_str!("memory.md"),
    metrics: &[METRICS],
    make: |with| {
        let config = &with.config().memory;
        let memory = Memory::new(config, with.roots());
        Source::of_vms(config.enabled, memory.period(), memory)
    },
};

#[cfg(test)]
mod tests;
