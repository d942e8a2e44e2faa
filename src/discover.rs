//! Which VMs and vCPUs exist, found in /proc and KVM debugfs without asking any daemon.

use std::sync::Arc;

use crate::host::topology::Topology;

/// Everything known about who runs on this host; replaced whole when something changed.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Counts changes, from 1; equal numbers are equal inventories.
    pub generation: u64,
    /// The machine's CPUs at the time of the scan.
    pub topology: Arc<Topology>,
    /// All VMs, sorted by name.
    pub vms: Vec<Arc<Vm>>,
    /// What could not be seen and what would make it visible, each once.
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
    /// Where the name came from: `cmdline`, `libvirt`, `uuid`, `pid`, …
    pub name_source: &'static str,
    /// UUID in lower case with dashes.
    pub uuid: Option<String>,
    /// Who runs it: `qemu`, `firecracker`, `cloud-hypervisor`, `crosvm`, `demo-guest`, `unknown`.
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
    /// The vCPU's index in its VM, as KVM or the VMM numbers it.
    pub index: u32,
    /// Host thread id.
    pub tid: i32,
    /// The thread's start time in clock ticks since boot.
    pub start_time: u64,
}
