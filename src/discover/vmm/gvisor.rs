//! gVisor's KVM platform: `runsc-sandbox`. Its vCPUs are not threads: each thread of the sandbox
//! takes a free vCPU when it runs the application (pkg/sentry/platform/kvm/machine.go,
//! `machine.Get`), so there are as many vCPUs as threads ever ran at once.

use super::{Identity, Invocation, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "gvisor",
    runs: |program, _| matches!(program, "runsc" | "runsc-sandbox"),
    unbound: true,
    identity,
    ..PLAIN
};

/// The sandbox's id is the last argument of `runsc … boot … ID`.
fn identity(invocation: &Invocation<'_>) -> Identity {
    let mut args = invocation.cmdline.args();
    let boots = args.any(|arg| arg == "boot");
    Identity::named(args.last().filter(|id| boots && !id.starts_with('-')))
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn sandbox_is_named_by_its_id() {
        let line = b"runsc-sandbox\0--platform=kvm\0boot\0--bundle=/b\0shop-1\0";
        assert_eq!(identity(line).name.as_deref(), Some("shop-1"));
        assert_eq!(identity(b"runsc-sandbox\0--platform=kvm\0boot").name, None);
    }
}
