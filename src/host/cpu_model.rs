//! The CPU model from /proc/cpuinfo; it determines the known model-specific events.
//!
//! x86: arch/x86/kernel/cpu/proc.c writes vendor, family, model and stepping in decimal. arm64:
//! arch/arm64/kernel/cpuinfo.c writes the fields of MIDR_EL1.

use std::io::{self, Read};
use std::path::PathBuf;

use super::roots::Roots;

/// Bytes read of the file. The block of one processor has 1 to 2 kB, and the first block is
/// sufficient; the file of a thousand CPUs is not read to its end.
const FIRST_BLOCKS: u64 = 16 << 10;

/// Vendor and model of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CpuModel {
    /// An x86 CPU with a known vendor.
    X86 {
        /// From `vendor_id`.
        vendor: X86Vendor,
        /// Display family: sum of base and extended family.
        family: u32,
        /// Display model: extended model in the upper digit.
        model: u32,
        /// Revision of the model.
        stepping: u32,
    },
    /// An arm64 CPU.
    Arm {
        /// MIDR_EL1 bits 31:24: 0x41 is Arm Ltd., 0xc0 Ampere.
        implementer: u32,
        /// MIDR_EL1 bits 15:4: 0xd0c is Neoverse N1.
        part: u32,
    },
    /// Any other CPU: no model-specific events.
    #[default]
    Unknown,
}

/// Vendors of x86 CPUs with known events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum X86Vendor {
    /// `GenuineIntel`
    Intel,
    /// `AuthenticAMD`
    Amd,
}

/// /proc/cpuinfo could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}; mount procfs there or set --path.procfs")]
pub struct CpuModelError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl CpuModel {
    /// Reads the model of the machine's first CPU; servers have the same model in all sockets.
    ///
    /// # Errors
    /// If /proc/cpuinfo cannot be read. A file without a known model is [`CpuModel::Unknown`].
    pub fn read(roots: &Roots) -> Result<Self, CpuModelError> {
        Ok(parse(&first_block(roots)?))
    }
}

/// The block of the machine's first CPU in /proc/cpuinfo.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn first_block(roots: &Roots) -> Result<String, CpuModelError> {
    let path = roots.proc.join("cpuinfo");
    let mut bytes = Vec::new();
    roots
        .open(&path)
        .and_then(|file| file.take(FIRST_BLOCKS).read_to_end(&mut bytes))
        .map_err(|error| CpuModelError { path, error })?;
    let text = String::from_utf8_lossy(&bytes);
    let end = text.find("\n\n").unwrap_or(text.len());
    Ok(text[..end].to_owned())
}

/// The value of a line in a block, for example `flags`.
pub fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Whether the first CPU has a flag. The flag `hypervisor` means that the machine is virtual (CPUID
/// leaf 1, ECX bit 31).
pub(crate) fn has_flag(roots: &Roots, flag: &str) -> bool {
    let block = first_block(roots).unwrap_or_default();
    field(&block, "flags").is_some_and(|flags| flags.split_whitespace().any(|f| f == flag))
}

/// Parses the first block of a cpuinfo file.
pub fn parse(text: &str) -> CpuModel {
    let field = |name: &str| field(text, name);
    let decimal = |name: &str| field(name)?.parse().ok();
    let hex = |name: &str| u32::from_str_radix(field(name)?.strip_prefix("0x")?, 16).ok();
    x86(field("vendor_id"), decimal)
        .or_else(|| arm(hex))
        .unwrap_or_default()
}

fn x86(vendor: Option<&str>, decimal: impl Fn(&str) -> Option<u32>) -> Option<CpuModel> {
    let vendor = match vendor? {
        "GenuineIntel" => X86Vendor::Intel,
        "AuthenticAMD" => X86Vendor::Amd,
        _ => return None,
    };
    Some(CpuModel::X86 {
        vendor,
        family: decimal("cpu family")?,
        model: decimal("model")?,
        stepping: decimal("stepping").unwrap_or(0),
    })
}

fn arm(hex: impl Fn(&str) -> Option<u32>) -> Option<CpuModel> {
    Some(CpuModel::Arm {
        implementer: hex("CPU implementer")?,
        part: hex("CPU part")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XEON: &str =
        "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n\
        model name\t: Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz\nstepping\t: 7\n\n\
        processor\t: 1\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 1\n";

    #[test]
    fn an_x86_model_is_that_of_the_first_block() {
        let expected = CpuModel::X86 {
            vendor: X86Vendor::Intel,
            family: 6,
            model: 85,
            stepping: 7,
        };
        assert_eq!(parse(XEON), expected);
    }

    #[test]
    fn an_arm_model_is_its_midr() {
        let text = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n\
            CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n";
        let expected = CpuModel::Arm {
            implementer: 0x41,
            part: 0xd0c,
        };
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn other_machines_are_unknown() {
        for text in [
            "",
            "cpu\t: POWER9\n",
            "vendor_id\t: HygonGenuine\nmodel\t: 1\n",
        ] {
            assert_eq!(parse(text), CpuModel::Unknown);
        }
    }

    #[test]
    fn a_missing_file_is_named_with_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let error = CpuModel::read(&Roots::below(dir.path())).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("proc/cpuinfo"), "{text}");
        assert!(text.contains("--path.procfs"), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_has_some_model(text in "(\\PC|\n|\t){0,200}") {
            let _ = parse(&text);
        }
    }
}
