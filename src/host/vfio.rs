//! Devices that a process holds by VFIO (Documentation/driver-api/vfio.rst).
//!
//! - `/dev/vfio/N` is an IOMMU group: all of it is the process', because a device of it that did
//!   what another owner says could reach the process' memory. So the kernel refuses a group of
//!   which a device has a driver that is not VFIO's (`iommu_group_claim_dma_owner`,
//!   drivers/iommu/iommu.c), but for those that do no DMA of their own (`driver_managed_dma`:
//!   `pcieport`, `pci-stub`).
//! - `/dev/vfio/devices/vfioN` is one device, of a process that uses iommufd.
//!
//! A link of /proc/PID/fd is a path in the process' own mount namespace: who may make files there
//! of such a name can claim a device it does not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::fds;
use super::pci::{class_word, link_name, Function};
use super::roots::Roots;

/// Longest label made of a name in sysfs (characters).
const MAX_NAME: usize = 128;

/// What of VFIO a process has open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// IOMMU groups.
    pub groups: BTreeSet<u32>,
    /// Numbers of single devices, as in `vfioN`.
    pub devices: BTreeSet<u32>,
    /// It has more than [`fds::MAX_DESCRIPTORS`], and not all were looked at.
    pub more: bool,
}

/// A device, as sysfs describes it; what it does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Address of a PCI function (`0000:3b:02.1`), UUID of a mediated device.
    pub name: String,
    /// Its class in a word, a mediated device's that of its parent.
    pub class: Option<&'static str>,
    /// `vendor:device` of PCI, four hexadecimal digits each.
    pub pci_id: Option<String>,
    /// The driver it is bound to: `vfio-pci` or a variant of it.
    pub driver: Option<String>,
    /// The node it is attached to.
    pub numa_node: Option<u32>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// Address of the physical function of a virtual one.
    pub physfn: Option<String>,
    /// The device that a mediated one is a part of.
    pub parent: Option<String>,
    /// A mediated device's type, as its driver calls it: `nvidia-558`.
    pub mdev_type: Option<String>,
}

/// Whether the kernel has VFIO now: without it, nobody holds a device.
pub fn is_there(roots: &Roots) -> bool {
    let class = roots.sys.join("class");
    class.join("vfio").exists() || class.join("vfio-dev").exists()
}

/// What the process has open.
///
/// # Errors
/// `PermissionDenied` where its descriptors may not be listed or followed; any other means that
/// it is gone.
pub fn held(roots: &Roots, pid: i32) -> io::Result<Held> {
    let mut held = Held::default();
    held.more = fds::targets(roots, pid, |target| {
        held.note(target);
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

impl Held {
    fn note(&mut self, target: &Path) {
        let name = target
            .to_str()
            .and_then(|path| path.strip_prefix("/dev/vfio/"));
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

    /// The devices, by name, each once.
    pub fn devices(&self, roots: &Roots) -> Vec<Device> {
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

/// The device in this directory. Of one that is there because it is `in_group`: `None` where a
/// process that holds the group does not hold it.
fn read(roots: &Roots, dir: &Path, name: String, in_group: bool) -> Option<Device> {
    let link = |name: &str| link_name(roots, &dir.join(name)).map(clip);
    let (driver, mdev_type) = (link("driver"), link("mdev_type"));
    let parent = mdev_type.as_ref().and_then(|_| parent(roots, dir));
    // A mediated device's directory is in that of its parent, and lacks all that is PCI's.
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

/// -1 says that firmware does not tell.
fn numa_node(roots: &Roots, dir: &Path) -> Option<u32> {
    roots.read_text(&dir.join("numa_node")).ok()?.parse().ok()
}

fn clip(name: String) -> String {
    name.chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests;
