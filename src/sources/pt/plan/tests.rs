use std::path::Path;

use super::*;
use crate::sources::pt::scripted::refusal as refused;

const PMU_DIR: &str = "sys/bus/event_source/devices/intel_pt";

/// A temporary directory and the roots below it.
struct Host(tempfile::TempDir, Roots);

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        Self(dir, roots)
    }

    fn file(self, path: impl AsRef<Path>, text: &str) -> Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// The PMU as Linux 6.x shows it on Ice Lake; `caps` are 1.
    fn pt(self, caps: &[&str]) -> Self {
        let formats = [
            ("pt", "config:0"),
            ("cyc", "config:1"),
            ("pwr_evt", "config:4"),
            ("mtc", "config:9"),
            ("tsc", "config:10"),
            ("noretcomp", "config:11"),
            ("branch", "config:13"),
            ("mtc_period", "config:14-17"),
            ("psb_period", "config:24-27"),
            ("event", "config:31"),
        ];
        let mut host = self.file(format!("{PMU_DIR}/type"), "8\n");
        for (name, text) in formats {
            host = host.file(format!("{PMU_DIR}/format/{name}"), &format!("{text}\n"));
        }
        for cap in caps {
            host = host.file(format!("{PMU_DIR}/caps/{cap}"), "1\n");
        }
        host
    }

    fn cpuinfo(self, vendor: &str, flags: &str) -> Self {
        let text = format!(
            "vendor_id\t: {vendor}\ncpu family\t: 6\nmodel\t\t: 106\nstepping\t: 6\n\
             flags\t\t: fpu {flags}\n\n"
        );
        self.file("proc/cpuinfo", &text)
    }
}

#[test]
fn terms_are_those_the_machine_has() {
    let plan = PtPlan::read(&Host::new().pt(&["psb_cyc"]).1).unwrap();
    assert_eq!(plan.terms, ["pt", "branch", "tsc", "noretcomp", "cyc"]);
    assert_eq!((plan.kind, plan.words), (8, [0x2c03, 0, 0, 0]));
    assert_eq!(plan.gaps, None);
    let caps = ["psb_cyc", "event_trace", "power_event_trace", "mtc"];
    let plan = PtPlan::read(&Host::new().pt(&caps).1).unwrap();
    assert_eq!(plan.words[0], 0x8000_2c13, "no mtc: bit 9");
    let host = Host::new()
        .pt(&[])
        .file(format!("{PMU_DIR}/caps/psb_cyc"), "0\n");
    assert!(!PtPlan::read(&host.1).unwrap().terms.contains(&"cyc"));
}

#[test]
fn bits_follow_the_kernels_format() {
    let host = Host::new().pt(&[]);
    let host = host.file(format!("{PMU_DIR}/format/tsc"), "config2:5\n");
    let plan = PtPlan::read(&host.1).unwrap();
    assert_eq!(plan.words, [0x2801, 0, 1 << 5, 0]);
}

#[test]
fn request_combines_plan_and_configuration() {
    let plan = PtPlan::read(&Host::new().pt(&[]).1).unwrap();
    let request = plan.request(&config::Pt::default());
    assert_eq!((request.kind, request.words[0]), (8, 0x2c01));
    assert_eq!(request.window.as_millis(), 10);
    assert_eq!(request.max_bytes, 4 << 20);
}

#[test]
fn missing_pmu_has_a_reason() {
    for (vendor, flags, why) in [
        ("GenuineIntel", "vmx hypervisor", "itself a virtual machine"),
        ("GenuineIntel", "vmx", "this CPU has no Intel PT"),
        ("GenuineIntel", "vmx intel_pt", "did not set it up"),
        ("AuthenticAMD", "svm hypervisor", "an AMD CPU"),
        ("Unknown", "", "model is unknown"),
    ] {
        let host = Host::new().cpuinfo(vendor, flags);
        let reason = PtPlan::read(&host.1).unwrap_err();
        assert_eq!(reason.code, "no_pt");
        assert!(reason.detail.contains(why), "{vendor} {flags}: {reason:?}");
    }
    let arm = "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd0c\n";
    let host = Host::new().file("proc/cpuinfo", arm);
    let reason = PtPlan::read(&host.1).unwrap_err();
    assert!(reason.detail.contains("an Arm CPU"), "{reason:?}");
    assert_eq!(PtPlan::read(&Host::new().1).unwrap_err().code, "no_pt");
}

#[test]
fn host_guest_mode_hides_the_guest() {
    let file = "sys/module/kvm_intel/parameters/pt_mode";
    let host = Host::new().pt(&[]).file(file, "0\n");
    assert_eq!(PtPlan::read(&host.1).unwrap().gaps, None);
    let host = host.file(file, "1\n");
    let reason = PtPlan::read(&host.1).unwrap().gaps.unwrap();
    assert_eq!(reason.code, "guest_not_visible");
    assert!(reason.fix.unwrap().contains("pt_mode=0"));
}

#[test]
fn unexpected_pmu_format_is_a_reason() {
    let host = Host::new().pt(&[]).file(format!("{PMU_DIR}/type"), "x\n");
    assert_eq!(PtPlan::read(&host.1).unwrap_err().code, "not_understood");
}

#[test]
fn step_and_errno_determine_the_reason() {
    let host = Host::new();
    for (step, errno, code) in [
        (Step::Open, libc::EACCES, "no_permission"),
        (Step::Open, libc::EPERM, "no_permission"),
        (Step::MapRecords, libc::EPERM, "mlock_limit"),
        (Step::MapTrace, libc::EPERM, "mlock_limit"),
        (Step::MapTrace, libc::ENOMEM, "no_memory"),
        (Step::Open, libc::EBUSY, "pt_busy"),
        (Step::MapTrace, libc::EBUSY, "pt_busy"),
        (Step::Open, libc::EMFILE, "no_descriptors"),
        (Step::Open, libc::ENOENT, "no_pt"),
        (Step::Open, libc::EOPNOTSUPP, "no_pt"),
        (Step::Open, libc::ENOSYS, "no_perf"),
        (Step::Open, libc::EINVAL, "refused"),
    ] {
        let reason = refusal(&refused(step, errno), &host.1).unwrap();
        assert_eq!(reason.code, code, "{step:?} {errno}");
        assert!(!reason.detail.is_empty());
    }
    assert_eq!(refusal(&refused(Step::Open, libc::ESRCH), &host.1), None);
    let host = host.file("proc/sys/kernel/perf_event_mlock_kb", "516\n");
    let reason = refusal(&refused(Step::MapTrace, libc::EPERM), &host.1).unwrap();
    assert!(reason.detail.contains("perf_event_mlock_kb is 516"));
    assert!(reason.fix.unwrap().contains("CAP_IPC_LOCK"));
}
