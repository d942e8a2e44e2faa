//! kvmtool (`lkvm`).

use super::{number_between, Identity, Invocation, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "kvmtool",
    runs: |program, _| program.starts_with("lkvm") || program == "kvmtool",
    // builtin-run.c
    vcpu,
    telling: true,
    own: |comm| vcpu(comm).is_some(),
    identity,
    ..PLAIN
};

fn vcpu(comm: &str) -> Option<u32> {
    number_between(comm, "kvm-vcpu-", "")
}

/// `lkvm run --name NAME`; the default is `guest-PID`.
fn identity(invocation: &Invocation<'_>) -> Identity {
    Identity {
        name: invocation.option("--name").map(str::to_owned),
        uuid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn guest_is_named_by_its_option() {
        let name = identity(b"lkvm\0run\0--name\0web\0").name;
        assert_eq!(name.as_deref(), Some("web"));
    }
}
