//! Alioth. It knows no names.

use super::{number_between, Identity, Vmm};

pub(super) const VMM: Vmm = Vmm {
    name: "alioth",
    runs: |cmdline| cmdline.program() == "alioth",
    vcpu: |comm| number_between(comm, "vcpu_", ""),
    iothread: |_| false,
    telling: false,
    identity: |_| Identity::default(),
};
