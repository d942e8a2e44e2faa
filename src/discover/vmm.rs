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
    /// Whether its vCPU threads' names are its own: no other program would use them.
    pub(super) telling: bool,
    /// What the command line says about the VM.
    pub(super) identity: fn(&Cmdline) -> Identity,
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
            let _ = any_vcpu(&comm);
            let line = Cmdline::parse(line.replace(' ', "\0").as_bytes());
            for vmm in VMMS {
                let _ = ((vmm.runs)(&line), (vmm.identity)(&line));
            }
        }

        #[test]
        fn every_index_of_qemu_is_read(n in 0u32..100_000_000) {
            let name: String = format!("CPU {n}/KVM").chars().take(15).collect();
            prop_assert_eq!(any_vcpu(&name), Some(n));
        }
    }
}
