//! The scan: all processes, again and again, at little cost while nothing changes.
//!
//! A pass asks [`Watch`] three questions a process and one a vCPU, and looks closely only at what
//! looks different. Bounds of what that finds:
//!
//! - a new process, an exec, an opened descriptor, a started or ended thread: this pass;
//! - a process with more than [`MANY`] descriptors or threads whose number changes all the time,
//!   and that was no VMM so far: within [`BUSY_PASSES`] passes for each so many, so that nobody
//!   can keep the scan busy by opening files;
//! - more than some 16,000 descriptors and threads of one user's processes that change in a pass:
//!   by and by (`budget`), root's and small known VMMs at once;
//! - before Linux 6.2, which does not count descriptors in /proc, a process that becomes a VMM
//!   without a change in its threads: within [`ROTATION`] passes;
//! - a changed cgroup or command line of a running VMM: when anything else of it changes;
//! - a process that holds up who reads its memory: the pass after it no longer does.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::blind::{no_processes, Blind};
use super::blocked::{Blocked, Reads};
use super::cmdline::Cmdline;
use super::debugfs::{DebugVm, Debugfs};
use super::domains::Domains;
use super::guest::{name_all, Guest};
use super::naming::Names;
use super::open_files::OpenFiles;
use super::process::{examine, is_gone, running_vcpu, Found, Process};
use super::vcpus::{machines, ordinals, Evidence, Machine};
use super::watch::{Look, Mark, Watch};
use super::{Inventory, Vm};
use crate::host::roots::Roots;
use crate::host::topology::Topology;

/// Descriptors or threads from which on a look at all of them is dear (some milliseconds). No
/// less: a directory of ext4 that stands in for /proc/PID/fd has a size of 4096.
const MANY: u64 = 4097;
/// Passes between looks at a process that keeps changing, for each so many that it has.
const BUSY_PASSES: u64 = 6;
/// Passes in which every process is looked at once, where the kernel counts no descriptors.
const ROTATION: u64 = 12;
/// Further looks at a VMM some of whose vCPUs have no thread though its threads have names.
const RETRIES: u8 = 3;

/// Up to this size, a VMM that is known is looked at in each pass in which it changed.
const SMALL: u64 = 1024;

mod budget;

use budget::Budget;

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
    /// Whether procfs leaves processes out of its list.
    hides: bool,
    inventory: Arc<Inventory>,
}

/// A process that was looked at.
#[derive(Debug)]
struct Known {
    look: Look,
    /// The last pass that saw it.
    seen: u64,
    /// The last pass that looked closely.
    examined: u64,
    /// How often to look again though nothing changed.
    retries: u8,
    /// It could not be examined; the role is what was known before.
    blocked: Option<Blocked>,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Other,
    Hidden,
    Vmm(Box<Guest>, Vec<(i32, Mark)>),
}

impl Scanner {
    /// A scanner that has seen nothing yet.
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

    /// Looks at the host. The same `Arc` while nothing changed, else a new inventory with the
    /// next generation; the first has generation 1. Where /proc cannot be listed, the VMs are
    /// those of the pass before, and the blind spots say why.
    pub fn scan(&mut self, topology: &Arc<Topology>) -> Arc<Inventory> {
        let seen = self.look_around();
        let same_domains = !self.domains.refresh();
        let same_topology = Arc::ptr_eq(&self.inventory.topology, topology);
        let first = self.inventory.generation == 0;
        let blind = self.blind();
        let (vms, blind_spots) = match seen {
            Ok(Changed(false)) if same_domains && same_topology && !first => {
                return self.inventory.clone();
            }
            Ok(_) => (self.vms(), blind.lines()),
            Err(error) => (
                self.inventory.vms.clone(),
                vec![no_processes(&self.roots.proc, &error)],
            ),
        };
        let before = &self.inventory;
        let same = same_topology && vms == before.vms && blind_spots == before.blind_spots;
        if first || !same {
            self.inventory = Arc::new(Inventory {
                generation: before.generation + 1,
                topology: topology.clone(),
                vms,
                blind_spots,
                blocked: blind.blocked,
            });
        }
        self.inventory.clone()
    }

    /// Visits every process and forgets those that are gone.
    fn look_around(&mut self) -> io::Result<Changed> {
        let mut pids = std::mem::take(&mut self.pids);
        self.watch.pids(&mut pids)?;
        self.pass += 1;
        self.reads.begin_pass();
        self.budget.refill();
        let mut debugfs = Debugfs::default();
        // What has been asked may have turned out to hang.
        let mut changed = self.reads.any_pending();
        for pid in &pids {
            changed |= self.visit(*pid, &mut debugfs).0;
        }
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

    fn visit(&mut self, pid: i32, debugfs: &mut Debugfs) -> Changed {
        let look = match self.watch.look(pid) {
            Ok(look) => look,
            Err(error) if is_gone(&error) => return Changed(false), // forgotten after the pass
            Err(_) => return self.closed(pid),
        };
        self.counts_descriptors |= look.counts_descriptors();
        if let Some(known) = self.known.get_mut(&pid) {
            let rotation = !self.counts_descriptors && (pid as u64 + self.pass) % ROTATION == 0;
            let news = known.blocked.is_some() && !self.reads.is_pending(pid);
            let due = rotation || news || known.is_due(&look, self.pass);
            if !due && known.has_its_threads(pid, &self.watch) {
                known.seen = self.pass;
                return Changed(false);
            }
        }
        if !self.may_examine(pid, &look) {
            return Changed(false);
        }
        self.examine(pid, look, debugfs)
    }

    /// Whether the budget of the process' user has a close look. One that has to wait stays what
    /// it is known as.
    fn may_examine(&mut self, pid: i32, look: &Look) -> bool {
        let known = self.known.get_mut(&pid);
        let is_vmm = known.as_ref().is_some_and(|known| known.matters());
        let is_small = look.size() < if look.user == 0 { MANY } else { SMALL };
        let may =
            is_small && (look.user == 0 || is_vmm) || self.budget.spend(look.user, look.size());
        if let Some(known) = known.filter(|_| !may) {
            known.seen = self.pass;
        }
        may
    }

    fn examine(&mut self, pid: i32, look: Look, debugfs: &mut Debugfs) -> Changed {
        let mut before = self.known.remove(&pid);
        let mattered = before.as_ref().is_some_and(Known::matters);
        let same_program = |known: &&Known| known.look.same_program(&look);
        if !before.as_ref().is_some_and(|known| same_program(&known)) {
            self.reads.forget(pid);
        }
        let cmdline = before
            .as_ref()
            .filter(same_program)
            .and_then(Known::cmdline);
        let found = match examine(&self.roots, &self.open_files, &mut self.reads, pid, cmdline) {
            Ok(found) => found,
            Err(error) if is_gone(&error) => return Changed(mattered),
            Err(error) => {
                // Say, out of descriptors: what is known stays, and is tried again.
                tracing::debug!(pid, %error, "cannot look at this process");
                if let Some(known) = &mut before {
                    known.seen = self.pass;
                }
                self.known.extend(before.map(|known| (pid, known)));
                return Changed(false);
            }
        };
        let (role, blocked) = match found {
            Found::Other => (Role::Other, None),
            Found::Hidden => (Role::Hidden, None),
            Found::Blocked(blocked) => (Role::Other, Some(blocked)),
            Found::Vmm(process) => {
                let blocked = process.blocked;
                (self.vmm(*process, before.as_ref(), debugfs), blocked)
            }
        };
        self.known.extend(before.map(|known| (pid, known)));
        self.remember(pid, look, role, blocked)
    }

    /// A process that procfs does not even let one stat.
    fn closed(&mut self, pid: i32) -> Changed {
        match self.known.get_mut(&pid) {
            Some(known) if matches!(known.role, Role::Hidden) => {
                known.seen = self.pass;
                Changed(false)
            }
            _ => self.remember(pid, Look::default(), Role::Hidden, None),
        }
    }

    fn remember(&mut self, pid: i32, look: Look, role: Role, blocked: Option<Blocked>) -> Changed {
        let before = self.known.remove(&pid);
        let known = Known {
            look,
            seen: self.pass,
            examined: self.pass,
            retries: role.retries(before.as_ref(), &look),
            blocked,
            role,
        };
        let changed = known.matters() || before.is_some_and(|before| before.matters());
        self.known.insert(pid, known);
        Changed(changed)
    }

    fn vmm(&mut self, process: Process, before: Option<&Known>, debugfs: &mut Debugfs) -> Role {
        let in_debugfs = self.in_debugfs(&process, debugfs);
        let evidence = Evidence {
            process: &process,
            debugfs: &in_debugfs,
            before: before.map(Known::machines).unwrap_or_default(),
        };
        let (pid, asked) = (process.pid, process.asked);
        let (roots, reads) = (&self.roots, &mut self.reads);
        // What holds up one read of a process holds up the next.
        let mut blocked = process.blocked.is_some();
        let mut machines = machines(&evidence, |tid| {
            let fd = (!blocked).then(|| running_vcpu(roots, reads, asked, tid));
            blocked |= reads.is_pending(pid);
            fd.flatten()
        });
        if in_debugfs.is_empty() {
            ordinals::keep(&mut machines, evidence.before);
        }
        let tids = machines.iter().flat_map(|m| &m.vcpus).map(|vcpu| vcpu.tid);
        let marks = tids.filter_map(|tid| Some((tid, self.watch.thread(pid, tid)?)));
        let marks = marks.collect();
        Role::Vmm(
            Box::new(Guest::new(process, machines, !in_debugfs.is_empty())),
            marks,
        )
    }

    /// The process' VMs in debugfs: those its tasks created, else those its threads run.
    fn in_debugfs(&self, process: &Process, debugfs: &mut Debugfs) -> Vec<DebugVm> {
        let tasks = process.threads.iter().map(|t| t.tid);
        let is_thread = |tid| process.threads.iter().any(|t| t.tid == tid);
        let mut vms = debugfs.created_by(&self.roots, tasks);
        vms.retain(|vm| vm.is_of(is_thread, process.fds.as_ref()));
        if vms.is_empty() {
            vms = debugfs.run_by(&self.roots, is_thread);
            vms.retain(|vm| vm.is_of(is_thread, process.fds.as_ref()));
        }
        vms
    }

    fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.known.values().filter_map(|known| match &known.role {
            Role::Vmm(guest, _) => Some(guest.as_ref()),
            _ => None,
        })
    }

    /// All VMs by name; those that are as before are the same `Arc`.
    fn vms(&mut self) -> Vec<Arc<Vm>> {
        let guests = self.guests();
        let vms = guests.flat_map(|guest| guest.vms(self.domains.of(guest.pid)));
        let vms = vms.collect();
        let vms = name_all(vms, &mut self.names);
        let before: HashMap<_, _> = self.inventory.vms.iter().map(|vm| (vm.key, vm)).collect();
        let keep = |vm: Vm| match before.get(&vm.key) {
            Some(old) if ***old == vm => Arc::clone(old),
            _ => Arc::new(vm),
        };
        vms.into_iter().map(keep).collect()
    }

    fn blind(&self) -> Blind {
        let hidden = |known: &Known| matches!(known.role, Role::Hidden);
        let mut blind = Blind {
            invisible: self.hides,
            hidden: self.known.values().any(hidden),
            ..Blind::default()
        };
        let hangs = |pid: i32, known: &Known| {
            let blocked = known.blocked;
            blocked.is_some_and(|blocked| blocked.for_long || self.reads.hangs(pid))
        };
        let blocked = self.known.iter().filter(|(pid, known)| hangs(**pid, known));
        let pids: Vec<i32> = blocked.map(|(pid, _)| *pid).collect();
        blind.blocked = pids.len();
        blind.first_blocked = pids.into_iter().min().unwrap_or_default();
        for guest in self.guests() {
            blind.by_name += if guest.hidden {
                guest.machines.len()
            } else {
                0
            };
            blind.threads += guest.unknown_threads();
            blind.mixed += usize::from(guest.mixed);
            blind.unbound += match guest.unbound {
                true => guest.machines.len(),
                false => 0,
            };
            let stateless = guest.in_libvirt() && self.domains.of(guest.pid).is_none();
            blind.domains += usize::from(self.domains.unreadable && stateless);
        }
        blind
    }
}

/// Whether an inventory made now could differ from the last.
#[derive(Debug, Clone, Copy)]
struct Changed(bool);

impl Known {
    /// Whether to look closely again.
    fn is_due(&mut self, look: &Look, pass: u64) -> bool {
        if self.retries > 0 {
            self.retries -= 1;
            return true;
        }
        let dear = look.size() / MANY;
        let wait = self.look.same_program(look) && pass < self.examined + dear * BUSY_PASSES;
        match &self.role {
            Role::Vmm(guest, _) => self.look != *look || guest.unknown_threads() > 0,
            Role::Hidden => !self.look.same_threads(look) && !wait,
            Role::Other => self.look != *look && !wait,
        }
    }

    /// Whether all vCPU threads are the ones they were.
    fn has_its_threads(&self, pid: i32, watch: &Watch) -> bool {
        match &self.role {
            Role::Vmm(_, marks) => {
                let mut marks = marks.iter();
                marks.all(|(tid, mark)| watch.thread(pid, *tid) == Some(*mark))
            }
            _ => true,
        }
    }

    /// Whether the inventory tells of it.
    fn matters(&self) -> bool {
        self.blocked.is_some() || !matches!(self.role, Role::Other)
    }

    fn cmdline(&self) -> Option<&Cmdline> {
        match &self.role {
            Role::Vmm(guest, _) => Some(&guest.cmdline),
            _ => None,
        }
    }

    fn machines(&self) -> &[Machine] {
        match &self.role {
            Role::Vmm(guest, _) => &guest.machines,
            _ => &[],
        }
    }
}

impl Role {
    /// A thread gets its name shortly after it started: what may have been too early is looked
    /// at again, unless nothing has changed since the last such look.
    fn retries(&self, before: Option<&Known>, look: &Look) -> u8 {
        match before {
            Some(known) if known.look == *look => known.retries,
            _ => match self {
                Role::Vmm(guest, _) if guest.missing_named() => RETRIES,
                Role::Vmm(guest, _) => u8::from(guest.hidden),
                Role::Hidden => 1,
                Role::Other => 0,
            },
        }
    }
}

#[cfg(test)]
mod blind_tests;
#[cfg(test)]
mod blocked_tests;
#[cfg(test)]
mod tests;
