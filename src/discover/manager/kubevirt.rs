//! KubeVirt: QEMU in a virt-launcher pod, under the pod's own libvirt, whose state is not visible
//! on the host.

use super::{Clues, Facts, Manager};
use crate::discover::naming;

pub(super) const MANAGER: Manager = Manager {
    name: "kubevirt",
    facts,
};

/// A process in a pod whose guest is named `namespace_name` (pkg/util: DomainNameFromNamespace…); a
/// namespace has no underscore.
fn facts(clues: &Clues<'_>) -> Option<Facts> {
    let pod = clues.cgroup.components().find_map(pod_uid)?;
    let (namespace, name) = clues.name?.split_once('_')?;
    Some(vec![
        ("kubevirt_name", name.to_owned()),
        ("kubevirt_namespace", namespace.to_owned()),
        ("kubevirt_pod_uid", pod),
    ])
}

/// `pod<uid>` (cgroupfs driver), or with underscores `kubepods-burstable-pod<uid>.slice` (systemd
/// driver; kubelet's cgroup_manager_linux.go). systemd prefixes a slice with all its parents, so a
/// kubelet with its own cgroup root has `kubelet-kubepods-…-pod<uid>.slice`.
fn pod_uid(component: &str) -> Option<String> {
    let slice = component.strip_suffix(".slice");
    let (parents, uid) = slice.unwrap_or(component).rsplit_once("pod")?;
    let is_pod = match slice {
        Some(_) => parents.ends_with('-'),
        None => parents.is_empty(),
    };
    naming::uuid(&uid.replace('_', "-")).filter(|_| is_pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_is_known_in_every_kubelets_groups() {
        let uid = "6f1e2d3c-4b5a-4968-8776-655443322110";
        let scored = uid.replace('-', "_");
        for component in [
            format!("pod{uid}"),
            format!("kubepods-pod{scored}.slice"),
            format!("kubepods-burstable-pod{scored}.slice"),
            format!("kubelet-kubepods-besteffort-pod{scored}.slice"),
            format!("k8s-node1-kubepods-pod{scored}.slice"),
        ] {
            assert_eq!(pod_uid(&component).as_deref(), Some(uid), "{component}");
        }
        for component in [
            format!("notapod{uid}"),
            format!("x-pod{uid}"),
            format!("tripod{scored}.slice"),
            "kubepods.slice".to_owned(),
            "pod".to_owned(),
        ] {
            assert_eq!(pod_uid(&component), None, "{component}");
        }
    }
}
