//! Alioth. It has no option for a VM name.

use super::{Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "alioth",
    runs: |program, _| program == "alioth",
    vcpu: Some(("vcpu_", "")),
    ..PLAIN
};
