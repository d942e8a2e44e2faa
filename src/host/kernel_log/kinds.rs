//! Assigns a kind to the kernel log lines that are counted.
//!
//! [`LINES`] has every text with the kernel file and the versions that write it, for the supported
//! kernels (Linux 5.8 to 6.18). If a text changed, both forms are listed; the older one is removed
//! when no supported kernel writes it.

use super::Record;
use crate::host::label::label_values;

label_values! {
    /// The kind of a counted line, in the order of the series of
    /// `kvm_host_kernel_log_lines_total`.
    pub(crate) enum LineKind {
        /// An error reported by hardware or firmware.
        MachineCheck = "machine_check",
        /// A corrected or uncorrected memory error from an EDAC driver. This can be the only report
        /// of an error, because firmware can hide machine checks.
        MemoryError = "memory_error",
        /// A memory page with an uncorrected error, or a process killed for using one.
        MemoryFailure = "memory_failure",
        /// A core or package was slowed down because of its temperature.
        Throttle = "throttle",
        /// A process or guest locked the memory bus.
        SplitLock = "split_lock",
        /// A guest accessed a model-specific register unknown to KVM.
        KvmMsr = "kvm_msr",
        /// Any other line of KVM.
        Kvm = "kvm",
    }
}

/// A counted line: its kind, its pattern for [`fits`], and its writer.
struct Line {
    kind: LineKind,
    text: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the pattern"))]
    from: &'static str,
}

const fn line(kind: LineKind, text: &'static str, from: &'static str) -> Line {
    Line { kind, text, from }
}

/// Tried in this order: the first match counts.
///
/// Lines of the same subsystems that are not counted because nothing is wrong: "temperature/speed
/// normal", "CMCI storm subsided", "CPU0: Thermal monitoring enabled (TM1)", "EDAC MC0: Giving out
/// device to ...", and at boot "x86/split lock detection: #AC: crashing the kernel on ...".
#[rustfmt::skip]
const LINES: &[Line] = &[
    // The file was part of mce, whose lines start with "mce: ", until commit 9223d0dccb8f moved it
    // to the thermal drivers (February 2021, for 5.12). Since 5.5 the clock "is" throttled.
    line(LineKind::Throttle, "CPU#: * temperature is above threshold, cpu clock is throttled",
        "drivers/thermal/intel/therm_throt.c, throttle_active_work, since the move"),
    line(LineKind::Throttle, "mce: CPU#: * temperature is above threshold, cpu clock is throttled",
        "arch/x86/kernel/cpu/mce/therm_throt.c, throttle_active_work, 5.5 until the move"),
    line(LineKind::Throttle, "CPU#: * temperature above threshold, cpu clock throttled",
        "therm_throt.c before 5.5, in older kernels of distributions"),
    line(LineKind::Throttle, "mce: CPU#: * temperature above threshold, cpu clock throttled",
        "therm_throt.c before 5.5, in older kernels of distributions"),

    // HW_ERR (include/linux/printk.h) precedes each line of a machine check, from any writer: "mce:
    // [Hardware Error]: " (arch/x86/kernel/cpu/mce/core.c), "[Hardware Error]: " (AMD's decoder,
    // drivers/edac/mce_amd.c), "{1}[Hardware Error]: " (drivers/acpi/apei/ghes.c).
    line(LineKind::MachineCheck, "*[Hardware Error]: ",
        "HW_ERR, include/linux/printk.h, 5.8 to 6.18"),
    line(LineKind::MachineCheck, "mce: Uncorrected hardware memory error in user-access at ",
        "arch/x86/kernel/cpu/mce/core.c, kill_me_maybe, 5.8 to 6.18"),
    line(LineKind::MachineCheck, "mce: Memory error not recovered",
        "arch/x86/kernel/cpu/mce/core.c, kill_me_maybe, 5.8 to 6.18"),
    line(LineKind::MachineCheck, "mce: CMCI storm detected: ",
        "arch/x86/kernel/cpu/mce/intel.c, 5.8 to 6.7"),
    line(LineKind::MachineCheck, "CPU# BANK# CMCI storm detected",
        "arch/x86/kernel/cpu/mce/threshold.c, since 6.8, by printk_deferred"),
    // Caches and buses of arm64 machines, which have no mce.
    line(LineKind::MachineCheck, "EDAC DEVICE#: CE: ",
        "drivers/edac/edac_device.c, 5.8 to 6.18"),
    line(LineKind::MachineCheck, "EDAC DEVICE#: UE: ",
        "drivers/edac/edac_device.c, 5.8 to 6.18"),

    line(LineKind::MemoryError, "EDAC MC#: # CE ",
        "drivers/edac/edac_mc.c, edac_ce_error, 5.8 to 6.18"),
    line(LineKind::MemoryError, "EDAC MC#: # UE ",
        "drivers/edac/edac_mc.c, edac_ue_error, 5.8 to 6.18"),

    line(LineKind::MemoryFailure, "Memory failure: ",
        "mm/memory-failure.c, 5.8 to 6.18"),
    line(LineKind::MemoryFailure, "MCE: Killing * due to hardware memory corruption ",
        "arch/x86/mm/fault.c, do_sigbus, 5.8 to 6.18"),

    // In between are the task name and the result: "took a" if the task is slowed down, "fatal" or
    // "bogus" if the VMM of a guest gets an error from KVM_RUN (handle_guest_split_lock, once per
    // boot).
    line(LineKind::SplitLock, "x86/split lock detection: * split_lock trap at address: ",
        "arch/x86/kernel/cpu/intel.c, 5.7 to 6.12; bus_lock.c since 6.13"),
    line(LineKind::SplitLock, "x86/split lock detection: * bus_lock trap at address: ",
        "arch/x86/kernel/cpu/intel.c, 5.12 to 6.12; bus_lock.c since 6.13"),

    // vcpu_unimpl adds "kvm [PID]: vcpu0, guest rIP: 0x... " before the text
    // (include/linux/kvm_host.h). Since 6.3 the module name comes first; up to 6.2 svm.c wrote
    // "SVM: ".
    line(LineKind::KvmMsr, "kvm* rdmsr: 0x",
        "arch/x86/kvm/{x86,hyperv,pmu}.c: unhandled, Hyper-V unhandled, 5.8 to 6.2; ignored, \
         5.8 to 6.18"),
    line(LineKind::KvmMsr, "kvm* wrmsr: 0x",
        "the same; unimplemented HWCR, unimplemented perfctr, 5.8 to 6.2"),
    line(LineKind::KvmMsr, "SVM: kvm* wrmsr: 0x",
        "arch/x86/kvm/svm/svm.c: unimplemented, 5.8 to 6.2"),
    line(LineKind::KvmMsr, "kvm*Unhandled RDMSR(0x",
        "arch/x86/kvm/x86.h, kvm_pr_unimpl_rdmsr, since 6.3"),
    line(LineKind::KvmMsr, "kvm*Unhandled WRMSR(0x",
        "arch/x86/kvm/x86.h, kvm_pr_unimpl_wrmsr, since 6.3"),

    line(LineKind::Kvm, "kvm: ", "virt/kvm and arch/*/kvm, pr_fmt of module kvm"),
    line(LineKind::Kvm, "kvm [#]: ", "kvm_pr_unimpl, kvm_err and similar, include/linux/kvm_host.h"),
    line(LineKind::Kvm, "kvm_intel: ", "arch/x86/kvm/vmx, since 6.3 each line, before some"),
    line(LineKind::Kvm, "kvm_amd: ", "arch/x86/kvm/svm, since 6.3 each line, before some"),
    line(LineKind::Kvm, "SVM: ", "arch/x86/kvm/svm, pr_fmt of 5.8 to 6.2"),
    line(LineKind::Kvm, "KVM: ", "arch/x86/kvm and virt/kvm, 5.8 to 6.18, some lines"),
];

/// The kind of a record; `None` if it is not counted.
///
/// Only records written by the kernel count. A process can still choose how some of them start:
/// lines about a fatal signal start with its name and are never counted.
pub(crate) fn kind(record: &Record<'_>) -> Option<LineKind> {
    if !record.of_kernel || is_about_a_signal(record.text) {
        return None;
    }
    let found = LINES.iter().find(|line| fits(line.text, record.text));
    found.map(|line| line.kind)
}

// "NAME[PID]: segfault at ..." (arch/x86/mm/fault.c), "NAME[PID]: unhandled exception: ..."
// (arch/arm64/kernel/traps.c), "NAME[PID] bad frame in ..." (arch/x86/kernel/signal.c).
fn is_about_a_signal(text: &[u8]) -> bool {
    [
        "*[#]: segfault at ",
        "*[#]: unhandled exception: ",
        "*[#] bad frame in ",
    ]
    .iter()
    .any(|signal| fits(signal, text))
}

/// Whether a text starts with `pattern`: `*` matches any bytes, `#` a number.
fn fits(pattern: &str, text: &[u8]) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = after(first, text) else {
        return false;
    };
    // The earliest match is sufficient: a later one leaves less text for the remaining pieces.
    for piece in pieces {
        let mut places = (0..=rest.len()).map(|at| &rest[at..]);
        match places.find_map(|text| after(piece, text)) {
            Some(left) => rest = left,
            None => return false,
        }
    }
    true
}

/// The text after a piece of a pattern at its start.
fn after<'a>(piece: &str, mut text: &'a [u8]) -> Option<&'a [u8]> {
    for expected in piece.bytes() {
        let taken = match expected {
            b'#' => text.iter().take_while(|b| b.is_ascii_digit()).count(),
            byte => usize::from(text.first() == Some(&byte)),
        };
        if taken == 0 {
            return None;
        }
        text = &text[taken..];
    }
    Some(text)
}

#[cfg(test)]
mod tests;
