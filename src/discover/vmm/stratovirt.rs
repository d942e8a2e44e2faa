//! StratoVirt. It takes QEMU's options and names its vCPU threads as QEMU does.

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
