//! Managers of VMs and the facts they provide, one file each.

use super::cgroup::Cgroup;
use super::cmdline::Cmdline;
use super::domains::Domain;

mod kubevirt;
mod libvirt;
mod openstack;
mod proxmox;

/// The evidence that identifies a manager.
#[derive(Debug)]
pub(super) struct Clues<'a> {
    pub(super) cmdline: &'a Cmdline,
    pub(super) cgroup: &'a Cgroup,
    /// The VM's name on the command line.
    pub(super) name: Option<&'a str>,
    /// libvirt's run-time state of this process.
    pub(super) domain: Option<&'a Domain>,
}

/// Labels of `kvm_vm_info` beyond the common ones, before `label::clean`.
pub(super) type Facts = Vec<(&'static str, String)>;

#[derive(Debug)]
pub(super) struct Manager {
    /// Value of the `manager` label.
    pub(super) name: &'static str,
    /// The facts about this VM; `None` if this manager does not manage it.
    pub(super) facts: fn(&Clues<'_>) -> Option<Facts>,
}

/// Managers that use libvirt come before libvirt.
pub(super) const MANAGERS: &[Manager] = &[
    openstack::MANAGER,
    kubevirt::MANAGER,
    proxmox::MANAGER,
    libvirt::MANAGER,
];

pub(super) use libvirt::name_in_cgroup;

/// The manager of a VM and its facts.
pub(super) fn identify(clues: &Clues<'_>) -> Option<(&'static str, Facts)> {
    let mut known = MANAGERS.iter();
    known.find_map(|manager| Some((manager.name, (manager.facts)(clues)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manager of a QEMU with these arguments in this cgroup.
    fn manager(args: &str, cgroup: &str, domain: Option<&Domain>) -> Option<(&'static str, Facts)> {
        let line = format!("qemu-system-x86_64 {args}").replace(' ', "\0");
        let cmdline = Cmdline::parse(line.as_bytes());
        let name = super::super::vmm::tests::identity_of(&cmdline).name;
        identify(&Clues {
            cmdline: &cmdline,
            cgroup: &Cgroup::parse(cgroup.as_bytes()),
            name: name.as_deref(),
            domain,
        })
    }

    #[test]
    fn a_guest_started_by_hand_has_no_manager() {
        assert_eq!(manager("-name web", "0::/user.slice/x.scope", None), None);
        assert_eq!(manager("-name web", "0::/kubepods/podx/c", None), None);
    }

    #[test]
    fn libvirt_is_known_by_its_cgroups_of_all_layouts() {
        let layouts = [
            "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator",
            "9:cpu:/machine/qemu-1-web.libvirt-qemu/emulator\n1:name=systemd:/",
            "9:cpu:/machine/web.libvirt-qemu\n0::/",
        ];
        for cgroup in layouts {
            assert_eq!(
                manager("-name web", cgroup, None),
                Some(("libvirt", vec![])),
                "{cgroup}"
            );
        }
    }

    #[test]
    fn kubevirt_names_a_domain_by_namespace_and_name() {
        let expected = vec![
            ("kubevirt_name", "web_1".to_owned()),
            ("kubevirt_namespace", "shop".to_owned()),
            (
                "kubevirt_pod_uid",
                "6f1e2d3c-4b5a-4968-8776-655443322110".to_owned(),
            ),
        ];
        let pods = [
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6f1e2d3c_4b5a_4968_8776_655443322110.slice/cri-containerd-1.scope",
            "4:cpu:/kubepods/burstable/pod6f1e2d3c-4b5a-4968-8776-655443322110/1a\n1:name=systemd:/",
        ];
        for pod in pods {
            let found = manager("-name guest=shop_web_1,debug-threads=on", pod, None);
            assert_eq!(found, Some(("kubevirt", expected.clone())), "{pod}");
        }
    }

    #[test]
    fn proxmox_numbers_its_guests() {
        let expected = Some(("proxmox", vec![("proxmox_id", "100".to_owned())]));
        assert_eq!(
            manager("-id 100 -name web", "0::/qemu.slice/100.scope", None),
            expected
        );
        assert_eq!(
            manager("-name web", "0::/qemu.slice/100.scope", None),
            expected
        );
        let pidfile = "-id 100 -pidfile /var/run/qemu-server/100.pid";
        assert_eq!(manager(pidfile, "0::/", None), expected);
        assert_eq!(manager("-id 100", "0::/", None), None);
    }

    #[test]
    fn openstack_is_known_without_its_metadata_too() {
        let smbios = "-name guest=x -smbios type=1,product=OpenStack,,Nova";
        let smbios = smbios.replace(",,", "\u{1}");
        let line = format!("qemu-system-x86_64 {smbios}")
            .replace(' ', "\0")
            .replace('\u{1}', " ");
        let cmdline = Cmdline::parse(line.as_bytes());
        let cgroup = Cgroup::default();
        let clues = Clues {
            cmdline: &cmdline,
            cgroup: &cgroup,
            name: None,
            domain: None,
        };
        assert_eq!(identify(&clues), Some(("openstack", vec![])));
        let cgroup = "0::/machine.slice/machine-qemu\\x2d1\\x2dinstance\\x2d0000002a.scope";
        let found = manager("-name guest=instance-0000002a", cgroup, None);
        assert_eq!(found, Some(("openstack", vec![])));
    }
}
