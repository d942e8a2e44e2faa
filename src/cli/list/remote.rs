//! Rows of `list --url`, from an exporter's view.

use super::Row;
use crate::diagnosis::{VcpuView, View, VmView};

/// One row for each vCPU, in the order of the view.
pub(super) fn rows(view: &View) -> Vec<Row> {
    let of_vm = |vm: &VmView| -> Vec<Row> {
        if vm.vcpus.is_empty() {
            vec![row(vm, None)]
        } else {
            vm.vcpus.iter().map(|vcpu| row(vm, Some(vcpu))).collect()
        }
    };
    view.vms.iter().flat_map(of_vm).collect()
}

fn row(vm: &VmView, vcpu: Option<&VcpuView>) -> Row {
    let info = |name: &str| {
        let known = vm.info.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.clone())
    };
    let place = vcpu.and_then(|vcpu| vcpu.place);
    Row {
        vm: vm.name.clone(),
        uuid: info("uuid"),
        vmm: info("vmm").unwrap_or_default().into(),
        manager: info("manager").map(Into::into),
        pid: vm.pid,
        vcpu: vcpu.map(|vcpu| vcpu.index),
        tid: vcpu.map(|vcpu| vcpu.tid),
        cpu: place.map(|place| place.cpu),
        package: place.map(|place| place.package),
        core: place.map(|place| place.core),
        numa_node: place.map(|place| place.node),
        name_source: None,
    }
}
