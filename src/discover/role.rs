//! Roles of a VM's threads.

use super::vmm;
use crate::host::label::label_values;

label_values! {
    /// What a thread does for a VM.
    pub(crate) enum Role {
        /// Runs a vCPU.
        Vcpu = "vcpu",
        /// Any other thread of the VMM: main loop, monitor, workers.
        Emulator = "emulator",
        /// Migrates the VM to or from another host, or saves it.
        Migration = "migration",
        /// Does only I/O for the guest's devices.
        Iothread = "iothread",
        /// A worker of the kernel's vhost, which serves virtio devices.
        Vhost = "vhost",
    }
}

impl Role {
    /// Whether this kind of VMM is known to name threads of this role; all other threads are the
    /// emulator's.
    pub(crate) fn is_named_by(self, vmm: &str) -> bool {
        let known = vmm::named(vmm);
        match self {
            Role::Iothread => known.is_some_and(|vmm| vmm.iothread.is_some()),
            Role::Migration => known.is_some_and(|vmm| vmm.migration.is_some()),
            Role::Vcpu | Role::Emulator | Role::Vhost => true,
        }
    }

    /// The role of a thread in this kind of VMM ([`Vm::vmm`](super::Vm)), from its name `comm`. A
    /// process chooses its thread names; it cannot choose whether a thread is the kernel's
    /// (`of_kernel`).
    pub(crate) fn recognise(vmm: &str, comm: &str, of_kernel: bool) -> Self {
        if of_kernel {
            return match vhost_of(comm) {
                Some(_) => Role::Vhost,
                None => Role::Emulator,
            };
        }
        match vmm::named(vmm) {
            Some(vmm) if vmm.vcpu_index(comm).is_some() => Role::Vcpu,
            Some(vmm) if vmm.iothread.is_some_and(|is| is(comm)) => Role::Iothread,
            Some(vmm) if vmm.migration.is_some_and(|is| is(comm)) => Role::Migration,
            _ => Role::Emulator,
        }
    }
}

/// TID of the thread for which the kernel created this vhost worker (drivers/vhost/vhost.c,
/// `vhost_worker_create`).
pub(crate) fn vhost_of(comm: &str) -> Option<i32> {
    tid(comm.strip_prefix("vhost-"))
}

/// TID of the thread for which the kernel created this io_uring worker (io_uring/{io-wq,sqpoll}.c).
pub(crate) fn io_uring_of(comm: &str) -> Option<i32> {
    let worker = comm.strip_prefix("iou-wrk-");
    tid(worker.or_else(|| comm.strip_prefix("iou-sqp-")))
}

fn tid(text: Option<&str>) -> Option<i32> {
    text?.parse().ok().filter(|tid| *tid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_depend_on_name_and_owner_of_the_thread() {
        use Role::{Emulator, Iothread, Migration, Vcpu, Vhost};
        let cases = [
            ("qemu", "IO iothread1", false, Iothread),
            ("qemu", "IO mon_iothread", false, Emulator),
            ("qemu", "qemu-system-x86", false, Emulator),
            ("qemu", "worker", false, Emulator),
            ("qemu", "vnc_worker", false, Emulator),
            ("qemu", "CPU 3/KVM", false, Vcpu),
            ("qemu", "vhost-4711", true, Vhost),
            ("qemu", "vhost-4711", false, Emulator),
            ("qemu", "vhost-", true, Emulator),
            ("qemu", "kvm-nx-lpage-re", true, Emulator),
            ("qemu", "IO iothread1", true, Emulator),
            ("qemu", "live_migration", false, Migration),
            ("qemu", "mig/src/send_0", false, Migration),
            ("qemu", "multifdrecv_3", false, Migration),
            ("qemu", "mig/src/main", true, Emulator),
            ("crosvm", "migration", false, Emulator),
            ("firecracker", "fc_api", false, Emulator),
            ("firecracker", "IO x", false, Emulator),
            ("cloud-hypervisor", "_disk0_q1", false, Iothread),
            ("cloud-hypervisor", "_net2_qp12", false, Iothread),
            ("cloud-hypervisor", "_net2_ctrl", false, Emulator),
            ("cloud-hypervisor", "vmm", false, Emulator),
            ("cloud-hypervisor", "_q", false, Emulator),
            ("crosvm", "v_block", false, Iothread),
            ("crosvm", "v_gpu", false, Iothread),
            ("crosvm", "CMOS_alarm", false, Emulator),
            ("unknown", "CPU 0/KVM", false, Emulator),
        ];
        for (vmm, comm, of_kernel, role) in cases {
            assert_eq!(Role::recognise(vmm, comm, of_kernel), role, "{vmm} {comm}");
        }
        assert!(Iothread.is_named_by("firecracker") && !Iothread.is_named_by("unknown"));
        assert!(Migration.is_named_by("qemu") && !Migration.is_named_by("cloud-hypervisor"));
        assert_eq!(vhost_of("vhost-12"), Some(12));
        assert_eq!(vhost_of("vhost--12"), None);
        assert_eq!(io_uring_of("iou-wrk-12"), Some(12));
        assert_eq!(io_uring_of("iou-sqp-7"), Some(7));
        assert_eq!(io_uring_of("iou-12"), None);
    }
}
