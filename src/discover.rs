//! Which VMs and vCPUs exist, found in /proc and KVM debugfs without asking any daemon.
//!
//! A [`Scanner`] looks at all processes again and again. Each pass asks cheap questions first
//! (`watch`: a few stat calls a process), and looks closely (`process`, `vcpus`) only where an
//! answer changed. Who runs a VM (`vmm`) and who manages it (`manager`) is told by small files,
//! one each; what several of them read is in `program`, `cmdline`, `cgroup` and `domains`.
//!
//! # Whom to believe
//!
//! Descriptors of KVM, debugfs and libvirt's state cannot be feigned; names of threads, command
//! lines and groups in a login session are anybody's, and so is the effective user of a program
//! that is setuid root. So a process is a VMM by its descriptors, a VM has no more vCPUs than KVM
//! made for it, and names give way in order of trust (`naming`):
//!
//! - a running VM keeps its name against all that are not more to be trusted; who comes later gets
//!   a suffix, and keeps that;
//! - a name outlives its VM: only a VM of the same owner, or one more to be trusted, goes on with
//!   the series of one that ended (the newest 4,096 names of root and managers, and of all users);
//! - values that look alike because something in them is not drawn are made different (`label`).
//!
//! What remains for a local user without privileges:
//!
//! - who may open /dev/kvm can run VMs of any name, uuid and claimed manager (OpenStack's SMBIOS,
//!   Proxmox' pid file); they take series and descriptors as any VM does (`limits.max_series`);
//! - a name that no VM of root has yet can be squatted: the series end where the real VM starts,
//!   under whose name they then go on;
//! - letters of different scripts that look alike make names that look alike;
//! - a manager's VMs are the operator's: what its users may call them is the manager's to decide;
//! - where the exporter may not read descriptors, a process whose threads are named as vCPUs is
//!   taken for a VM, up to 16 VMs of 4096 vCPUs; a blind spot says that VMs are known by name;
//! - a user's processes with very many descriptors cost some 16,000 links a pass, and 262,144 at once;
//!   a VM whose descriptors come after 65,536 others is not seen;
//! - a process that holds up who reads its memory is not seen, or keeps the name it has; others of
//!   its user may be unseen too (`blocked`), and a blind spot says so.

use std::sync::Arc;

use crate::host::topology::Topology;

mod blind;
mod blocked;
mod cgroup;
mod cmdline;
mod debugfs;
mod domains;
mod guest;
mod label;
pub mod lane;
mod manager;
mod naming;
mod open_files;
mod process;
mod program;
mod role;
mod scanner;
mod vcpus;
mod vmm;
mod vmm_file;
mod watch;

pub use role::{io_uring_of, vhost_of, Role};
pub use scanner::Scanner;

/// Everything known about who runs on this host; replaced whole when something changed.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Counts changes, from 1; equal numbers are equal inventories.
    pub generation: u64,
    /// The machine's CPUs at the time of the scan.
    pub topology: Arc<Topology>,
    /// All VMs, sorted by name.
    pub vms: Vec<Arc<Vm>>,
    /// What could not be seen and what would make it visible, each once: `what; needs remedy`.
    pub blind_spots: Vec<String>,
    /// Processes that could not be examined because their memory cannot be read at the moment.
    pub blocked: usize,
}

/// Tells one VM from every other, also after its PID was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmKey {
    /// Process id of the VMM.
    pub pid: i32,
    /// The process' start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// Which VM of the process: the descriptor its `kvm-vm` file had first where known, else 0, 1, …
    pub ordinal: u32,
}

/// One KVM virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Identity on this host.
    pub key: VmKey,
    /// Value of the `vm` label: unique on this host, valid UTF-8, at most 128 bytes, not escaped.
    pub name: String,
    /// Where the name came from: `libvirt` (its run-time state), `cmdline`, `cgroup` (that of a
    /// libvirt machine or of a unit `vm@NAME.service`), `uuid`, `pid`.
    pub name_source: &'static str,
    /// UUID in lower case with dashes.
    pub uuid: Option<String>,
    /// Who runs it: `qemu`, `firecracker`, `cloud-hypervisor`, `crosvm`, `alioth`, `libkrun`,
    /// `stratovirt`, `kvmtool`, `dragonball`, `gvisor`, `demo-guest`, `unknown`.
    pub vmm: &'static str,
    /// Who manages it: `libvirt`, `openstack`, `kubevirt`, `proxmox`, or none known.
    pub manager: Option<&'static str>,
    /// Whose it is, when several users share what the exporter has.
    pub owner: Owner,
    /// What the manager knows, as further labels of `kvm_vm_info`, sorted by label name.
    pub facts: Vec<(&'static str, String)>,
    /// Its vCPUs whose thread is known, sorted by index.
    pub vcpus: Vec<Vcpu>,
    /// vCPUs it has beside those: their thread is not known, or they have none of their own.
    pub threadless: u32,
    /// Whether its VMM names threads by what they do.
    pub names_threads: bool,
}

/// Whose a VM is. Names, descriptors and series are shared by owners: who runs very many VMs takes
/// none of them from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Root, or a manager of VMs: the operator's.
    Host,
    /// The user who logged in, else the one the VMM runs as; `None` where /proc does not tell.
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
    /// The vCPU's index in its VM: as the VMM numbers it in its thread's name, which is the
    /// number libvirt shows; else KVM's vcpu id, which QEMU on x86 sets to the APIC id and which
    /// has gaps where the cores of a socket are no power of two.
    pub index: u32,
    /// Host thread id.
    pub tid: i32,
    /// The thread's start time in clock ticks since boot.
    pub start_time: u64,
}
