//! Devices that a process holds through VFIO (Documentation/driver-api/vfio.rst).
//!
//! - `/dev/vfio/N` is an IOMMU group, which the process holds as a whole: a device of the group
//!   under another owner could access the process's memory. Therefore the kernel refuses a group
//!   with a device bound to a driver other than VFIO's (`iommu_group_claim_dma_owner`,
//!   drivers/iommu/iommu.c), except drivers of devices that do no DMA of their own
//!   (`driver_managed_dma`: `pcieport`, `pci-stub`).
//! - `/dev/vfio/devices/vfioN` is one device of a process that uses iommufd.
//!
//! A link of /proc/PID/fd is a path in the process's own mount namespace: a user who can create
//! files of such a name there can claim a device without holding it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::fds::Descriptors;
use super::pci::{class_word, link_name, Function};
use super::roots::Roots;

/// Longest label from a name in sysfs (characters).
const MAX_NAME: usize = 128;

/// Open VFIO files of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) groups: BTreeSet<u32>,
    /// Numbers of single devices, as in `vfioN`.
    pub devices: BTreeSet<u32>,
    /// Whether the process has more than [`super::fds::MAX_DESCRIPTORS`], so that some were not
    /// read.
    pub more: bool,
}

/// A device in sysfs; unknown facts are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    /// Address of a PCI function (`0000:3b:02.1`) or UUID of a mediated device.
    pub name: String,
    /// Name of its class; for a mediated device, the class of its parent.
    pub class: Option<&'static str>,
    /// PCI `vendor:device`, four hexadecimal digits each.
    pub(crate) pci_id: Option<String>,
    /// Its driver: `vfio-pci` or a variant of it.
    pub driver: Option<String>,
    pub(crate) numa_node: Option<u32>,
    pub(crate) iommu_group: Option<u32>,
    /// Address of the physical function, for a virtual function.
    pub physfn: Option<String>,
    /// Parent of a mediated device.
    pub parent: Option<String>,
    /// Type of a mediated device, as named by its driver: `nvidia-558`.
    pub mdev_type: Option<String>,
}

/// Whether the kernel has VFIO now; otherwise no process holds a device.
pub(crate) fn is_there(roots: &Roots) -> bool {
    let class = roots.sys.join("class");
    class.join("vfio").exists() || class.join("vfio-dev").exists()
}

/// The open VFIO files of a process.
///
/// # Errors
/// `PermissionDenied` if its descriptors cannot be listed or their links cannot be read; any other
/// error means that the process exited.
pub(crate) fn held(roots: &Roots, pid: i32) -> io::Result<Held> {
    let descriptors = Descriptors::list(roots, &roots.proc.join(pid.to_string()))?;
    let mut held = Held {
        more: descriptors.has_more(),
        ..Held::default()
    };
    descriptors.targets(|_, target| {
        held.note(target);
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

impl Held {
    fn note(&mut self, target: &[u8]) {
        let name = target.strip_prefix(b"/dev/vfio/");
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        let Some(name) = name else { return };
        match name.strip_prefix("devices/vfio") {
            Some(number) => self.devices.extend(number.parse::<u32>().ok()),
            None => {
                // Without an IOMMU (`enable_unsafe_noiommu_mode`) groups have another name.
                let number = name.strip_prefix("noiommu-").unwrap_or(name);
                self.groups.extend(number.parse::<u32>().ok());
            }
        }
    }

    /// The held devices, by name, without duplicates.
    pub(crate) fn devices(&self, roots: &Roots) -> Vec<Device> {
        let of_groups = self.groups.iter().flat_map(|group| of_group(roots, *group));
        let single = self.devices.iter().filter_map(|n| single(roots, *n));
        let all = of_groups.chain(single);
        let by_name: BTreeMap<String, Device> = all.map(|d| (d.name.clone(), d)).collect();
        by_name.into_values().collect()
    }
}

fn of_group(roots: &Roots, group: u32) -> Vec<Device> {
    let dir = roots.sys.join("kernel/iommu_groups");
    let dir = dir.join(group.to_string()).join("devices");
    let names = roots.list(&dir).unwrap_or_default();
    let held = |name: String| read(roots, &dir.join(&name), name, true);
    names.into_iter().filter_map(held).collect()
}

fn single(roots: &Roots, number: u32) -> Option<Device> {
    let dir = roots.sys.join(format!("class/vfio-dev/vfio{number}"));
    let dir = dir.join("device");
    let name = link_name(roots, &dir)?;
    read(roots, &dir, name, false)
}

/// The device with this directory. For a device found through its group (`in_group`), `None` if a
/// process that holds the group does not hold the device.
fn read(roots: &Roots, dir: &Path, name: String, in_group: bool) -> Option<Device> {
    let link = |name: &str| link_name(roots, &dir.join(name)).map(clip);
    let (driver, mdev_type) = (link("driver"), link("mdev_type"));
    let parent = mdev_type.as_ref().and_then(|_| parent(roots, dir));
    // A mediated device's directory is below its parent's and has no PCI files.
    let body = parent.as_deref().unwrap_or(dir);
    let function = Function::read(roots, body);
    let apart = matches!(driver.as_deref(), None | Some("pcieport" | "pci-stub"));
    if in_group && (apart || function.is_bridge()) {
        return None;
    }
    Some(Device {
        name: clip(name),
        class: function.class.map(class_word),
        pci_id: function.id,
        driver,
        numa_node: numa_node(roots, dir).or_else(|| numa_node(roots, body)),
        iommu_group: link("iommu_group").and_then(|group| group.parse().ok()),
        physfn: function.physfn.map(clip),
        parent: parent.as_deref().and_then(file_name),
        mdev_type,
    })
}

fn parent(roots: &Roots, dir: &Path) -> Option<PathBuf> {
    roots.count_open();
    let real = dir.canonicalize().ok()?;
    real.parent().map(Path::to_owned)
}

fn file_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    Some(clip(name.into_owned()))
}

/// -1 means that firmware does not report the node.
fn numa_node(roots: &Roots, dir: &Path) -> Option<u32> {
    roots.number(&dir.join("numa_node"))
}

fn clip(name: String) -> String {
    name.chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests;
