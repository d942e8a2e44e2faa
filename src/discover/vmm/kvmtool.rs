//! kvmtool (`lkvm`).

use super::{Identity, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "kvmtool",
    runs: |program, _| program.starts_with("lkvm") || program == "kvmtool",
    // builtin-run.c
    vcpu: Some(("kvm-vcpu-", "")),
    telling: true,
    own: |comm| comm.starts_with("kvm-vcpu-"),
    // `lkvm run --name NAME`; the default is `guest-PID`.
    identity: |invocation| Identity::named(invocation.option("--name")),
    ..PLAIN
};

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn guest_is_named_by_its_option() {
        let name = identity(b"lkvm\0run\0--name\0web\0").name;
        assert_eq!(name.as_deref(), Some("web"));
    }
}
