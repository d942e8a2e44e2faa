//! Memory and devices, compared with where the VM runs.

use super::*;

#[test]
fn memory_and_devices_are_compared_with_the_nodes_of_vcpus() {
    let memory = |node| [("vm", "db"), ("numa_node", node)];
    let device = [
        ("vm", "db"),
        ("device", "0000:3b:00.0"),
        ("class", "gpu"),
        ("numa_node", "1"),
    ];
    let host = Host::new(&[("db", vec![Did::on(0), Did::on(5)])])
        .fact("kvm_vm_memory_bytes", &memory("0"), [1e9; 2])
        .fact("kvm_vm_memory_bytes", &memory("1"), [3e9; 2])
        .fact("kvm_vm_device_info", &device, [1.0; 2]);
    let vm = &host.view().vms[0];
    assert_eq!((vm.nodes_used, vm.devices_remote), (Some(1), Some(1)));
    assert!(close(vm.memory_remote, 0.75));
    assert_eq!(troubles(vm), [Cause::DeviceRemote, Cause::MemoryRemote]);
    assert_eq!(
        vm.verdict,
        "Its gpu device 0000:3b:00.0 is on node 1; 100\u{a0}% of its vCPU time is far from that node. \
         75\u{a0}% of its memory accesses are remote: it runs on node 0, its memory is on node 1 \
         (75\u{a0}%) and node 0 (25\u{a0}%)."
    );
    let host =
        Host::new(&[("db", vec![Did::on(2)])]).fact("kvm_vm_memory_bytes", &memory("1"), [1.0; 2]);
    let remote = host.view().vms[0].memory_remote;
    assert!(remote.is_some_and(|r| r == 0.0 && r.is_sign_positive()));
    // An idle VM has no location.
    let idle = Did {
        time: 10,
        ..Did::on(0)
    };
    let host = Host::new(&[("db", vec![idle])]).fact("kvm_vm_memory_bytes", &memory("1"), [1.0; 2]);
    assert!(troubles(&host.view().vms[0]).is_empty());
}

#[test]
fn a_vm_on_two_nodes_has_trouble_only_beyond_what_its_spread_explains() {
    let memory = |node| [("vm", "db"), ("numa_node", node)];
    let host = |local: f64, remote: f64| {
        Host::new(&[("db", vec![Did::on(0), Did::on(2)])])
            .fact("kvm_vm_memory_bytes", &memory("0"), [local; 2])
            .fact("kvm_vm_memory_bytes", &memory("1"), [remote; 2])
    };
    let vm = &host(4e9, 6e9).view().vms[0];
    assert!(close(vm.memory_remote, 0.5) && close(vm.memory_remote_spread, 0.5));
    assert!(troubles(vm).is_empty());
    let cause = vm.causes.iter().find(|c| c.cause == Cause::MemoryRemote);
    assert!(cause.is_some_and(|cause| (cause.threshold - 0.7).abs() < 1e-9));
}

/// The VM runs on node 1 for the given milliseconds of a second, and for the rest of it on node 0.
fn vm_with_device_on_node_1(time: u64) -> Host {
    let device = [("vm", "db"), ("device", "nic"), ("numa_node", "1")];
    let on = |cpu, time| Did {
        time,
        ..Did::on(cpu)
    };
    Host::new(&[("db", vec![on(0, 1000 - time), on(2, time)])]).fact(
        "kvm_vm_device_info",
        &device,
        [1.0; 2],
    )
}

#[test]
fn device_is_judged_by_the_share_of_time_that_is_far_from_it() {
    let far = |host: &Host| {
        let vm = &host.view().vms[0];
        let cause = vm.causes.iter().find(|c| c.cause == Cause::DeviceRemote);
        let cause = cause.map(|cause| (cause.observed, cause.threshold));
        (vm.devices[0].far, vm.devices_remote, cause)
    };
    let (few, remote, cause) = far(&vm_with_device_on_node_1(60));
    assert!(close(few, 0.94) && remote == Some(1));
    assert!(cause.is_some_and(|(far, limit)| close(Some(far / limit), 1.88)));
    let (half, remote, cause) = far(&vm_with_device_on_node_1(400));
    assert!(close(half, 0.6) && remote == Some(0));
    assert!(cause.is_some_and(|(far, limit)| close(Some(far / limit), 0.6 / 0.68)));
}

/// Node 2 has memory alone (CXL, HBM): no vCPU can be moved there.
#[test]
fn memory_and_devices_on_a_node_without_cpus_are_not_remote() {
    let memory = |node| [("vm", "db"), ("numa_node", node)];
    let device = [
        ("vm", "db"),
        ("device", "0000:3b:00.0"),
        ("class", "gpu"),
        ("numa_node", "2"),
    ];
    let host = |far: f64| {
        Host::new(&[("db", vec![Did::on(0)])])
            .fact("kvm_vm_memory_bytes", &memory("0"), [1e9; 2])
            .fact("kvm_vm_memory_bytes", &memory("1"), [far; 2])
            .fact("kvm_vm_memory_bytes", &memory("2"), [3e9; 2])
            .fact("kvm_vm_device_info", &device, [1.0; 2])
    };
    let vm = &host(0.0).view().vms[0];
    assert_eq!((vm.memory_remote, vm.devices_remote), (Some(0.0), Some(0)));
    assert!(troubles(vm).is_empty());
    let text = |vm: &VmView| {
        vm.causes
            .iter()
            .find(|c| c.cause == Cause::MemoryRemote)
            .unwrap()
            .text
            .clone()
    };
    assert!(
        text(vm).ends_with("; 75\u{a0}% is on node 2, which has no CPUs"),
        "{}",
        text(vm)
    );
    let vm = &host(6e9).view().vms[0];
    assert!(close(vm.memory_remote, 0.6));
    assert_eq!(
        vm.verdict,
        "60\u{a0}% of its memory accesses are remote: it runs on node 0, its memory is on node 1 \
         (60\u{a0}%), node 2 (30\u{a0}%) and node 0 (10\u{a0}%); 30\u{a0}% is on node 2, which has no \
         CPUs."
    );
}
