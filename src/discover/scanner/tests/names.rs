//! Names of VMs from scan to scan.

use super::*;

#[test]
fn a_renamed_domain_has_its_new_name_by_the_next_scan() {
    let mut host = Host::new(FakeHost::new());
    host.host.libvirt_v2(1000, "before", A, 1);
    assert_eq!(host.names(), ["before"]);
    host.host.remove("run/libvirt/qemu/before.xml");
    host.host
        .libvirt_xml("after", &domstatus(1000, "after", A, &[1010], ""));
    assert_eq!(host.names(), ["after"]);
}

#[test]
fn a_state_of_another_domain_with_this_pid_is_not_believed() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1000, "mine", A, 1);
    host.host
        .libvirt_xml("stale", &domstatus(1000, "stale", B, &[], ""));
    assert_eq!(host.names(), ["mine"]);
    host.host
        .vmm(1100, &["/usr/bin/kvm", "-name", "plain"], "0::/", 1, |n| {
            format!("CPU {n}/KVM")
        });
    host.host
        .libvirt_xml("gone", &domstatus(1100, "gone", B, &[], ""));
    assert_eq!(host.names(), ["mine", "plain"]);
}

#[test]
fn a_namesake_that_appears_gets_the_suffix_and_keeps_it() {
    let mut host = Host::new(FakeHost::new());
    host.host.qemu(1100, "a", A, 1);
    assert_eq!(host.names(), ["a"]);
    let running = host.scan();
    host.host.qemu(1000, "a", B, 1);
    let both = host.scan();
    assert!(Arc::ptr_eq(&running.vms[0], &both.vms[0]));
    assert_eq!(host.names(), ["a", "a-bbbbbbbb"]);
    host.host.exit(1100);
    assert_eq!(host.names(), ["a-bbbbbbbb"]);
}

#[test]
fn a_users_vm_does_not_go_on_with_the_series_of_a_vm_of_root_that_ended() {
    let mut host = Host::new(FakeHost::new());
    host.host.libvirt_v2(1000, "db", A, 1);
    assert_eq!(host.names(), ["db"]);
    host.host.exit(1000).remove("run/libvirt/qemu/db.xml");
    assert_eq!(host.names(), Vec::<String>::new());
    let fake = host.host.qemu(1100, "db", B, 1);
    host.host.set(fake.pid, fake.pid, |t| t.uid = 1000);
    assert_eq!(host.names(), ["db-bbbbbbbb"]);
    host.host.libvirt_v2(1200, "db", A, 1);
    assert_eq!(host.names(), ["db", "db-bbbbbbbb"], "restarted");
}

/// A user with access to /dev/kvm can run a VM that claims to be another.
#[test]
fn a_users_vm_never_takes_the_name_of_one_of_the_hosts() {
    let mut host = Host::new(FakeHost::new());
    let args = ["/home/u/kvm", "-name", "guest=web", "-uuid", A];
    let session = "0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod6f1e2d3c-4b5a-4968-8776-655443322110/x\n";
    let fake = host
        .host
        .vmm(900, &args, session, 1, |n| format!("CPU {n}/KVM"));
    // With a container uid, the VM still belongs to the user of the login session.
    host.host.set(fake.pid, fake.pid, |t| t.uid = 100_000);
    assert_eq!(host.scan().vms[0].manager, None);
    assert_eq!(host.scan().vms[0].owner, Owner::User(Some(1000)));
    let real = host.host.libvirt_v2(1000, "web", A, 1);
    host.host.set(real.pid, real.pid, |t| t.uid = 64055);
    let service = "0::/system.slice/vmm.service\n";
    let args = ["/usr/bin/kvm", "-name", "hand", "-uuid", B];
    let real = host
        .host
        .vmm(1200, &args, service, 1, |n| format!("CPU {n}/KVM"));
    host.host.set(real.pid, real.pid, |t| t.uid = 107);
    let args = ["/home/u/kvm", "-name", "hand", "-uuid", A];
    let fake = host
        .host
        .vmm(1300, &args, session, 1, |n| format!("CPU {n}/KVM"));
    host.host.set(fake.pid, fake.pid, |t| t.uid = 1000);
    let inventory = host.scan();
    let names: Vec<(&str, i32)> = inventory
        .vms
        .iter()
        .map(|vm| (&*vm.name, vm.key.pid))
        .collect();
    let expected = [
        ("hand", 1200),
        ("hand-aaaaaaaa", 1300),
        ("web", 1000),
        ("web-aaaaaaaa", 900),
    ];
    assert_eq!(names, expected);
}

#[test]
fn nameless_vms_are_called_by_uuid_or_pid_and_hostile_names_are_cleaned() {
    let mut host = Host::new(FakeHost::new());
    let vmm = |pid, args: &[&str]| {
        let mut line = vec!["/usr/bin/kvm"];
        line.extend_from_slice(args);
        host.host
            .vmm(pid, &line, "0::/", 1, |n| format!("CPU {n}/KVM"))
    };
    vmm(1000, &["-uuid", A]);
    vmm(1100, &["-uuid", "00000000-0000-0000-0000-000000000000"]);
    vmm(1200, &["-name", "a\n\"b\x1b"]);
    assert_eq!(host.names(), [A, "a\u{fffd}\"b\u{fffd}", "pid-1100"]);
}
