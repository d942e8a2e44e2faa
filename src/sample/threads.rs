//! The `threads` source: who burns the CPU time of a VM, and where: its vCPUs, its I/O threads, a
//! migration, the kernel's vhost workers, or the rest of its VMM.
//!
//! - `kvm_vm_thread_time_seconds_total{role}`, by place: time on a core
//! - `kvm_vm_thread_delay_seconds_total{role}`, by place: runnable, but waiting for a core
//! - `kvm_vm_threads{role}`: how many there are
//!
//! All threads of the process are looked at each period, and those that ran are charged to the core
//! on which they are found. What none of them is seen to have done is known all the same: the
//! process' own CPU time holds its threads that ended, and what is left of it belongs to threads
//! that came and went between two looks (`look`). It is the emulator's, at no place (`account`).
//!
//! Kernels before 6.4, and later ones that are told to (`fork_from_owner_default=0` of vhost), run
//! vhost workers as threads of no process; they are found by their names (`kthreads`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::slow::{Fact, FactValue, Origin, VmSource};
use super::{ReadError, Reason, SourceInfo, SourceState};
use crate::config::{Config, Placement};
use crate::discover::{Role, Vm, VmKey};
use crate::host::roots::Roots;
use crate::host::topology::Watch;
use crate::sample::ledger::CellKey;

mod account;
mod kthreads;
mod look;

use account::Account;
use kthreads::Kthreads;
use look::{process_time, Look};

/// Threads of a VM that are looked at one by one, beside its vCPUs. A QEMU has some ten, and up to
/// 64 more for each pool of workers (util/thread-pool.c, `THREAD_POOL_MAX_THREADS_DEFAULT`).
const MAX_OTHERS: usize = 1024;

/// The `threads` source.
#[derive(Debug)]
pub struct Threads {
    roots: Arc<Roots>,
    enabled: bool,
    period: Duration,
    placement: Placement,
    ttl: Duration,
    born_after: u64,
    ns_per_clock_tick: u64,
    watch: Option<Watch>,
    kthreads: Kthreads,
    vms: HashMap<VmKey, Account>,
    /// [`MAX_OTHERS`], but in tests.
    max_others: usize,
    /// Whether this kernel has no schedstat, as the last thread showed that was looked at.
    lacks_schedstat: bool,
}

impl Threads {
    /// The source over these roots. As with vCPUs, what started at or after `born_after` (clock
    /// ticks since boot) is charged with its whole life, what is older from its first look on.
    pub fn new(config: &Config, roots: Arc<Roots>, born_after: u64) -> Self {
        let own = &config.sources.threads;
        let watch = Watch::new(roots.clone());
        let watch = watch.map_err(|error| tracing::warn!(%error, "threads have no place"));
        Self {
            roots,
            enabled: own.enabled,
            period: own.period,
            placement: config.labels.placement,
            ttl: config.labels.cell_ttl,
            born_after,
            ns_per_clock_tick: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            watch: watch.ok(),
            kthreads: Kthreads::default(),
            vms: HashMap::new(),
            max_others: MAX_OTHERS,
            lacks_schedstat: false,
        }
    }

    fn read_at(&mut self, vm: &Vm, now: Instant) -> Result<Vec<Fact>, ReadError> {
        self.kthreads.look(&self.roots, now, self.period / 2);
        let topology = self.watch.as_mut().map(|watch| watch.look().clone());
        let shared = self.shares_process(vm.key);
        let mut account = self.vms.remove(&vm.key).unwrap_or_default();
        let look = Look {
            roots: &self.roots,
            vm,
            topology: topology.as_deref(),
            placement: self.placement,
            max_others: self.max_others,
            lacks_schedstat: &mut self.lacks_schedstat,
        };
        let read = look.all(&mut account, &self.kthreads, shared, self.born_after, now);
        if matches!(read, Err(ReadError::Gone)) {
            return Err(ReadError::Gone);
        }
        let read = read.and_then(|before| match shared || self.lacks_schedstat {
            // Whose the rest is cannot be told.
            true => Ok(()),
            false => self.charge_the_rest(&mut account, vm, before, now),
        });
        let facts = match self.lacks_schedstat {
            true => Vec::new(),
            false => facts(vm, &account, self.ttl, now),
        };
        self.vms.insert(vm.key, account);
        read.map(|()| facts)
    }

    /// Whether another VM lives in the same process.
    fn shares_process(&self, vm: VmKey) -> bool {
        let same = |key: &&VmKey| (key.pid, key.start_time) == (vm.pid, vm.start_time);
        self.vms.keys().filter(same).any(|key| *key != vm)
    }

    /// `before` is the process' time before its threads were looked at, in clock ticks.
    fn charge_the_rest(
        &self,
        account: &mut Account,
        vm: &Vm,
        before: u64,
        now: Instant,
    ) -> Result<(), ReadError> {
        let tick = self.ns_per_clock_tick;
        if account.is_open() {
            account.charge_rest(before.saturating_mul(tick), now);
        } else if vm.key.start_time >= self.born_after {
            account.open(0);
            account.charge_rest(before.saturating_mul(tick), now);
        } else {
            // User and system time are both rounded down.
            let after = process_time(&self.roots, vm)?.saturating_add(2);
            account.open(after.saturating_mul(tick));
        }
        Ok(())
    }
}

impl VmSource for Threads {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "threads",
            needs: "a kernel with CONFIG_SCHED_INFO; no privilege",
            cost: "two small files for each thread that ran and one for each that did not",
        }
    }

    fn state(&self) -> SourceState {
        if !self.enabled {
            return SourceState::Down(Reason::disabled("threads"));
        }
        if self.lacks_schedstat {
            return SourceState::Down(no_schedstat());
        }
        let processes = self.vms.keys().map(|key| (key.pid, key.start_time));
        if processes.collect::<HashSet<_>>().len() < self.vms.len() {
            return SourceState::Degraded(shared_process());
        }
        let partial = self.vms.values().filter(|vm| !vm.is_complete()).count();
        match partial {
            0 => SourceState::Up,
            n => SourceState::Degraded(many_threads(n)),
        }
    }

    fn period(&self) -> Duration {
        self.period
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        match self.enabled {
            true => self.read_at(vm, Instant::now()),
            false => Ok(Vec::new()),
        }
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
    }
}

/// The totals of all cells that belong in the exposition, and how many threads there are of each
/// role that could be seen.
fn facts(vm: &Vm, account: &Account, ttl: Duration, now: Instant) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (role, key, cell) in account.visible(ttl, now) {
        let totals = [
            ("kvm_vm_thread_time_seconds_total", cell.run),
            ("kvm_vm_thread_delay_seconds_total", cell.delay),
        ];
        facts.extend(totals.map(|(metric, total)| Fact {
            metric,
            labels: labels(role, key),
            value: FactValue::Nanoseconds(total),
            origin: Origin::Exporter,
        }));
    }
    let roles = Role::ALL.into_iter().filter(|role| is_seen(vm, *role));
    facts.extend(roles.map(|role| Fact {
        metric: "kvm_vm_threads",
        labels: labels(role, CellKey::default()),
        value: FactValue::Int(account.count(role)),
        origin: Origin::Exporter,
    }));
    facts
}

/// Whether all threads of a role are known as such. Where the VMM gives threads no names, or it is
/// not known which, those of I/O and of migration are among the emulator's.
fn is_seen(vm: &Vm, role: Role) -> bool {
    match role {
        Role::Vcpu => vm.threadless == 0,
        Role::Iothread | Role::Migration => vm.names_threads && role.is_named_by(vm.vmm),
        Role::Emulator | Role::Vhost => true,
    }
}

fn labels(role: Role, key: CellKey) -> Vec<(&'static str, String)> {
    let mut labels = vec![("role", role.label().to_owned())];
    if let Some((package, core)) = key.core {
        labels.push(("package", package.to_string()));
        labels.push(("core", core.to_string()));
    }
    labels.extend(key.numa_node.map(|node| ("numa_node", node.to_string())));
    labels
}

fn no_schedstat() -> Reason {
    Reason {
        code: "no_schedstat",
        detail: "the kernel has no /proc/PID/schedstat".to_owned(),
        fix: Some("use a kernel with CONFIG_SCHED_INFO".to_owned()),
    }
}

fn shared_process() -> Reason {
    Reason {
        code: "shared_process",
        detail: "several VMs live in one process: only their vCPUs can be told apart".to_owned(),
        fix: None,
    }
}

fn many_threads(vms: usize) -> Reason {
    Reason {
        code: "many_threads",
        detail: format!(
            "VMs with more than {MAX_OTHERS} threads beside their vCPUs: {vms}; \
             what the others do is in role=\"emulator\", without a place"
        ),
        fix: None,
    }
}

#[cfg(test)]
mod tests;
