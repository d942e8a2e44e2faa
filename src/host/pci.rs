//! PCI functions in sysfs (Documentation/ABI/testing/sysfs-bus-pci) and names of their classes.

use std::path::Path;

use super::number::hexadecimal;
use super::roots::Roots;

/// Facts about a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Function {
    /// Base class, sub-class and programming interface, one byte each.
    pub class: Option<u32>,
    /// `vendor:device`, four hexadecimal digits each, as in lspci -n.
    pub id: Option<String>,
    /// Address of the physical function, for a virtual function.
    pub physfn: Option<String>,
}

impl Function {
    /// Reads the function with this directory; missing facts are `None`.
    pub(crate) fn read(roots: &Roots, dir: &Path) -> Self {
        let number = |file: &str| hex(&roots.read_text(&dir.join(file)).ok()?);
        let half = |file: &str| number(file).filter(|n| *n <= 0xffff);
        Self {
            class: number("class").filter(|n| *n <= 0x00ff_ffff),
            id: half("vendor")
                .zip(half("device"))
                .map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")),
            physfn: link_name(roots, &dir.join("physfn")),
        }
    }

    /// Whether its base class is 0x06.
    pub(crate) fn is_bridge(&self) -> bool {
        self.class.is_some_and(|class| class >> 16 == 0x06)
    }
}

/// The last component of a link's target.
pub(super) fn link_name(roots: &Roots, link: &Path) -> Option<String> {
    roots.count_open();
    let target = std::fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn hex(text: &str) -> Option<u32> {
    hexadecimal(text.strip_prefix("0x")?)?.try_into().ok()
}

/// Name of a class: the base class, or the sub-class if that is the common name (PCI Code and ID
/// Assignment Specification; include/linux/pci_ids.h).
pub(crate) fn class_word(class: u32) -> &'static str {
    match (class >> 16, class >> 8 & 0xff) {
        (0x01, 0x08) => "nvme",
        (0x01, _) => "storage",
        (0x02, _) => "network",
        (0x03, _) => "gpu",
        (0x04, 0x01 | 0x03) => "audio",
        (0x04, _) => "multimedia",
        (0x05, _) => "memory",
        (0x06, _) => "bridge",
        (0x07, _) => "communication",
        (0x08, _) => "system",
        (0x09, _) => "input",
        (0x0b, 0x40) | (0x12, _) => "accelerator",
        (0x0b, _) => "processor",
        (0x0c, 0x03) => "usb",
        (0x0c, _) => "serial_bus",
        (0x0d, _) => "wireless",
        (0x10, _) => "crypto",
        (0x11, _) => "signal",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_are_called_what_people_call_them() {
        let cases = [
            (0x01_08_02, "nvme"),
            (0x01_06_01, "storage"),
            (0x02_00_00, "network"),
            (0x02_07_00, "network"),
            (0x03_00_00, "gpu"),
            (0x03_02_00, "gpu"),
            (0x12_00_00, "accelerator"),
            (0x04_03_00, "audio"),
            (0x0c_03_30, "usb"),
            (0x0b_40_00, "accelerator"),
            (0x10_00_00, "crypto"),
            (0xff_ff_00, "other"),
            (0x00_00_00, "other"),
        ];
        for (class, word) in cases {
            assert_eq!(class_word(class), word, "{class:06x}");
        }
    }

    #[test]
    fn what_is_no_number_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        assert_eq!(Function::read(&roots, dir.path()), Function::default());
        for (file, text) in [
            ("class", "0x1000000\n"),
            ("vendor", "0x8086\n"),
            ("device", "0x+1\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        assert_eq!(Function::read(&roots, dir.path()), Function::default());
        std::fs::write(dir.path().join("device"), "0x1\n").unwrap();
        let id = Function::read(&roots, dir.path()).id;
        assert_eq!(id.as_deref(), Some("8086:0001"));
    }

    proptest! {
        #[test]
        fn any_text_and_class_is_taken(text in "\\PC{0,20}", class in any::<u32>()) {
            let _ = (hex(&text), class_word(class));
        }
    }
}
