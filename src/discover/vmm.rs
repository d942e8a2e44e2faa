//! The VMMs that are known by name, one file each.

use super::cmdline::Cmdline;

mod alioth;
mod cloud_hypervisor;
mod crosvm;
mod firecracker;
mod micro_vm;
mod qemu;

pub(super) use qemu::smbios;

/// What is known about one kind of VMM.
#[derive(Debug)]
pub(super) struct Vmm {
    /// Value of the `vmm` label.
    pub(super) name: &'static str,
    /// Whether a process with this command line is one.
    pub(super) runs: fn(&Cmdline) -> bool,
    /// The vCPU index in a thread's name; `None` for threads that are no vCPU.
    pub(super) vcpu: fn(&str) -> Option<u32>,
    /// Whether a thread of this name does a device's I/O and nothing else.
    pub(super) iothread: fn(&str) -> bool,
    /// Whether its vCPU threads' names are its own: no other program would use them.
    pub(super) telling: bool,
    /// What the command line says about the VM.
    pub(super) identity: fn(&Cmdline) -> Identity,
}

/// What a thread does for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs a vCPU.
    Vcpu,
    /// All of the VMM that is none of the others: main loop, monitor, workers.
    Emulator,
    /// Does I/O of the guest's devices and nothing else.
    Iothread,
    /// A worker of the kernel's vhost, which serves virtio devices.
    Vhost,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Vcpu, Role::Emulator, Role::Iothread, Role::Vhost];

    /// Value of the `role` label.
    pub fn label(self) -> &'static str {
        match self {
            Role::Vcpu => "vcpu",
            Role::Emulator => "emulator",
            Role::Iothread => "iothread",
            Role::Vhost => "vhost",
        }
    }

    /// What a thread of this name does, in a VMM of this kind ([`Vm::vmm`](super::Vm)). Names are
    /// the process' own to choose; whether a thread is one of the kernel's is not.
    pub fn of(vmm: &str, comm: &str, of_kernel: bool) -> Self {
        if of_kernel {
            return match vhost_of(comm) {
                Some(_) => Role::Vhost,
                None => Role::Emulator,
            };
        }
        match VMMS.iter().find(|known| known.name == vmm) {
            Some(vmm) if (vmm.vcpu)(comm).is_some() => Role::Vcpu,
            Some(vmm) if (vmm.iothread)(comm) => Role::Iothread,
            _ => Role::Emulator,
        }
    }
}

/// The thread for which the kernel made this vhost worker (drivers/vhost/vhost.c,
/// `vhost_worker_create`).
pub fn vhost_of(comm: &str) -> Option<i32> {
    let tid = comm.strip_prefix("vhost-")?;
    tid.parse().ok().filter(|tid| *tid > 0)
}

/// The thread for which the kernel made this worker of io_uring (io_uring/{io-wq,sqpoll}.c).
pub fn io_uring_of(comm: &str) -> Option<i32> {
    let worker = comm.strip_prefix("iou-wrk-");
    let tid = worker.or_else(|| comm.strip_prefix("iou-sqp-"))?;
    tid.parse().ok().filter(|tid| *tid > 0)
}

/// Name and UUID as the command line has them, not yet cleaned or checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Identity {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
}

/// All of them. A process is of the first kind that says so.
pub(super) const VMMS: &[Vmm] = &[
    micro_vm::VMM,
    qemu::VMM,
    firecracker::VMM,
    cloud_hypervisor::VMM,
    crosvm::VMM,
    alioth::VMM,
];

/// The kind of VMM: by its command line, else by the names of its threads.
pub(super) fn of<'a>(
    cmdline: &Cmdline,
    comms: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'static Vmm> {
    let by_threads = || {
        let mut telling = VMMS.iter().filter(|vmm| vmm.telling);
        telling.find(|vmm| comms.clone().any(|comm| (vmm.vcpu)(comm).is_some()))
    };
    by_cmdline(cmdline).or_else(by_threads)
}

/// The kind of VMM the command line tells.
pub(super) fn by_cmdline(cmdline: &Cmdline) -> Option<&'static Vmm> {
    VMMS.iter().find(|vmm| (vmm.runs)(cmdline))
}

/// The index in a thread's name of any kind of VMM.
pub(super) fn any_vcpu(comm: &str) -> Option<u32> {
    VMMS.iter().find_map(|vmm| (vmm.vcpu)(comm))
}

/// A number between a prefix and a suffix. The kernel cuts a thread's name at 15 bytes, so that
/// of the suffix only the beginning may be there.
fn number_between(comm: &str, prefix: &str, suffix: &str) -> Option<u32> {
    /// TASK_COMM_LEN of include/linux/sched.h without the NUL.
    const COMM_LEN: usize = 15;
    let rest = comm.strip_prefix(prefix)?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, end) = rest.split_at(digits);
    let whole = end == suffix || (comm.len() == COMM_LEN && suffix.starts_with(end));
    if whole {
        number.parse().ok()
    } else {
        None
    }
}

/// A name made of the path of a socket: the file's stem or, where that only says what kind of
/// socket it is, the directory's name.
fn name_of_socket(path: &str) -> Option<String> {
    const KINDS: &[&str] = &[
        "api",
        "api-socket",
        "ch",
        "clh",
        "clh-api",
        "cloud-hypervisor",
        "control",
        "crosvm",
        "socket",
        "sock",
        "vm",
        "vmm",
    ];
    const SHARED: &[&str] = &["", "tmp", "run", "var"];
    let mut parts = path.rsplit('/');
    let file = parts.next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if !stem.is_empty() && !KINDS.contains(&stem) {
        return Some(stem.to_owned());
    }
    let known = |dir: &&str| !SHARED.contains(dir) && !KINDS.contains(dir);
    parts.next().filter(known).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vcpu_threads_are_told_by_name() {
        let cases = [
            ("CPU 0/KVM", Some(0)),
            ("CPU 4294967/KVM", Some(4_294_967)),
            ("CPU 123456789/K", Some(123_456_789)),
            ("fc_vcpu 3", Some(3)),
            ("vcpu12", Some(12)),
            ("crosvm_vcpu7", Some(7)),
            ("crosvm_vcpu1234", Some(1234)),
            ("vcpu_5", Some(5)),
            ("CPU 0/TCG", None),
            ("CPU 0", None),
            ("CPU /KVM", None),
            ("kvm-nx-lpage-re", None),
            ("worker", None),
            ("vcpu", None),
            ("vcpux", None),
            ("vcpu-1", None),
            ("CPU 99999999999", None),
        ];
        for (comm, index) in cases {
            assert_eq!(any_vcpu(comm), index, "{comm}");
        }
    }

    #[test]
    fn roles_are_told_by_name_and_by_whose_thread_it_is() {
        use Role::{Emulator, Iothread, Vcpu, Vhost};
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
            assert_eq!(Role::of(vmm, comm, of_kernel), role, "{vmm} {comm}");
        }
        assert_eq!(vhost_of("vhost-12"), Some(12));
        assert_eq!(vhost_of("vhost--12"), None);
        assert_eq!(io_uring_of("iou-wrk-12"), Some(12));
        assert_eq!(io_uring_of("iou-sqp-7"), Some(7));
        assert_eq!(io_uring_of("iou-12"), None);
    }

    #[test]
    fn the_kind_comes_from_the_command_line_before_the_threads() {
        let kind = |line: &[u8], comm: &str| {
            of(&Cmdline::parse(line), std::iter::once(comm)).map(|vmm| vmm.name)
        };
        assert_eq!(kind(b"/usr/bin/kvm\0-id\0x", "CPU 0/KVM"), Some("qemu"));
        assert_eq!(kind(b"/opt/emulator", "CPU 0/KVM"), Some("qemu"));
        assert_eq!(
            kind(b"/x/vcpu-exporter\0micro-vm", "CPU 0/KVM"),
            Some("demo-guest")
        );
        assert_eq!(kind(b"/opt/emulator", "vcpu0"), None);
    }

    #[test]
    fn sockets_name_vms_by_what_is_their_own() {
        let name = |path| name_of_socket(path);
        assert_eq!(name("/run/ch/web.sock").as_deref(), Some("web"));
        assert_eq!(
            name("/run/vc/vm/0a1b2c/clh-api.sock").as_deref(),
            Some("0a1b2c")
        );
        assert_eq!(name("/tmp/cloud-hypervisor.sock"), None);
        assert_eq!(name("web"), Some("web".into()));
        assert_eq!(name(""), None);
    }

    proptest! {
        #[test]
        fn any_name_and_command_line_is_taken(comm in "\\PC{0,15}", line in "\\PC{0,60}") {
            let _ = (any_vcpu(&comm), vhost_of(&comm), io_uring_of(&comm));
            let line = Cmdline::parse(line.replace(' ', "\0").as_bytes());
            for vmm in VMMS {
                let _ = ((vmm.runs)(&line), (vmm.identity)(&line), (vmm.iothread)(&comm));
            }
        }

        #[test]
        fn every_index_of_qemu_is_read(n in 0u32..100_000_000) {
            let name: String = format!("CPU {n}/KVM").chars().take(15).collect();
            prop_assert_eq!(any_vcpu(&name), Some(n));
        }
    }
}
