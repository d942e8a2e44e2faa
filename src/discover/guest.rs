//! A process that runs VMs, as it is remembered between passes, and what its VMs are called.

use super::cgroup::Cgroup;
use super::cmdline::Cmdline;
use super::domains::Domain;
use super::label;
use super::manager::{self, Clues};
use super::naming::{self, Names, Runner, Trust, Unnamed};
use super::process::Process;
use super::vcpus::Machine;
use super::vmm::{is_generic, Identity};
use super::{Owner, Vm, VmKey};

/// What is remembered of a VMM.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) pid: i32,
    start_time: u64,
    uid: Option<u32>,
    vmm: &'static str,
    identity: Identity,
    pub(super) cmdline: Cmdline,
    cgroup: Cgroup,
    pub(super) machines: Vec<Machine>,
    /// Its descriptors may not be read.
    pub(super) hidden: bool,
    /// Its vCPUs are no threads: any thread may run any of them.
    pub(super) unbound: bool,
    /// It has several VMs and no debugfs to tell them apart.
    pub(super) mixed: bool,
}

impl Guest {
    pub(super) fn new(process: Process, machines: Vec<Machine>, in_debugfs: bool) -> Self {
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

    /// vCPUs that have a thread which is not known, and the VMM names none that could be it.
    pub(super) fn unknown_threads(&self) -> usize {
        match self.unbound {
            true => 0,
            false => self.machines.iter().map(Machine::threadless).sum(),
        }
    }

    /// vCPUs that are not there yet though their VMM names threads: one is being added, or was
    /// removed and QEMU keeps its descriptor for the next.
    pub(super) fn missing_named(&self) -> bool {
        let mut machines = self.machines.iter();
        machines.any(|machine| machine.named && machine.missing > 0)
    }

    /// Whether its cgroup is one libvirt makes.
    pub(super) fn in_libvirt(&self) -> bool {
        manager::name_in_cgroup(&self.cgroup).is_some()
    }

    /// Root and managers are one; a user is who logged in, where that is known: users have further
    /// ids for their containers (subuid(5)), and are not several users by that.
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

    /// Its VMs, with names that may not be unique yet. `domain` is libvirt's state of this pid.
    pub(super) fn vms(&self, domain: Option<&Domain>) -> Vec<(Trust, Vm)> {
        let uuid = self.identity.uuid.as_deref().and_then(naming::uuid);
        // libvirt starts each with -uuid: a state that says another, or a process that says
        // none, is of an earlier process of this pid.
        let domain = domain.filter(|d| uuid.is_some() && d.uuid == uuid);
        let trust = self.trust(domain.is_some());
        let (name, name_source) = self.name(domain, uuid.as_deref());
        let managed = manager::of(&Clues {
            cmdline: &self.cmdline,
            cgroup: &self.cgroup,
            name: domain
                .map(|d| d.name.as_str())
                .or(self.identity.name.as_deref()),
            domain,
        });
        let (manager, facts) = managed.unzip();
        let facts = clean(facts.unwrap_or_default());
        let vm = |machine: &Machine| Vm {
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

    /// The name the operator gave, else what identifies the VM. libvirt's state goes before the
    /// command line, which keeps the name the domain was started with.
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

/// Facts as labels: bounded, without control characters, sorted.
fn clean(facts: manager::Facts) -> Vec<(&'static str, String)> {
    let mut facts: Vec<_> = facts
        .into_iter()
        .filter_map(|(label, value)| Some((label, label::clean(&value)?)))
        .collect();
    facts.sort_unstable();
    facts
}

/// Gives the VMs the names they keep and sorts them by name.
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
