//! The CPU model, from /proc/cpuinfo: it decides which model-specific events are known.
//!
//! x86: arch/x86/kernel/cpu/proc.c writes vendor, family, model and stepping in decimal.
//! arm64: arch/arm64/kernel/cpuinfo.c writes the fields of MIDR_EL1.

use std::io::{self, Read};
use std::path::PathBuf;

use super::roots::Roots;

/// One processor's block has 1 to 2 kB; the machine's first blocks tell the model. A file of a
/// thousand CPUs is not read to its end.
const FIRST_BLOCKS: u64 = 16 << 10;

/// Who made the CPU and which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CpuModel {
    /// An x86 CPU with a known vendor.
    X86 {
        /// Vendor.
        vendor: X86Vendor,
        /// Display family: base and extended family added up.
        family: u32,
        /// Display model: extended model in the upper digit.
        model: u32,
        /// Stepping.
        stepping: u32,
    },
    /// An arm64 CPU.
    Arm {
        /// MIDR_EL1 bits 31:24: 0x41 is Arm Ltd., 0xc0 Ampere.
        implementer: u32,
        /// MIDR_EL1 bits 15:4: 0xd0c is Neoverse N1.
        part: u32,
    },
    /// Anything else: no model-specific events.
    #[default]
    Unknown,
}

/// Vendors of x86 CPUs whose events are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum X86Vendor {
    /// `GenuineIntel`
    Intel,
    /// `AuthenticAMD`
    Amd,
}

/// The file that tells the model could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {error}; is procfs mounted there (--path.procfs)?")]
pub struct CpuModelError {
    path: PathBuf,
    #[source]
    error: io::Error,
}

impl CpuModel {
    /// Reads the model of the machine's first CPU; servers have one model in all sockets.
    ///
    /// # Errors
    /// When /proc/cpuinfo cannot be read. A file that says nothing known is
    /// [`CpuModel::Unknown`].
    pub fn read(roots: &Roots) -> Result<Self, CpuModelError> {
        Ok(parse(&first_block(roots)?))
    }
}

/// What /proc/cpuinfo says of the machine's first CPU.
///
/// # Errors
/// When it cannot be read.
pub fn first_block(roots: &Roots) -> Result<String, CpuModelError> {
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

/// The value of one line of a block, such as `flags`.
pub fn field<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Whether the machine has cores of several kinds: the kernel then has a PMU for each
/// (Documentation/admin-guide/perf-intel-hybrid.rst, "Identifying hybrid PMUs").
pub fn is_hybrid(roots: &Roots) -> bool {
    let devices = roots.sys.join("bus/event_source/devices");
    ["cpu_core", "cpu_atom"]
        .iter()
        .all(|pmu| devices.join(pmu).is_dir())
}

/// Parses the first processor's block of a cpuinfo file.
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

    #[test]
    fn both_kinds_of_core_make_a_hybrid() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        let devices = dir.path().join("sys/bus/event_source/devices");
        std::fs::create_dir_all(devices.join("cpu_core")).unwrap();
        assert!(!is_hybrid(&roots));
        std::fs::create_dir_all(devices.join("cpu_atom")).unwrap();
        assert!(is_hybrid(&roots));
    }

    proptest! {
        #[test]
        fn any_text_has_some_model(text in "(\\PC|\n|\t){0,200}") {
            let _ = parse(&text);
        }
    }
}
