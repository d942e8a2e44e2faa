//! libvirt without another manager: virsh, virt-manager, Cockpit.

use super::{Clues, Manager};
use crate::discover::cgroup::Cgroup;

pub(super) const MANAGER: Manager = Manager {
    name: "libvirt",
    facts: |clues| is_domain(clues).then(Vec::new),
};

/// Whether the process is a libvirt domain: libvirt has its state or created its cgroup.
pub(super) fn is_domain(clues: &Clues<'_>) -> bool {
    clues.domain.is_some() || machine(clues.cgroup).is_some()
}

/// libvirt drivers that run VMs on KVM, as they appear in machine names.
const DRIVERS: &[&str] = &["qemu", "ch"];

/// The domain's name in its cgroup. libvirt drops characters that machined does not accept and cuts
/// the name at 64 bytes (src/hypervisor/domain_driver.c, `virDomainDriverGenerateMachineName`), so
/// every other source is preferred.
pub(in crate::discover) fn name_in_cgroup(cgroup: &Cgroup) -> Option<&str> {
    let machine = machine(cgroup)?;
    // `DRIVER-ID-NAME`, possibly with an embedding hash or a user after the driver
    // (`qemu-embed-HASH-ID-NAME`, `qemu-USER-ID-NAME`); NAME alone before libvirt 1.3.
    let numbered = of_driver(machine).and_then(after_number);
    Some(numbered.unwrap_or(machine))
}

/// The part after the driver's name.
fn of_driver(machine: &str) -> Option<&str> {
    let (driver, rest) = machine.split_once('-')?;
    DRIVERS.contains(&driver).then_some(rest)
}

/// The part after the first number between dashes, which must be among the first three parts.
fn after_number(rest: &str) -> Option<&str> {
    let mut rest = rest;
    for _ in 0..3 {
        let (part, behind) = rest.split_once('-')?;
        if part.parse::<u32>().is_ok() {
            return Some(behind);
        }
        rest = behind;
    }
    None
}

/// `qemu-1-NAME` of `machine-qemu-1-NAME.scope` (systemd) or `qemu-1-NAME.libvirt-qemu`, at any
/// depth. libvirt's containers (`machine-lxc-…`) are not VMs.
fn machine(cgroup: &Cgroup) -> Option<&str> {
    cgroup.components().find_map(|component| {
        let scope = component
            .strip_prefix("machine-")
            .and_then(|c| c.strip_suffix(".scope"))
            .filter(|c| of_driver(c).is_some());
        let driver = |name: &&str| component.strip_suffix(*name)?.strip_suffix(".libvirt-");
        scope.or_else(|| DRIVERS.iter().find_map(driver))
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
        assert_eq!(name("1:cpu:/machine/lxc-1-c.libvirt-lxc"), None);
    }

    #[test]
    fn domains_of_every_driver_and_place_are_known() {
        let name = |text: &str| name_in_cgroup(&Cgroup::parse(text.as_bytes())).map(str::to_owned);
        let scope = "0::/machine.slice/machine-ch\\x2d1\\x2dweb\\x2d2.scope/libvirt/vcpu0";
        assert_eq!(name(scope).as_deref(), Some("web-2"));
        assert_eq!(
            name("1:cpu:/machine/ch-3-db.libvirt-ch/emulator").as_deref(),
            Some("db")
        );
        let nested = "0::/system.slice/docker-0f.scope/machine.slice/machine-qemu-1-in.scope";
        assert_eq!(name(nested).as_deref(), Some("in"));
        let embedded = "0::/machine.slice/machine-qemu-embed-0a1b2c3d-7-web.scope";
        assert_eq!(name(embedded).as_deref(), Some("web"));
        let session = "0::/machine.slice/machine-qemu-alice-7-web-1.scope";
        assert_eq!(name(session).as_deref(), Some("web-1"));
    }
}
