//! Firecracker; its jailer passes `--id` on.

use super::{number_between, Identity, Vmm};
use crate::discover::cmdline::Cmdline;

/// The id of a microVM that was given none (src/firecracker/src/main.rs).
const DEFAULT_ID: &str = "anonymous-instance";

pub(super) const VMM: Vmm = Vmm {
    name: "firecracker",
    runs: |cmdline| cmdline.program().starts_with("firecracker"),
    // src/vmm/src/vstate/vcpu.rs
    vcpu: |comm| number_between(comm, "fc_vcpu ", ""),
    // Its main thread does the devices' I/O.
    iothread: |_| false,
    telling: true,
    identity,
};

fn identity(cmdline: &Cmdline) -> Identity {
    let id = cmdline.option("--id").filter(|id| *id != DEFAULT_ID);
    Identity {
        name: id.map(str::to_owned),
        // Many give their VMs UUIDs as ids; what is none is dropped later.
        uuid: id.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_name_unless_it_is_the_default() {
        let name = |line: &[u8]| identity(&Cmdline::parse(line)).name;
        assert_eq!(name(b"/firecracker\0--id\0web-1").as_deref(), Some("web-1"));
        assert_eq!(name(b"/firecracker\0--id=anonymous-instance"), None);
        assert_eq!(name(b"/firecracker\0--no-api"), None);
    }
}
