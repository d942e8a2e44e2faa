//! StratoVirt. It uses QEMU's options and names of vCPU threads.

use super::{number_between, qemu, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "stratovirt",
    runs: |program, _| program.starts_with("stratovirt"),
    // cpu/src/lib.rs
    vcpu: |comm| number_between(comm, "CPU ", "/KVM"),
    telling: true,
    identity: qemu::identity,
    ..PLAIN
};
