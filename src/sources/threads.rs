//! The `threads` source: CPU time of each VM by role and location of its threads: vCPUs, I/O
//! threads, a migration, the kernel's vhost workers, and the rest of the VMM.
//!
//! - `kvm_vm_thread_time_seconds_total{role}`, by location: time on a core
//! - `kvm_vm_thread_delay_seconds_total{role}`, by location: runnable, but waiting for a core
//! - `kvm_vm_threads{role}`: number of threads
//!
//! All threads of the process are read each period, and the time of those that ran is added to the
//! core where they run now. The process's own CPU time includes threads that exited; what exceeds
//! the sum of its threads was used by threads that started and exited between two reads (`pass`).
//! It is counted for the emulator, without a location (`totals`).
//!
//! Kernels before 6.4, and later ones with vhost's `fork_from_owner_default=0`, run vhost workers
//! as kernel threads outside any process; they are found by their names (`kthreads`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Placement};
use crate::discover::{Role, Vm, VmKey};
use crate::engine::ledger::SeriesKey;
use crate::engine::{
    Fact, ReadError, Reason, ReasonCode, Source, SourceInfo, SourceState, VmSource,
};
use crate::host::roots::Roots;
use crate::host::thread::ns_per_clock_tick;
use crate::host::topology::Watch;
use crate::metric::{metrics, FactValue, Keys, Label, Metric};
use crate::sources::Entry;

mod kthreads;
mod pass;
mod totals;

use kthreads::Kthreads;
use pass::{process_time, Pass};
use totals::ThreadTotals;

metrics! { METRICS of "threads":
    THREAD_TIME = Metric::counter("kvm_vm_thread_time_seconds_total", Keys::Vm, &["role", "package", "core", "numa_node"],
        "Time the VM's threads ran on a CPU, by role: vcpu, iothread, vhost, migration, and emulator for all others; the sum over role, without the kernel's own vhost threads, is the process's CPU time");
    THREAD_DELAY = Metric::counter("kvm_vm_thread_delay_seconds_total", Keys::Vm, &["role", "package", "core", "numa_node"],
        "Time the VM's threads were runnable but waited for a CPU, by role");
    THREADS = Metric::gauge("kvm_vm_threads", Keys::Vm, &["role"],
        "Current threads of the VM, by role");
}

/// Maximum number of threads of a VM that are read individually, besides its vCPUs. A QEMU has
/// about ten, and up to 64 more for each pool of workers (util/thread-pool.c,
/// `THREAD_POOL_MAX_THREADS_DEFAULT`).
const MAX_OTHERS: usize = 1024;

/// The `threads` source.
#[derive(Debug)]
pub struct Threads {
    roots: Arc<Roots>,
    period: Duration,
    placement: Placement,
    ttl: Duration,
    born_after: u64,
    watch: Option<Watch>,
    kthreads: Kthreads,
    vms: HashMap<VmKey, ThreadTotals>,
    /// [`MAX_OTHERS`], except in tests.
    max_others: usize,
    /// Whether this kernel has no schedstat, as seen with the last thread that was read.
    lacks_schedstat: bool,
}

impl Threads {
    /// A source that reads below `roots`. As with vCPUs, threads that started at or after
    /// `born_after` (clock ticks since boot) are charged with their whole life, older ones from
    /// their first read on.
    pub fn new(config: &Config, roots: Arc<Roots>, born_after: u64) -> Self {
        let watch = Watch::new(roots.clone());
        let watch = watch.map_err(|error| tracing::warn!(%error, "cannot watch the CPU topology: thread times have no location"));
        Self {
            roots,
            period: config.sources.threads.period,
            placement: config.labels.placement,
            ttl: config.labels.cell_ttl,
            born_after,
            watch: watch.ok(),
            kthreads: Kthreads::default(),
            vms: HashMap::new(),
            max_others: MAX_OTHERS,
            lacks_schedstat: false,
        }
    }

    fn read_at(&mut self, vm: &Vm, now: Instant) -> Result<Vec<Fact>, ReadError> {
        self.kthreads.refresh(&self.roots, now, self.period / 2);
        let topology = self.watch.as_mut().map(|watch| watch.refresh().clone());
        let shared = self.shares_process(vm.key);
        let mut totals = self.vms.remove(&vm.key).unwrap_or_default();
        let pass = Pass {
            roots: &self.roots,
            vm,
            topology: topology.as_deref(),
            placement: self.placement,
            max_others: self.max_others,
            lacks_schedstat: &mut self.lacks_schedstat,
        };
        let read = pass.all(&mut totals, &self.kthreads, shared, self.born_after, now);
        if matches!(read, Err(ReadError::Gone)) {
            return Err(ReadError::Gone);
        }
        let read = read.and_then(|before| {
            if shared || self.lacks_schedstat {
                // The rest cannot be attributed.
                Ok(())
            } else {
                self.charge_the_rest(&mut totals, vm, before, now)
            }
        });
        let facts = if self.lacks_schedstat {
            Vec::new()
        } else {
            facts(vm, &totals, self.ttl, now)
        };
        self.vms.insert(vm.key, totals);
        read.map(|()| facts)
    }

    /// Whether another VM shares the process.
    fn shares_process(&self, vm: VmKey) -> bool {
        let same = |key: &VmKey| key.process() == vm.process() && *key != vm;
        self.vms.keys().any(same)
    }

    /// `before` is the process's CPU time before its threads were read, in clock ticks.
    fn charge_the_rest(
        &self,
        totals: &mut ThreadTotals,
        vm: &Vm,
        before: u64,
        now: Instant,
    ) -> Result<(), ReadError> {
        let tick = ns_per_clock_tick();
        if totals.is_open() {
            totals.charge_rest(before.saturating_mul(tick), now);
        } else if vm.key.start_time >= self.born_after {
            totals.open(0);
            totals.charge_rest(before.saturating_mul(tick), now);
        } else {
            // User and system time are both rounded down.
            let after = process_time(&self.roots, vm)?.saturating_add(2);
            totals.open(after.saturating_mul(tick));
        }
        Ok(())
    }
}

impl VmSource for Threads {
    fn state(&self) -> SourceState {
        if self.lacks_schedstat {
            return SourceState::Down(no_schedstat());
        }
        let processes = self.vms.keys().map(|key| key.process());
        if processes.collect::<HashSet<_>>().len() < self.vms.len() {
            return SourceState::Degraded(shared_process());
        }
        let partial = self.vms.values().filter(|vm| !vm.is_complete()).count();
        match partial {
            0 => SourceState::Up,
            n => SourceState::Degraded(many_threads(n)),
        }
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        self.read_at(vm, Instant::now())
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
    }
}

/// The totals of all visible series, and the number of threads of each role that can be
/// identified.
fn facts(vm: &Vm, totals: &ThreadTotals, ttl: Duration, now: Instant) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (role, key, series) in totals.visible(ttl, now) {
        let totals = [(&THREAD_TIME, series.run), (&THREAD_DELAY, series.delay)];
        facts.extend(totals.map(|(metric, total)| {
            Fact::new(metric, labels(role, key), FactValue::Nanoseconds(total))
        }));
    }
    let roles = Role::ALL.into_iter().filter(|role| is_seen(vm, *role));
    facts.extend(roles.map(|role| {
        let labels = labels(role, SeriesKey::default());
        Fact::int(&THREADS, labels, totals.count(role))
    }));
    facts
}

/// Whether all threads of a role can be identified. If the VMM does not name its threads, or their
/// names are unknown, I/O and migration threads are counted as emulator.
fn is_seen(vm: &Vm, role: Role) -> bool {
    match role {
        Role::Vcpu => vm.threadless == 0,
        Role::Iothread | Role::Migration => vm.names_threads && role.is_named_by(vm.vmm),
        Role::Emulator | Role::Vhost => true,
    }
}

fn labels(role: Role, key: SeriesKey) -> impl Iterator<Item = Label> {
    std::iter::once(("role", role.label().into())).chain(key.labels())
}

fn no_schedstat() -> Reason {
    ReasonCode::NoSchedstat
        .reason("the kernel has no /proc/PID/schedstat")
        .with_fix("use a kernel with CONFIG_SCHED_INFO")
}

fn shared_process() -> Reason {
    ReasonCode::SharedProcess
        .reason("several VMs share one process: only vCPU threads can be attributed to a VM")
}

fn many_threads(vms: usize) -> Reason {
    ReasonCode::ManyThreads.reason(format!(
        "VMs with more than {MAX_OTHERS} threads besides their vCPUs: {vms}; \
             the time of the rest is in role=\"emulator\", without a location"
    ))
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "threads",
        needs: "a kernel with CONFIG_SCHED_INFO; no privilege",
        cost: "two small files per thread that ran and one per idle thread",
    },
    about: include_str!("threads.md"),
    metrics: &[METRICS],
    make: |with| {
        let config = with.config().threads;
        let threads = Threads::new(with.setup.config, with.roots(), with.setup.born_after);
        Source::of_vms(config.enabled, config.period, threads)
    },
};

#[cfg(test)]
mod tests;
