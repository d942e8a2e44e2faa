//! Alioth. It has no option for a VM name.

use super::{number_between, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "alioth",
    runs: |program, _| program == "alioth",
    vcpu: |comm| number_between(comm, "vcpu_", ""),
    ..PLAIN
};
