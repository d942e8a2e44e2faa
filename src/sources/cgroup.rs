//! CPU quota, throttling, weight, CPUs and pressure of each VM, from its cgroups (v1 or v2).
//!
//! - `kvm_vm_cpu_quota_cores{level}`: the tightest quota on the VM
//! - `kvm_vm_cpu_{periods,throttled_periods,throttled_seconds}_total{level}`: effect of the quotas
//! - `kvm_vm_cpu_weight`, `kvm_vm_cpuset_cpus`
//! - `kvm_vm_pressure_seconds_total{resource,kind}`: only in a v2 hierarchy
//! - `kvm_vm_numa_balancing_total{event}`: the same, since Linux 6.12
//!
//! `level` names where a quota is set: on the groups of the vCPUs (`vcpu`: libvirt's
//! `<cputune><quota>` and nova's `quota:cpu_quota`), on the VM's own group (`vm`), or above it
//! (`ancestor`: a pod, a slice), where other VMs may use it up too. It is a fixed word instead of
//! a path, so the metrics can be summed over VMs and survive a restart. Each level with a quota
//! has its own counters, because a quota other than the tightest may throttle a VM.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use crate::discover::{Vcpu, Vm, VmKey};
use crate::engine::{
    Fact, ReadError, Reason, ReasonCode, Source, SourceInfo, SourceState, VmSource,
};
use crate::host::cgroup::{Hierarchy, Mounts};
use crate::host::roots::Roots;
use crate::host::task::{Task, TaskError};
use crate::sources::Entry;

mod balancing;
mod levels;
mod reading;
mod totals;

use levels::Levels;
use reading::CgroupTotals;
pub(crate) use reading::{CPU_PERIODS, CPU_QUOTA_CORES, CPU_THROTTLED, CPU_THROTTLED_PERIODS};

#[derive(Debug)]
struct CgroupSource {
    roots: Arc<Roots>,
    mounts: Mounts,
    /// Whether the kernel keeps pressure statistics.
    pressure: bool,
    totals: HashMap<VmKey, CgroupTotals>,
    /// VMs with incomplete data, and why.
    refused: BTreeMap<VmKey, Reason>,
}

/// The text of /proc/PID/cgroup of a VM's threads.
#[derive(Debug)]
struct Shown {
    main: String,
    vcpus: Vec<String>,
}

impl CgroupSource {
    fn new(roots: Arc<Roots>) -> Self {
        let mut source = Self {
            roots,
            mounts: Mounts::default(),
            pressure: false,
            totals: HashMap::new(),
            refused: BTreeMap::new(),
        };
        source.look_for_mounts();
        source
    }

    fn look_for_mounts(&mut self) {
        self.mounts = Mounts::detect(&self.roots);
        // The directory does not exist with psi=0 (kernel/sched/psi.c, `psi_proc_init`).
        self.pressure = self.roots.proc.join("pressure/cpu").exists();
    }

    /// The groups of the VM's threads as /proc shows them.
    fn shown(&self, vm: &Vm) -> Result<Shown, TaskError> {
        let text = |text: Vec<u8>| String::from_utf8_lossy(&text).into_owned();
        let cgroup = |task: Task| task.read(&self.roots, "cgroup").map(text);
        let main = cgroup(vm.key.process())?;
        // A vCPU whose thread exited meanwhile is in no group.
        let of_vcpu = |vcpu: &Vcpu| cgroup(vcpu.thread(vm.key)).ok();
        let vcpus = vm.vcpus.iter().filter_map(of_vcpu).collect();
        vm.key.process().check(&self.roots)?;
        Ok(Shown { main, vcpus })
    }

    fn read_groups(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        let shown = self.shown(vm)?;
        let roots = &self.roots;
        let totals = self.totals.entry(vm.key).or_default();
        let Mounts {
            cpu,
            cpuset,
            unified,
        } = &mut self.mounts;
        let mut hidden = None;
        let mut levels = |hierarchy: &mut Option<Hierarchy>| {
            let hierarchy = hierarchy.as_mut()?;
            let found = shown.levels(hierarchy, roots);
            if found.is_none() {
                hidden = hierarchy.shown(&shown.main).map(str::to_owned);
            }
            Some((hierarchy.clone(), found?))
        };
        let found = (levels(cpu), levels(cpuset), levels(unified));
        let facts = totals.read(roots, &found.0, &found.1, &found.2);
        let facts = facts.map_err(|error| self.refuse(vm, &error))?;
        match hidden {
            Some(path) => self.refused.insert(vm.key, no_group(&path)),
            None => self.refused.remove(&vm.key),
        };
        Ok(facts)
    }

    fn refuse(&mut self, vm: &Vm, error: &io::Error) -> ReadError {
        let detail = format!("cannot read {error}");
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => ReasonCode::NoPermission
                .reason(&detail)
                .with_fix("give the exporter CAP_DAC_READ_SEARCH"),
            _ => ReasonCode::Unreadable.reason(&detail),
        };
        self.refused.insert(vm.key, reason);
        ReadError::Failed(detail)
    }
}

impl VmSource for CgroupSource {
    fn state(&self) -> SourceState {
        if self.mounts == Mounts::default() {
            return SourceState::Down(no_cgroupfs(&self.roots));
        }
        let refused = self.refused.values();
        if let Some(reason) = Reason::first_of("VMs with incomplete data", refused) {
            return SourceState::Degraded(reason);
        }
        if self.mounts.unified.is_some() && self.pressure {
            SourceState::Up
        } else {
            SourceState::Degraded(no_pressure(self.pressure))
        }
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        if self.mounts == Mounts::default() {
            self.look_for_mounts();
        }
        self.read_groups(vm)
    }

    fn forget(&mut self, vm: VmKey) {
        self.totals.remove(&vm);
        self.refused.remove(&vm);
    }
}

impl Shown {
    /// The groups of one hierarchy that hold these threads; `None` if they are not below its mount
    /// point.
    fn levels(&self, hierarchy: &mut Hierarchy, roots: &Roots) -> Option<Levels> {
        let main = hierarchy.shown(&self.main)?;
        let vcpus = self.vcpus.iter().filter_map(|text| hierarchy.shown(text));
        let vcpus: Vec<&str> = vcpus.collect();
        Levels::find(main, &vcpus, |common| hierarchy.locate(roots, common))
    }
}

fn no_cgroupfs(roots: &Roots) -> Reason {
    let path = roots.cgroup.display();
    ReasonCode::NoCgroupfs
        .reason(format!("no cgroup hierarchy (v1 or v2) in {path}"))
        .with_fix("mount one there, or set --path.cgroupfs=DIR")
}

fn no_group(path: &str) -> Reason {
    ReasonCode::NoGroup
        .reason(format!("cgroup {path} is not below the mounted hierarchy"))
        .with_fix("in a container, mount the host's /sys/fs/cgroup and set --path.cgroupfs to it")
}

fn no_pressure(in_kernel: bool) -> Reason {
    let reason = |detail| ReasonCode::NoPressure.reason(detail);
    if in_kernel {
        reason("no cgroup v2 hierarchy, which pressure requires")
            .with_fix("mount -t cgroup2 none /sys/fs/cgroup/unified")
    } else {
        reason("the kernel keeps no pressure statistics")
            .with_fix("boot a kernel with CONFIG_PSI=y and the parameter psi=1")
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "cgroup",
        needs: "the host's cgroup hierarchies below --path.cgroupfs",
        cost: "0.1 to 0.3 ms per VM and period",
    },
    about: "Limits, throttling and pressure of the VM's cgroups: cgroup v1, v2 or both, every 15 s (`sources.cgroup.period`). `level` is the level of the groups with the quota: `vcpu`, groups of vCPU threads (libvirt's `<cputune><quota>`, nova's `quota:cpu_quota`); `vm`, the VM's own group, which is the deepest that holds all its threads; `ancestor`, groups above it (a pod, a slice), where other VMs may also use the quota. Counters of a level are the sum over the groups of that level that ever had a quota. Needs the host's cgroup hierarchies, no privilege. Pressure and NUMA balancing need cgroup v2; NUMA balancing also needs the memory controller and Linux 6.12 (commit f77f0c751478).",
    metrics: &[reading::METRICS, balancing::METRICS],
    make: |with| {
        let config = with.config().cgroup;
        Source::of_vms(config.enabled, config.period, CgroupSource::new(with.roots()))
    },
};

#[cfg(test)]
mod tests;
