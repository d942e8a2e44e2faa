//! The scanner with fewer privileges.

use std::fs::{set_permissions, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::fake_host::{FakeHost, UUID_A as A};

/// Removes all permissions of a file.
fn forbid(host: &FakeHost, below: &str) {
    set_permissions(host.path(below), Permissions::from_mode(0o000)).unwrap();
}

/// Restores them, so that the directory can be removed.
fn allow(host: &FakeHost, below: &str) {
    set_permissions(host.path(below), Permissions::from_mode(0o755)).unwrap();
}

/// Two scans by a thread without the capabilities that override permissions. Both return the same
/// inventory.
fn scan_without_rights(host: &FakeHost) -> Arc<Inventory> {
    let roots = Arc::new(Roots::below(host.root()));
    let scan = move || {
        for cap in [
            caps::Capability::CAP_DAC_OVERRIDE,
            caps::Capability::CAP_DAC_READ_SEARCH,
        ] {
            caps::drop(None, caps::CapSet::Effective, cap).unwrap();
        }
        let (mut scanner, topology) = (Scanner::new(roots), Arc::default());
        let first = scanner.scan(&topology);
        assert!(Arc::ptr_eq(&first, &scanner.scan(&topology)));
        first
    };
    std::thread::spawn(scan).join().unwrap()
}

fn names(inventory: &Inventory) -> Vec<&str> {
    inventory.vms.iter().map(|vm| vm.name.as_str()).collect()
}

#[test]
fn without_ptrace_rights_thread_names_tell_and_the_rest_is_said() {
    let host = FakeHost::new();
    let vm = host.qemu(1000, "named", A, 2);
    host.qemu_without_thread_names(1100, "unnamed", 2);
    host.cloud_hypervisor(1200, "/run/ch/web.sock", 1);
    // Thread names like those of Cloud Hypervisor do not make a process a VM.
    host.process(1300, 1, &["/usr/bin/renderer"], "0::/")
        .thread(1300, 1301, "vcpu0", 1);
    let forbidden = [1000, 1100, 1200, 1300].map(|pid| format!("proc/{pid}/fd"));
    forbidden.iter().for_each(|dir| forbid(&host, dir));
    let inventory = scan_without_rights(&host);
    assert_eq!(names(&inventory), ["named", "web"]);
    let tids: Vec<i32> = inventory.vms[0].vcpus.iter().map(|vcpu| vcpu.tid).collect();
    assert_eq!(tids, vm.vcpus);
    assert_eq!(inventory.visibility_gaps.len(), 1);
    let line = inventory.visibility_gaps[0].to_string();
    assert!(
        line.contains(": 2 VMs") && line.contains("CAP_SYS_PTRACE"),
        "{line}"
    );
    forbidden.iter().for_each(|dir| allow(&host, dir));
}

/// Root in a container has CAP_DAC_OVERRIDE but not CAP_SYS_PTRACE.
#[test]
fn who_may_list_descriptors_and_not_follow_them_sees_vms_by_name_and_says_so() {
    let host = FakeHost::new();
    let vm = host.qemu(1000, "named", A, 2);
    host.process(1300, 1, &["/usr/bin/single"], "0::/")
        .fd(1300, 0, "/dev/null");
    for pid in [1000, 1300] {
        let fd = host.path(format!("proc/{pid}/fd"));
        set_permissions(fd, Permissions::from_mode(0o444)).unwrap();
    }
    let inventory = scan_without_rights(&host);
    assert_eq!(names(&inventory), ["named"]);
    let tids: Vec<i32> = inventory.vms[0].vcpus.iter().map(|vcpu| vcpu.tid).collect();
    assert_eq!(tids, vm.vcpus);
    assert_eq!(
        inventory.visibility_gaps.len(),
        1,
        "{:?}",
        inventory.visibility_gaps
    );
    allow(&host, "proc/1000/fd");
    allow(&host, "proc/1300/fd");
}

/// Without descriptors, any thread of that name counts as a vCPU; the real VM still keeps its name.
#[test]
fn a_feigned_vm_does_not_rename_a_real_one() {
    let host = FakeHost::new();
    host.libvirt_v2(1000, "web", A, 1);
    host.process(
        900,
        1,
        &["/tmp/kvm", "-name", "web"],
        "0::/system.slice/www.service",
    )
    .thread(900, 901, "CPU 0/KVM", 1);
    host.set(900, 900, |t| t.uid = 33);
    for pid in [900, 1000] {
        forbid(&host, &format!("proc/{pid}/fd"));
    }
    let inventory = scan_without_rights(&host);
    assert_eq!(names(&inventory), ["web", "web-900"]);
    assert_eq!(inventory.vms[0].key.pid, 1000);
    for pid in [900, 1000] {
        allow(&host, &format!("proc/{pid}/fd"));
    }
}

/// hidepid=1: processes are listed, but nothing below them can be read.
#[test]
fn processes_nothing_of_which_may_be_seen_are_said_once() {
    let host = FakeHost::new();
    host.qemu(1000, "a", A, 2);
    forbid(&host, "proc/1000");
    let inventory = scan_without_rights(&host);
    assert_eq!(names(&inventory), Vec::<&str>::new());
    assert_eq!(inventory.visibility_gaps.len(), 1);
    allow(&host, "proc/1000");
}

#[test]
fn single_threads_and_the_kernels_own_are_no_blind_spot() {
    let host = FakeHost::new();
    host.process(1300, 1, &["/usr/bin/single"], "0::/");
    forbid(&host, "proc/1300/fd");
    let inventory = scan_without_rights(&host);
    assert_eq!(inventory.visibility_gaps, []);
    allow(&host, "proc/1300/fd");
}

#[test]
fn a_locked_down_debugfs_still_tells_which_vm_has_how_many_vcpus() {
    let host = FakeHost::new();
    let vm = host.cloud_hypervisor(1000, "/run/ch/two.sock", 2);
    host.fd(vm.pid, 30, "anon_inode:kvm-vm")
        .fd(vm.pid, 31, "anon_inode:kvm-vcpu:0");
    host.thread(vm.pid, 1050, "vcpu0", 9000);
    // The second VM has the lower descriptor: only debugfs shows that.
    host.debugfs_vcpu(1000, 10, 0, 1050);
    host.debugfs_vcpu(1000, 30, 0, 1010)
        .debugfs_vcpu(1000, 30, 1, 1011);
    for file in ["10/vcpu0", "30/vcpu0", "30/vcpu1"] {
        forbid(&host, &format!("sys/kernel/debug/kvm/1000-{file}/pid"));
    }
    let inventory = scan_without_rights(&host);
    let counts: Vec<usize> = inventory.vms.iter().map(|vm| vm.vcpus.len()).collect();
    assert_eq!(names(&inventory), ["two", "two-1000"]);
    assert_eq!(counts, [1, 2]);
}

#[test]
fn a_domain_whose_state_is_not_readable_is_named_by_its_command_line() {
    let host = FakeHost::new();
    host.openstack(1000, "instance-0000002a", "web", A, 1);
    forbid(&host, "run/libvirt/qemu");
    let inventory = scan_without_rights(&host);
    assert_eq!(names(&inventory), ["instance-0000002a"]);
    assert_eq!(inventory.vms[0].manager, Some("openstack"));
    assert_eq!(inventory.vms[0].facts, []);
    assert_eq!(inventory.visibility_gaps.len(), 1);
    let line = inventory.visibility_gaps[0].to_string();
    assert!(
        line.contains("1 libvirt domain ") && line.contains("CAP_DAC_READ_SEARCH"),
        "{line}"
    );
    allow(&host, "run/libvirt/qemu");
}
