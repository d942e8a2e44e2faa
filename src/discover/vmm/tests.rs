use super::*;
use proptest::prelude::*;

/// The kind of a process; `None` for an executable that cannot be read.
fn kind(exe: Option<&str>, line: &str, comms: &[&str]) -> Option<&'static str> {
    let cmdline = Cmdline::parse(line.replace(' ', "\0").as_bytes());
    let program = Program::new(exe, &cmdline, comms.first().copied().unwrap_or_default());
    identify(&program, &cmdline, comms.iter().copied()).map(|vmm| vmm.name)
}

/// The identity from arguments alone, for the program in `argv[0]`.
pub(in crate::discover) fn identity_of(cmdline: &Cmdline) -> Identity {
    let program = Program::new(None, cmdline, "");
    let vmm = identify(&program, cmdline, std::iter::empty());
    let invocation = Invocation {
        cmdline,
        cwd: None,
        file: &|_| None,
    };
    vmm.map_or_else(Identity::default, |vmm| (vmm.identity)(&invocation))
}

/// The identity from arguments alone.
pub(super) fn identity(line: &[u8]) -> Identity {
    identity_of(&Cmdline::parse(line))
}

#[test]
fn vcpu_threads_are_recognized_by_name() {
    let cases = [
        ("CPU 0/KVM", Some(0)),
        ("CPU 4294967/KVM", Some(4_294_967)),
        ("CPU 123456789/K", Some(123_456_789)),
        ("fc_vcpu 3", Some(3)),
        ("vcpu12", Some(12)),
        ("crosvm_vcpu7", Some(7)),
        ("crosvm_vcpu1234", Some(1234)),
        ("vcpu_5", Some(5)),
        ("kvm-vcpu-3", Some(3)),
        ("db_vcpu11", Some(11)),
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
fn executable_tells_the_kind_whatever_the_process_calls_itself() {
    let nix = |file: &str| format!("/nix/store/0cg/bin/{file}");
    let cases = [
        ("qemu-system-x86_64", "qemu-system-x86", Some("qemu")),
        (
            "cloud-hypervisor",
            "cloud-hyperviso",
            Some("cloud-hypervisor"),
        ),
        ("crosvm", "crosvm", Some("crosvm")),
        (
            "firecracker-v1.14.1-x86_64",
            "firecracker-v1.",
            Some("firecracker"),
        ),
        ("qemu-lite-system-x86_64", "qemu-lite-syste", Some("qemu")),
        ("kvm-spice", "kvm-spice", Some("qemu")),
        ("nginx", "nginx", None),
    ];
    for (exe, comm, expected) in cases {
        let path = nix(exe);
        assert_eq!(
            kind(Some(&path), "microvm@my-vm", &[comm]),
            expected,
            "{exe}"
        );
        // Without the rights of a debugger, the kernel's name of the first thread decides.
        assert_eq!(kind(None, "microvm@my-vm", &[comm]), expected, "{comm}");
    }
    assert_eq!(
        kind(Some("/usr/bin/muvm"), "/usr/bin/kvm", &["kvm"]),
        Some("libkrun")
    );
}

#[test]
fn name_a_caller_chose_needs_a_second_sign() {
    let python = Some("/usr/bin/python3.11");
    assert_eq!(kind(python, "/firecracker --id a", &["python3"]), None);
    let threads = ["python3", "fc_vcpu 0"];
    assert_eq!(
        kind(python, "/firecracker --id a", &threads),
        Some("firecracker")
    );
    // Two names of different kinds, and threads of one of them.
    let threads = ["qemu-system-x86", "fc_vcpu 0"];
    assert_eq!(
        kind(None, "/firecracker --id a", &threads),
        Some("firecracker")
    );
    assert_eq!(kind(None, "/firecracker", &["qemu-system-x86"]), None);
}

#[test]
fn shared_thread_names_alone_tell_no_kind() {
    assert_eq!(kind(Some("/opt/x"), "/opt/x", &["x", "fc_vcpu 0"]), None);
    assert_eq!(kind(Some("/opt/x"), "/opt/x", &["x", "CPU 0/KVM"]), None);
    assert_eq!(kind(Some("/opt/x"), "/opt/x", &["x", "vcpu0"]), None);
    // A thread that belongs to one VMM only is sufficient, even for a renamed program.
    let qemu = ["x", "call_rcu", "CPU 0/KVM"];
    assert_eq!(kind(Some("/opt/x"), "/opt/x", &qemu), Some("qemu"));
    let firecracker = ["x", "fc_api", "fc_vcpu 0"];
    assert_eq!(
        kind(Some("/opt/x"), "/opt/x", &firecracker),
        Some("firecracker")
    );
    assert_eq!(kind(None, "/opt/x", &["x", "crosvm_vcpu0"]), Some("crosvm"));
}

#[test]
fn libkrun_is_not_taken_for_firecracker() {
    let vcpus = ["fc_vcpu 0", "fc_vcpu 1", "vmm worker"];
    for (line, comm) in [
        ("/usr/local/bin/msb machine --name web-1", "libkrun VM"),
        ("/usr/bin/muvm -- steam", "muvm"),
        ("krunvm start web", "krunvm"),
        ("/usr/bin/python3 box.py", "python3"),
        ("/entry.sh", "crun"),
    ] {
        let comms: Vec<&str> = [comm].into_iter().chain(vcpus).collect();
        assert_eq!(kind(None, line, &comms), Some("libkrun"), "{line}");
    }
}

#[test]
fn stratovirt_is_not_taken_for_qemu() {
    let comms = ["stratovirt", "CPU 0/KVM"];
    assert_eq!(
        kind(Some("/usr/bin/stratovirt"), "vm -name a", &comms),
        Some("stratovirt")
    );
    assert_eq!(
        kind(None, "/usr/bin/stratovirt -name a", &comms),
        Some("stratovirt")
    );
}

#[test]
fn demo_guest_differs_from_the_exporter_itself() {
    let exe = Some("/usr/bin/vcpu-exporter");
    let comms = ["vcpu-exporter", "CPU 0/KVM"];
    assert_eq!(
        kind(exe, "vcpu-exporter micro-vm", &comms),
        Some("demo-guest")
    );
    assert_eq!(kind(exe, "vcpu-exporter serve", &comms), None);
}

proptest! {
    #[test]
    fn any_name_and_command_line_is_taken(comm in "\\PC{0,15}", line in "\\PC{0,60}") {
        let _ = (any_vcpu(&comm), is_vcpu_beyond_doubt(&comm));
        let line = Cmdline::parse(line.replace(' ', "\0").as_bytes());
        let invocation = Invocation { cmdline: &line, cwd: Some(&comm), file: &|name| Some(name.to_owned()) };
        for vmm in VMMS {
            let _ = ((vmm.runs)(&comm, &line), (vmm.identity)(&invocation), (vmm.own)(&comm));
            let _ = (vmm.iothread.map(|is| is(&comm)), vmm.migration.map(|is| is(&comm)));
        }
    }

    #[test]
    fn every_index_of_qemu_is_read(n in 0u32..100_000_000) {
        let name: String = format!("CPU {n}/KVM").chars().take(15).collect();
        prop_assert_eq!(any_vcpu(&name), Some(n));
    }
}
