//! Lines of the kernel log.

use super::*;

/// Lines of kernels 5.8 to 6.18 of each kind (src/host/kernel_log/kinds/tests.rs has their
/// origins), and lines that do not count.
const LOGGED: &[(u32, &str)] = &[
    (4, "mce: [Hardware Error]: Machine check events logged"),
    (3, "[Hardware Error]: Corrected error, no action required."),
    (4, "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (page:0x1 grain:32)"),
    (3, "Memory failure: 0x1234: recovery action for dirty LRU page: Recovered"),
    (4, "CPU9: Package temperature is above threshold, cpu clock is throttled (total events = 12)"),
    (4, "mce: CPU4: Core temperature is above threshold, cpu clock is throttled (total events = 1)"),
    (2, "mce: CPU4: Core temperature above threshold, cpu clock throttled (total events = 1)"),
    (6, "mce: CPU4: Core temperature/speed normal (total events = 1)"),
    (4, "x86/split lock detection: #AC: CPU 0/KVM/771 took a split_lock trap at address: 0x1"),
    (4, "kvm: kvm [4711]: ignored rdmsr: 0x611 data 0x0"),
    (3, "kvm_amd: kvm [1825]: vcpu0, guest rIP: 0xfffff808df463d29 Unhandled WRMSR(0xc0010115) = 0x0"),
    (4, "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable"),
    (6, "usb 1-1: new device"),
    // A user may write anything, but not as the kernel.
    (12, "mce: [Hardware Error]: forged"),
];

#[test]
fn kernel_lines_count_by_kind_from_the_first_read_on() {
    let host = xeon();
    let mut text = "4,1,1,-;mce: [Hardware Error]: before\n".to_owned();
    host.kernel_log(&text);
    let mut watched = Watched::new(&host, Log::default());
    let zero = watched.read();
    assert!(zero.iter().all(|line| line.ends_with(" 0")), "{zero:?}");
    assert_eq!(zero.len(), 8);
    for (n, (priority, line)) in (2..).zip(LOGGED) {
        text += &format!("{priority},{n},99,-;{line}\n SUBSYSTEM=kvm: \n");
    }
    text += "4,19,1,-;kvm: three were lost\n";
    host.kernel_log(&text);
    let expected = [
        "kernel_log_lines_total{kind=machine_check} 2",
        "kernel_log_lines_total{kind=memory_error} 1",
        "kernel_log_lines_total{kind=memory_failure} 1",
        "kernel_log_lines_total{kind=throttle} 3",
        "kernel_log_lines_total{kind=split_lock} 1",
        "kernel_log_lines_total{kind=kvm_msr} 2",
        "kernel_log_lines_total{kind=kvm} 2",
        "kernel_log_lost_total{} 3",
    ];
    assert_eq!(watched.read(), expected);
    assert_eq!(watched.read(), expected, "nothing new");
}

#[test]
fn kind_the_host_cannot_log_is_absent_until_logged() {
    let host = FakeHost::new();
    host.cpuinfo(&[("Features", "fp asimd evtstrm aes")]);
    host.kernel_log("");
    let mut watched = Watched::new(&host, Log::default());
    let kvm = "kernel_log_lines_total{kind=kvm} 0";
    let lost = "kernel_log_lost_total{} 0";
    assert_eq!(watched.read(), [kvm, lost], "an arm64 machine");
    host.file("sys/firmware/acpi/tables/HEST", "");
    host.parameter("kvm", "report_ignored_msrs", "N");
    let firmware = "kernel_log_lines_total{kind=machine_check} 0";
    assert_eq!(watched.read(), [firmware, kvm, lost]);
    host.kernel_log("4,1,1,-;EDAC MC0: 2 CE memory scrub error on DIMM (page:0x1 grain:1)\n");
    let error = "kernel_log_lines_total{kind=memory_error} 1";
    assert_eq!(watched.read(), [firmware, error, kvm, lost]);
}

#[test]
fn refused_log_names_the_capability_or_the_device_rules() {
    let host = FakeHost::new();
    let fix = || {
        let error = std::io::Error::from_raw_os_error(libc::EPERM);
        kernel_log::missing(&roots(&host), &error).fix.unwrap()
    };
    assert!(fix().contains("CAP_SYSLOG"));
    host.file("proc/sys/kernel/dmesg_restrict", "1\n");
    assert!(fix().contains("CAP_SYSLOG"));
    host.file("proc/sys/kernel/dmesg_restrict", "0\n");
    assert!(fix().contains("--device=/dev/kmsg"));
}
