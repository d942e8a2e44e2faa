//! PCI functions and mediated devices of a [`FakeHost`], laid out as in sysfs: directories below
//! /sys/devices, and links to them from the buses and the IOMMU groups.

use super::files::devices::{directory, in_group, Files, Links, Pci};
use super::FakeHost;

impl FakeHost {
    /// A PCI function; also makes the kernel have VFIO.
    pub fn pci(&self, pci: Pci<'_>) -> &Self {
        self.sysfs(pci.sysfs())
    }

    /// A mediated device of a PCI function.
    pub fn mdev(&self, uuid: &str, parent: &str, mdev_type: &str, group: u32) -> &Self {
        let dir = format!("{}/{uuid}", directory(parent));
        let types = format!("{}/mdev_supported_types", directory(parent));
        self.file(format!("{types}/{mdev_type}/available_instances"), "0\n");
        self.link(
            format!("{dir}/mdev_type"),
            &format!("../mdev_supported_types/{mdev_type}"),
        );
        self.sysfs(in_group(&dir, uuid, "nvidia-vgpu-vfio", group))
    }

    fn sysfs(&self, (files, links): (Files, Links)) -> &Self {
        self.files(files);
        for (path, target) in links {
            self.link(path, &target);
        }
        self
    }

    /// The character device of one PCI function, as used by iommufd.
    pub fn vfio_dev(&self, number: u32, address: &str) -> &Self {
        let dir = format!("{}/vfio-dev/vfio{number}", directory(address));
        self.file(format!("{dir}/dev"), format!("511:{number}\n"));
        self.link(format!("{dir}/device"), &format!("../../../{address}"));
        let target = dir.trim_start_matches("sys/").to_owned();
        self.link(
            format!("sys/class/vfio-dev/vfio{number}"),
            &format!("../../{target}"),
        )
    }
}
