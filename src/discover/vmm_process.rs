//! A process that runs VMs, as remembered between passes, and the names of its VMs.

use super::cgroup::Cgroup;
use super::cmdline::Cmdline;
use super::domains::Domain;
use super::label;
use super::manager::{self, Clues};
use super::naming::{self, Names, Runner, Trust, Unnamed};
use super::process::Process;
use super::vcpus::VmCandidate;
use super::vmm::{is_generic, Identity};
use super::{Owner, Vm, VmKey};

#[derive(Debug)]
pub(super) struct VmmProcess {
    pub(super) pid: i32,
    start_time: u64,
    uid: Option<u32>,
    vmm: &'static str,
    identity: Identity,
    pub(super) cmdline: Cmdline,
    cgroup: Cgroup,
    pub(super) machines: Vec<VmCandidate>,
    /// Its descriptors cannot be read.
    pub(super) hidden: bool,
    /// It has no thread per vCPU: any thread may run any vCPU.
    pub(super) unbound: bool,
    /// It has several VMs and no debugfs that separates them.
    pub(super) mixed: bool,
}

impl VmmProcess {
    pub(super) fn new(process: Process, machines: Vec<VmCandidate>, in_debugfs: bool) -> Self {
        Self {
            pid: process.pid,
            start_time: process.start_time,
            uid: process.uid,
            vmm: process.vmm.map_or("unknown", |vmm| vmm.name),
            unbound: process.vmm.is_some_and(|vmm| vmm.unbound),
            identity: process.identity,
            cmdline: process.cmdline,
            cgroup: process.cgroup,
            hidden: process.fds.is_none(),
            mixed: machines.len() > 1 && !in_debugfs,
            machines,
        }
    }

    /// Number of vCPUs whose thread is unknown; 0 if the VMM has no thread per vCPU.
    pub(super) fn unknown_threads(&self) -> usize {
        if self.unbound {
            0
        } else {
            self.machines.iter().map(VmCandidate::threadless).sum()
        }
    }

    /// Whether a vCPU has no thread although the VMM names its threads: it is being added, or it
    /// was removed and QEMU keeps its descriptor for reuse.
    pub(super) fn missing_named(&self) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|machine| machine.named && machine.missing > 0)
    }

    /// Whether libvirt created its cgroup.
    pub(super) fn in_libvirt(&self) -> bool {
        manager::name_in_cgroup(&self.cgroup).is_some()
    }

    /// Root and managers are one owner. A user is the user of the login session if known: container
    /// ids (subuid(5)) do not make one user several owners.
    fn owner(&self) -> Owner {
        match self.uid {
            Some(0) => Owner::Host,
            _ if self.cgroup.is_managed() => Owner::Host,
            uid => Owner::User(self.cgroup.session_user().or(uid)),
        }
    }

    fn trust(&self, known: bool) -> Trust {
        let runner = match self.owner() {
            Owner::Host => Runner::Host,
            Owner::User(_) if self.cgroup.in_session() => Runner::Session,
            Owner::User(_) => Runner::Service,
        };
        Trust {
            seen: !self.hidden,
            known,
            runner,
        }
    }

    /// Its VMs, before names are made unique. `domain` is libvirt's state of this PID.
    pub(super) fn vms(&self, domain: Option<&Domain>) -> Vec<(Trust, Vm)> {
        let uuid = self.identity.uuid.as_deref().and_then(naming::uuid);
        // libvirt starts each QEMU with -uuid. If the state has another uuid, or the process has
        // none, the state belongs to an earlier process with this PID.
        let domain = domain.filter(|d| uuid.is_some() && d.uuid == uuid);
        let trust = self.trust(domain.is_some());
        let (name, name_source) = self.name(domain, uuid.as_deref());
        let managed = manager::identify(&Clues {
            cmdline: &self.cmdline,
            cgroup: &self.cgroup,
            name: domain
                .map(|d| d.name.as_str())
                .or(self.identity.name.as_deref()),
            domain,
        });
        let (manager, facts) = managed.unzip();
        let facts = clean(facts.unwrap_or_default());
        let vm = |machine: &VmCandidate| Vm {
            key: VmKey {
                pid: self.pid,
                start_time: self.start_time,
                ordinal: machine.ordinal,
            },
            name: name.clone(),
            name_source,
            uuid: uuid.clone(),
            vmm: self.vmm,
            manager,
            owner: self.owner(),
            facts: facts.clone(),
            vcpus: machine.vcpus.clone(),
            threadless: u32::try_from(machine.threadless()).unwrap_or(u32::MAX),
            names_threads: machine.named,
        };
        self.machines.iter().map(|m| (trust, vm(m))).collect()
    }

    /// The name that the operator chose, else an identifier of the VM. libvirt's state comes before
    /// the command line, which keeps the name from the domain's start.
    fn name(&self, domain: Option<&Domain>, uuid: Option<&str>) -> (String, &'static str) {
        let of_domain = domain.and_then(|d| label::clean(&d.name));
        let of_line = || label::clean(self.identity.name.as_deref()?);
        let of_cgroup = || label::clean(manager::name_in_cgroup(&self.cgroup)?);
        let of_unit = || label::clean(self.cgroup.instance(is_generic)?);
        None.or(of_domain.map(|name| (name, "libvirt")))
            .or_else(|| Some((of_line()?, "cmdline")))
            .or_else(|| Some((of_cgroup()?, "cgroup")))
            .or_else(|| Some((of_unit()?, "cgroup")))
            .or_else(|| Some((uuid?.to_owned(), "uuid")))
            .unwrap_or_else(|| (format!("pid-{}", self.pid), "pid"))
    }
}

/// Cleans the facts and sorts them by label.
fn clean(facts: manager::Facts) -> Vec<(&'static str, String)> {
    let mut facts: Vec<_> = facts
        .into_iter()
        .filter_map(|(label, value)| Some((label, label::clean(&value)?)))
        .collect();
    facts.sort_unstable();
    facts
}

/// Makes the names unique and sorts the VMs by name.
pub(super) fn name_all(vms: Vec<(Trust, Vm)>, names: &mut Names) -> Vec<Vm> {
    let unnamed: Vec<Unnamed<'_>> = vms
        .iter()
        .map(|(trust, vm)| Unnamed {
            key: vm.key,
            base: &vm.name,
            uuid: vm.uuid.as_deref(),
            owner: vm.owner,
            trust: *trust,
        })
        .collect();
    let names = names.give(&unnamed);
    let named = |((_, vm), name)| Vm { name, ..vm };
    let mut vms: Vec<Vm> = vms.into_iter().zip(names).map(named).collect();
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    vms
}
