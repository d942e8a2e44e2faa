//! The `resctrl` source: how much of each last-level cache a VM fills, and how much memory
//! bandwidth it takes, from Intel RDT or AMD QoS.
//!
//! - `kvm_vm_llc_occupancy_bytes{llc}`
//! - `kvm_vm_memory_bandwidth_bytes_total{llc}`, and of it to the cache's own node
//!   `kvm_vm_memory_bandwidth_local_bytes_total{llc}`
//!
//! The kernel counts by group of threads. A VM's numbers are those of the groups that hold threads
//! of its process and no others, and all its vCPUs: libvirt makes such groups for `<cachetune>` and
//! `<memorytune>`. With `sources.resctrl.create_groups` a VM that has none gets one with its vCPU
//! threads, and it is removed with the VM or the exporter. A CPU has some hundred groups at most
//! (RMIDs): when they are used up, the source says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pmu::plan::{foreign_pid, pid_namespace};
use super::slow::{Fact, FactValue, Origin, VmSource};
use super::total::Total;
use super::{identity, ReadError, Reason, SourceInfo, SourceState};
use crate::config;
use crate::discover::{Vcpu, Vm, VmKey};
use crate::host::resctrl::{self, Control, Group};
use crate::host::roots::Roots;
use crate::host::thread::parse_stat;

/// Groups of ours have names that begin so; process and start time of the VM follow.
const PREFIX: &str = "vcpu-exporter-";

/// The groups are listed once for all VMs of a pass, which takes less than this.
const FRESH: Duration = Duration::from_millis(500);

const OCCUPANCY: &str = "kvm_vm_llc_occupancy_bytes";
const TRAFFIC: [&str; 2] = [
    "kvm_vm_memory_bandwidth_bytes_total",
    "kvm_vm_memory_bandwidth_local_bytes_total",
];

/// The `resctrl` source.
pub struct Resctrl {
    config: config::Resctrl,
    roots: Arc<Roots>,
    groups: Option<(Instant, Arc<[Control]>)>,
    vms: HashMap<VmKey, Traffic>,
    made: HashMap<VmKey, PathBuf>,
    /// VMs of which nothing is known, and why.
    troubles: BTreeMap<VmKey, Reason>,
}

/// What a VM's groups did, by cache and metric.
#[derive(Debug, Default)]
struct Traffic {
    now: HashMap<(PathBuf, u32, usize), Total>,
    /// What groups that are gone had counted.
    before: BTreeMap<(u32, usize), u64>,
}

impl Resctrl {
    /// The source over these roots.
    pub fn new(config: &config::Resctrl, roots: Arc<Roots>) -> Self {
        Self {
            config: *config,
            roots,
            groups: None,
            vms: HashMap::new(),
            made: HashMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    fn missing(&self) -> Option<Reason> {
        if !self.config.enabled {
            return Some(Reason::disabled("resctrl"));
        }
        let root = resctrl::root(&self.roots);
        (!resctrl::monitors(&self.roots)).then(|| Reason {
            code: "no_resctrl",
            detail: format!("there is no {}/info/L3_MON", root.display()),
            fix: Some(format!(
                "on a CPU with cache monitoring (cqm_occup_llc in /proc/cpuinfo): \
                 mount -t resctrl resctrl {}",
                root.display()
            )),
        })
    }

    fn groups(&mut self) -> io::Result<Arc<[Control]>> {
        let known = self.groups.take();
        let fresh = known.filter(|(read, _)| read.elapsed() < FRESH);
        let groups = match fresh {
            Some(groups) => groups,
            None => {
                let groups = resctrl::groups(&self.roots)?;
                if self.config.create_groups {
                    remove_orphans(&self.roots, &groups);
                }
                (Instant::now(), groups.into())
            }
        };
        Ok(self.groups.insert(groups).1.clone())
    }

    fn look(&mut self, vm: &Vm) -> Result<Vec<Fact>, Reason> {
        if foreign_pid(&self.roots).is_some() {
            return Err(pid_namespace());
        }
        let tasks = self.roots.proc.join(format!("{}/task", vm.key.pid));
        let tids = self.roots.list(&tasks).unwrap_or_default();
        let tids: HashSet<i32> = tids.iter().filter_map(|tid| tid.parse().ok()).collect();
        let is_there = |vcpu: &&Vcpu| identity::is_vcpu(&self.roots, vm.key.pid, **vcpu);
        let threads: Vec<Vcpu> = vm.vcpus.iter().filter(is_there).copied().collect();
        let vcpus: HashSet<i32> = threads.iter().map(|vcpu| vcpu.tid).collect();
        let root = resctrl::root(&self.roots);
        let groups = self.groups().map_err(|error| refused(&root, &error))?;
        let own: Vec<&Group> = own(&groups, &tids).collect();
        let held: HashSet<i32> = own.iter().flat_map(|group| &group.tasks).copied().collect();
        let of_others = own.iter().any(|group| !group.path.ends_with(name(vm.key)));
        let all = vcpus.is_subset(&held);
        let mut paths: Vec<PathBuf> = own.iter().map(|group| group.path.clone()).collect();
        let ours = !of_others && self.config.create_groups;
        if ours {
            let control = control_of(&groups, &vcpus).unwrap_or(&root);
            let outside = threads.iter().filter(|vcpu| !held.contains(&vcpu.tid));
            paths = vec![self.make(vm.key, control, outside)?];
        } else if !all {
            return Err(no_group());
        }
        // A group of the exporter's own may be left from an exporter before this one.
        let origin = match ours {
            true => Origin::Exporter,
            false => Origin::Vm,
        };
        let traffic = self.vms.entry(vm.key).or_default();
        Ok(traffic.read(&self.roots, &paths, origin))
    }

    /// Makes the VM's group, or finds it made, and puts these vCPUs in.
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
            self.add(vm.pid, *vcpu, &path, control)
                .map_err(|error| refused(&path, &error))?;
        }
        Ok(path)
    }

    /// Puts a vCPU thread in a group. The kernel takes a TID and moves whatever thread has it:
    /// one that is not the vCPU's is never named, and goes back should the vCPU's thread have
    /// ended, and its TID been given out again, just while it was named.
    fn add(&self, pid: i32, vcpu: Vcpu, group: &Path, control: &Path) -> io::Result<()> {
        if !identity::is_vcpu(&self.roots, pid, vcpu) {
            return Ok(());
        }
        resctrl::add_task(group, vcpu.tid)?;
        match identity::is_vcpu(&self.roots, pid, vcpu) {
            true => Ok(()),
            false => resctrl::add_task(control, vcpu.tid),
        }
    }
}

/// Name of the group that is made for a VM.
fn name(vm: VmKey) -> String {
    format!("{PREFIX}{}-{}-{}", vm.pid, vm.start_time, vm.ordinal)
}

/// Groups that hold threads of this process alone. A control group stands for its monitoring
/// groups, whose counts it includes.
fn own<'a>(groups: &'a [Control], tids: &'a HashSet<i32>) -> impl Iterator<Item = &'a Group> {
    let is_own = |group: &Group| !group.tasks.is_empty() && group.tasks.is_subset(tids);
    groups.iter().flat_map(move |control| {
        let (own, monitors) = match is_own(&control.own) {
            true => (Some(&control.own), &[][..]),
            false => (None, &control.monitors[..]),
        };
        let monitors = monitors.iter().filter(move |group| is_own(group));
        own.into_iter().chain(monitors)
    })
}

/// The control group that some of these are in, unless it is the root.
fn control_of<'a>(groups: &'a [Control], vcpus: &HashSet<i32>) -> Option<&'a PathBuf> {
    let holds = |control: &&Control| !control.own.tasks.is_disjoint(vcpus);
    Some(&groups.iter().find(holds)?.own.path)
}

/// Removes groups of ours whose VM ended while no exporter ran.
fn remove_orphans(roots: &Roots, groups: &[Control]) {
    let monitors = groups.iter().flat_map(|control| &control.monitors);
    for group in monitors {
        let name = group.path.file_name().and_then(|name| name.to_str());
        let key = name.and_then(|name| name.strip_prefix(PREFIX));
        let key = key.and_then(|key| {
            let mut numbers = key.split('-');
            Some((numbers.next()?, numbers.next()?.parse::<u64>().ok()?))
        });
        let Some((pid, start_time)) = key else {
            continue;
        };
        let stat = roots.read(&roots.proc.join(pid).join("stat"));
        let stat = stat.ok().and_then(|stat| parse_stat(&stat));
        if stat.is_none_or(|stat| stat.start_time != start_time) {
            remove(&group.path);
        }
    }
}

/// Its threads fall back to the control group.
fn remove(group: &Path) {
    if let Err(error) = std::fs::remove_dir(group) {
        let group = group.display();
        tracing::warn!(%group, %error, "the monitoring group stays; remove it with rmdir");
    }
}

impl Traffic {
    fn read(&mut self, roots: &Roots, groups: &[PathBuf], origin: Origin) -> Vec<Fact> {
        let mut occupancy: BTreeMap<u32, u64> = BTreeMap::new();
        for group in groups {
            for (llc, [occupied, traffic @ ..]) in resctrl::counts(roots, group) {
                if let Some(bytes) = occupied {
                    let sum = occupancy.entry(llc).or_insert(0);
                    *sum = sum.saturating_add(bytes);
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
        let occupancy = occupancy.map(|(llc, bytes)| fact(OCCUPANCY, llc, bytes, origin));
        let traffic = self.sums().into_iter();
        let traffic = traffic.map(|((llc, n), bytes)| fact(TRAFFIC[n], llc, bytes, origin));
        occupancy.chain(traffic).collect()
    }

    /// Keeps what groups have counted that are the VM's no more.
    fn settle(&mut self, groups: &[PathBuf]) {
        let before = &mut self.before;
        self.now.retain(|(group, llc, n), total| {
            let stays = groups.contains(group);
            if !stays {
                let sum = before.entry((*llc, *n)).or_insert(0);
                *sum = sum.saturating_add(total.sum());
            }
            stays
        });
    }

    fn sums(&self) -> BTreeMap<(u32, usize), u64> {
        let mut sums = self.before.clone();
        for ((_, llc, n), total) in &self.now {
            let sum = sums.entry((*llc, *n)).or_insert(0);
            *sum = sum.saturating_add(total.sum());
        }
        sums
    }
}

impl VmSource for Resctrl {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "resctrl",
            needs: "resctrl mounted on a CPU with cache monitoring, and a group for each VM",
            cost: "the tasks file of each group, which walks all threads; 3 files a VM and cache",
        }
    }

    fn state(&self) -> SourceState {
        if let Some(reason) = self.missing() {
            return SourceState::Down(reason);
        }
        let count = self.troubles.len();
        let Some(first) = self.troubles.values().next() else {
            return SourceState::Up;
        };
        let reason = Reason {
            detail: format!("nothing is known of {count} of the VMs: {}", first.detail),
            ..first.clone()
        };
        match self.vms.keys().all(|vm| self.troubles.contains_key(vm)) {
            true => SourceState::Down(reason),
            false => SourceState::Degraded(reason),
        }
    }

    fn period(&self) -> Duration {
        self.config.period
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        // The state says so once; there is no error for each VM.
        if self.missing().is_some() {
            return Ok(Vec::new());
        }
        identity::check(&self.roots, vm.key)?;
        match self.look(vm) {
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

fn fact(metric: &'static str, llc: u32, bytes: u64, origin: Origin) -> Fact {
    Fact {
        metric,
        labels: vec![("llc", llc.to_string())],
        value: FactValue::Int(bytes),
        origin,
    }
}

fn no_group() -> Reason {
    Reason {
        code: "no_group",
        detail: "no group of resctrl holds its vCPUs and no other process".to_owned(),
        fix: Some("set sources.resctrl.create_groups: true".to_owned()),
    }
}

fn refused(path: &Path, error: &io::Error) -> Reason {
    let (code, fix) = match error.raw_os_error() {
        Some(libc::ENOSPC) => (
            "no_rmid",
            Some("remove groups that nobody needs: the CPU has num_rmids of them".to_owned()),
        ),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => (
            "no_permission",
            Some("run the exporter as root, with /sys/fs/resctrl writable".to_owned()),
        ),
        _ => ("unreadable", None),
    };
    Reason {
        code,
        detail: format!("{}: {error}", path.display()),
        fix,
    }
}

#[cfg(test)]
mod tests;
