//! Dragonball: the VMM in Kata's runtime, `containerd-shim-kata-v2`, one process per sandbox.

use super::{Identity, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "dragonball",
    // Only the shim of runtime-rs runs a VMM in its own process; the caller has already found KVM
    // descriptors or vCPU threads.
    runs: |program, _| program.starts_with("containerd-shim-kata"),
    // src/dragonball/src/vcpu/vcpu_impl.rs
    vcpu: Some(("db_vcpu", "")),
    telling: true,
    own: |comm| comm.starts_with("db_vcpu"),
    // The sandbox id, which containerd passes to the shim.
    identity: |invocation| Identity::named(invocation.option("-id")),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn sandbox_is_named_by_its_id() {
        let line = b"/usr/bin/containerd-shim-kata-v2\0-namespace\0k8s.io\0-id\09b1d\0";
        assert_eq!(identity(line).name.as_deref(), Some("9b1d"));
    }
}
