//! crosvm.

use super::{name_of_socket, number_between, Identity, Vmm};
use crate::discover::cmdline::Cmdline;

pub(super) const VMM: Vmm = Vmm {
    name: "crosvm",
    runs: |cmdline| cmdline.program() == "crosvm",
    // src/crosvm/sys/linux/vcpu.rs
    vcpu: |comm| number_between(comm, "crosvm_vcpu", ""),
    // devices/src/virtio: a worker of each device, unless it has a process of its own (a sandbox).
    iothread: |comm| comm.starts_with("v_"),
    telling: true,
    identity,
};

/// `--name`, else the file of the control socket (`-s`, `--socket`).
fn identity(cmdline: &Cmdline) -> Identity {
    let socket = cmdline.option("--socket").or_else(|| cmdline.option("-s"));
    let name = cmdline.option("--name").map(str::to_owned);
    Identity {
        name: name.or_else(|| socket.and_then(name_of_socket)),
        uuid: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_before_a_socket() {
        let name = |line: &[u8]| identity(&Cmdline::parse(line)).name;
        assert_eq!(
            name(b"crosvm\0run\0--name\0a\0-s\0/run/b.sock").as_deref(),
            Some("a")
        );
        assert_eq!(name(b"crosvm\0run\0-s\0/run/b.sock").as_deref(), Some("b"));
        assert_eq!(name(b"crosvm\0run"), None);
    }
}
