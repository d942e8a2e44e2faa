//! Real QEMU guests and a real libvirt domain, found in the real /proc.

use std::sync::Arc;

use vcpu_exporter::discover::{Scanner, Vm};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::topology::Topology;

use crate::support::real_vms::{qemu, qemu_works, Libvirt};
use crate::support::run::{eventually, unique};

/// Scans until `found` returns something.
fn scan_until<T>(scanner: &mut Scanner, what: &str, found: impl Fn(&[Arc<Vm>]) -> Option<T>) -> T {
    let topology = Arc::new(Topology::default());
    let seen = eventually(|| found(&scanner.scan(&topology).vms));
    seen.unwrap_or_else(|| panic!("not found: {what}; {:#?}", scanner.scan(&topology)))
}

fn named(vms: &[Arc<Vm>], name: &str) -> Option<Arc<Vm>> {
    vms.iter().find(|vm| vm.name == name).cloned()
}

fn with_vcpus(vms: &[Arc<Vm>], name: &str, count: usize) -> Option<Arc<Vm>> {
    named(vms, name).filter(|vm| vm.vcpus.len() == count)
}

fn comm(pid: i32, tid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap();
    text.trim_end().to_owned()
}

#[test]
fn a_qemu_guest_appears_with_name_uuid_and_vcpus_and_leaves_when_killed() {
    if !qemu_works() {
        return;
    }
    let name = unique("hand,made");
    let guest = format!("guest={},debug-threads=on", name.replace(',', ",,"));
    let uuid = "5A0DE2E8-9C1D-4B55-8C9E-3D2C1B0A9F8E";
    let mut scanner = Scanner::new(Arc::new(Roots::default()));
    let topology = Arc::new(Topology::default());
    assert_eq!(named(&scanner.scan(&topology).vms, &name), None);

    let child = qemu(&["-name", &guest, "-uuid", uuid, "-smp", "2", "-S"]);
    let vm = scan_until(&mut scanner, &name, |vms| with_vcpus(vms, &name, 2));
    assert_eq!(vm.uuid, Some(uuid.to_lowercase()));
    assert_eq!(
        (vm.vmm, vm.name_source, vm.manager),
        ("qemu", "cmdline", None)
    );
    assert_eq!(vm.key.pid, child.pid() as i32);
    for (n, vcpu) in vm.vcpus.iter().enumerate() {
        assert_eq!(vcpu.index as usize, n);
        assert_eq!(comm(vm.key.pid, vcpu.tid), format!("CPU {n}/KVM"));
    }

    child.kill();
    assert_eq!(named(&scanner.scan(&topology).vms, &name), None);
}

#[test]
fn vcpus_without_thread_names_are_found_once_the_guest_runs() {
    if !qemu_works() {
        return;
    }
    let name = unique("nameless-threads");
    let child = qemu(&["-name", &name, "-smp", "2"]);
    let pid = child.pid() as i32;
    let mut scanner = Scanner::new(Arc::new(Roots::default()));
    let vm = scan_until(&mut scanner, &name, |vms| with_vcpus(vms, &name, 2));
    let tids: Vec<i32> = vm.vcpus.iter().map(|vcpu| vcpu.tid).collect();
    assert!(!tids.contains(&pid), "the main thread is no vCPU: {vm:?}");
    assert!(
        tids.iter()
            .all(|tid| !comm(pid, *tid).starts_with("kvm-nx")),
        "{vm:?}"
    );
}

#[test]
fn a_libvirt_domain_is_followed_from_start_over_hot_plug_to_its_end() {
    if !qemu_works() {
        return;
    }
    let Some(mut libvirt) = Libvirt::start() else {
        return;
    };
    let name = libvirt.domain().to_owned();
    let uuid = "b813b8d7-0c4e-4f6a-9a86-1f6a3f1f7c11";
    let mut roots = Roots::default();
    roots.run = libvirt.run_dir();
    let mut scanner = Scanner::new(Arc::new(roots));

    libvirt.create(uuid);
    let started = |vms: &[Arc<Vm>]| {
        with_vcpus(vms, &name, 2)
            .filter(|vm| vm.manager == Some("openstack") && !vm.facts.is_empty())
    };
    let vm = scan_until(&mut scanner, "domain with 2 vCPUs", started);
    assert_eq!((vm.vmm, vm.name_source), ("qemu", "libvirt"));
    assert_eq!(vm.uuid.as_deref(), Some(uuid));
    let facts = [("openstack_flavor", "m1.tiny"), ("openstack_name", "shop")];
    assert_eq!(
        vm.facts,
        facts.map(|(label, value)| (label, value.to_owned()))
    );

    libvirt.command(&format!("setvcpus {name} 3 --live"));
    let grown = scan_until(&mut scanner, "a third vCPU", |vms| {
        with_vcpus(vms, &name, 3)
    });
    assert_eq!(grown.key, vm.key);
    assert_eq!(grown.vcpus[..2], vm.vcpus[..]);
    assert_eq!(comm(vm.key.pid, grown.vcpus[2].tid), "CPU 2/KVM");

    libvirt.command(&format!("destroy {name}"));
    let gone = |vms: &[Arc<Vm>]| named(vms, &name).is_none().then_some(());
    scan_until(&mut scanner, "an end of the domain", gone);
}
