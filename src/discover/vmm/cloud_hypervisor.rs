//! Cloud Hypervisor. It has no option for a VM name; the paths of its sockets distinguish VMs.

use super::{Identity, Invocation, Vmm, PLAIN};
use crate::discover::cmdline::suboption;

pub(super) const VMM: Vmm = Vmm {
    name: "cloud-hypervisor",
    // Without the last letters, which do not fit into a thread name.
    runs: |program, _| program.starts_with("cloud-hypervis"),
    // vmm/src/cpu.rs
    vcpu: Some(("vcpu", "")),
    iothread: Some(iothread),
    identity,
    ..PLAIN
};

/// One thread per disk queue (`ID_qN`) and per pair of network queues (`ID_qpN`):
/// virtio-devices/src/{block,net}.rs.
fn iothread(comm: &str) -> bool {
    let number = comm.rsplit_once("_q").map(|(_, end)| end);
    let number = number.map(|end| end.strip_prefix('p').unwrap_or(end));
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn identity(invocation: &Invocation<'_>) -> Identity {
    // `--api-socket PATH`, `path=PATH` or `fd=N`; `--event-monitor path=PATH` or `fd=N`.
    let path = |option, implied| suboption(invocation.option(option)?, "path", implied);
    let named = |path: String| libvirt(&path).or_else(|| invocation.name_of_path(&path));
    let name = path("--api-socket", Some("path")).and_then(named);
    let name = name.or_else(|| path("--event-monitor", None).and_then(named));
    let platform = invocation.option("--platform");
    Identity {
        name,
        uuid: platform.and_then(|list| suboption(list, "uuid", None)),
    }
}

/// The domain in the paths of libvirt's driver (src/ch/ch_monitor.c): `DIR/NAME-socket` and
/// `DIR/NAME-event-monitor-fifo` in its state directory.
fn libvirt(path: &str) -> Option<String> {
    let (dir, file) = path.rsplit_once('/')?;
    let name = ["-socket", "-event-monitor-fifo"]
        .iter()
        .find_map(|end| file.strip_suffix(end));
    let name = name.filter(|name| !name.is_empty() && dir.ends_with("/libvirt/ch"))?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;

    #[test]
    fn the_socket_names_the_vm() {
        let plain = identity(
            b"cloud-hypervisor\0--api-socket\0/run/web.sock\0--platform\0num_pci_segments=1,uuid=u",
        );
        assert_eq!(plain.name.as_deref(), Some("web"));
        assert_eq!(plain.uuid.as_deref(), Some("u"));
        let keyed = identity(b"cloud-hypervisor\0--api-socket\0path=/run/db.sock");
        assert_eq!(keyed.name.as_deref(), Some("db"));
        let descriptor = identity(b"cloud-hypervisor\0--api-socket\0fd=3");
        assert_eq!(descriptor.name, None);
    }

    #[test]
    fn domain_is_named_by_the_paths_libvirt_made() {
        let name = |option: &str| {
            let line = format!("cloud-hypervisor\0--api-socket\0fd=3\0{option}");
            identity(line.as_bytes()).name
        };
        let monitor = "--event-monitor\0path=/run/libvirt/ch/web-event-monitor-fifo";
        assert_eq!(name(monitor).as_deref(), Some("web"));
        let socket = "--api-socket\0/run/libvirt/ch/db-socket";
        assert_eq!(name(socket).as_deref(), Some("db"));
        assert_eq!(name("--event-monitor\0fd=4"), None);
    }
}
