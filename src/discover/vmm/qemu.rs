//! QEMU (qemu-options.hx: -name, -uuid, -smbios, -readconfig).

use super::{Identity, Invocation, Vmm, PLAIN};
use crate::discover::cmdline::{suboption, Cmdline};

mod config;

pub(super) const VMM: Vmm = Vmm {
    name: "qemu",
    runs: |program, _| is_qemu(program),
    // accel/kvm/kvm-accel-ops.c; only with debug-threads=on, which libvirt and Proxmox set.
    vcpu: Some(("CPU ", "/KVM")),
    // iothread.c; the monitor's iothread (monitor/monitor.c) does no I/O for the guest.
    iothread: Some(|comm| comm.starts_with("IO ") && comm != "IO mon_iothread"),
    migration: Some(migration),
    telling: true,
    // util/rcu.c; present in every QEMU that names its threads.
    own: |comm| comm == "call_rcu",
    identity,
    ..PLAIN
};

/// `kvm` is its name in Debian and Proxmox, `qemu-kvm` in Red Hat. The caller has already found KVM
/// descriptors or vCPU threads, which QEMU's tools do not have.
fn is_qemu(program: &str) -> bool {
    program.starts_with("qemu") || program == "kvm" || program.starts_with("kvm-spice")
}

/// Threads of a live migration, a background snapshot, COLO or a dirty rate measurement, on both
/// hosts and in all versions (migration/*.c; `mig/…` since QEMU 9.0).
fn migration(comm: &str) -> bool {
    const NAMES: &[&str] = &[
        "live_migration",
        "migration",
        "return path",
        "bg_snapshot",
        "fault-default",
        "fault-fast",
        "listen",
        "compress",
        "decompress",
        "colo",
        "COLO incoming",
        "get_dirtyrate",
    ];
    const PREFIXES: &[&str] = &[
        "mig/",
        "multifdsend_",
        "multifdrecv_",
        "multifd-tls",
        "postcopy/",
    ];
    NAMES.contains(&comm) || PREFIXES.iter().any(|prefix| comm.starts_with(prefix))
}

/// Applies the options in order: each adds to the earlier ones or replaces them.
pub(super) fn identity(invocation: &Invocation<'_>) -> Identity {
    let mut identity = Identity::default();
    for (option, value) in options(invocation.cmdline) {
        match option {
            // All -name options form one list (`merge_lists` of qemu_name_opts, softmmu/vl.c).
            "name" => {
                let name = suboption(value, "guest", Some("guest"));
                identity.name = name.or(identity.name);
            }
            "readconfig" => {
                let name = (invocation.file)(value).and_then(|text| config::name(&text));
                identity.name = name.or(identity.name);
            }
            "uuid" => identity.uuid = Some(value.to_owned()),
            "smbios" => identity.uuid = system(value, "uuid").or(identity.uuid),
            _ => {}
        }
    }
    identity
}

/// The options with their values, in order. QEMU accepts one dash or two, but not `-name=value`.
fn options(cmdline: &Cmdline) -> impl Iterator<Item = (&str, &str)> {
    let pairs = cmdline.args().zip(cmdline.args().skip(1));
    pairs.filter_map(|(option, value)| {
        let name = option.strip_prefix('-')?;
        Some((name.strip_prefix('-').unwrap_or(name), value))
    })
}

/// A field of the guest's system information (SMBIOS type 1); the last one counts.
pub(in crate::discover) fn smbios(cmdline: &Cmdline, field: &str) -> Option<String> {
    let lists = options(cmdline).filter(|(option, _)| *option == "smbios");
    lists.filter_map(|(_, list)| system(list, field)).last()
}

/// A field of an `-smbios` list of type 1; QEMU parses the type with strtoul(3) in any base.
fn system(list: &str, field: &str) -> Option<String> {
    let kind = suboption(list, "type", None)?;
    let digits = kind.trim_start_matches("0x").trim_start_matches('0');
    (digits == "1").then(|| suboption(list, field, None))?
}

#[cfg(test)]
mod tests {
    use super::super::tests::identity;
    use super::*;

    fn parse(args: &[&str]) -> Identity {
        let line = format!("qemu-system-x86_64\0{}\0", args.join("\0"));
        identity(line.as_bytes())
    }

    #[test]
    fn every_way_to_name_a_guest_is_understood() {
        for name in [
            "guest=web,debug-threads=on",
            "web",
            "web,process=x",
            "process=x,guest=web",
            "guest=no,guest=web",
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

    /// As QEMU 7.2 answers `query-name` and `query-uuid`.
    #[test]
    fn options_are_merged_as_qemu_merges_them() {
        let name = |args: &[&str]| parse(args).name;
        let cases: [(&[&str], &str); 6] = [
            (&["-name", "web", "-name", "debug-threads=on"], "web"),
            (&["-name", "guest=a", "-name", "process=zz"], "a"),
            (&["-name", "first", "-name", "guest=second"], "second"),
            (&["-name", "a,,b=c"], "a,b=c"),
            (&["-name", "a,,b=c,process=q"], "a,b=c"),
            (&["-name", "web", "-name", ""], "web"),
        ];
        for (args, expected) in cases {
            assert_eq!(name(args).as_deref(), Some(expected), "{args:?}");
        }
        assert_eq!(name(&["-name=web"]), None);
        let (a, b) = ("type=1,uuid=a", "type=0x1,uuid=b");
        let uuid = |args: &[&str]| parse(args).uuid;
        let cases: [(&[&str], &str); 5] = [
            (&["-uuid", "u", "-smbios", a], "a"),
            (&["-smbios", a, "-uuid", "u"], "u"),
            (&["-smbios", a, "-smbios", b], "b"),
            (&["-smbios", a, "-smbios", "type=1,product=x"], "a"),
            (&["-smbios", "type=2,uuid=no", "-smbios", a], "a"),
        ];
        for (args, expected) in cases {
            assert_eq!(uuid(args).as_deref(), Some(expected), "{args:?}");
        }
    }

    #[test]
    fn configuration_names_the_guest_in_the_order_of_options() {
        let name = |line: &str| {
            let cmdline = Cmdline::parse(line.replace(' ', "\0").as_bytes());
            let file = |path: &str| match path {
                "web.cfg" => Some("[name]\nguest = \"web\"\n".to_owned()),
                "other.cfg" => Some("[machine]\ntype = \"pc\"\n".to_owned()),
                _ => None,
            };
            let invocation = Invocation {
                cmdline: &cmdline,
                cwd: None,
                file: &file,
            };
            super::identity(&invocation).name
        };
        assert_eq!(name("q -readconfig web.cfg").as_deref(), Some("web"));
        assert_eq!(
            name("q -name a -readconfig web.cfg").as_deref(),
            Some("web")
        );
        assert_eq!(name("q -readconfig web.cfg -name a").as_deref(), Some("a"));
        assert_eq!(
            name("q -name a -readconfig other.cfg").as_deref(),
            Some("a")
        );
        assert_eq!(name("q -readconfig gone.cfg"), None);
    }

    #[test]
    fn threads_of_a_migration_are_known_in_all_versions() {
        let of_migration = [
            "live_migration",
            "migration",
            "return path",
            "multifdsend_0",
            "multifdrecv_15",
            "multifd-tls-han",
            "postcopy/fault",
            "postcopy/listen",
            "fault-default",
            "bg_snapshot",
            "mig/src/main",
            "mig/src/send_12",
            "mig/src/return",
            "mig/dst/recv_3",
            "mig/dst/preempt",
            "mig/snapshot",
        ];
        for comm in of_migration {
            assert!(migration(comm), "{comm}");
        }
        for comm in [
            "worker",
            "vnc_worker",
            "call_rcu",
            "IO iothread1",
            "migrate",
            "mig",
        ] {
            assert!(!migration(comm), "{comm}");
        }
    }
}
