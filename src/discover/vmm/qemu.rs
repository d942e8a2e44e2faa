//! QEMU (qemu-options.hx: -name, -uuid, -smbios).

use super::{number_between, Identity, Vmm};
use crate::discover::cmdline::{suboption, Cmdline};

pub(super) const VMM: Vmm = Vmm {
    name: "qemu",
    runs,
    // accel/kvm/kvm-accel-ops.c; only with debug-threads=on, as libvirt and Proxmox start it.
    vcpu: |comm| number_between(comm, "CPU ", "/KVM"),
    // iothread.c; the monitor's own (monitor/monitor.c) does no guest's I/O.
    iothread: |comm| comm.starts_with("IO ") && comm != "IO mon_iothread",
    telling: true,
    identity,
};

/// `kvm` is Debian's and Proxmox' name of it, `qemu-kvm` that of Red Hat's.
fn runs(cmdline: &Cmdline) -> bool {
    let program = cmdline.program();
    program.starts_with("qemu-system-") || matches!(program, "qemu-kvm" | "kvm" | "qemu")
}

fn identity(cmdline: &Cmdline) -> Identity {
    let name = option(cmdline, "name").and_then(|list| suboption(list, "guest", Some("guest")));
    let uuid = option(cmdline, "uuid").map(str::to_owned);
    Identity {
        name,
        uuid: uuid.or_else(|| smbios(cmdline, "uuid")),
    }
}

/// QEMU takes its options with one dash or two.
fn option<'a>(cmdline: &'a Cmdline, name: &str) -> Option<&'a str> {
    let two = cmdline.option(&format!("--{name}"));
    cmdline.option(&format!("-{name}")).or(two)
}

/// A field of the system information the guest is told (SMBIOS type 1).
pub(in crate::discover) fn smbios(cmdline: &Cmdline, field: &str) -> Option<String> {
    let system = |list: &&str| suboption(list, "type", None).as_deref() == Some("1");
    let mut lists = cmdline.options("-smbios").filter(system);
    lists.find_map(|list| suboption(list, field, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Identity {
        let line = format!("qemu-system-x86_64\0{}\0", args.join("\0"));
        identity(&Cmdline::parse(line.as_bytes()))
    }

    #[test]
    fn every_way_to_name_a_guest_is_understood() {
        for name in [
            "guest=web,debug-threads=on",
            "web",
            "web,process=x",
            "process=x,guest=web",
        ] {
            assert_eq!(
                parse(&["-name", name]).name.as_deref(),
                Some("web"),
                "{name}"
            );
        }
        assert_eq!(parse(&["--name", "a,,b"]).name.as_deref(), Some("a,b"));
        assert_eq!(parse(&["-m", "64"]), Identity::default());
    }

    #[test]
    fn the_uuid_is_an_option_or_the_smbios_one() {
        assert_eq!(parse(&["-uuid", "u"]).uuid.as_deref(), Some("u"));
        let smbios = ["-smbios", "type=2,uuid=no", "-smbios", "type=1,uuid=v"];
        assert_eq!(parse(&smbios).uuid.as_deref(), Some("v"));
    }
}
