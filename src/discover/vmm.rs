//! The known VMMs, one file each.

use super::cmdline::Cmdline;
use super::program::Program;

mod alioth;
mod cloud_hypervisor;
mod crosvm;
mod dragonball;
mod firecracker;
mod gvisor;
mod kvmtool;
mod libkrun;
mod micro_vm;
mod path_name;
mod qemu;
mod stratovirt;

pub(super) use path_name::is_generic;
pub(super) use qemu::smbios;

/// Facts about one kind of VMM.
#[derive(Debug)]
pub(super) struct Vmm {
    /// Value of the `vmm` label.
    pub(super) name: &'static str,
    /// Whether a program of this file name, with these arguments, is this VMM. The name can come
    /// from a thread, cut at 15 bytes.
    pub(super) runs: fn(&str, &Cmdline) -> bool,
    /// What is before and after the index in names of vCPU threads; `None` if it has none.
    vcpu: Option<(&'static str, &'static str)>,
    /// Whether a thread of this name does only I/O for devices; `None` if unknown for this VMM.
    pub(super) iothread: Option<fn(&str) -> bool>,
    /// Whether a thread of this name migrates or saves the VM; `None` if unknown for this VMM.
    pub(super) migration: Option<fn(&str) -> bool>,
    /// Whether no program other than a VMM would use its names of vCPU threads.
    pub(super) telling: bool,
    /// Whether a thread of this name belongs to this VMM and no other. Names of vCPU threads are
    /// not sufficient: several VMMs use those of QEMU and Firecracker.
    pub(super) own: fn(&str) -> bool,
    /// Whether any of its threads may run any of its vCPUs.
    pub(super) unbound: bool,
    /// VM name and uuid from its arguments.
    pub(super) identity: fn(&Invocation<'_>) -> Identity,
}

impl Vmm {
    /// The vCPU index in a thread's name; `None` for other threads. The kernel cuts a name at 15
    /// bytes, so what is after the index may be incomplete.
    pub(super) fn vcpu_index(&self, comm: &str) -> Option<u32> {
        /// TASK_COMM_LEN of include/linux/sched.h without the NUL.
        const COMM_LEN: usize = 15;
        let (prefix, suffix) = self.vcpu?;
        let rest = comm.strip_prefix(prefix)?;
        let end = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let whole = end == suffix || (comm.len() == COMM_LEN && suffix.starts_with(end));
        let number = rest.strip_suffix(end).filter(|_| whole)?;
        number.parse().ok()
    }
}

/// Defaults, which each file overrides.
const PLAIN: Vmm = Vmm {
    name: "unknown",
    runs: |_, _| false,
    vcpu: None,
    iothread: None,
    migration: None,
    telling: false,
    own: |_| false,
    unbound: false,
    identity: |_| Identity::default(),
};

/// How a VMM was started.
#[derive(Clone, Copy)]
pub(super) struct Invocation<'a> {
    pub(super) cmdline: &'a Cmdline,
    /// Its working directory, for relative paths; `None` if it cannot be read.
    pub(super) cwd: Option<&'a str>,
    /// The text of a file as the VMM sees it; `None` if it cannot be read.
    pub(super) file: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Invocation<'a> {
    /// A VM name derived from a path among the arguments.
    fn name_of_path(&self, path: &str) -> Option<String> {
        path_name::find_name(path, self.cwd)
    }

    /// The value of an option; the last one counts.
    fn option(&self, name: &str) -> Option<&'a str> {
        self.cmdline.option(name)
    }
}

/// Name and UUID from the arguments, neither cleaned nor checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
}

impl Identity {
    /// A name without a uuid.
    fn named(name: Option<&str>) -> Self {
        Self {
            name: name.map(str::to_owned),
            uuid: None,
        }
    }
}

/// A process is of the first kind that matches.
const VMMS: &[Vmm] = &[
    micro_vm::VMM,
    qemu::VMM,
    firecracker::VMM,
    cloud_hypervisor::VMM,
    crosvm::VMM,
    alioth::VMM,
    libkrun::VMM,
    stratovirt::VMM,
    kvmtool::VMM,
    dragonball::VMM,
    gvisor::VMM,
];

/// The kind of VMM: from its executable, else from two independent pieces of evidence.
///
/// `argv[0]` or the first thread's name alone is sufficient only if the executable cannot be read
/// and the two do not name different kinds. A wrong kind is worse than none.
pub(super) fn identify<'a>(
    program: &Program,
    cmdline: &Cmdline,
    comms: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static Vmm> {
    let kind = |name: &str| VMMS.iter().find(|vmm| (vmm.runs)(name, cmdline));
    let runs_vcpus = |vmm: &&Vmm| comms.clone().any(|comm| vmm.vcpu_index(comm).is_some());
    let has_own = |vmm: &&Vmm| comms.clone().any(|comm| (vmm.own)(comm));
    let by_exe = program.exe.as_deref().and_then(kind);
    let by_threads = || VMMS.iter().filter(runs_vcpus).find(has_own);
    let said = || match (kind(&program.called), kind(&program.comm)) {
        (Some(called), Some(comm)) if called.name == comm.name => Some(called),
        (Some(one), None) | (None, Some(one)) if program.exe.is_none() => Some(one),
        (called, comm) => {
            let mut borne = called.into_iter().chain(comm).filter(runs_vcpus);
            let first = borne.next();
            first.filter(|_| borne.next().is_none())
        }
    };
    by_exe.or_else(by_threads).or_else(said)
}

/// The VMM with this value of the `vmm` label.
pub(super) fn named(name: &str) -> Option<&'static Vmm> {
    VMMS.iter().find(|known| known.name == name)
}

/// The vCPU index in a thread's name of any kind of VMM.
pub(super) fn any_vcpu(comm: &str) -> Option<u32> {
    VMMS.iter().find_map(|vmm| vmm.vcpu_index(comm))
}

/// Whether only vCPU threads have such a name.
pub(super) fn is_vcpu_beyond_doubt(comm: &str) -> bool {
    let mut telling = VMMS.iter().filter(|vmm| vmm.telling);
    telling.any(|vmm| vmm.vcpu_index(comm).is_some())
}

#[cfg(test)]
pub(super) mod tests;
