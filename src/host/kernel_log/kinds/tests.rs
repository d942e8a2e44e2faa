//! Lines of real machines, each with the report it is from or the kernel source that formats it.

use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Option<LineKind> {
    kind(&Record {
        of_kernel: true,
        sequence: 1,
        text: text.as_bytes(),
    })
}

/// LineKind and text.
const REAL: &[(Option<LineKind>, &str)] = &[
    // Formats of therm_throt.c: since its move out of mce, since 5.5, before; the last two from
    // public reports of Linux 4.x.
    (Some(LineKind::Throttle), "CPU9: Package temperature is above threshold, cpu clock is throttled (total events = 12)"),
    (Some(LineKind::Throttle), "mce: CPU4: Core temperature is above threshold, cpu clock is throttled (total events = 1)"),
    (Some(LineKind::Throttle), "CPU1: Core temperature above threshold, cpu clock throttled (total events = 1)"),
    (Some(LineKind::Throttle), "mce: CPU1: Package temperature above threshold, cpu clock throttled (total events = 1624)"),
    // linux-kernel, a report about "Write to unrecognized MSR 0x19c".
    (None, "CPU11: Core temperature/speed normal (total events = 42)"),
    (None, "mce: CPU3: Package temperature/speed normal (total events = 7)"),
    (None, "mce: CPU0: Thermal monitoring enabled (TM1)"),
    // kvm@vger.kernel.org on TDX, Linux 6.x.
    (Some(LineKind::MachineCheck), "mce: [Hardware Error]: Machine check events logged"),
    // A Skylake at boot, Linux 4.12; the format has not changed since.
    (Some(LineKind::MachineCheck), "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 3: cc5eb2c000100135"),
    (Some(LineKind::MachineCheck), "mce: [Hardware Error]: PROCESSOR 0:506e3 TIME 1506182841 SOCKET 0 APIC 4 microcode ba"),
    // An EPYC with a corrected DRAM error, decoded by drivers/edac/mce_amd.c.
    (Some(LineKind::MachineCheck), "[Hardware Error]: Corrected error, no action required."),
    (Some(LineKind::MachineCheck), "[Hardware Error]: CPU:0 (17:1:1) MC15_STATUS[Over|CE|MiscV|AddrV|-|-|SyndV|CECC|-|-|-]: 0xdc2040000000011b"),
    // drivers/acpi/apei/ghes.c on an arm64 server, Linux 5.19.
    (Some(LineKind::MachineCheck), "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 8"),
    (Some(LineKind::MachineCheck), "{2}[Hardware Error]: event severity: recoverable"),
    // amd-gfx, poison consumed by a process, Linux 6.x.
    (Some(LineKind::MachineCheck), "mce: Uncorrected hardware memory error in user-access at e8ac0000"),
    (Some(LineKind::MachineCheck), "mce: Memory error not recovered"),
    (Some(LineKind::MachineCheck), "mce: CMCI storm detected: switching to poll mode"),
    (Some(LineKind::MachineCheck), "CPU3 BANK7 CMCI storm detected"),
    (None, "mce: CMCI storm subsided: switching to interrupt mode"),
    (None, "CPU3 BANK7 CMCI storm subsided"),
    // linux-edac, a Cortex-A72 board, Linux 6.x.
    (Some(LineKind::MachineCheck), "EDAC DEVICE0: CE: cortex-arm64-edac instance: cpu2 block: L1 count: 1 'L1-D Data RAM correctable error(s) on CPU 2'"),
    // Format of edac_device_handle_ue_count, drivers/edac/edac_device.c.
    (Some(LineKind::MachineCheck), "EDAC DEVICE0: UE: cortex-arm64-edac instance: cpu2 block: L2 count: 1 'L2 uncorrectable error'"),
    (None, "EDAC DEVICE0: Giving out device to module qcom_llcc_edac controller llcc: DEV qcom_llcc_edac (INTERRUPT)"),
    // A Xeon, an arm64 server with ghes_edac (2022), a HiSilicon server.
    (Some(LineKind::MemoryError), "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x12345 offset:0x0 grain:32 syndrome:0x0)"),
    (Some(LineKind::MemoryError), "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x12345 offset:0x0 grain:32)"),
    (Some(LineKind::MemoryError), "EDAC MC12: 30 CE single-symbol chipkill ECC on unknown memory (node: 0 card: 0 page:0x898b86 offset:0x0 grain:1 syndrome:0x0)"),
    (Some(LineKind::MemoryError), "EDAC MC0: 1 CE reserved error (16) on unknown label (node:0 rank:0 bank:0 row:0 col:0 page:0x400000 offset:0x300 grain:0 syndrome:0x0)"),
    (None, "EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0: DEV 0000:3a:0a.0 (INTERRUPT)"),
    (None, "EDAC MC: Ver: 3.0.0"),
    (None, "EDAC skx MC1: HANDLING MCE MEMORY ERROR"),
    // nvdimm@lists.linux.dev, Linux 5.16 and later.
    (Some(LineKind::MemoryFailure), "Memory failure: 0x1850602: Sending SIGBUS to fsdax_poison_v1:8457 due to hardware memory corruption"),
    (Some(LineKind::MemoryFailure), "Memory failure: 0x905b92d: recovery action for dirty LRU page: Recovered"),
    (Some(LineKind::MemoryFailure), "MCE: Killing einj_mem_uc:3600 due to hardware memory corruption fault at 7f3309503400"),
    // A desktop with QEMU, Linux 6.x; kernel-selftests of Intel.
    (Some(LineKind::SplitLock), "x86/split lock detection: #AC: CPU 0/KVM/88279 took a split_lock trap at address: 0xfffff80104613be8"),
    (Some(LineKind::SplitLock), "x86/split lock detection: #DB: sl_test/5137 took a bus_lock trap at address: 0x4011f5"),
    // Format of handle_guest_split_lock.
    (Some(LineKind::SplitLock), "x86/split lock detection: #AC: CPU 0/KVM/88279 fatal split_lock trap at address: 0xfffff80104613be8"),
    (Some(LineKind::SplitLock), "x86/split lock detection: #AC: CPU 0/KVM/88279 bogus split_lock trap at address: 0xfffff80104613be8"),
    (None, "x86/split lock detection: #AC: crashing the kernel on kernel split_locks and warning on user-space split_locks"),
    (None, "x86/split lock detection: #DB: warning on user-space bus_locks"),
    // Up to 6.2: commit message of kvm_msr_ignored_check, reports of Proxmox and others.
    (Some(LineKind::KvmMsr), "kvm [3357]: vcpu2, guest rIP: 0xffffffff81a6d5f4 unhandled wrmsr: 0xc0011020 data 0x0"),
    (Some(LineKind::KvmMsr), "kvm [1491]: vcpu0 unhandled rdmsr: 0x3f6 data 0x0"),
    (Some(LineKind::KvmMsr), "kvm [2101]: vcpu0, guest rIP: 0xfffff80172a1b3d6 Hyper-V unhandled wrmsr: 0x40000118 data 0x1"),
    (Some(LineKind::KvmMsr), "kvm [2101]: vcpu0, guest rIP: 0xffffffff8106a1f4 unimplemented HWCR wrmsr: 0x1000000"),
    (Some(LineKind::KvmMsr), "SVM: kvm [14227]: vcpu0, guest rIP: 0xfffff986014dca0c unimplemented wrmsr: 0xc0010115 data 0x0"),
    (Some(LineKind::KvmMsr), "kvm: ignored rdmsr: 0x1a2 data 0x0"),
    // Since 6.3: Proxmox 8 (kvm_amd), kvm-unit-tests (kvm_intel), a hackintosh with ignore_msrs.
    (Some(LineKind::KvmMsr), "kvm_amd: kvm [1825]: vcpu0, guest rIP: 0xfffff808df463d29 Unhandled WRMSR(0xc0010115) = 0x0"),
    (Some(LineKind::KvmMsr), "kvm_intel: kvm [18663]: vcpu0, guest rIP: 0x407de7 Unhandled WRMSR(0x1d9) = 0x1"),
    (Some(LineKind::KvmMsr), "kvm_intel: kvm [2817]: vcpu0, guest rIP: 0xffffffffb4c93b34 Unhandled RDMSR(0xc0010140)"),
    (Some(LineKind::KvmMsr), "kvm: kvm [3657]: ignored rdmsr: 0x1ad data 0x0"),
    (Some(LineKind::Kvm), "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable"),
    (Some(LineKind::Kvm), "kvm [1]: IPA Size Limit: 48 bits"),
    (Some(LineKind::Kvm), "SVM: kvm: Nested Virtualization enabled"),
    (Some(LineKind::Kvm), "kvm_amd: Nested Virtualization enabled"),
    (Some(LineKind::Kvm), "KVM: vmx: using Hyper-V Enlightened VMCS"),
    (Some(LineKind::Kvm), "kvm_intel: kvm [13696]: TD exit 0xe000060400000000, 0 hkid 0x41 hkid pa 0x8200000000000"),
    (None, "usb 1-1: new high-speed USB device number 3 using xhci_hcd"),
    (None, "msr: Write to unrecognized MSR 0x19c by wrmsr (pid: 142969)."),
    (None, ""),
];

#[test]
fn real_line_is_counted_as_its_kind() {
    for (expected, text) in REAL {
        assert_eq!(of(text), *expected, "{text}");
    }
}

#[test]
fn every_text_has_a_source_and_a_real_line_that_no_text_before_it_takes() {
    let first = |text: &str| LINES.iter().position(|l| fits(l.text, text.as_bytes()));
    let seen: Vec<_> = REAL.iter().filter_map(|(_, text)| first(text)).collect();
    for (n, line) in LINES.iter().enumerate() {
        assert!(seen.contains(&n), "no real line for {:?}", line.text);
        assert_ne!(line.from, "");
    }
    for kind in LineKind::ALL {
        assert!(LINES.iter().any(|line| line.kind == kind), "{kind:?}");
    }
}

#[test]
fn line_of_user_space_or_about_a_process_with_a_chosen_name_is_not_counted() {
    let record = Record {
        of_kernel: false,
        sequence: 1,
        text: b"mce: [Hardware Error]: forged",
    };
    assert_eq!(kind(&record), None);
    for text in [
        "kvm: [4711]: segfault at 0 ip 000055d7 sp 00007ffc error 4 in ignored rdmsr: 0x1[55d7+1000]",
        "EDAC MC0: 1 CE [4711]: segfault at 0 ip 000055d7 sp 00007ffc error 4 in on page:0x1 grain:1",
        "kvm: [4711] bad frame in rt_sigreturn frame:0 ip:0 sp:0 orax:0",
        "kvm: [7]: unhandled exception: DABT (lower EL), ESR 0x92000006",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
}

#[test]
fn pattern_matches_at_the_beginning_with_numbers_and_gaps() {
    for (pattern, text, expected) in [
        ("a#b", "a12b", true),
        ("a#b", "ab", false),
        ("a#b", "xa1b", false),
        ("*a#b", "xaa1b and more", true),
        ("a*b*c", "a b b c", true),
        ("a*b*c", "a c b", false),
        ("a*", "a", true),
        ("*", "", true),
        ("", "x", true),
    ] {
        assert_eq!(fits(pattern, text.as_bytes()), expected, "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = kind(&Record { of_kernel: true, sequence: 0, text: &text });
    }
}
