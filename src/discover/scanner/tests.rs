//! The scanner on a fixture host.

mod names;

use super::known::RETRIES;
use super::*;
use crate::discover::Owner;
use crate::fake_host::{domstatus, FakeHost, START, UUID_A as A, UUID_B as B};

struct Host {
    host: FakeHost,
    roots: Arc<Roots>,
    scanner: Scanner,
    topology: Arc<Topology>,
}

impl Host {
    fn new(host: FakeHost) -> Self {
        let roots = Arc::new(Roots::below(host.root()));
        Self {
            scanner: Scanner::new(roots.clone()),
            topology: Arc::default(),
            host,
            roots,
        }
    }

    fn scan(&mut self) -> Arc<Inventory> {
        self.scanner.scan(&self.topology)
    }

    fn names(&mut self) -> Vec<String> {
        self.scan().vms.iter().map(|vm| vm.name.clone()).collect()
    }
}

/// One line per VM with everything an operator sees.
fn line(vm: &Vm) -> String {
    let tids: Vec<String> = vm
        .vcpus
        .iter()
        .map(|v| format!("{}={}", v.index, v.tid))
        .collect();
    let facts: Vec<String> = vm.facts.iter().map(|(k, v)| format!(" {k}={v}")).collect();
    format!(
        "{} ({}) {} {} {:?}{} [{}]",
        vm.name,
        vm.name_source,
        vm.vmm,
        vm.manager.unwrap_or("-"),
        vm.uuid.as_deref().map_or("", |u| &u[..8]),
        facts.concat(),
        tids.join(" ")
    )
}

#[test]
fn every_kind_of_vm_is_found_with_all_its_facts() {
    let mut host = Host::new(FakeHost::menagerie());
    let inventory = host.scan();
    let lines: Vec<String> = inventory.vms.iter().map(|vm| line(vm)).collect();
    let pod = "kubevirt_pod_uid=6f1e2d3c-4b5a-4968-8776-655443322110";
    let project = "openstack_project=shop openstack_project_id=9f8e7d6c5b4a39281706f5e4d3c2b1a0";
    let expected = [
        format!("{B} (cmdline) firecracker - \"bbbbbbbb\" [0=1610]"),
        "chrome (cmdline) crosvm - \"\" [0=1810]".into(),
        "cloudy (cmdline) cloud-hypervisor - \"\" [0=1710 1=1711]".into(),
        "hand (cmdline) qemu - \"aaaaaaaa\" [0=1010 1=1011]".into(),
        format!("instance-0000002a (libvirt) qemu openstack \"aaaaaaaa\" openstack_flavor=m1.small openstack_name=shop web {project} [0=1310]"),
        "new-1 (libvirt) qemu libvirt \"aaaaaaaa\" [0=1210]".into(),
        "old (libvirt) qemu libvirt \"aaaaaaaa\" [0=1110]".into(),
        "pve (cmdline) qemu proxmox \"aaaaaaaa\" proxmox_id=100 [0=1510]".into(),
        format!("shop_db (cmdline) qemu kubevirt \"aaaaaaaa\" kubevirt_name=db kubevirt_namespace=shop {pod} [0=1410]"),
        "spin (cmdline) demo-guest - \"bbbbbbbb\" [0=1910 1=1911]".into(),
    ];
    assert_eq!(lines, expected);
    assert_eq!(inventory.visibility_gaps, []);
    assert_eq!(inventory.generation, 1);
    let hand = &inventory.vms[3];
    assert_eq!(
        (hand.key.pid, hand.key.start_time, hand.key.ordinal),
        (1000, START, 10)
    );
    assert_eq!(hand.vcpus[1].start_time, START + 2);
}

#[test]
fn a_pass_over_an_unchanged_host_opens_nothing_and_gives_the_same_inventory() {
    let mut host = Host::new(FakeHost::menagerie());
    let first = host.scan();
    let opens = host.roots.opens();
    for _ in 0..20 {
        assert!(Arc::ptr_eq(&first, &host.scan()));
    }
    assert_eq!(host.roots.opens(), opens);
}

#[test]
fn vms_come_and_go_by_the_next_scan() {
    let mut host = Host::new(FakeHost::new());
    assert_eq!(host.names(), Vec::<String>::new());
    host.host.qemu(1000, "a", A, 1);
    assert_eq!(host.names(), ["a"]);
    host.host.firecracker(1100, "b", 1);
    assert_eq!(host.names(), ["a", "b"]);
    let before = host.scan();
    host.host.exit(1000);
    let after = host.scan();
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.vms.len(), 1);
    assert!(Arc::ptr_eq(&after.vms[0], &before.vms[1]));
}

#[test]
fn a_process_becomes_a_vmm_after_it_was_seen() {
    let mut host = Host::new(FakeHost::new());
    host.host
        .process(1000, 5, &["/usr/bin/kvm", "-name", "late"], "0::/");
    assert_eq!(host.names(), Vec::<String>::new());
    host.host
        .fd(1000, 5, "/dev/kvm")
        .fd(1000, 6, "anon_inode:kvm-vm");
    assert_eq!(host.names(), Vec::<String>::new());
    host.host
        .fd(1000, 7, "anon_inode:kvm-vcpu:0")
        .thread(1000, 1001, "CPU 0/KVM", 6);
    assert_eq!(host.names(), ["late"]);
    host.host
        .close(1000, 6)
        .close(1000, 7)
        .exit_thread(1000, 1001);
    assert_eq!(host.names(), Vec::<String>::new());
}

#[test]
fn an_exec_is_noticed() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    assert_eq!(host.names(), ["a"]);
    // The same process with other contents, as after an exec: same descriptors, same threads.
    host.host.file("proc/1000/cmdline", "kvm\0-name\0b\0");
    assert_eq!(host.names(), ["a"]);
    host.host.remove("proc/1000/exe");
    std::os::unix::fs::symlink("/usr/bin/kvm", host.host.path("proc/1000/exe")).unwrap();
    assert_eq!(host.names(), ["b"]);
}

/// After pthread_exit in main the other threads run on and keep the descriptors.
#[test]
fn a_vm_whose_main_thread_ended_is_still_seen() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 2);
    for fd in ["kvm-vm", "kvm-vcpu:0", "kvm-vcpu:1"].iter().zip(10..) {
        let link = format!("proc/1000/task/1001/fd/{}", fd.1);
        host.host.link(link, &format!("anon_inode:{}", fd.0));
    }
    for file in ["cmdline", "cgroup", "status"] {
        let text = std::fs::read(host.host.path(format!("proc/1000/{file}"))).unwrap();
        host.host.file(format!("proc/1000/task/1001/{file}"), text);
    }
    host.host
        .remove("proc/1000/fd")
        .file("proc/1000/cmdline", "");
    std::fs::create_dir(host.host.path("proc/1000/fd")).unwrap();
    let inventory = host.scan();
    assert_eq!(
        line(&inventory.vms[0]),
        "a (cmdline) qemu - \"aaaaaaaa\" [0=1010 1=1011]"
    );
}

/// `-incoming`: the vCPU threads exist but have not entered the guest. The source exits when the
/// guest has moved.
#[test]
fn a_vm_that_migrates_in_is_there_before_it_runs_and_the_source_leaves() {
    let mut host = Host::new(FakeHost::new());
    let source = host.host.libvirt_v2(1000, "web", A, 2);
    assert_eq!(host.names(), ["web"]);
    let args = ["/usr/bin/kvm", "-name", "other", "-incoming", "defer"];
    let target = host
        .host
        .vmm(1200, &args, "0::/", 2, |n| format!("CPU {n}/KVM"));
    for n in 0..2 {
        host.host.debugfs_vcpu(1200, 10, n, 0);
        host.host.set(1200, target.vcpus[n as usize], |t| {
            t.syscall = "202 0x7f 0x80".into()
        });
    }
    let both = host.scan();
    let lines: Vec<String> = both.vms.iter().map(|vm| line(vm)).collect();
    assert_eq!(lines[0], "other (cmdline) qemu - \"\" [0=1210 1=1211]");
    assert_eq!(both.vms.len(), 2);
    assert_eq!(both.visibility_gaps, []);
    host.host
        .exit(source.pid)
        .remove("run/libvirt/qemu/web.xml");
    let after = host.scan();
    assert!(Arc::ptr_eq(&after.vms[0], &both.vms[0]));
    assert_eq!(after.vms.len(), 1);
}

/// Without a descriptor count in /proc (before Linux 6.2), a process that becomes a VMM with its
/// existing threads looks unchanged.
#[test]
fn an_older_kernels_processes_are_looked_at_in_rotation() {
    let mut host = Host::new(FakeHost::new());
    host.scanner.watch.counts_descriptors = false;
    host.host
        .process(1000, 5, &["/usr/bin/kvm", "-name", "late"], "0::/");
    host.host
        .fd(1000, 0, "/dev/null")
        .thread(1000, 1001, "CPU 0/KVM", 6);
    assert_eq!(host.names(), Vec::<String>::new());
    let fd = std::fs::File::open(host.host.path("proc/1000/fd")).unwrap();
    let modified = fd.metadata().unwrap().modified().unwrap();
    host.host
        .fd(1000, 6, "anon_inode:kvm-vm")
        .fd(1000, 7, "anon_inode:kvm-vcpu:0");
    fd.set_modified(modified).unwrap(); // as in /proc
    let found = (1..=ROTATION).find(|_| host.names() == ["late"]);
    assert!(found.is_some(), "not within {ROTATION} passes");
    assert!(found > Some(1), "there was nothing else to notice it by");
    let opens = host.roots.opens();
    (0..ROTATION).for_each(|_| drop(host.scan()));
    // The VMM looks unchanged and is examined in its turn.
    assert!(host.roots.opens() > opens);
}

#[test]
fn a_kernel_that_counts_descriptors_needs_no_rotation() {
    let mut host = Host::new(FakeHost::new());
    host.host.process(1000, 5, &["/usr/bin/kvm"], "0::/");
    host.scan();
    let opens = host.roots.opens();
    (0..2 * ROTATION).for_each(|_| drop(host.scan()));
    assert_eq!(host.roots.opens(), opens);
}

#[test]
fn vcpus_are_plugged_and_unplugged() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 2);
    let count = |inventory: &Inventory| inventory.vms[0].vcpus.len();
    assert_eq!(count(&host.scan()), 2);
    host.host
        .fd(1000, 40, "anon_inode:kvm-vcpu:2")
        .thread(1000, 1040, "CPU 2/KVM", 9000);
    let added = host.scan();
    assert_eq!(count(&added), 3);
    assert_eq!(added.vms[0].vcpus[2].tid, 1040);
    // QEMU keeps the descriptor of a removed vCPU.
    host.host.exit_thread(1000, 1040);
    assert_eq!(count(&host.scan()), 2);
    for _ in 0..RETRIES {
        host.scan();
    }
    let opens = host.roots.opens();
    host.scan();
    assert_eq!(host.roots.opens(), opens);
}

#[test]
fn a_vcpu_thread_that_is_not_named_yet_is_seen_when_it_is() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 2);
    host.host
        .set(1000, 1011, |t| t.comm = "qemu-system-x86".into());
    assert_eq!(host.scan().vms[0].vcpus.len(), 1);
    host.host.set(1000, 1011, |t| t.comm = "CPU 1/KVM".into());
    assert_eq!(host.scan().vms[0].vcpus.len(), 2);
}

#[test]
fn a_reused_pid_and_a_reused_tid_are_new() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    let first = host.scan();
    // In /proc, unlike on disk, new entries do not change a directory's modification time.
    let task = std::fs::File::open(host.host.path("proc/1000/task")).unwrap();
    let modified = task.metadata().unwrap().modified().unwrap();
    host.host
        .exit_thread(1000, 1010)
        .thread(1000, 1010, "CPU 0/KVM", 7777);
    task.set_modified(modified).unwrap();
    let second = host.scan();
    assert_eq!(second.vms[0].key, first.vms[0].key);
    assert_eq!(second.vms[0].vcpus[0].start_time, 7777);
    host.host.qemu(1000, "b", B, 1);
    host.host.set(1000, 1000, |t| t.start_time = 8888);
    let third = host.scan();
    assert_eq!(third.vms[0].name, "b");
    assert_eq!(third.vms[0].key.start_time, 8888);
}

#[test]
fn unnamed_threads_are_found_by_debugfs_by_their_call_or_once_they_ran() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu_without_thread_names(1000, "calls", 2);
    host.host.qemu_without_thread_names(1100, "debugfs", 2);
    host.host
        .debugfs_vcpu(1101, 10, 0, 1111)
        .debugfs_vcpu(1101, 10, 1, 1110);
    let vcpus = |inventory: &Inventory| inventory.vms.iter().map(|vm| line(vm)).collect::<Vec<_>>();
    let first = host.scan();
    assert_eq!(
        vcpus(&first),
        [
            "calls (cmdline) qemu - \"\" []",
            "debugfs (cmdline) qemu - \"\" [0=1111 1=1110]"
        ]
    );
    assert_eq!(first.visibility_gaps.len(), 1);
    assert!(
        first.visibility_gaps[0].unseen.starts_with("2 vCPUs"),
        "{:?}",
        first.visibility_gaps
    );
    host.host.set(1000, 1011, |t| {
        t.syscall = "16 0xc 0xae80 0x0 0x0 0x0 0x0 0x7 0x7".into()
    });
    assert!(vcpus(&host.scan())[0].ends_with("[1=1011]"));
    host.host.set(1000, 1011, |t| t.syscall = "running".into());
    host.host.set(1000, 1010, |t| t.guest_ticks = 3);
    let last = host.scan();
    assert!(vcpus(&last)[0].ends_with("[0=1010 1=1011]"));
    assert_eq!(last.visibility_gaps, []);
}

/// The TID of an exited thread that created a VM can belong to another VMM later.
#[test]
fn a_vm_in_debugfs_that_another_process_runs_is_not_taken_for_ones_own() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    host.host.qemu(1100, "b", B, 1);
    host.host.debugfs_vcpu(1001, 10, 0, 1010);
    // Created by a former thread 1000, run by the threads of b.
    host.host.debugfs_vcpu(1000, 12, 0, 1110);
    let inventory = host.scan();
    let lines: Vec<String> = inventory.vms.iter().map(|vm| line(vm)).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("a ") && lines[0].ends_with("[0=1010]"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("b ") && lines[1].ends_with("[0=1110]"),
        "{lines:?}"
    );
}

#[test]
fn several_vms_in_one_process_are_several_vms() {
    let mut host = Host::new(FakeHost::new());
    let vm = host.host.cloud_hypervisor(1000, "/run/ch/two.sock", 1);
    host.host
        .fd(vm.pid, 30, "anon_inode:kvm-vm")
        .fd(vm.pid, 31, "anon_inode:kvm-vcpu:0");
    host.host.thread(vm.pid, 1050, "vcpu0", 9000);
    let inventory = host.scan();
    let lines: Vec<String> = inventory.vms.iter().map(|vm| line(vm)).collect();
    assert_eq!(
        lines,
        [
            "two (cmdline) cloud-hypervisor - \"\" [0=1010]",
            "two-1000 (cmdline) cloud-hypervisor - \"\" [0=1050]",
        ]
    );
    assert!(inventory.visibility_gaps[0]
        .unseen
        .starts_with("1 process runs several VMs"));
    // debugfs shows the opposite assignment.
    host.host
        .debugfs_vcpu(1000, 10, 0, 1050)
        .debugfs_vcpu(1000, 30, 0, 1010);
    host.host.fd(vm.pid, 50, "/dev/null");
    let inventory = host.scan();
    assert_eq!(inventory.vms[0].vcpus[0].tid, 1050);
    assert_eq!(inventory.visibility_gaps, []);
}

#[test]
fn changed_topology_is_a_changed_inventory() {
    let mut host = Host::new(FakeHost::new());
    let first = host.scan();
    host.topology = Arc::default();
    let second = host.scan();
    assert_eq!(second.generation, first.generation + 1);
    assert!(Arc::ptr_eq(&second.topology, &host.topology));
}

#[test]
fn a_host_without_proc_says_so_and_recovers() {
    let mut host = Host::new(FakeHost::new());
    host.host.remove("proc");
    let gaps = host.scan();
    assert!(
        gaps.visibility_gaps[0].needs.contains("--path.procfs"),
        "{:?}",
        gaps.visibility_gaps
    );
    host.host.qemu(1000, "a", A, 1);
    assert_eq!(host.names(), ["a"]);
    assert_eq!(host.scan().visibility_gaps, []);
}

#[test]
fn a_process_that_loses_a_file_while_looked_at_is_gone_and_others_stay() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    host.host.qemu(1100, "b", B, 1);
    host.host.remove("proc/1000/stat");
    assert_eq!(host.names(), ["b"]);
    host.host.remove("proc/1100/task");
    assert_eq!(host.names(), Vec::<String>::new());
}

#[test]
fn a_vm_that_cannot_be_looked_at_for_another_reason_stays_as_it_was() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    let first = host.scan();
    host.host.remove("proc/1000/cmdline");
    std::fs::create_dir(host.host.path("proc/1000/cmdline")).unwrap();
    host.host
        .fd(1000, 40, "anon_inode:kvm-vcpu:1")
        .thread(1000, 1040, "CPU 1/KVM", 9000);
    assert!(Arc::ptr_eq(&first, &host.scan()));
    host.host.remove("proc/1000/cmdline");
    host.host.file("proc/1000/cmdline", "kvm\0-name\0b\0");
    let inventory = host.scan();
    assert_eq!(inventory.vms[0].name, "b");
    assert_eq!(inventory.vms[0].vcpus.len(), 2);
}

#[test]
fn a_command_line_of_megabytes_is_cut() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "a", A, 1);
    let long = format!("kvm\0-name\0b\0{}", "x".repeat(9 << 20));
    host.host.file("proc/1000/cmdline", long);
    assert_eq!(host.names(), ["b"]);
}

#[test]
fn a_vm_whose_descriptors_are_renumbered_stays_the_same() {
    let mut host = Host::new(FakeHost::new());
    let vm = host.host.qemu(1000, "a", A, 1);
    let first = host.scan();
    host.host
        .close(vm.pid, 10)
        .fd(vm.pid, 77, "anon_inode:kvm-vm");
    let second = host.scan();
    assert_eq!(second.vms[0].key, first.vms[0].key);
    assert_eq!(second.vms[0].vcpus, first.vms[0].vcpus);
}

/// 4 MiB of attributes took two minutes: each is compared with all previous ones.
#[test]
fn a_state_of_hostile_metadata_is_not_parsed() {
    let mut host = Host::new(FakeHost::new());
    host.host.libvirt_v2(1000, "a", A, 1);
    let attributes: String = (0..60_000).map(|n| format!(" a{n}=''")).collect();
    let metadata = format!("<metadata><x{attributes}/></metadata>");
    host.host
        .libvirt_xml("a", &domstatus(1000, "other", A, &[1010], &metadata));
    assert_eq!(host.names(), ["a"], "its cgroup and command line are left");
}
