//! Dragonball: the VMM in Kata's runtime, `containerd-shim-kata-v2`, one process per sandbox.

use super::{number_between, Identity, Invocation, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "dragonball",
    // Only the shim of runtime-rs runs a VMM in its own process; the caller has already found KVM
    // descriptors or vCPU threads.
    runs: |program, _| program.starts_with("containerd-shim-kata"),
    // src/dragonball/src/vcpu/vcpu_impl.rs
    vcpu,
    telling: true,
    own: |comm| vcpu(comm).is_some(),
    identity,
    ..PLAIN
};

fn vcpu(comm: &str) -> Option<u32> {
    number_between(comm, "db_vcpu", "")
}

/// The sandbox id, which containerd passes to the shim.
fn identity(invocation: &Invocation<'_>) -> Identity {
    Identity {
        name: invocation.option("-id").map(str::to_owned),
        uuid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn sandbox_is_named_by_its_id() {
        let line = b"/usr/bin/containerd-shim-kata-v2\0-namespace\0k8s.io\0-id\09b1d\0";
        assert_eq!(identity(line).name.as_deref(), Some("9b1d"));
    }
}
