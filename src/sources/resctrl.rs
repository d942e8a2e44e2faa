//! The `resctrl` source: occupancy of last-level caches and memory bandwidth of each VM, from
//! Intel RDT or AMD QoS.
//!
//! - `kvm_vm_llc_occupancy_bytes{llc}`
//! - `kvm_vm_memory_bandwidth_bytes_total{llc}`, and the part of it to the cache's own node:
//!   `kvm_vm_memory_bandwidth_local_bytes_total{llc}`
//!
//! The kernel counts for groups of threads. A VM's values are those of the groups that hold all
//! its vCPUs and only threads of its process: libvirt creates such groups for `<cachetune>` and
//! `<memorytune>`. With `sources.resctrl.create_groups`, a VM without groups gets one with its
//! vCPU threads, which is removed with the VM or the exporter. A CPU has at most a few hundred
//! groups (RMIDs): if none is left, the source reports it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::{Vcpu, Vm, VmKey};
use crate::engine::total::{add, Total};
use crate::engine::{
    Fact, Origin, ReadError, Reason, ReasonCode, Source, SourceInfo, SourceState, VmSource,
};
use crate::host::cpu_model;
use crate::host::resctrl::{self, Control, ResctrlGroup};
use crate::host::roots::Roots;
use crate::host::task::{Task, TaskError};
use crate::metric::{metrics, Keys, Metric};
use crate::sources::pmu::plan::{foreign_pid, pid_namespace};
use crate::sources::Entry;

metrics! { METRICS of "resctrl":
    LLC_OCCUPANCY = Metric::gauge("kvm_vm_llc_occupancy_bytes", Keys::Vm, &["llc"],
        "Bytes of the last-level cache that hold the VM's data, by the llc label of kvm_host_cpu_info");
    MEMORY_BANDWIDTH = Metric::counter("kvm_vm_memory_bandwidth_bytes_total", Keys::Vm, &["llc"],
        "Bytes transferred between the last-level cache and memory for the VM");
    MEMORY_BANDWIDTH_LOCAL = Metric::counter("kvm_vm_memory_bandwidth_local_bytes_total", Keys::Vm, &["llc"],
        "The part of kvm_vm_memory_bandwidth_bytes_total that went to memory of the cache's own NUMA node");
}

/// Name prefix of the exporter's own groups; PID and start time of the VM follow.
const PREFIX: &str = "vcpu-exporter-";

/// The groups are listed once for all VMs of a pass, which takes less than this.
const FRESH: Duration = Duration::from_millis(500);

const TRAFFIC: [&Metric; 2] = [&MEMORY_BANDWIDTH, &MEMORY_BANDWIDTH_LOCAL];

struct Resctrl {
    /// Whether a VM without groups gets one.
    create_groups: bool,
    roots: Arc<Roots>,
    groups: Option<(Instant, Arc<[Control]>)>,
    vms: HashMap<VmKey, Traffic>,
    made: HashMap<VmKey, PathBuf>,
    /// VMs without data, and why.
    troubles: BTreeMap<VmKey, Reason>,
}

/// Traffic of a VM's groups, by cache and metric.
#[derive(Debug, Default)]
struct Traffic {
    now: HashMap<(PathBuf, u32, usize), Total>,
    /// Sums of groups that are no longer the VM's.
    before: BTreeMap<(u32, usize), u64>,
}

impl Resctrl {
    fn new(create_groups: bool, roots: Arc<Roots>) -> Self {
        Self {
            create_groups,
            roots,
            groups: None,
            vms: HashMap::new(),
            made: HashMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    fn missing(&self) -> Option<Reason> {
        let root = resctrl::root(&self.roots);
        let can = cpu_model::has_flag(&self.roots, "cqm_occup_llc");
        let reason = |detail| ReasonCode::NoResctrl.reason(detail);
        (!resctrl::monitors(&self.roots)).then(|| {
            if can {
                reason(format!("{}/info/L3_MON does not exist", root.display()))
                    .with_fix(format!("mount -t resctrl resctrl {}", root.display()))
            } else {
                reason("this CPU has no cache monitoring (flag cqm_occup_llc)".to_owned())
            }
        })
    }

    fn groups(&mut self) -> io::Result<Arc<[Control]>> {
        let known = self.groups.take();
        let fresh = known.filter(|(read, _)| read.elapsed() < FRESH);
        let groups = match fresh {
            Some(groups) => groups,
            None => {
                let groups = resctrl::groups(&self.roots)?;
                if self.create_groups {
                    remove_orphans(&self.roots, &groups);
                }
                (Instant::now(), groups.into())
            }
        };
        Ok(self.groups.insert(groups).1.clone())
    }

    fn read_vm(&mut self, vm: &Vm) -> Result<Vec<Fact>, Reason> {
        if foreign_pid(&self.roots).is_some() {
            return Err(pid_namespace());
        }
        let tasks = self.roots.proc.join(format!("{}/task", vm.key.pid));
        let tids = self.roots.list(&tasks).unwrap_or_default();
        let tids: HashSet<i32> = tids.iter().filter_map(|tid| tid.parse().ok()).collect();
        let is_there = |vcpu: &&Vcpu| vcpu.thread(vm.key).check(&self.roots).is_ok();
        let threads: Vec<Vcpu> = vm.vcpus.iter().filter(is_there).copied().collect();
        let vcpus: HashSet<i32> = threads.iter().map(|vcpu| vcpu.tid).collect();
        let root = resctrl::root(&self.roots);
        let groups = self.groups().map_err(|error| refused(&root, &error))?;
        let own: Vec<&ResctrlGroup> = own(&groups, &tids).collect();
        let held: HashSet<i32> = own.iter().flat_map(|group| &group.tasks).copied().collect();
        let of_others = own.iter().any(|group| !group.path.ends_with(name(vm.key)));
        let all = vcpus.is_subset(&held);
        let mut paths: Vec<PathBuf> = own.iter().map(|group| group.path.clone()).collect();
        let ours = !of_others && self.create_groups;
        if ours {
            let control = control_of(&groups, &vcpus).unwrap_or(&root);
            let outside = threads.iter().filter(|vcpu| !held.contains(&vcpu.tid));
            paths = vec![self.make(vm.key, control, outside)?];
        } else if !all {
            return Err(no_group());
        }
        // A group of the exporter's own may be left over from an earlier exporter.
        let origin = if ours { Origin::Exporter } else { Origin::Vm };
        let traffic = self.vms.entry(vm.key).or_default();
        Ok(traffic.read(&self.roots, &paths, origin))
    }

    /// Creates the VM's group if needed, and adds these vCPUs to it.
    fn make<'a>(
        &mut self,
        vm: VmKey,
        control: &Path,
        vcpus: impl Iterator<Item = &'a Vcpu>,
    ) -> Result<PathBuf, Reason> {
        let path = control.join("mon_groups").join(name(vm));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(|error| refused(&path, &error))?,
        }
        self.made.insert(vm, path.clone());
        for vcpu in vcpus {
            self.add(vm, *vcpu, &path, control)
                .map_err(|error| refused(&path, &error))?;
        }
        Ok(path)
    }

    /// Adds a vCPU thread to a group. The kernel takes a TID and moves the thread that has it now.
    /// Other threads are never passed; if the vCPU thread exits during the call and its TID is
    /// reused, the new thread is moved back.
    fn add(&self, vm: VmKey, vcpu: Vcpu, group: &Path, control: &Path) -> io::Result<()> {
        let runs = || vcpu.thread(vm).check(&self.roots).is_ok();
        if !runs() {
            return Ok(());
        }
        resctrl::add_task(group, vcpu.tid)?;
        if runs() {
            Ok(())
        } else {
            resctrl::add_task(control, vcpu.tid)
        }
    }
}

/// Name of the group created for a VM.
fn name(vm: VmKey) -> String {
    format!("{PREFIX}{}-{}-{}", vm.pid, vm.start_time, vm.ordinal)
}

/// Groups that hold only threads of this process. A control group includes the counts of its
/// monitoring groups, which are then skipped.
fn own<'a>(
    groups: &'a [Control],
    tids: &'a HashSet<i32>,
) -> impl Iterator<Item = &'a ResctrlGroup> {
    let is_own = |group: &ResctrlGroup| !group.tasks.is_empty() && group.tasks.is_subset(tids);
    groups.iter().flat_map(move |control| {
        let (own, monitors) = if is_own(&control.own) {
            (Some(&control.own), &[][..])
        } else {
            (None, &control.monitors[..])
        };
        let monitors = monitors.iter().filter(move |group| is_own(group));
        own.into_iter().chain(monitors)
    })
}

/// The control group that holds some of these vCPUs, unless it is the root.
fn control_of<'a>(groups: &'a [Control], vcpus: &HashSet<i32>) -> Option<&'a PathBuf> {
    let holds = |control: &&Control| !control.own.tasks.is_disjoint(vcpus);
    Some(&groups.iter().find(holds)?.own.path)
}

/// Removes the exporter's groups whose VM ended while no exporter ran.
fn remove_orphans(roots: &Roots, groups: &[Control]) {
    let monitors = groups.iter().flat_map(|control| &control.monitors);
    for group in monitors {
        let name = group.path.file_name().and_then(|name| name.to_str());
        let key = name.and_then(|name| name.strip_prefix(PREFIX));
        let key = key.and_then(|key| {
            let mut numbers = key.split('-');
            let pid = numbers.next()?.parse().ok()?;
            Some(Task::process(pid, numbers.next()?.parse().ok()?))
        });
        let ended = |vmm: Task| matches!(vmm.check(roots), Err(TaskError::Gone));
        if key.is_some_and(ended) {
            remove(&group.path);
        }
    }
}

/// Removes a group; its threads return to the control group.
fn remove(group: &Path) {
    if let Err(error) = std::fs::remove_dir(group) {
        let group = group.display();
        tracing::warn!(%group, %error, "cannot remove the monitoring group; remove it with rmdir");
    }
}

impl Traffic {
    fn read(&mut self, roots: &Roots, groups: &[PathBuf], origin: Origin) -> Vec<Fact> {
        let mut occupancy: BTreeMap<u32, u64> = BTreeMap::new();
        for group in groups {
            for (llc, [occupied, traffic @ ..]) in resctrl::counts(roots, group) {
                if let Some(bytes) = occupied {
                    add(occupancy.entry(llc).or_default(), bytes);
                }
                for (n, bytes) in traffic.into_iter().enumerate() {
                    if let Some(bytes) = bytes {
                        let total = self.now.entry((group.clone(), llc, n));
                        let total = total.or_insert_with(|| match origin {
                            Origin::Exporter => Total::from(bytes),
                            Origin::Vm | Origin::Boot => Total::default(),
                        });
                        total.advance(bytes);
                    }
                }
            }
        }
        self.settle(groups);
        let occupancy = occupancy.into_iter();
        let occupancy = occupancy.map(|(llc, bytes)| fact(&LLC_OCCUPANCY, llc, bytes, origin));
        let traffic = self.sums().into_iter();
        let traffic = traffic.map(|((llc, n), bytes)| fact(TRAFFIC[n], llc, bytes, origin));
        occupancy.chain(traffic).collect()
    }

    /// Keeps the counts of groups that are no longer the VM's.
    fn settle(&mut self, groups: &[PathBuf]) {
        let before = &mut self.before;
        self.now.retain(|(group, llc, n), total| {
            let stays = groups.contains(group);
            if !stays {
                add(before.entry((*llc, *n)).or_default(), total.sum());
            }
            stays
        });
    }

    fn sums(&self) -> BTreeMap<(u32, usize), u64> {
        let mut sums = self.before.clone();
        for ((_, llc, n), total) in &self.now {
            add(sums.entry((*llc, *n)).or_default(), total.sum());
        }
        sums
    }
}

impl VmSource for Resctrl {
    fn state(&self) -> SourceState {
        if let Some(reason) = self.missing() {
            return SourceState::Down(reason);
        }
        let troubles = self.troubles.values();
        let Some(reason) = Reason::first_of("VMs without data", troubles) else {
            return SourceState::Up;
        };
        if self.vms.keys().all(|vm| self.troubles.contains_key(vm)) {
            SourceState::Down(reason)
        } else {
            SourceState::Degraded(reason)
        }
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        // The state reports the reason once, instead of an error for each VM.
        if self.missing().is_some() {
            return Ok(Vec::new());
        }
        let process = vm.key.process();
        process.check(&self.roots)?;
        let found = self.read_vm(vm);
        process.check(&self.roots)?;
        match found {
            Ok(facts) => {
                self.troubles.remove(&vm.key);
                Ok(facts)
            }
            Err(reason) => {
                self.troubles.insert(vm.key, reason);
                Ok(Vec::new())
            }
        }
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
        self.troubles.remove(&vm);
        if let Some(group) = self.made.remove(&vm) {
            remove(&group);
        }
    }
}

impl Drop for Resctrl {
    fn drop(&mut self) {
        self.made.values().for_each(|group| remove(group));
    }
}

fn fact(metric: &'static Metric, llc: u32, bytes: u64, origin: Origin) -> Fact {
    Fact::int(metric, [("llc", llc.into())], bytes).since(origin)
}

fn no_group() -> Reason {
    ReasonCode::NoGroup
        .reason("no resctrl group holds the VM's vCPUs and no other process")
        .with_fix("set sources.resctrl.create_groups: true")
}

fn refused(path: &Path, error: &io::Error) -> Reason {
    let detail = format!("cannot access {}: {error}", path.display());
    match error.raw_os_error() {
        Some(libc::ENOSPC) => ReasonCode::NoRmid
            .reason(detail)
            .with_fix("remove unused groups: the CPU has info/L3_MON/num_rmids in all"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => ReasonCode::NoPermission
            .reason(detail)
            .with_fix("run the exporter as root, with /sys/fs/resctrl writable"),
        _ => ReasonCode::Unreadable.reason(detail),
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "resctrl",
        needs: "resctrl mounted on a CPU with cache monitoring, and a group for each VM",
        cost: "the tasks file of each group, which walks all threads; 3 files per VM and cache",
    },
    about: "Cache occupancy and memory bandwidth of each VM, every 15 s: Intel RDT and AMD QoS, from monitoring groups that hold one VM and nothing else. Needs resctrl mounted, and libvirt's groups or `sources.resctrl.create_groups`. Join `llc` with `kvm_host_cpu_info` to see which VMs share a cache.",
    metrics: &[METRICS],
    make: |with| {
        let config = with.config().resctrl;
        let resctrl = Resctrl::new(config.create_groups, with.roots());
        Source::of_vms(config.enabled, config.period, resctrl)
    },
};

#[cfg(test)]
mod tests;
