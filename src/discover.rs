//! Which VMs and vCPUs exist, found in /proc and KVM debugfs without asking any daemon.
//!
//! A [`Scanner`] looks at all processes again and again. Each pass asks cheap questions first
//! (`watch`: a few stat calls a process), and looks closely (`process`, `vcpus`) only where an
//! answer changed. Who runs a VM (`vmm`) and who manages it (`manager`) is told by small files,
//! one each; what several of them read is in `cmdline`, `cgroup` and `domains`.
//!
//! # Whom to believe
//!
//! Descriptors of KVM, debugfs and libvirt's state cannot be feigned; names of threads, command
//! lines and groups in a login session are anybody's. So a process is a VMM by its descriptors,
//! a VM has no more vCPUs than KVM made for it, and names give way in order of trust (`naming`):
//! no VM is renamed by one less to be trusted. What remains for a local user without privileges:
//!
//! - who may open /dev/kvm can run VMs of any name, uuid and claimed manager (OpenStack's SMBIOS,
//!   Proxmox' pid file); they take series and descriptors as any VM does (`limits.max_series`);
//! - where the exporter may not read descriptors, a process whose threads are named as vCPUs is
//!   taken for a VM, up to 16 VMs of 4096 vCPUs; a blind spot says that VMs are known by name;
//! - two VMs of one name and equal trust both get a suffix, whoever was first;
//! - a process with very many descriptors costs one long look when it starts.

use std::sync::Arc;

use crate::host::topology::Topology;

mod blind;
mod cgroup;
mod cmdline;
mod debugfs;
mod domains;
mod guest;
pub mod lane;
mod manager;
mod naming;
mod process;
mod scanner;
mod vcpus;
mod vmm;
mod watch;

pub use scanner::Scanner;
pub use vmm::{io_uring_of, vhost_of, Role};

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
}

/// Tells one VM from every other, also after its PID was reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmKey {
    /// Process id of the VMM.
    pub pid: i32,
    /// The process' start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_time: u64,
    /// Which VM of the process: the descriptor of its `kvm-vm` file where known, else 0, 1, …
    pub ordinal: u32,
}

/// One KVM virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Identity on this host.
    pub key: VmKey,
    /// Value of the `vm` label: unique on this host, valid UTF-8, at most 128 bytes, not escaped.
    pub name: String,
    /// Where the name came from: `libvirt` (its run-time state), `cmdline`, `cgroup` (a libvirt
    /// machine's), `uuid`, `pid`.
    pub name_source: &'static str,
    /// UUID in lower case with dashes.
    pub uuid: Option<String>,
    /// Who runs it: `qemu`, `firecracker`, `cloud-hypervisor`, `crosvm`, `alioth`, `demo-guest`,
    /// `unknown`.
    pub vmm: &'static str,
    /// Who manages it: `libvirt`, `openstack`, `kubevirt`, `proxmox`, or none known.
    pub manager: Option<&'static str>,
    /// What the manager knows, as further labels of `kvm_vm_info`, sorted by label name.
    pub facts: Vec<(&'static str, String)>,
    /// Its vCPUs, sorted by index.
    pub vcpus: Vec<Vcpu>,
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
