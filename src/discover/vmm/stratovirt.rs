//! StratoVirt. It uses QEMU's options and names of vCPU threads.

use super::{qemu, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "stratovirt",
    runs: |program, _| program.starts_with("stratovirt"),
    // cpu/src/lib.rs
    vcpu: Some(("CPU ", "/KVM")),
    telling: true,
    identity: qemu::identity,
    ..PLAIN
};
