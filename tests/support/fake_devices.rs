//! PCI functions and mediated devices of a [`FakeHost`], laid out as sysfs has them: directories
//! below /sys/devices, and links to them from the buses and the IOMMU's groups.

use super::FakeHost;

/// A PCI function.
#[derive(Debug, Clone, Copy)]
pub struct Pci<'a> {
    /// `0000:3b:00.0`.
    pub address: &'a str,
    pub class: u32,
    /// Vendor and device.
    pub id: (u16, u16),
    /// None where it is empty.
    pub driver: &'a str,
    /// -1 where firmware does not tell.
    pub numa_node: i32,
    pub iommu_group: u32,
    /// None where it is empty.
    pub physfn: &'a str,
}

impl<'a> Pci<'a> {
    /// A function bound to vfio-pci on node 0.
    pub fn new(address: &'a str, class: u32, iommu_group: u32) -> Self {
        Self {
            address,
            class,
            id: (0x8086, 0x1572),
            driver: "vfio-pci",
            numa_node: 0,
            iommu_group,
            physfn: "",
        }
    }
}

impl FakeHost {
    /// A PCI function; with it, the kernel has VFIO.
    pub fn pci(&self, pci: Pci<'_>) -> &Self {
        let dir = pci_dir(pci.address);
        self.file(format!("{dir}/class"), format!("0x{:06x}\n", pci.class));
        self.file(format!("{dir}/vendor"), format!("0x{:04x}\n", pci.id.0));
        self.file(format!("{dir}/device"), format!("0x{:04x}\n", pci.id.1));
        self.file(format!("{dir}/numa_node"), format!("{}\n", pci.numa_node));
        if !pci.physfn.is_empty() {
            self.link(format!("{dir}/physfn"), &format!("../{}", pci.physfn));
        }
        let target = dir.trim_start_matches("sys/").to_owned();
        self.link(
            format!("sys/bus/pci/devices/{}", pci.address),
            &format!("../../../{target}"),
        );
        self.in_group(&dir, pci.address, pci.driver, pci.iommu_group)
    }

    /// A mediated device of a PCI function.
    pub fn mdev(&self, uuid: &str, parent: &str, mdev_type: &str, group: u32) -> &Self {
        let dir = format!("{}/{uuid}", pci_dir(parent));
        let types = format!("{}/mdev_supported_types", pci_dir(parent));
        self.file(format!("{types}/{mdev_type}/available_instances"), "0\n");
        self.link(
            format!("{dir}/mdev_type"),
            &format!("../mdev_supported_types/{mdev_type}"),
        );
        self.in_group(&dir, uuid, "nvidia-vgpu-vfio", group)
    }

    fn in_group(&self, dir: &str, name: &str, driver: &str, group: u32) -> &Self {
        self.file("sys/class/vfio/.exists", "");
        let up = "../".repeat(dir.matches('/').count());
        self.file(format!("{dir}/uevent"), "");
        self.link(format!("{dir}/driver"), &driver_link(&up, driver));
        let groups = "kernel/iommu_groups";
        self.link(
            format!("{dir}/iommu_group"),
            &format!("{up}{groups}/{group}"),
        );
        let target = dir.trim_start_matches("sys/");
        self.link(
            format!("sys/{groups}/{group}/devices/{name}"),
            &format!("../../../../{target}"),
        )
    }

    /// The character device of one PCI function, as iommufd uses it.
    pub fn vfio_dev(&self, number: u32, address: &str) -> &Self {
        let dir = format!("{}/vfio-dev/vfio{number}", pci_dir(address));
        self.file(format!("{dir}/dev"), format!("511:{number}\n"));
        self.link(format!("{dir}/device"), &format!("../../../{address}"));
        let target = dir.trim_start_matches("sys/").to_owned();
        self.link(
            format!("sys/class/vfio-dev/vfio{number}"),
            &format!("../../{target}"),
        )
    }
}

fn pci_dir(address: &str) -> String {
    let bus: String = address.chars().take(7).collect();
    format!("sys/devices/pci{bus}/{address}")
}

fn driver_link(up: &str, driver: &str) -> String {
    match driver {
        "" => String::new(),
        driver => format!("{up}bus/pci/drivers/{driver}"),
    }
}
