//! OpenStack nova with its libvirt driver.

use super::libvirt::is_domain;
use super::{Clues, Facts, Manager};
use crate::discover::vmm::smbios;

pub(super) const MANAGER: Manager = Manager {
    name: "openstack",
    facts,
};

/// Nova's metadata come from the domain; without them nova is identified by the guest's SMBIOS
/// (nova/virt/libvirt/driver.py) or by the domain's name.
fn facts(clues: &Clues<'_>) -> Option<Facts> {
    match clues.domain {
        Some(domain) if !domain.nova.is_empty() => Some(domain.nova.clone()),
        _ if in_smbios(clues) || named_by_nova(clues) => Some(Vec::new()),
        _ => None,
    }
}

fn in_smbios(clues: &Clues<'_>) -> bool {
    smbios(clues.cmdline, "product").is_some_and(|product| product.starts_with("OpenStack"))
}

/// `instance-%08x`, the default of nova's `instance_name_template`.
fn named_by_nova(clues: &Clues<'_>) -> bool {
    let number = clues.name.and_then(|name| name.strip_prefix("instance-"));
    let hex = |n: &str| n.len() == 8 && n.bytes().all(|b| b.is_ascii_hexdigit());
    number.is_some_and(hex) && is_domain(clues)
}
