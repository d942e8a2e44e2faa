//! Proxmox VE (qemu-server).

use super::{Clues, Facts, Manager};

pub(super) const MANAGER: Manager = Manager {
    name: "proxmox",
    facts,
};

/// The guest's number: from its scope `/qemu.slice/<id>.scope`, else `-id` if the PID file is
/// Proxmox's.
fn facts(clues: &Clues<'_>) -> Option<Facts> {
    let scope = clues.cgroup.below("qemu.slice");
    let of_scope = scope.and_then(|s| s.strip_suffix(".scope")).filter(number);
    let pidfile = clues.cmdline.option("-pidfile").unwrap_or_default();
    let of_line = || {
        let id = clues.cmdline.option("-id").filter(number)?;
        pidfile.contains("/qemu-server/").then_some(id)
    };
    let id = of_scope.or_else(of_line)?;
    Some(vec![("proxmox_id", id.to_owned())])
}

fn number(text: &&str) -> bool {
    text.parse::<u32>().is_ok()
}
