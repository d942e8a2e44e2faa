//! The exporter's demo guests: `vcpu-exporter micro-vm --name X --uuid U`.

use super::{Identity, Invocation, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "demo-guest",
    runs: |program, cmdline| program.starts_with("vcpu-exporter") && cmdline.arg(1) == "micro-vm",
    vcpu: Some(("CPU ", "/KVM")),
    iothread: Some(|_| false),
    telling: true,
    identity,
    ..PLAIN
};

fn identity(invocation: &Invocation<'_>) -> Identity {
    let option = |name| invocation.option(name).map(str::to_owned);
    Identity {
        name: option("--name"),
        uuid: option("--uuid"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn a_demo_guest_says_who_it_is() {
        let identity = identity(b"vcpu-exporter\0micro-vm\0--name\0spin\0--uuid\0u\0");
        assert_eq!(identity.name.as_deref(), Some("spin"));
        assert_eq!(identity.uuid.as_deref(), Some("u"));
    }
}
