//! The exporter's own demo guests: `vcpu-exporter micro-vm --name X --uuid U`.

use super::{number_between, Identity, Vmm};
use crate::discover::cmdline::Cmdline;

pub(super) const VMM: Vmm = Vmm {
    name: "demo-guest",
    runs: |cmdline| cmdline.arg(1) == "micro-vm",
    vcpu: |comm| number_between(comm, "CPU ", "/KVM"),
    iothread: |_| false,
    // QEMU's names: an unknown program with such threads is rather a QEMU.
    telling: false,
    identity,
};

fn identity(cmdline: &Cmdline) -> Identity {
    let option = |name| cmdline.option(name).map(str::to_owned);
    Identity {
        name: option("--name"),
        uuid: option("--uuid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_guest_says_who_it_is() {
        let line = Cmdline::parse(b"vcpu-exporter\0micro-vm\0--name\0spin\0--uuid\0u\0");
        assert!((VMM.runs)(&line));
        let identity = identity(&line);
        assert_eq!(identity.name.as_deref(), Some("spin"));
        assert_eq!(identity.uuid.as_deref(), Some("u"));
    }
}
