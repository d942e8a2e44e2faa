//! libkrun: a library that makes the program that uses it a VMM (krunvm, muvm, microsandbox,
//! boxlite, crun's `krun`). It started as a part of Firecracker and kept its names of vCPU threads.

use super::{Identity, Invocation, Vmm, PLAIN};

/// Programs that hold KVM descriptors only through libkrun.
const PROGRAMS: &[&str] = &["krunvm", "muvm", "msb", "crun", "krun", "chroot_vm"];

pub(super) const VMM: Vmm = Vmm {
    name: "libkrun",
    runs: |program, _| PROGRAMS.contains(&program),
    // src/vmm/src/linux/vstate.rs
    vcpu: Some(("fc_vcpu ", "")),
    // src/vmm/src/worker.rs; microsandbox names its first thread.
    own: |comm| matches!(comm, "vmm worker" | "libkrun VM"),
    telling: true,
    identity,
    ..PLAIN
};

/// `msb machine --name NAME`, `krunvm start NAME`.
fn identity(invocation: &Invocation<'_>) -> Identity {
    let cmdline = invocation.cmdline;
    let started = || {
        let krunvm = cmdline.program() == "krunvm" && cmdline.arg(1) == "start";
        let mut values = cmdline.args().skip(1);
        values.find(|arg| !arg.starts_with('-')).filter(|_| krunvm)
    };
    Identity::named(cmdline.option("--name").or_else(started))
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn guest_is_named_as_its_program_names_it() {
        let cases: [(&[u8], Option<&str>); 3] = [
            (
                b"msb\0machine\0--name\0web-1\0--vcpus\x002\0",
                Some("web-1"),
            ),
            (b"krunvm\0start\0web\0", Some("web")),
            (b"/usr/bin/muvm\0--emu=fex\0--\0steam\0", None),
        ];
        for (line, name) in cases {
            assert_eq!(identity(line).name.as_deref(), name);
        }
    }
}
