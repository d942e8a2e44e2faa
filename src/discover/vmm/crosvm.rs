//! crosvm.

use super::{Identity, Invocation, Vmm, PLAIN};

pub(super) const VMM: Vmm = Vmm {
    name: "crosvm",
    runs: |program, _| program == "crosvm",
    // src/crosvm/sys/linux/vcpu.rs
    vcpu: Some(("crosvm_vcpu", "")),
    // devices/src/virtio: one worker per device, unless the device has its own process (a sandbox).
    iothread: Some(|comm| comm.starts_with("v_")),
    telling: true,
    own: |comm| comm.starts_with("crosvm_vcpu"),
    identity,
    ..PLAIN
};

/// `--name`, else the path of the control socket (`-s`, `--socket`).
fn identity(invocation: &Invocation<'_>) -> Identity {
    let socket = || invocation.option("--socket").or(invocation.option("-s"));
    let name = invocation.option("--name").map(str::to_owned);
    Identity {
        name: name.or_else(|| invocation.name_of_path(socket()?)),
        uuid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn a_name_goes_before_a_socket() {
        let name = |line: &[u8]| identity(line).name;
        assert_eq!(
            name(b"crosvm\0run\0--name\0a\0-s\0/run/b.sock").as_deref(),
            Some("a")
        );
        assert_eq!(name(b"crosvm\0run\0-s\0/run/b.sock").as_deref(), Some("b"));
        assert_eq!(name(b"crosvm\0run"), None);
    }
}
