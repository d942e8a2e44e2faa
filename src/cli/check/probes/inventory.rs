//! Requirements of the inventory: access to other users' processes, and KVM.

use std::io;

use caps::Capability;

use super::{grant, refused};
use crate::cli::check::{count, Finding, Need};
use crate::cli::out::printable;
use crate::discover::VisibilityGap;
use crate::host::privileges::{Capabilities, NEEDED};
use crate::host::roots::Roots;

pub(in crate::cli::check) fn procfs(roots: &Roots) -> Finding {
    let need = Need("inventory", "procfs");
    let seen = match roots.list(&roots.proc) {
        Ok(names) => match names.iter().filter(|name| is_pid(name)).count() {
            0 => format!("no process in {}", roots.proc.display()),
            n => return need.ok(count(n, "process")),
        },
        Err(error) => refused(&roots.proc, &error),
    };
    need.missing(seen)
        .fix("mount -t proc proc /proc, or --path.procfs=DIR")
}

fn is_pid(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit())
}

/// `hidepid` of proc(5) hides other users' processes from a process without `CAP_SYS_PTRACE`.
pub(in crate::cli::check) fn hidepid(roots: &Roots, caps: &Capabilities) -> Finding {
    let need = Need("inventory", "hidepid");
    let path = roots.proc.join("self/mounts");
    let mounts = match roots.read_text(&path) {
        Ok(mounts) => mounts,
        Err(error) => return need.degraded(format!("unknown: {}", refused(&path, &error))),
    };
    match hidepid_of(&mounts, &roots.proc.to_string_lossy()) {
        None => need.ok("procfs is mounted without hidepid"),
        Some(value) if caps.has(Capability::CAP_SYS_PTRACE) => {
            need.ok(format!("hidepid={value}, CAP_SYS_PTRACE is held"))
        }
        Some(value) => need
            .degraded(format!("hidepid={value}: VMs of other users may be hidden"))
            .fix(grant()),
    }
}

/// The `hidepid` option of the procfs at this mount point, unless it hides nothing.
pub(super) fn hidepid_of<'a>(mounts: &'a str, mount_point: &str) -> Option<&'a str> {
    // The last mount at a mount point hides the earlier ones.
    let options = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let here = fields.next()? == mount_point && fields.next()? == "proc";
        here.then(|| fields.next()).flatten()
    })?;
    let hidepid = |option: &'a str| option.strip_prefix("hidepid=");
    let value = options.split(',').find_map(hidepid)?;
    (!matches!(value, "0" | "off")).then_some(value)
}

/// A visibility gap that the scan reported, with its requirement as the fix.
pub(in crate::cli::check) fn blind_spot(gap: &VisibilityGap, caps: &Capabilities) -> Finding {
    let (unseen, needs) = (printable(&gap.unseen), printable(&gap.needs));
    let need = Need("inventory", "every VM is visible");
    let held = caps.missing(&NEEDED).is_empty();
    match &*needs {
        "" => need.degraded(unseen),
        needs if !needs.contains("CAP_") => need.degraded(unseen).fix(needs),
        _ if held => need.degraded(unseen).fix(
            "all capabilities are held: check AppArmor and SELinux \
             (docker: --security-opt apparmor=unconfined) and user namespaces",
        ),
        _ => need.degraded(printable(&gap.to_string())).fix(grant()),
    }
}

/// The exporter does not require KVM, but without KVM there is no VM.
pub(in crate::cli::check) fn kvm(roots: &Roots) -> Finding {
    let need = Need("inventory", "KVM");
    let modules = roots.sys.join("module");
    let loaded = |name: &&&str| modules.join(name).exists();
    let vendor = ["kvm_intel", "kvm_amd"].iter().find(loaded);
    match (modules.join("kvm").exists(), vendor) {
        (true, Some(vendor)) => need.ok(format!("loaded ({vendor})")),
        (true, None) => need.ok("loaded"),
        (false, _) => need
            .degraded(format!(
                "not loaded (no {}/kvm): no KVM guest can run",
                modules.display()
            ))
            .fix("modprobe kvm_intel (AMD: kvm_amd), and enable virtualization in the firmware"),
    }
}

/// KVM debugfs maps vCPUs to threads; without it, thread names do.
pub(in crate::cli::check) fn kvm_debugfs(roots: &Roots, caps: &Capabilities) -> Finding {
    let need = Need("inventory", "KVM debugfs");
    let dir = roots.debug.join("kvm");
    let names = match roots.list(&dir) {
        Ok(names) => names,
        Err(error) => return closed(need.degraded(refused(&dir, &error)), &error, roots, caps),
    };
    let mut paths = names.iter().map(|name| dir.join(name));
    let Some(file) = paths.find(|path| path.is_file()) else {
        return need.degraded(format!("{} contains no file", dir.display()));
    };
    match roots.read(&file) {
        Ok(_) => need.ok("readable"),
        Err(error) => locked_down(roots, need.degraded(refused(&file, &error))),
    }
}

fn closed(finding: Finding, error: &io::Error, roots: &Roots, caps: &Capabilities) -> Finding {
    if error.kind() == io::ErrorKind::NotFound {
        let mount = format!("mount -t debugfs none {}", roots.debug.display());
        return finding.fix(mount + "; if debugfs is mounted, load KVM");
    }
    if caps.has(Capability::CAP_DAC_READ_SEARCH) {
        names_do(finding)
    } else {
        finding.fix(grant())
    }
}

/// No fix is needed: names identify the threads of almost all VMMs.
fn names_do(mut finding: Finding) -> Finding {
    finding.detail += "; vCPU threads are identified by name instead";
    finding
}

fn locked_down(roots: &Roots, mut finding: Finding) -> Finding {
    let path = roots.sys.join("kernel/security/lockdown");
    let text = roots.read_text(&path).unwrap_or_default();
    if let Some(mode) = lockdown(&text).filter(|mode| *mode != "none") {
        finding.detail += &format!("; the kernel is locked down ({mode})");
    }
    names_do(finding)
}

/// The mode in brackets: `none [integrity] confidentiality` (kernel_lockdown(7)).
pub(super) fn lockdown(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}
