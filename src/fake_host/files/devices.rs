//! PCI functions in sysfs: directories below /sys/devices, and links to them from the buses and the
//! IOMMU groups.

/// Paths below the host's root, and the contents of these files.
pub type Files = Vec<(String, String)>;

/// Symbolic links below the host's root, and their targets.
pub type Links = Vec<(String, String)>;

/// A PCI function.
#[derive(Debug, Clone, Copy)]
pub struct Pci<'a> {
    /// `0000:3b:00.0`.
    pub address: &'a str,
    /// Class, subclass and interface.
    pub class: u32,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Name of the driver; empty for none.
    pub driver: &'a str,
    /// -1 if firmware does not report it.
    pub numa_node: i32,
    /// Number of its group.
    pub iommu_group: u32,
    /// Address of the physical function; empty for none.
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

    /// The function's files and links in sysfs.
    pub fn sysfs(&self) -> (Files, Links) {
        let dir = directory(self.address);
        let files = vec![
            (format!("{dir}/class"), format!("0x{:06x}\n", self.class)),
            (format!("{dir}/vendor"), format!("0x{:04x}\n", self.id.0)),
            (format!("{dir}/device"), format!("0x{:04x}\n", self.id.1)),
            (format!("{dir}/numa_node"), format!("{}\n", self.numa_node)),
        ];
        let target = dir.trim_start_matches("sys/");
        let mut links = vec![(
            format!("sys/bus/pci/devices/{}", self.address),
            format!("../../../{target}"),
        )];
        if !self.physfn.is_empty() {
            links.push((format!("{dir}/physfn"), format!("../{}", self.physfn)));
        }
        let group = in_group(&dir, self.address, self.driver, self.iommu_group);
        ([files, group.0].concat(), [links, group.1].concat())
    }
}

/// Directory of a PCI function.
pub fn directory(address: &str) -> String {
    let bus: String = address.chars().take(7).collect();
    format!("sys/devices/pci{bus}/{address}")
}

/// A device in an IOMMU group, on a kernel with VFIO. An empty `driver` means none.
pub fn in_group(dir: &str, name: &str, driver: &str, group: u32) -> (Files, Links) {
    let files = vec![
        ("sys/class/vfio/.exists".to_owned(), String::new()),
        (format!("{dir}/uevent"), String::new()),
    ];
    let up = "../".repeat(dir.matches('/').count());
    let groups = "kernel/iommu_groups";
    let target = dir.trim_start_matches("sys/");
    let driver = match driver {
        "" => String::new(),
        driver => format!("{up}bus/pci/drivers/{driver}"),
    };
    let links = vec![
        (format!("{dir}/driver"), driver),
        (
            format!("{dir}/iommu_group"),
            format!("{up}{groups}/{group}"),
        ),
        (
            format!("sys/{groups}/{group}/devices/{name}"),
            format!("../../../../{target}"),
        ),
    ];
    (files, links)
}
