//! KubeVirt: QEMU in a virt-launcher pod, under a libvirt of the pod's own whose state the host
//! does not see.

use super::{Clues, Facts, Manager};
use crate::discover::naming;

pub(super) const MANAGER: Manager = Manager {
    name: "kubevirt",
    facts,
};

/// A pod's process whose guest is named `namespace_name` (pkg/util: DomainNameFromNamespace…);
/// a namespace has no underscore.
fn facts(clues: &Clues<'_>) -> Option<Facts> {
    let pod = clues.cgroup.components().find_map(pod_uid)?;
    let (namespace, name) = clues.name?.split_once('_')?;
    Some(vec![
        ("kubevirt_name", name.to_owned()),
        ("kubevirt_namespace", namespace.to_owned()),
        ("kubevirt_pod_uid", pod),
    ])
}

/// `pod<uid>` (cgroupfs driver) or `kubepods-…-pod<uid>.slice` with underscores (systemd
/// driver; kubelet's cgroup_manager_linux.go).
fn pod_uid(component: &str) -> Option<String> {
    let slice = component
        .strip_prefix("kubepods")
        .and_then(|c| c.strip_suffix(".slice"));
    let (_, uid) = slice.unwrap_or(component).rsplit_once("pod")?;
    naming::uuid(&uid.replace('_', "-"))
}
