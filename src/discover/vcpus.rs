//! Assigns threads of a VMM to vCPUs of its VMs.
//!
//! Sources in order of preference: KVM debugfs, thread names, the system call that a thread is in,
//! the results of earlier passes, and guest time. Without debugfs, several VMs in one process are
//! separated by vCPU ids alone: a repeated id belongs to the next VM, in the order of descriptors.
//! A vCPU added later can then be assigned to the wrong VM. If the kernel does not identify
//! duplicate descriptors either (`open_files`), an id repeats at most as often as there are VM
//! descriptors and threads whose names have that number.

use std::collections::{BTreeMap, HashMap};

use super::debugfs::DebugVm;
use super::process::{KvmFds, Process, Thread, VcpuFds, MAX_VMS_OF_FDS};
use super::vmm;
use super::Vcpu;

pub(super) mod ordinals;

/// Most vCPUs of a VM known only by thread names: the limit on x86 (`KVM_MAX_VCPUS`,
/// arch/x86/include/asm/kvm_host.h); other architectures have lower limits.
const MAX_VCPUS: usize = 4096;
/// Most VMs of a process known only by thread names. Real VMMs have one.
const MAX_VMS: usize = 16;
/// One VM of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct VmCandidate {
    /// The descriptor of its `kvm-vm` file, else its number in the process.
    pub(super) ordinal: u32,
    /// By index.
    pub(super) vcpus: Vec<Vcpu>,
    /// vCPUs whose thread is unknown.
    pub(super) missing: usize,
    /// Whether its threads have names of vCPUs.
    pub(super) named: bool,
}

impl VmCandidate {
    /// vCPUs without a known thread. 0 if the VMM names its threads: it has a thread for each vCPU,
    /// and QEMU keeps the descriptor of a removed vCPU.
    pub(super) fn threadless(&self) -> usize {
        if self.named {
            0
        } else {
            self.missing
        }
    }
}

/// Evidence for the vCPUs of a process.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) process: &'a Process,
    /// The process's VMs in debugfs, ascending by descriptor.
    pub(super) debugfs: &'a [DebugVm],
    /// Result of the last examination.
    pub(super) before: &'a [VmCandidate],
}

/// The VMs of a process. `running` returns the vCPU descriptor that a thread runs now.
///
/// A VM without vCPUs is not reported: QEMU creates and drops such VMs to probe for features.
pub(super) fn machines(
    evidence: &Evidence<'_>,
    mut running: impl FnMut(i32) -> Option<i32>,
) -> Vec<VmCandidate> {
    let mut assignments = assignments(evidence);
    let threads = &evidence.process.threads;
    let unbound = evidence.process.vmm.is_some_and(|vmm| vmm.unbound);
    let mut free: Vec<&Thread> = threads.iter().filter(|_| !unbound).collect();
    by_debugfs(evidence, &mut assignments, &mut free);
    by_name(evidence, &mut assignments, &mut free);
    by_call(&mut assignments, &mut free, &mut running);
    for assignment in assignments
        .iter_mut()
        .filter(|assignment| !assignment.named)
    {
        assignment.by_memory(&mut free, evidence.before);
        assignment.by_guest_time(&mut free);
    }
    // A single thread that never ran a vCPU is a child process that inherited the descriptors.
    let runs = |assignment: &Assignment| {
        !assignment.found.is_empty() || (!assignment.wanted.is_empty() && threads.len() > 1)
    };
    assignments
        .into_iter()
        .filter(runs)
        .map(Assignment::machine)
        .collect()
}

/// A VM whose vCPUs are being assigned.
#[derive(Debug, Default)]
struct Assignment {
    ordinal: u32,
    /// vCPUs known to KVM, with their descriptors if known.
    wanted: Vec<VcpuFds>,
    found: Vec<Vcpu>,
    named: bool,
}

impl Assignment {
    fn new(ordinal: usize) -> Self {
        Self {
            ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
            ..Self::default()
        }
    }

    fn wants(&self, index: u32) -> bool {
        self.wanted.iter().any(|vcpu| vcpu.id == index)
    }

    fn has(&self, index: u32) -> bool {
        self.found.iter().any(|vcpu| vcpu.index == index)
    }

    fn missing(&self) -> impl Iterator<Item = &VcpuFds> {
        self.wanted.iter().filter(|vcpu| !self.has(vcpu.id))
    }

    fn take(&mut self, index: u32, thread: &Thread, free: &mut Vec<&Thread>) {
        if self.has(index) {
            return;
        }
        free.retain(|t| t.tid != thread.tid);
        self.found.push(Vcpu {
            index,
            tid: thread.tid,
            start_time: thread.start_time,
        });
    }

    /// Threads that were vCPUs in the last examination and still run.
    fn by_memory(&mut self, free: &mut Vec<&Thread>, before: &[VmCandidate]) {
        let same = before
            .iter()
            .find(|machine| machine.ordinal == self.ordinal);
        for vcpu in same.map(|m| m.vcpus.as_slice()).unwrap_or_default() {
            let lives = |t: &&&Thread| t.tid == vcpu.tid && t.start_time == vcpu.start_time;
            let thread = free.iter().find(lives).copied();
            if let Some(thread) = thread.filter(|_| self.wants(vcpu.index)) {
                self.take(vcpu.index, thread, free);
            }
        }
    }

    /// Threads with guest time, by start time, because VMMs start vCPUs in order. Only if there are
    /// as many as unassigned vCPUs; otherwise it would be a guess.
    fn by_guest_time(&mut self, free: &mut Vec<&Thread>) {
        let ran: Vec<&Thread> = free.iter().copied().filter(|t| t.guest_ticks > 0).collect();
        let mut missing: Vec<u32> = self.missing().map(|vcpu| vcpu.id).collect();
        missing.sort_unstable();
        if ran.len() == missing.len() {
            for (index, thread) in missing.into_iter().zip(ran) {
                self.take(index, thread, free);
            }
        }
    }

    fn machine(mut self) -> VmCandidate {
        self.found.sort_unstable_by_key(|vcpu| vcpu.index);
        VmCandidate {
            ordinal: self.ordinal,
            missing: self.wanted.len().saturating_sub(self.found.len()),
            vcpus: self.found,
            named: self.named,
        }
    }
}

/// The VMs of the process: from debugfs, else from its descriptors, else one.
fn assignments(evidence: &Evidence<'_>) -> Vec<Assignment> {
    let fds = evidence.process.fds.clone().unwrap_or_default();
    if evidence.debugfs.is_empty() {
        return assignments_of_fds(&fds, evidence.process);
    }
    let mut assignments: Vec<Assignment> = Vec::new();
    for vm in evidence.debugfs {
        let mut assignment = Assignment::new(vm.fd as usize);
        let ids = vm.vcpus.iter().map(|(id, _)| *id);
        assignment.wanted = ids.map(|id| VcpuFds { id, fds: vec![] }).collect();
        assignments.push(assignment);
    }
    for (id, vcpus) in by_id(&fds) {
        let wanted = assignments
            .iter_mut()
            .flat_map(|assignment| &mut assignment.wanted);
        let mut wanted: Vec<&mut VcpuFds> = wanted.filter(|vcpu| vcpu.id == id).collect();
        let shares = shares(&vcpus, wanted.len());
        for (vcpu, fds) in wanted.iter_mut().zip(shares) {
            vcpu.fds = fds;
        }
    }
    assignments
}

fn assignments_of_fds(fds: &KvmFds, process: &Process) -> Vec<Assignment> {
    let by_id = by_id(fds);
    let vms = count_vms(fds, &by_id, process);
    // The first of several duplicates: they are adjacent where a VM is created.
    let apart = (fds.vms.len() / vms).max(1);
    let ordinal = |n: usize| fds.vms.get(n * apart).map_or(n, |fd| *fd as usize);
    let mut assignments: Vec<Assignment> = (0..vms).map(|n| Assignment::new(ordinal(n))).collect();
    for (id, vcpus) in &by_id {
        for (assignment, fds) in assignments.iter_mut().zip(shares(vcpus, vms)) {
            assignment.wanted.push(VcpuFds { id: *id, fds });
        }
    }
    assignments
}

/// How many VMs the descriptors of a process belong to: as many as the most frequent vCPU id has
/// vCPUs.
fn count_vms(fds: &KvmFds, by_id: &BTreeMap<u32, Vec<VcpuFds>>, process: &Process) -> usize {
    let most = by_id.values().map(Vec::len).max().unwrap_or(0);
    let most = most.clamp(1, MAX_VMS_OF_FDS);
    if fds.distinct {
        return most;
    }
    // Some descriptors may be duplicates. A single VM descriptor means one VM.
    let most = most.min(fds.vms.len()).max(1);
    let mut named: BTreeMap<u32, usize> = BTreeMap::new();
    for index in process
        .threads
        .iter()
        .filter_map(|t| index_in_name(process, t))
    {
        *named.entry(index).or_default() += 1;
    }
    named.values().max().map_or(most, |named| most.min(*named))
}

/// The vCPUs of each id, in the order of their descriptors.
fn by_id(fds: &KvmFds) -> BTreeMap<u32, Vec<VcpuFds>> {
    let mut by_id: BTreeMap<u32, Vec<VcpuFds>> = BTreeMap::new();
    for vcpu in &fds.vcpus {
        by_id.entry(vcpu.id).or_default().push(vcpu.clone());
    }
    by_id
}

/// Distributes descriptors of one id to as many VMs, in order: duplicates are adjacent.
fn shares(vcpus: &[VcpuFds], vms: usize) -> Vec<Vec<i32>> {
    let size = vcpus.len().div_ceil(vms.max(1)).max(1);
    let together = |share: &[VcpuFds]| share.iter().flat_map(|vcpu| vcpu.fds.clone()).collect();
    vcpus.chunks(size).map(together).collect()
}

/// Threads listed in debugfs; the index comes from the thread name if possible, else from KVM.
fn by_debugfs(evidence: &Evidence<'_>, assignments: &mut [Assignment], free: &mut Vec<&Thread>) {
    for (assignment, vm) in assignments.iter_mut().zip(evidence.debugfs) {
        for (id, tid) in &vm.vcpus {
            let Some(thread) = free.iter().copied().find(|t| Some(t.tid) == *tid) else {
                continue;
            };
            let named = index_in_name(evidence.process, thread);
            assignment.named |= named.is_some();
            let index = named.filter(|n| !assignment.has(*n)).unwrap_or(*id);
            assignment.take(index, thread, free);
        }
    }
}

/// Threads whose names say which vCPU they are. Any user can name a thread, so a VM gets at most as
/// many as KVM has vCPUs for it.
fn by_name(evidence: &Evidence<'_>, assignments: &mut Vec<Assignment>, free: &mut Vec<&Thread>) {
    let gaps = evidence.process.fds.is_none() && evidence.debugfs.is_empty();
    let room = |assignment: &Assignment| {
        if gaps {
            assignment.found.len() < MAX_VCPUS
        } else {
            assignment.found.len() < assignment.wanted.len()
        }
    };
    for thread in free.clone() {
        let Some(index) = index_in_name(evidence.process, thread) else {
            continue;
        };
        let single = assignments.len() == 1;
        let fits = |assignment: &Assignment| {
            !assignment.has(index)
                && room(assignment)
                && (assignment.wants(index) || single || gaps)
        };
        let n = assignments.iter().position(fits);
        let n = n.or_else(|| {
            let next = assignments.len();
            let may = gaps && next < MAX_VMS;
            may.then(|| assignments.push(Assignment::new(next)))
                .map(|()| next)
        });
        if let Some(assignment) = n.and_then(|n| assignments.get_mut(n)) {
            assignment.named = true;
            assignment.take(index, thread, free);
        }
    }
}

/// Threads in KVM_RUN on a descriptor of an unassigned vCPU. Each thread is read once for all VMs,
/// until the last vCPU is assigned.
fn by_call(
    assignments: &mut [Assignment],
    free: &mut Vec<&Thread>,
    running: &mut impl FnMut(i32) -> Option<i32>,
) {
    let mut missing = 0;
    let mut wanted: HashMap<i32, (usize, u32)> = HashMap::new();
    for (n, assignment) in assignments
        .iter()
        .enumerate()
        .filter(|(_, assignment)| !assignment.named)
    {
        for vcpu in assignment.missing().filter(|vcpu| !vcpu.fds.is_empty()) {
            missing += 1;
            wanted.extend(vcpu.fds.iter().map(|fd| (*fd, (n, vcpu.id))));
        }
    }
    for thread in free.clone() {
        if missing == 0 {
            return;
        }
        let vcpu = running(thread.tid).and_then(|fd| wanted.get(&fd));
        let Some((n, index)) = vcpu else { continue };
        if let Some(assignment) = assignments
            .get_mut(*n)
            .filter(|assignment| !assignment.has(*index))
        {
            assignment.take(*index, thread, free);
            missing -= 1;
        }
    }
}

fn index_in_name(process: &Process, thread: &Thread) -> Option<u32> {
    match process.vmm {
        Some(vmm) => vmm.vcpu_index(&thread.comm),
        None => vmm::any_vcpu(&thread.comm),
    }
}

#[cfg(test)]
mod tests;
