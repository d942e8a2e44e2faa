//! The `cpu_features` source: CPU features that matter to guests, as the kernel lists them.
//!
//! Feeds `kvm_host_cpu_feature{feature}`: 1 if /proc/cpuinfo lists the feature, 0 if it lists
//! others but not this one, absent if it cannot list it. The kernel lists what the CPU has and
//! neither the firmware nor the command line disabled (arch/x86/include/asm/cpufeatures.h); the
//! parameters of KVM show whether KVM uses it.

use crate::engine::{Fact, Found, ReasonCode, Source, SourceInfo};
use crate::host::cpu_model::{field, first_block};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "cpu_features":
    CPU_FEATURE = Metric::gauge("kvm_host_cpu_feature", Keys::Host, &["feature"],
        "1 if the kernel lists a CPU feature that matters to guests, else 0; absent if this kernel never lists it");
}

/// Lines of cpuinfo that list features.
const FLAGS: &str = "flags";
/// Since Linux 5.6, if the CPU has VMX (arch/x86/kernel/cpu/proc.c).
const VMX_FLAGS: &str = "vmx flags";

/// Value of the `feature` label, the kernel's name, and the line that lists it.
const FEATURES: &[(&str, &str, &str)] = &[
    // Virtualization itself, nested page tables, and whether the host is a guest.
    ("vmx", "vmx", FLAGS),
    ("svm", "svm", FLAGS),
    ("ept", "ept", FLAGS),
    ("npt", "npt", FLAGS),
    ("hypervisor", "hypervisor", FLAGS),
    // Interrupts without exits.
    ("apicv", "apicv", VMX_FLAGS),
    ("posted_interrupts", "posted_intr", VMX_FLAGS),
    ("avic", "avic", FLAGS),
    ("x2avic", "x2avic", FLAGS),
    // Protection of the kernel from user memory.
    ("smep", "smep", FLAGS),
    ("smap", "smap", FLAGS),
    // Memory encryption and confidential guests.
    ("sme", "sme", FLAGS),
    ("sev", "sev", FLAGS),
    ("sev_es", "sev_es", FLAGS),
    ("sev_snp", "sev_snp", FLAGS),
    ("tdx", "tdx_host_platform", FLAGS),
    // Tracing and sampling.
    ("intel_pt", "intel_pt", FLAGS),
    ("ibs", "ibs", FLAGS),
];

/// Reads /proc/cpuinfo.
pub(super) fn read(roots: &Roots, _topology: &Topology) -> Found {
    match first_block(roots) {
        Ok(block) => features(&block),
        Err(error) => Found::nothing(ReasonCode::Unreadable.reason(error.to_string())),
    }
}

fn features(block: &str) -> Found {
    let words = |line| Some(field(block, line)?.split_ascii_whitespace());
    let Some(flags) = words(FLAGS) else {
        return Found::nothing(
            ReasonCode::NotX86
                .reason("/proc/cpuinfo has no flags line: features are known only on x86"),
        );
    };
    let flags: Vec<&str> = flags.collect();
    let vmx_flags: Option<Vec<&str>> = match words(VMX_FLAGS) {
        Some(words) => Some(words.collect()),
        // A CPU without VMX has no VMX features; with VMX but without the line they are unknown.
        None => (!flags.contains(&"vmx")).then(Vec::new),
    };
    let one = |(feature, name, line): &(&'static str, &str, &str)| -> Option<Fact> {
        let listed = match *line {
            VMX_FLAGS => vmx_flags.as_ref()?.contains(name),
            _ => flags.contains(name),
        };
        let labels = [("feature", (*feature).into())];
        Some(Fact::int(&CPU_FEATURE, labels, u64::from(listed)))
    };
    FEATURES.iter().filter_map(one).collect::<Vec<_>>().into()
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "cpu_features",
        needs: "the flags of an x86 CPU in /proc/cpuinfo",
        cost: "16 KiB of one file per period",
    },
    about: "CPU features that matter to guests, from the kernel's list, every 10 min. x86 only.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().cpu_features, read),
};
