//! Finds the VMs and vCPUs of the host in /proc and KVM debugfs, without any daemon.
//!
//! A [`Scanner`] scans all processes once per pass. A pass first makes cheap checks (`watch`: a few
//! stat calls per process) and examines a process (`process`, `vcpus`) only if one of them changed.
//! One small file per VMM (`vmm`) and per manager (`manager`) identifies it; `program`, `cmdline`,
//! `cgroup` and `domains` hold what several of these files read.
//!
//! # Trust
//!
//! No user can forge KVM descriptors, debugfs or libvirt's state. Any user can choose thread names,
//! command lines and the groups of a login session; the effective user of a setuid root program
//! proves nothing either. Therefore KVM descriptors make a process a VMM, a VM has no more vCPUs
//! than KVM created for it, and VMs keep names in order of trust (`naming`):
//!
//! - A running VM keeps its name unless a more trusted VM has the same name. A later VM of that
//!   name gets a suffix and keeps it.
//! - A name outlives its VM: only a VM of the same owner, or a more trusted one, continues the
//!   series of an ended VM (the newest 4,096 names of root and managers, and as many of all users).
//! - Invisible characters are replaced, so that different values look different (`label`).
//!
//! What an unprivileged local user can still do:
//!
//! - A user with access to /dev/kvm can run VMs with any name, uuid and claimed manager
//!   (OpenStack's SMBIOS, Proxmox's pid file). They take series and descriptors like any VM
//!   (`limits.max_series`).
//! - A user can take a name before root's VM starts: the user's series end when the real VM starts,
//!   which then continues the series of that name.
//! - Look-alike letters of different scripts make look-alike names.
//! - The VMs of a manager count as the operator's: the manager decides what its users may name
//!   them.
//! - If the exporter cannot read descriptors, a process with thread names of vCPUs counts as a VM,
//!   up to 16 VMs of 4096 vCPUs; a visibility gap reports VMs known only by name.
//! - Processes with very many descriptors cost about 16,000 links per pass, and at most 262,144 at
//!   once; a VM whose descriptors follow 65,536 others is not found.
//! - A process that blocks readers of its memory is not found, or keeps its last name; other
//!   processes of the same user may be affected (`blocked`). A visibility gap reports it.

use std::sync::Arc;

use crate::host::task::Task;
use crate::host::topology::Topology;

mod blocked;
mod cgroup;
mod cmdline;
mod debugfs;
pub(crate) mod discovery;
mod domains;
mod label;
mod manager;
mod naming;
mod open_files;
mod process;
mod program;
mod role;
mod scanner;
mod vcpus;
mod visibility;
mod vmm;
mod vmm_file;
mod vmm_process;
mod watch;

pub(crate) use role::{io_uring_of, vhost_of, Role};
pub use scanner::Scanner;
pub use visibility::VisibilityGap;

/// All known VMs of this host; replaced as a whole after a change.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Number of changes, from 1; equal generations are equal inventories.
    pub generation: u64,
    /// CPU topology at the time of the scan.
    pub topology: Arc<Topology>,
    /// All VMs, sorted by name.
    pub vms: Vec<Arc<Vm>>,
    /// What the scan could not see and how to fix it, without duplicates.
    pub visibility_gaps: Vec<VisibilityGap>,
    /// Processes that could not be examined because reading their memory blocks.
    pub blocked: usize,
}

/// Identifies a VM; unique even after PID reuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmKey {
    /// PID of the VMM.
    pub pid: i32,
    /// Start time of the process in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// The first known descriptor number of the VM's `kvm-vm` file, else 0, 1, … within the
    /// process.
    pub ordinal: u32,
}

impl VmKey {
    /// The process of the VMM.
    pub(crate) fn process(self) -> Task {
        Task::process(self.pid, self.start_time)
    }
}

/// One KVM virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Identity on this host.
    pub key: VmKey,
    /// Value of the `vm` label: unique on this host, valid UTF-8, at most 128 bytes, not escaped.
    pub name: String,
    /// Source of the name: `libvirt` (its run-time state), `cmdline`, `cgroup` (of a libvirt
    /// machine or a unit `vm@NAME.service`), `uuid`, `pid`.
    pub name_source: &'static str,
    /// UUID, lower case with dashes.
    pub uuid: Option<String>,
    /// VMM: `qemu`, `firecracker`, `cloud-hypervisor`, `crosvm`, `alioth`, `libkrun`, `stratovirt`,
    /// `kvmtool`, `dragonball`, `gvisor`, `demo-guest`, `unknown`.
    pub vmm: &'static str,
    /// Manager: `libvirt`, `openstack`, `kubevirt`, `proxmox`; `None` if unknown.
    pub manager: Option<&'static str>,
    /// Owner, for limits that users share.
    pub owner: Owner,
    /// Facts from the manager: further labels of `kvm_vm_info`, sorted by label name.
    pub facts: Vec<(&'static str, String)>,
    /// vCPUs with a known thread, sorted by index.
    pub vcpus: Vec<Vcpu>,
    /// Number of further vCPUs: their thread is unknown, or they have no thread of their own.
    pub threadless: u32,
    /// Whether the VMM names its threads by their function.
    pub names_threads: bool,
}

/// Owner of a VM. Owners share names, descriptors and series: an owner of very many VMs takes none
/// from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Root or a manager of VMs.
    Host,
    /// The user of the login session, else the user of the VMM; `None` if /proc does not say.
    User(Option<u32>),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("root and managers"),
            Self::User(Some(uid)) => write!(f, "user {uid}"),
            Self::User(None) => f.write_str("unknown user"),
        }
    }
}

/// One vCPU: a thread of its VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vcpu {
    /// Index of the vCPU in its VM: the number in the thread name (which libvirt shows too), else
    /// KVM's vcpu id. QEMU on x86 sets that id to the APIC id, which has gaps if the number of
    /// cores per socket is not a power of two.
    pub index: u32,
    /// Host TID.
    pub tid: i32,
    /// Start time of the thread in clock ticks since boot.
    pub start_time: u64,
}

impl Vcpu {
    /// Its thread in the process of its VM.
    pub(crate) fn thread(self, vm: VmKey) -> Task {
        Task::thread(vm.pid, self.tid, self.start_time)
    }
}
