//! The machines themselves: assumptions of the other tests about them.

use crate::machine::{Clock, Machine};

const FACTS: &str = r#"
section nodes cat /sys/devices/system/node/online
section cpus cat /sys/devices/system/node/node1/cpulist
section kvm ls /dev/kvm
section pmus ls /sys/bus/event_source/devices
section check vcpu-exporter check
"#;

fn has_what_every_host_has(machine: Machine) -> crate::machine::Console {
    let console = machine.run(FACTS);
    assert_eq!(console.section("nodes"), "0-1\n");
    assert_eq!(console.section("cpus"), "2-3\n");
    assert_eq!(console.section("kvm"), "/dev/kvm\n");
    console
}

#[test]
fn arm64_has_a_pmu() {
    let console = has_what_every_host_has(Machine::arm64(Clock::Icount));
    assert!(console.section("pmus").contains("armv8_pmuv3"));
}

#[test]
fn amd64_has_vcpus_in_debugfs() {
    let console = has_what_every_host_has(Machine::amd64());
    assert!(!console.section("pmus").contains("cpu\n"));
}
