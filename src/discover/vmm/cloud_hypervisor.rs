//! Cloud Hypervisor. It knows no names: the API socket's path tells VMs apart.

use super::{name_of_socket, number_between, Identity, Vmm};
use crate::discover::cmdline::{suboption, Cmdline};

pub(super) const VMM: Vmm = Vmm {
    name: "cloud-hypervisor",
    runs: |cmdline| cmdline.program().starts_with("cloud-hypervisor"),
    // vmm/src/cpu.rs
    vcpu: |comm| number_between(comm, "vcpu", ""),
    iothread,
    telling: false,
    identity,
};

/// A thread for each queue of a disk (`ID_qN`) and each pair of queues of a network device
/// (`ID_qpN`): virtio-devices/src/{block,net}.rs.
fn iothread(comm: &str) -> bool {
    let number = comm.rsplit_once("_q").map(|(_, end)| end);
    let number = number.map(|end| end.strip_prefix('p').unwrap_or(end));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn identity(cmdline: &Cmdline) -> Identity {
    // `--api-socket PATH`, `path=PATH` or `fd=N`.
    let socket = cmdline.option("--api-socket");
    let path = socket.and_then(|list| suboption(list, "path", Some("path")));
    let platform = cmdline.option("--platform");
    Identity {
        name: path.as_deref().and_then(name_of_socket),
        uuid: platform.and_then(|list| suboption(list, "uuid", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_names_the_vm() {
        let parse = |line: &[u8]| identity(&Cmdline::parse(line));
        let plain = parse(
            b"cloud-hypervisor\0--api-socket\0/run/web.sock\0--platform\0num_pci_segments=1,uuid=u",
        );
        assert_eq!(plain.name.as_deref(), Some("web"));
        assert_eq!(plain.uuid.as_deref(), Some("u"));
        let keyed = parse(b"cloud-hypervisor\0--api-socket\0path=/run/db.sock");
        assert_eq!(keyed.name.as_deref(), Some("db"));
        assert_eq!(parse(b"cloud-hypervisor\0--api-socket\0fd=3").name, None);
    }
}
