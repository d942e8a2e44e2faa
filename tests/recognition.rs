//! VMs are recognized by independent evidence: a wrong name, VMM or number of VMs is worse than an
//! unknown one.
//!
//! Processes and cgroups have the form of the named programs, from their sources and from running
//! guests.
#![cfg(feature = "fixtures")]

use std::sync::Arc;

use vcpu_exporter::discover::{Inventory, Scanner, Vm};
use vcpu_exporter::fake_host::{FakeHost, FakeVm, START, UUID_A};
use vcpu_exporter::host::roots::Roots;

fn scan(host: &FakeHost) -> Arc<Inventory> {
    let roots = Arc::new(Roots::below(host.root()));
    Scanner::new(roots).scan(&Arc::default())
}

/// `name vmm manager index=tid …` of each VM.
fn seen(host: &FakeHost) -> Vec<String> {
    let vcpus = |vm: &Vm| {
        let vcpus = vm.vcpus.iter();
        vcpus
            .map(|v| format!(" {}={}", v.index, v.tid))
            .collect::<String>()
    };
    let line = |vm: &Arc<Vm>| {
        let manager = vm.manager.unwrap_or("-");
        format!("{} {} {manager}{}", vm.name, vm.vmm, vcpus(vm))
    };
    scan(host).vms.iter().map(line).collect()
}

/// A VMM with executable `exe`, whose first thread the kernel named after it.
fn started(
    host: &FakeHost,
    exe: &str,
    args: &[&str],
    cgroup: &str,
    comm: impl Fn(u32) -> String,
) -> FakeVm {
    let vm = host.vmm(1000, args, cgroup, 2, comm);
    host.link("proc/1000/exe", exe);
    let file = exe.rsplit('/').next().unwrap();
    host.set(1000, 1000, |t| t.comm = file.chars().take(15).collect());
    vm
}

/// Firecracker since 1.14 has a dup() of each vCPU's descriptor (src/vmm/src/vstate/vcpu.rs).
#[test]
fn duplicated_descriptors_of_vcpus_are_one_vm_with_and_without_debugfs() {
    for debugfs in ["none", "without pids", "with pids"] {
        let host = FakeHost::new();
        let args = [
            "/firecracker",
            "--id",
            "web-1",
            "--api-sock",
            "/run/firecracker.socket",
        ];
        let cgroup = "0::/firecracker/web-1\n";
        host.vmm(1000, &args, cgroup, 2, |n| format!("fc_vcpu {n}"));
        host.thread(1000, 1001, "fc_api", START);
        for n in 0..2 {
            host.fd(1000, 20 + n, &format!("anon_inode:kvm-vcpu:{n}"));
            let dir = format!("sys/kernel/debug/kvm/1000-10/vcpu{n}");
            match debugfs {
                "without pids" => drop(host.file(format!("{dir}/guest_mode"), "0\n")),
                "with pids" => drop(host.debugfs_vcpu(1000, 10, n as u32, 1010 + n)),
                _ => {}
            }
        }
        let inventory = scan(&host);
        assert_eq!(
            seen(&host),
            ["web-1 firecracker - 0=1010 1=1011"],
            "{debugfs}"
        );
        assert_eq!(inventory.visibility_gaps, [], "{debugfs}");
    }
}

/// kind and many distributions give the kubelet its own cgroup root.
#[test]
fn kubevirt_is_known_wherever_the_pods_group_stands() {
    let uid = "1858680e-b044-4fd5-9dd4-f137e30e2180";
    let pod = format!("pod{}", uid.replace('-', "_"));
    let node = "0::/system.slice/docker-0f3b.scope";
    let groups = [
        format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{pod}.slice/cri-containerd-ab.scope\n"),
        format!("{node}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable-{pod}.slice/cri-containerd-ab.scope\n"),
        format!("{node}/kubelet/kubepods/burstable/pod{uid}/ab\n"),
        format!("0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-{pod}.slice/crio-ab.scope/container\n"),
        format!("0::/../../kubepods-burstable-{pod}.slice/cri-containerd-ab.scope\n"),
    ];
    for cgroup in groups {
        let host = FakeHost::new();
        let args = [
            "/usr/libexec/qemu-kvm",
            "-name",
            "guest=default_testvm,debug-threads=on",
            "-uuid",
            UUID_A,
        ];
        host.vmm(1000, &args, &cgroup, 1, |n| format!("CPU {n}/KVM"));
        let vm = scan(&host).vms[0].clone();
        assert_eq!(
            (&*vm.name, vm.manager),
            ("default_testvm", Some("kubevirt")),
            "{cgroup}"
        );
        assert!(
            vm.facts.contains(&("kubevirt_pod_uid", uid.to_owned())),
            "{:?}",
            vm.facts
        );
    }
}

/// microvm.nix starts every VMM with `exec -a microvm@NAME`.
#[test]
fn vmm_called_by_another_name_is_known_by_its_executable() {
    let cgroup = "0::/system.slice/system-microvm.slice/microvm@my-vm.service\n";
    let nix = |file: &str| format!("/nix/store/0cg-x/bin/{file}");
    type Comm = fn(u32) -> String;
    let cases: [(&str, &[&str], Comm, &str); 4] = [
        (
            "cloud-hypervisor",
            &[
                "microvm@my-vm",
                "--api-socket",
                "my-vm.sock",
                "--memory",
                "size=512M",
            ],
            |n| format!("vcpu{n}"),
            "my-vm cloud-hypervisor - 0=1010 1=1011",
        ),
        (
            "crosvm",
            &[
                "microvm@my-vm",
                "run",
                "-c",
                "2",
                "-s",
                "my-vm.sock",
                "vmlinux",
            ],
            |n| format!("crosvm_vcpu{n}"),
            "my-vm crosvm - 0=1010 1=1011",
        ),
        (
            ".qemu-system-x86_64-wrapped",
            &[
                "microvm@my-vm",
                "-name",
                "my-vm",
                "-M",
                "microvm,accel=kvm:tcg",
            ],
            |n| format!("CPU {n}/KVM"),
            "my-vm qemu - 0=1010 1=1011",
        ),
        // No argument names the VM; the unit does.
        (
            "firecracker",
            &["microvm@my-vm", "--no-api"],
            |n| format!("fc_vcpu {n}"),
            "my-vm firecracker - 0=1010 1=1011",
        ),
    ];
    for (exe, args, comm, expected) in cases {
        let host = FakeHost::new();
        started(&host, &nix(exe), args, cgroup, comm);
        assert_eq!(seen(&host), [expected]);
        // After an upgrade, and for an exporter without the rights of a debugger.
        host.link("proc/1000/exe", &format!("{} (deleted)", nix(exe)));
        assert_eq!(seen(&host), [expected]);
        host.remove("proc/1000/exe");
        host.set(1000, 1000, |t| {
            t.comm = exe.trim_start_matches('.').chars().take(15).collect()
        });
        assert_eq!(seen(&host), [expected]);
    }
}

/// Kata (Go and Rust), Ubicloud, Flintlock, Firecracker's jailer: the same file name for all VMs.
#[test]
fn socket_of_a_common_name_gives_the_vm_the_name_of_its_directory() {
    let cloud_hypervisor = [
        ("/run/vc/vm/3f6c0d7a9e/clh-api.sock", "3f6c0d7a9e"),
        ("/run/kata/9b1d2e3f4a/ch-api.sock", "9b1d2e3f4a"),
        ("path=/vm/vmcw3k0x/ch-api.sock", "vmcw3k0x"),
        (
            "/run/flintlock/0ujsszwN8NRY24YaXiTIE2VWDTS/cloudhypervisor.sock",
            "0ujsszwN8NRY24YaXiTIE2VWDTS",
        ),
        ("/run/user/1000/cloudy.sock", "cloudy"),
        ("/run/user/1000/ch.sock", "pid-1000"),
    ];
    for (socket, name) in cloud_hypervisor {
        let host = FakeHost::new();
        host.cloud_hypervisor(1000, socket, 1);
        assert_eq!(scan(&host).vms[0].name, name, "{socket}");
    }
    let firecracker: [(&[&str], &str); 4] = [
        (
            &[
                "--api-sock",
                "/srv/jailer/firecracker/a1/root/run/firecracker.socket",
            ],
            "a1",
        ),
        (
            &[
                "--id",
                "anonymous-instance",
                "--api-sock",
                "/tmp/web.socket",
            ],
            "web",
        ),
        (
            &[
                "--no-api",
                "--config-file",
                "/var/lib/vms/db/vm_config.json",
            ],
            "db",
        ),
        (&["--api-sock", "/run/firecracker.socket"], "pid-1000"),
    ];
    for (args, name) in firecracker {
        let host = FakeHost::new();
        let line: Vec<&str> = ["/firecracker"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        host.vmm(1000, &line, "0::/", 1, |n| format!("fc_vcpu {n}"));
        assert_eq!(scan(&host).vms[0].name, name, "{args:?}");
    }
    let host = FakeHost::new();
    host.cloud_hypervisor(1000, "api.sock", 1);
    host.link("proc/1000/cwd", "/var/lib/vms/relative");
    assert_eq!(scan(&host).vms[0].name, "relative");
}

/// libvirt's ch driver: the socket is a descriptor; the name is in the event monitor's path and in
/// the scope (src/ch/ch_monitor.c, src/hypervisor/domain_driver.c).
#[test]
fn domain_of_libvirts_cloud_hypervisor_driver_is_known() {
    let cgroup = "0::/machine.slice/machine-ch\\x2d1\\x2dweb.scope/libvirt/emulator\n";
    let host = FakeHost::new();
    let monitor = "path=/run/libvirt/ch/web-event-monitor-fifo";
    let args = [
        "/usr/bin/cloud-hypervisor",
        "--api-socket",
        "fd=32",
        "--event-monitor",
        monitor,
    ];
    host.vmm(1000, &args, cgroup, 2, |n| format!("vcpu{n}"));
    assert_eq!(seen(&host), ["web cloud-hypervisor libvirt 0=1010 1=1011"]);
    let host = FakeHost::new();
    host.vmm(1000, &args[..3], cgroup, 1, |n| format!("vcpu{n}"));
    let vm = scan(&host).vms[0].clone();
    assert_eq!((&*vm.name, vm.name_source), ("web", "cgroup"));
}

/// libkrun kept Firecracker's thread names (src/vmm/src/linux/vstate.rs); StratoVirt has QEMU's.
#[test]
fn vmm_with_the_thread_names_of_another_is_not_taken_for_it() {
    let session = "0::/user.slice/user-1000.slice/session-2.scope\n";
    let cases: [(&[&str], &str, &str); 4] = [
        (
            &[
                "/usr/local/bin/msb",
                "machine",
                "--name",
                "web-1",
                "--sandbox-id",
                "1",
            ],
            "libkrun VM",
            "web-1 libkrun - 0=1010 1=1011",
        ),
        (
            &["/usr/bin/muvm", "--emu=fex", "--", "steam"],
            "muvm",
            "pid-1000 libkrun - 0=1010 1=1011",
        ),
        (
            &["krunvm", "start", "web"],
            "krunvm",
            "web libkrun - 0=1010 1=1011",
        ),
        // A program that has loaded the library.
        (
            &["/usr/bin/python3", "box.py"],
            "python3",
            "pid-1000 libkrun - 0=1010 1=1011",
        ),
    ];
    for (args, comm, expected) in cases {
        let host = FakeHost::new();
        host.vmm(1000, args, session, 2, |n| format!("fc_vcpu {n}"));
        host.set(1000, 1000, |t| t.comm = comm.into());
        host.thread(1000, 1001, "vmm worker", START);
        assert_eq!(seen(&host), [expected]);
    }
    let host = FakeHost::new();
    let args = ["/usr/bin/stratovirt", "-name", "iso", "-machine", "microvm"];
    host.vmm(1000, &args, "0::/", 1, |n| format!("CPU {n}/KVM"));
    host.vmm(1200, &["/opt/own"], "0::/", 1, |n| format!("CPU {n}/KVM"));
    host.vmm(1400, &["/opt/own"], "0::/", 1, |n| format!("fc_vcpu {n}"));
    let expected = [
        "iso stratovirt - 0=1010",
        "pid-1200 unknown - 0=1210",
        "pid-1400 unknown - 0=1410",
    ];
    assert_eq!(seen(&host), expected);
}

/// As QEMU 7.2 answers `query-name`.
#[test]
fn qemu_is_named_by_all_its_options_together() {
    let cases: [(&[&str], &str); 6] = [
        (&["-name", "web", "-name", "debug-threads=on"], "web"),
        (&["-name", "guest=a", "-name", "process=zz"], "a"),
        (&["-name", "a,,b=c"], "a,b=c"),
        (&["-name", "first", "-name", "guest=second"], "second"),
        (&["--name", "web"], "web"),
        (&["-name", "line", "-readconfig", "/etc/vm.cfg"], "of-file"),
    ];
    for (args, name) in cases {
        let host = FakeHost::new();
        let line: Vec<&str> = ["/usr/bin/kvm"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        host.vmm(1000, &line, "0::/", 1, |n| format!("CPU {n}/KVM"));
        host.file("rootfs/etc/vm.cfg", "[name]\n  guest = \"of-file\"\n");
        host.link("proc/1000/root", host.path("rootfs").to_str().unwrap());
        assert_eq!(scan(&host).vms[0].name, name, "{args:?}");
    }
}

#[test]
fn vcpus_of_a_guest_that_waits_to_be_started_are_counted() {
    let host = FakeHost::new();
    host.qemu_without_thread_names(1000, "halted", 4);
    let inventory = scan(&host);
    let vm = &inventory.vms[0];
    assert_eq!(
        (vm.vcpus.len(), vm.threadless, vm.names_threads),
        (0, 4, false)
    );
    assert!(
        inventory.visibility_gaps[0].unseen.starts_with("4 vCPUs"),
        "{:?}",
        inventory.visibility_gaps
    );
}

/// Any thread of a sandbox runs any vCPU (pkg/sentry/platform/kvm/machine.go).
#[test]
fn sandbox_of_gvisor_is_a_vm_without_threads_of_its_own_for_vcpus() {
    let host = FakeHost::new();
    let args = [
        "runsc-sandbox",
        "--root=/run/runsc",
        "--platform=kvm",
        "boot",
        "--bundle=/b",
        "shop-1",
    ];
    host.vmm(1000, &args, "0::/system.slice/docker-1.scope", 3, |_| {
        "exe".into()
    });
    host.set(1000, 1010, |t| t.guest_ticks = 7);
    for n in 0..3 {
        host.debugfs_vcpu(1000, 10, n, if n == 0 { 1010 } else { 0 });
    }
    let inventory = scan(&host);
    let vm = &inventory.vms[0];
    assert_eq!((&*vm.name, vm.vmm), ("shop-1", "gvisor"));
    assert_eq!((vm.vcpus.len(), vm.threadless), (0, 3));
    assert_eq!(inventory.visibility_gaps.len(), 1);
    assert!(
        inventory.visibility_gaps[0].unseen.contains("gVisor"),
        "{:?}",
        inventory.visibility_gaps
    );
}

/// Real KVM descriptors and duplicates of them: two VMs with two vCPUs in this process.
#[cfg(feature = "demo")]
#[test]
fn duplicated_descriptors_of_real_vms_are_told_apart_without_debugfs() {
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};

    use rustix::process::{getpid, pidfd_getfd, pidfd_open, PidfdFlags, PidfdGetfdFlags};

    let Ok(kvm) = kvm_ioctls::Kvm::new() else {
        return println!("skipped: /dev/kvm cannot be opened");
    };
    let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let copy = |fd: RawFd| pidfd_getfd(&me, fd, PidfdGetfdFlags::empty());
    let mut copies: Vec<OwnedFd> = Vec::new();
    let mut held = Vec::new();
    for _ in 0..2 {
        let vm = kvm.create_vm().unwrap();
        let vcpus = [0, 1].map(|id| vm.create_vcpu(id).unwrap());
        let fds = vcpus.iter().map(AsRawFd::as_raw_fd).chain([vm.as_raw_fd()]);
        for fd in fds {
            match copy(fd) {
                Ok(copy) => copies.push(copy),
                // If this is refused, kcmp(2) is refused too.
                Err(error) => return println!("skipped: pidfd_getfd(2): {error}"),
            }
        }
        held.push((vm, vcpus));
    }
    let empty = tempfile::tempdir().unwrap();
    let mut roots = Roots::default();
    roots.debug = empty.path().to_owned();
    let inventory = Scanner::new(Arc::new(roots)).scan(&Arc::default());
    let own = inventory.vms.iter();
    let own = own.filter(|vm| vm.key.pid == getpid().as_raw_nonzero().get());
    let vcpus: Vec<_> = own
        .map(|vm| vm.vcpus.len() + vm.threadless as usize)
        .collect();
    assert_eq!(vcpus, [2, 2], "{} duplicates", copies.len());
    drop((held, copies));
}

#[test]
fn path_that_names_no_vm_leaves_it_unnamed() {
    let long = format!("/run/{}/web.sock", "a".repeat(200 << 10));
    let paths = [
        // Only the start of a long command line is read: a cut argument can mean something else.
        &long,
        // The same path in each of Virtink's pods.
        "/var/run/virtink/ch.sock",
    ];
    for path in paths {
        let host = FakeHost::new();
        let exe = "/usr/bin/cloud-hypervisor";
        let args = [exe, "--api-socket", path];
        started(&host, exe, &args, "0::/\n", |n| format!("vcpu{n}"));
        assert_eq!(seen(&host), ["pid-1000 cloud-hypervisor - 0=1010 1=1011"]);
    }
}

/// The hash changes with the configuration.
#[test]
fn file_of_the_nix_store_names_a_vm_without_its_hash() {
    let host = FakeHost::new();
    let config = "/nix/store/0cg1v9wz3nq5y8b7l2k4j6h8g0f1d3s5-firecracker-web.json";
    let exe = "/nix/store/9x8v7c6b5n4m3l2k1j0h9g8f7d6s5a4q-firecracker-1.9/bin/firecracker";
    let args = ["microvm@web", "--no-api", "--config-file", config];
    started(&host, exe, &args, "0::/\n", |n| format!("fc_vcpu {n}"));
    assert_eq!(seen(&host), ["firecracker-web firecracker - 0=1010 1=1011"]);
}
