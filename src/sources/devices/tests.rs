//! The source on fixture hosts.

use super::*;
use crate::fake_host::{FakeHost, Pci, START, UUID_A};

const PID: i32 = 1000;

fn source(host: &FakeHost) -> Devices {
    let roots = Arc::new(Roots::below(host.root()));
    Devices::new(roots)
}

fn vm(pid: i32) -> Vm {
    let mut vm = crate::engine::fixture::vm(pid, pid + 10, START + 1);
    vm.key.start_time = START;
    vm
}

/// A host with VFIO, and two VMs without devices.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.qemu(PID, "a", UUID_A, 1);
    host.qemu(2 * PID, "b", UUID_A, 1);
    host.pci(Pci::new("0000:3b:01.2", 0x02_00_00, 41));
    host
}

/// Removes the right to list a process's descriptors; `false` if the user needs no right.
fn close_to_all(host: &FakeHost, pid: i32) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let dir = host.path(format!("proc/{pid}/fd"));
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o0)).unwrap();
    std::fs::read_dir(dir).is_err()
}

#[test]
fn device_has_a_series_with_its_known_labels() {
    let host = host();
    let mut source = source(&host);
    assert_eq!(source.read(&vm(PID)).unwrap(), []);
    host.fd(PID, 40, "/dev/vfio/41");
    let facts = source.read(&vm(PID)).unwrap();
    assert_eq!(source.state(), SourceState::Up);
    let labels = [
        ("device", "0000:3b:01.2"),
        ("class", "network"),
        ("pci_id", "8086:1572"),
        ("driver", "vfio-pci"),
        ("numa_node", "0"),
        ("iommu_group", "41"),
    ];
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].metric, "kvm_vm_device_info");
    let own = facts[0].labels.iter();
    let own: Vec<_> = own
        .map(|(name, value)| (*name, value.to_string()))
        .collect();
    assert_eq!(own, labels.map(|(n, v)| (n, v.to_owned())));
    assert_eq!(source.read(&vm(2 * PID)).unwrap(), []);
}

#[test]
fn without_vfio_nothing_is_read() {
    let host = FakeHost::new();
    let mut source = source(&host);
    assert_eq!(
        source.read(&vm(PID)).unwrap(),
        [],
        "although the process does not exist"
    );
    assert_eq!(source.state().code(), "no_vfio");
}

#[test]
fn ended_process_or_reused_pid_is_gone() {
    let host = host();
    let mut source = source(&host);
    let mut other = vm(PID);
    other.key.start_time += 1;
    assert!(matches!(source.read(&other), Err(ReadError::Gone)));
    assert!(matches!(source.read(&vm(77)), Err(ReadError::Gone)));
}

#[test]
fn missing_permission_is_a_reason_and_no_error() {
    let host = host();
    let mut source = source(&host);
    if !close_to_all(&host, PID) {
        println!("skipped: root may list everything");
        return;
    }
    assert_eq!(source.read(&vm(PID)).unwrap(), []);
    assert!(matches!(source.state(), SourceState::Down(_)));
    assert_eq!(source.read(&vm(2 * PID)).unwrap(), []);
    assert!(matches!(source.state(), SourceState::Degraded(_)));
    assert_eq!(source.state().code(), "no_permission");
    source.forget(vm(PID).key);
    assert_eq!(source.state(), SourceState::Up);
}

#[test]
fn state_is_that_of_the_worst_vm() {
    let host = host();
    let mut source = source(&host);
    let mut reported = |a, b| {
        source.vms = HashMap::from([(vm(1).key, a), (vm(2).key, b)]);
        match source.state() {
            SourceState::Up => "up",
            SourceState::Degraded(reason) => reason.code.label(),
            SourceState::Down(_) => "down",
        }
    };
    assert_eq!(reported(None, None), "up");
    assert_eq!(
        reported(Some(DeviceProblem::Many), None),
        "many_descriptors"
    );
    assert_eq!(
        reported(Some(DeviceProblem::Many), Some(DeviceProblem::Refused)),
        "no_permission"
    );
    assert_eq!(
        reported(Some(DeviceProblem::Refused), Some(DeviceProblem::Refused)),
        "down"
    );
}

/// The real source returns data or a reason.
#[test]
fn this_machine_has_data_or_a_reason() {
    let source = Devices::new(Arc::default());
    match source.state() {
        SourceState::Down(reason) => println!("{reason:?}"),
        state => assert_eq!(state, SourceState::Up),
    }
}
