//! Scans all processes, at little cost while nothing changes.
//!
//! A pass makes three cheap checks per process and one per vCPU ([`Watch`]), and examines only
//! processes that changed. A change is found:
//!
//! - for a new process, an exec, an opened descriptor, or a started or exited thread: in this pass;
//! - for a process with more than [`known::MANY`] descriptors or threads whose number changes all
//!   the time and that was no VMM so far: within [`known::BUSY_PASSES`] passes per [`known::MANY`],
//!   so that opening files cannot keep the scan busy;
//! - if more than about 30,000 descriptors change in each pass, of any users: over several passes
//!   (`budget`), but new processes and changed VMMs of users with low cost in this pass;
//! - before Linux 6.2, which does not count descriptors in /proc, for a process that becomes a VMM
//!   without a change of its threads: within [`ROTATION`] passes;
//! - for a changed cgroup or command line of a running VMM: when anything else of the VMM changes;
//! - for a process that blocks readers of its memory: in the pass after it stops.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use super::blocked::Reads;
use super::debugfs::{DebugVm, Debugfs};
use super::domains::Domains;
use super::naming::Names;
use super::open_files::OpenFiles;
use super::process::{examine, running_vcpu, Examined, Process, THREAD};
use super::vcpus::{machines, ordinals, Evidence};
use super::visibility::{no_processes, VisibilityGaps};
use super::vmm_process::{name_all, VmmProcess};
use super::watch::{ProcessFingerprint, Watch};
use super::{Inventory, Vm};
use crate::host::readers::Blocked;
use crate::host::roots::Roots;
use crate::host::task::is_gone;
use crate::host::topology::Topology;

/// Passes within which every process is examined once if the kernel does not count descriptors.
const ROTATION: u64 = 12;

mod budget;
mod known;

use budget::{Budget, Turn};
use known::{Known, Role};

/// Finds the VMs of the host.
#[derive(Debug)]
pub struct Scanner {
    roots: Arc<Roots>,
    watch: Watch,
    domains: Domains,
    names: Names,
    open_files: OpenFiles,
    reads: Reads,
    budget: Budget,
    known: HashMap<i32, Known>,
    pids: Vec<i32>,
    pass: u64,
    counts_descriptors: bool,
    /// Whether procfs hides processes.
    hides: bool,
    inventory: Arc<Inventory>,
}

impl Scanner {
    /// A scanner with no known processes.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self {
            watch: Watch::new(roots.clone()),
            domains: Domains::new(roots.clone()),
            names: Names::default(),
            open_files: OpenFiles::new(&roots),
            reads: Reads::new(roots.clone()),
            roots,
            budget: Budget::default(),
            known: HashMap::new(),
            pids: Vec::new(),
            pass: 0,
            counts_descriptors: false,
            hides: false,
            inventory: Arc::default(),
        }
    }

    /// Scans the host. Returns the same `Arc` if nothing changed, else a new inventory with the
    /// next generation; the first generation is 1. If /proc cannot be listed, the inventory keeps
    /// the last VMs and reports a visibility gap.
    pub fn scan(&mut self, topology: &Arc<Topology>) -> Arc<Inventory> {
        let seen = self.look_around();
        let same_domains = !self.domains.refresh();
        let same_topology = Arc::ptr_eq(&self.inventory.topology, topology);
        let first = self.inventory.generation == 0;
        let gaps = self.gaps();
        let (vms, visibility_gaps) = match seen {
            Ok(Changed(false)) if same_domains && same_topology && !first => {
                return self.inventory.clone();
            }
            Ok(_) => (self.vms(), gaps.list()),
            Err(error) => (
                self.inventory.vms.clone(),
                vec![no_processes(&self.roots.proc, &error)],
            ),
        };
        let before = &self.inventory;
        let same = same_topology && vms == before.vms && visibility_gaps == before.visibility_gaps;
        if first || !same {
            self.inventory = Arc::new(Inventory {
                generation: before.generation + 1,
                topology: topology.clone(),
                vms,
                visibility_gaps,
                blocked: gaps.blocked,
            });
        }
        self.inventory.clone()
    }

    /// Checks every process and forgets those that exited.
    fn look_around(&mut self) -> io::Result<Changed> {
        let mut pids = std::mem::take(&mut self.pids);
        self.watch.pids(&mut pids)?;
        self.pass += 1;
        self.reads.begin_pass();
        // A pending read may have become a hanging one.
        let mut changed = self.reads.any_pending();
        let mut due = Vec::new();
        for pid in &pids {
            changed |= self.visit(*pid, &mut due).0;
        }
        changed |= self.take_turns(due).0;
        let hides = self.watch.hides(&pids);
        changed |= hides != std::mem::replace(&mut self.hides, hides);
        self.pids = pids;
        let pass = self.pass;
        let reads = &mut self.reads;
        self.known.retain(|pid, known| {
            let gone = known.seen != pass;
            changed |= gone && known.matters();
            if gone && known.blocked.is_some() {
                reads.forget(*pid);
            }
            !gone
        });
        Ok(Changed(changed))
    }

    /// Makes the cheap checks of a process and adds it to `due` if it must be examined.
    fn visit(&mut self, pid: i32, due: &mut Vec<Turn<ProcessFingerprint>>) -> Changed {
        let look = match self.watch.fingerprint(pid) {
            Ok(look) => look,
            Err(error) if is_gone(&error) => return Changed(false), // removed after the pass
            Err(_) => return self.closed(pid),
        };
        self.counts_descriptors |= look.counts_descriptors();
        let known = self.known.get_mut(&pid);
        let news = known.as_ref().is_none_or(|known| known.is_news(&look));
        let (mut cost, mut examined) = (look.cost(true), 0);
        if let Some(known) = known {
            let rotation = !self.counts_descriptors && (pid as u64 + self.pass) % ROTATION == 0;
            let answered = known.blocked.is_some() && !self.reads.is_pending(pid);
            let due = rotation || answered || known.is_due(&look, self.pass);
            known.seen = self.pass; // a process that waits for its turn keeps its role
            if !due && known.has_its_threads(pid, &self.watch) {
                return Changed(false);
            }
            cost = look.cost(known.matters()).max(known.cost);
            examined = known.examined;
        }
        due.push(Turn {
            pid,
            user: look.user,
            news,
            examined,
            cost,
            what: look,
        });
        Changed(false)
    }

    /// Examines processes while the budget lasts.
    fn take_turns(&mut self, mut due: Vec<Turn<ProcessFingerprint>>) -> Changed {
        let mut debugfs = Debugfs::default();
        let mut changed = false;
        self.budget.order(&mut due);
        for turn in due {
            if !self.budget.affords(&turn) {
                break;
            }
            let mut cost = 0;
            changed |= self.examine(turn.pid, turn.what, &mut debugfs, &mut cost).0;
            self.budget.spend(turn.user, cost);
            if let Some(known) = self.known.get_mut(&turn.pid) {
                known.cost = cost;
            }
        }
        self.budget.refill();
        Changed(changed)
    }

    fn examine(
        &mut self,
        pid: i32,
        look: ProcessFingerprint,
        debugfs: &mut Debugfs,
        cost: &mut u64,
    ) -> Changed {
        let mut before = self.known.remove(&pid);
        let mattered = before.as_ref().is_some_and(Known::matters);
        if let Some(known) = &mut before {
            known.retries = known.retries.saturating_sub(1);
        }
        let same_program = |known: &&Known| known.look.same_program(&look);
        if !before.as_ref().is_some_and(|known| same_program(&known)) {
            self.reads.forget(pid);
        }
        let cmdline = before
            .as_ref()
            .filter(same_program)
            .and_then(Known::cmdline);
        let (files, reads) = (&self.open_files, &mut self.reads);
        let found = match examine(&self.roots, files, reads, pid, cmdline, cost) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Changed(mattered),
            Err(error) => {
                // For example, no free descriptor: keep the known state and retry.
                tracing::debug!(pid, %error, "cannot examine the process");
                if let Some(known) = &mut before {
                    known.seen = self.pass;
                }
                self.known.extend(before.map(|known| (pid, known)));
                return Changed(false);
            }
        };
        let (role, blocked) = match found {
            Examined::Other => (Role::Other, None),
            Examined::Hidden => (Role::Hidden, None),
            Examined::Blocked(blocked) => (Role::Other, Some(blocked)),
            Examined::Vmm(process) => {
                let blocked = process.blocked;
                let role = self.vmm(*process, before.as_ref(), debugfs, cost);
                (role, blocked)
            }
        };
        self.known.extend(before.map(|known| (pid, known)));
        self.remember(pid, look, role, blocked)
    }

    /// A process on which procfs denies even stat.
    fn closed(&mut self, pid: i32) -> Changed {
        match self.known.get_mut(&pid) {
            Some(known) if matches!(known.role, Role::Hidden) => {
                known.seen = self.pass;
                Changed(false)
            }
            _ => self.remember(pid, ProcessFingerprint::default(), Role::Hidden, None),
        }
    }

    fn remember(
        &mut self,
        pid: i32,
        look: ProcessFingerprint,
        role: Role,
        blocked: Option<Blocked>,
    ) -> Changed {
        let before = self.known.remove(&pid);
        let known = Known {
            look,
            seen: self.pass,
            examined: self.pass,
            cost: 0,
            retries: role.retries(before.as_ref(), &look),
            blocked,
            role,
        };
        let changed = known.matters() || before.is_some_and(|before| before.matters());
        self.known.insert(pid, known);
        Changed(changed)
    }

    fn vmm(
        &mut self,
        process: Process,
        before: Option<&Known>,
        debugfs: &mut Debugfs,
        cost: &mut u64,
    ) -> Role {
        let in_debugfs = self.in_debugfs(&process, debugfs);
        let files = in_debugfs.iter().map(|vm| vm.vcpus.len() as u64);
        *cost += THREAD * files.sum::<u64>();
        let evidence = Evidence {
            process: &process,
            debugfs: &in_debugfs,
            before: before.map(Known::machines).unwrap_or_default(),
        };
        let (roots, reads) = (&self.roots, &mut self.reads);
        // If one read of a process blocks, the next one would block too.
        let mut blocked = process.blocked.is_some();
        let mut machines = machines(&evidence, |tid| {
            *cost += THREAD;
            let fd = (!blocked).then(|| running_vcpu(roots, reads, &process, tid));
            blocked |= reads.is_pending(process.pid);
            fd.flatten()
        });
        if in_debugfs.is_empty() {
            ordinals::keep(&mut machines, evidence.before);
        }
        let tids = machines.iter().flat_map(|m| &m.vcpus).map(|vcpu| vcpu.tid);
        let stamps = tids.filter_map(|tid| Some((tid, self.watch.thread(process.pid, tid)?)));
        let stamps = stamps.collect();
        Role::Vmm(
            Box::new(VmmProcess::new(process, machines, !in_debugfs.is_empty())),
            stamps,
        )
    }

    /// The process's VMs in debugfs: those that its tasks created, else those that its threads run.
    fn in_debugfs(&self, process: &Process, debugfs: &mut Debugfs) -> Vec<DebugVm> {
        let tasks = process.threads.iter().map(|t| t.tid);
        let threads: HashSet<i32> = tasks.clone().collect();
        let is_thread = |tid| threads.contains(&tid);
        let fds = process.fds.as_ref();
        let ids = fds.iter().flat_map(|fds| &fds.vcpus).map(|vcpu| vcpu.id);
        let ids = ids.collect();
        let mut vms = debugfs.created_by(&self.roots, tasks);
        vms.retain(|vm| vm.is_of(is_thread, fds, &ids));
        if vms.is_empty() {
            vms = debugfs.run_by(&self.roots, is_thread);
            vms.retain(|vm| vm.is_of(is_thread, fds, &ids));
        }
        vms
    }

    fn guests(&self) -> impl Iterator<Item = &VmmProcess> {
        self.known.values().filter_map(|known| match &known.role {
            Role::Vmm(guest, _) => Some(guest.as_ref()),
            _ => None,
        })
    }

    /// All VMs by name; an unchanged VM keeps its `Arc`.
    fn vms(&mut self) -> Vec<Arc<Vm>> {
        let guests = self.guests();
        let vms = guests.flat_map(|guest| guest.vms(self.domains.domain_of(guest.pid)));
        let vms = vms.collect();
        let vms = name_all(vms, &mut self.names);
        let before: HashMap<_, _> = self.inventory.vms.iter().map(|vm| (vm.key, vm)).collect();
        let keep = |vm: Vm| match before.get(&vm.key) {
            Some(old) if ***old == vm => Arc::clone(old),
            _ => Arc::new(vm),
        };
        vms.into_iter().map(keep).collect()
    }

    fn gaps(&self) -> VisibilityGaps {
        let hidden = |known: &Known| matches!(known.role, Role::Hidden);
        let mut gaps = VisibilityGaps {
            invisible: self.hides,
            hidden: self.known.values().any(hidden),
            ..VisibilityGaps::default()
        };
        let hangs = |pid: i32, known: &Known| {
            let blocked = known.blocked;
            blocked.is_some_and(|blocked| blocked.for_long || self.reads.hangs(pid))
        };
        let blocked = self.known.iter().filter(|(pid, known)| hangs(**pid, known));
        let pids: Vec<i32> = blocked.map(|(pid, _)| *pid).collect();
        gaps.blocked = pids.len();
        gaps.first_blocked = pids.into_iter().min().unwrap_or_default();
        for guest in self.guests() {
            gaps.by_name += usize::from(guest.hidden) * guest.machines.len();
            gaps.threads += guest.unknown_threads();
            gaps.mixed += usize::from(guest.mixed);
            gaps.unbound += usize::from(guest.unbound) * guest.machines.len();
            let stateless = guest.in_libvirt() && self.domains.domain_of(guest.pid).is_none();
            gaps.domains += usize::from(self.domains.unreadable && stateless);
        }
        gaps
    }
}

/// Whether an inventory built now could differ from the last one.
#[derive(Debug, Clone, Copy)]
struct Changed(bool);

#[cfg(test)]
mod blocked_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod visibility_tests;
