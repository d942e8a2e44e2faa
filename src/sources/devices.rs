//! The `devices` source: host devices that each VM holds through VFIO, and their location.
//!
//! Feeds `kvm_vm_device_info`. The open descriptors of a VM's process show its devices
//! (`host::vfio`), sysfs their properties. Without VFIO in the kernel, nothing is read.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;

use crate::discover::{Vm, VmKey};
use crate::engine::{
    Fact, ReadError, Reason, ReasonCode, Source, SourceInfo, SourceState, VmSource,
};
use crate::host::fds::MAX_DESCRIPTORS;
use crate::host::roots::Roots;
use crate::host::task::TaskError;
use crate::host::vfio::{self, Device};
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "devices":
    DEVICE_INFO = Metric::info("kvm_vm_device_info", Keys::Vm, &["device", "class", "pci_id", "driver", "numa_node", "iommu_group", "physfn", "parent", "mdev_type"],
        "Host devices that the VM holds through VFIO: PCI functions by address, mediated devices by uuid. physfn is the physical function of a virtual function, parent the device of a mediated device");
}

#[derive(Debug)]
struct Devices {
    roots: Arc<Roots>,
    /// Problem of the last read of each VM.
    vms: HashMap<VmKey, Option<DeviceProblem>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceProblem {
    /// The exporter may not read its descriptors.
    Refused,
    /// It has too many descriptors.
    Many,
}

impl Devices {
    fn new(roots: Arc<Roots>) -> Self {
        Self {
            roots,
            vms: HashMap::new(),
        }
    }

    fn read_vm(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        let held = vfio::held(&self.roots, vm.key.pid);
        vm.key.process().check(&self.roots)?;
        let (devices, trouble) = match held {
            Ok(held) => {
                let trouble = held.more.then_some(DeviceProblem::Many);
                (held.devices(&self.roots), trouble)
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                (Vec::new(), Some(DeviceProblem::Refused))
            }
            Err(error) => {
                let fds = vm.key.process().dir(&self.roots).join("fd");
                return Err(TaskError::new(fds, error).into());
            }
        };
        self.vms.insert(vm.key, trouble);
        Ok(devices.into_iter().map(fact).collect())
    }

    fn count(&self, trouble: DeviceProblem) -> usize {
        let all = self.vms.values();
        all.filter(|of_vm| **of_vm == Some(trouble)).count()
    }
}

impl VmSource for Devices {
    fn state(&self) -> SourceState {
        if !vfio::is_there(&self.roots) {
            return SourceState::Down(no_vfio());
        }
        match (
            self.count(DeviceProblem::Refused),
            self.count(DeviceProblem::Many),
        ) {
            (0, 0) => SourceState::Up,
            (0, many) => SourceState::Degraded(many_descriptors(many)),
            (refused, _) if refused == self.vms.len() => {
                SourceState::Down(no_permission(refused, self.vms.len()))
            }
            (refused, _) => SourceState::Degraded(no_permission(refused, self.vms.len())),
        }
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        if vfio::is_there(&self.roots) {
            self.read_vm(vm)
        } else {
            Ok(Vec::new())
        }
    }

    fn forget(&mut self, vm: VmKey) {
        self.vms.remove(&vm);
    }
}

fn fact(device: Device) -> Fact {
    let Device {
        name,
        class,
        pci_id,
        driver,
        numa_node,
        iommu_group,
        physfn,
        parent,
        mdev_type,
    } = device;
    let labels = [
        ("device", Some(name.into())),
        ("class", class.map(Into::into)),
        ("pci_id", pci_id.map(Into::into)),
        ("driver", driver.map(Into::into)),
        ("numa_node", numa_node.map(Into::into)),
        ("iommu_group", iommu_group.map(Into::into)),
        ("physfn", physfn.map(Into::into)),
        ("parent", parent.map(Into::into)),
        ("mdev_type", mdev_type.map(Into::into)),
    ];
    let known = labels.into_iter();
    let labels = known.filter_map(|(name, value)| Some((name, value?)));
    Fact::int(&DEVICE_INFO, labels, 1)
}

fn no_vfio() -> Reason {
    ReasonCode::NoVfio
        .reason("the kernel has no VFIO, so no VM holds a device")
        .with_fix("modprobe vfio-pci, if devices are to be passed through")
}

fn no_permission(refused: usize, all: usize) -> Reason {
    ReasonCode::NoPermission
        .reason(format!(
            "cannot read the descriptors of {refused} of {all} VMs"
        ))
        .with_fix(
            "give the exporter CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: AmbientCapabilities= in \
             its unit, --cap-add in docker",
        )
}

fn many_descriptors(vms: usize) -> Reason {
    ReasonCode::ManyDescriptors.reason(format!(
        "VMs with more than {MAX_DESCRIPTORS} descriptors: {vms}; the rest is not read"
    ))
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "devices",
        needs: "VFIO in the kernel, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
        cost: "examines each descriptor of each VM, if the kernel has VFIO",
    },
    about: include_str!("devices.md"),
    metrics: &[METRICS],
    make: |with| {
        let config = with.config().devices;
        Source::of_vms(config.enabled, config.period, Devices::new(with.roots()))
    },
};

#[cfg(test)]
mod tests;
