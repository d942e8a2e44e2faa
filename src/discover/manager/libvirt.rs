//! libvirt alone: virsh, virt-manager, Cockpit.

use super::{Clues, Manager};
use crate::discover::cgroup::Cgroup;

pub(super) const MANAGER: Manager = Manager {
    name: "libvirt",
    facts: |clues| is_domain(clues).then(Vec::new),
};

/// Whether the process is a libvirt domain: libvirt has its state, or made its cgroup.
pub(super) fn is_domain(clues: &Clues<'_>) -> bool {
    clues.domain.is_some() || machine(clues.cgroup).is_some()
}

/// The domain's name in its cgroup. libvirt drops characters that machined does not like and
/// cuts it at 64 bytes (virDomainGenerateMachineName), so every other source goes before.
pub(in crate::discover) fn name_in_cgroup(cgroup: &Cgroup) -> Option<&str> {
    let machine = machine(cgroup)?;
    // `qemu-ID-NAME`, and NAME alone before libvirt 1.3.
    let numbered = machine
        .strip_prefix("qemu-")
        .and_then(|rest| rest.split_once('-'));
    match numbered {
        Some((id, name)) if id.parse::<u32>().is_ok() => Some(name),
        _ => Some(machine),
    }
}

/// `qemu-1-NAME` of `machine-qemu-1-NAME.scope` (systemd) or `qemu-1-NAME.libvirt-qemu`.
fn machine(cgroup: &Cgroup) -> Option<&str> {
    cgroup.components().find_map(|component| {
        let scope = component
            .strip_prefix("machine-")
            .and_then(|c| c.strip_suffix(".scope"))
            .filter(|c| c.starts_with("qemu-"));
        scope.or_else(|| component.strip_suffix(".libvirt-qemu"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_tells_the_domain() {
        let name = |text: &str| name_in_cgroup(&Cgroup::parse(text.as_bytes())).map(str::to_owned);
        let scope = "0::/machine.slice/machine-qemu\\x2d12\\x2dweb\\x2d1.scope/libvirt";
        assert_eq!(name(scope).as_deref(), Some("web-1"));
        assert_eq!(
            name("1:cpu:/machine/qemu-3-db.libvirt-qemu").as_deref(),
            Some("db")
        );
        assert_eq!(
            name("1:cpu:/machine/qemu-db.libvirt-qemu").as_deref(),
            Some("qemu-db")
        );
        assert_eq!(
            name("0::/machine.slice/machine-lxc\\x2d1\\x2dc.scope"),
            None
        );
    }
}
