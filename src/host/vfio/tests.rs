use super::*;
use crate::fake_host::{FakeHost, Pci};
use proptest::prelude::*;
use std::io::ErrorKind;

const PID: i32 = 100;
const NIC: u32 = 0x02_00_00;

fn devices(host: &FakeHost) -> Vec<Device> {
    let roots = Roots::below(host.root());
    held(&roots, PID).unwrap().devices(&roots)
}

fn names(host: &FakeHost) -> Vec<String> {
    let devices = devices(host).into_iter();
    devices.map(|device| device.name).collect()
}

fn host() -> FakeHost {
    let host = FakeHost::new();
    host.process(PID, 1, &["qemu"], "");
    host.fd(PID, 3, "/dev/kvm").fd(PID, 4, "socket:[17]");
    host
}

#[test]
fn a_virtual_function_is_described_by_sysfs() {
    let host = host();
    assert!(!is_there(&Roots::below(host.root())));
    let nic = Pci {
        driver: "ice",
        ..Pci::new("0000:3b:00.0", NIC, 40)
    };
    host.pci(nic).pci(Pci {
        physfn: nic.address,
        numa_node: 1,
        ..Pci::new("0000:3b:01.2", NIC, 41)
    });
    assert!(is_there(&Roots::below(host.root())));
    host.fd(PID, 4, "/tmp/dev/vfio/41");
    assert_eq!(devices(&host), []);
    host.fd(PID, 5, "/dev/vfio/41").fd(PID, 6, "/dev/vfio/vfio");
    let expected = Device {
        name: "0000:3b:01.2".into(),
        class: Some("network"),
        pci_id: Some("8086:1572".into()),
        driver: Some("vfio-pci".into()),
        numa_node: Some(1),
        iommu_group: Some(41),
        physfn: Some("0000:3b:00.0".into()),
        parent: None,
        mdev_type: None,
    };
    assert_eq!(devices(&host), [expected]);
}

#[test]
fn a_group_is_held_as_a_whole_but_for_what_does_no_dma() {
    let host = host();
    let gpu = Pci::new("0000:01:00.0", 0x03_00_00, 2);
    let function = |address, class, driver| Pci {
        address,
        class,
        driver,
        ..gpu
    };
    host.pci(gpu)
        .pci(function("0000:01:00.1", 0x04_03_00, "vfio-pci"))
        .pci(function("0000:01:00.2", 0x0c_03_30, "xhci-vfio-pci"))
        .pci(function("0000:01:00.3", 0x0c_80_00, ""))
        .pci(function("0000:01:00.4", 0x0c_80_00, "pci-stub"))
        .pci(function("0000:00:01.0", 0x06_04_00, "pcieport"))
        .pci(function("0000:00:01.1", 0x06_80_00, "shpchp"));
    host.fd(PID, 5, "/dev/vfio/2").fd(PID, 6, "/dev/vfio/2");
    assert_eq!(
        names(&host),
        ["0000:01:00.0", "0000:01:00.1", "0000:01:00.2"]
    );
    host.close(PID, 5);
    assert_eq!(names(&host).len(), 3, "another descriptor of the same");
    host.close(PID, 6);
    assert_eq!(devices(&host), []);
}

#[test]
fn with_iommufd_it_is_one_device_of_the_group() {
    let host = host();
    host.pci(Pci::new("0000:01:00.0", 0x01_08_02, 2));
    host.pci(Pci::new("0000:01:00.1", 0x01_08_02, 2));
    host.vfio_dev(0, "0000:01:00.0").vfio_dev(7, "0000:01:00.1");
    host.fd(PID, 5, "/dev/iommu");
    host.fd(PID, 6, "/dev/vfio/devices/vfio7");
    host.fd(PID, 7, "/dev/vfio/devices/vfio99");
    let found = devices(&host);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "0000:01:00.1");
    assert_eq!(found[0].class, Some("nvme"));
    assert_eq!(found[0].iommu_group, Some(2));
    host.fd(PID, 8, "/dev/vfio/2");
    assert_eq!(names(&host).len(), 2, "each once");
}

#[test]
fn a_mediated_device_has_its_parents_class_and_node() {
    let host = host();
    let gpu = Pci {
        driver: "nvidia",
        numa_node: 1,
        ..Pci::new("0000:65:00.0", 0x03_02_00, 80)
    };
    let uuid = "c0ffee00-0000-4000-8000-000000000001";
    host.pci(gpu).mdev(uuid, gpu.address, "nvidia-558", 81);
    host.fd(PID, 5, "/dev/vfio/81");
    let expected = Device {
        name: uuid.into(),
        class: Some("gpu"),
        pci_id: Some("8086:1572".into()),
        driver: Some("nvidia-vgpu-vfio".into()),
        numa_node: Some(1),
        iommu_group: Some(81),
        physfn: None,
        parent: Some("0000:65:00.0".into()),
        mdev_type: Some("nvidia-558".into()),
    };
    assert_eq!(devices(&host), [expected]);
}

#[test]
fn what_sysfs_does_not_tell_is_unknown() {
    let host = host();
    host.pci(Pci {
        numa_node: -1,
        ..Pci::new("0000:01:00.0", NIC, 2)
    });
    host.fd(PID, 5, "/dev/vfio/noiommu-2");
    let dir = "sys/devices/pci0000:01/0000:01:00.0";
    host.file(format!("{dir}/class"), "network\n");
    host.remove(format!("{dir}/vendor"));
    let expected = Device {
        name: "0000:01:00.0".into(),
        driver: Some("vfio-pci".into()),
        iommu_group: Some(2),
        ..Device::default()
    };
    assert_eq!(devices(&host), [expected]);
}

#[test]
fn a_process_that_is_gone_is_an_error() {
    let roots = Roots::below(FakeHost::new().root());
    assert_eq!(held(&roots, PID).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn this_process_holds_nothing() {
    let held = held(&Roots::default(), std::process::id() as i32).unwrap();
    assert_eq!(held, Held::default());
}

proptest! {
    #[test]
    fn only_numbers_are_taken(text in "\\PC{0,20}") {
        let mut held = Held::default();
        held.note(text.as_bytes());
        held.note(format!("/dev/vfio/{text}x").as_bytes());
        held.note(format!("/tmp/dev/vfio/{text}").as_bytes());
        prop_assert_eq!(held, Held::default());
    }
}
