use super::*;
use crate::config::ExitReason;
use crate::fake_host::FakeHost;

fn read(host: &FakeHost, reasons: &[&str]) -> Result<ExitPlan, Reason> {
    let reasons = reasons.iter().map(|name| ExitReason((*name).to_owned()));
    let config = config::Exits {
        enabled: true,
        reasons: reasons.collect(),
    };
    ExitPlan::read(&config, &Roots::below(host.root()))
}

/// Each event as `ID FEED FILTER`.
fn shown(plan: &ExitPlan) -> Vec<String> {
    let show = |(feed, attr): &(Feed, Attr)| {
        let filter = attr.filter.map(|filter| format!(" {filter}"));
        format!("{} {feed:?}{}", attr.words[0], filter.unwrap_or_default())
    };
    plan.events.iter().map(show).collect()
}

const CHEAP: [&str; 6] = [
    "102 Event(0)",
    "103 Event(1)",
    "104 Event(2)",
    "105 Event(3) type!=0",
    "106 Event(4)",
    "101 Exits",
];

fn host(module: &str) -> FakeHost {
    let host = FakeHost::new();
    host.tracepoints(module);
    host
}

#[test]
fn events_missing_in_the_kernel_are_skipped() {
    let plan = read(&host("kvm_intel"), &[]).unwrap();
    assert_eq!(shown(&plan), CHEAP);
    assert_eq!(plan.lacking, None);
    assert!(
        plan.attrs().iter().all(|attr| attr.kind == 2),
        "PERF_TYPE_TRACEPOINT"
    );
}

#[test]
fn reasons_have_the_vendors_numbers() {
    let wanted = ["hlt", "npf", "ept_violation"];
    let reasons = |module| shown(&read(&host(module), &wanted).unwrap())[6..].to_vec();
    assert_eq!(
        reasons("kvm_amd"),
        [
            "101 Reason(0) exit_reason==120&&isa==2",
            "101 Reason(1) exit_reason==1024&&isa==2"
        ]
    );
    assert_eq!(
        reasons("kvm_intel"),
        [
            "101 Reason(0) exit_reason==12&&isa==1",
            "101 Reason(2) exit_reason==48&&isa==1"
        ]
    );
}

#[test]
fn unknown_reason_is_named_with_the_known_ones() {
    let plan = read(&host("kvm_amd"), &["hlt", "hallt"]).unwrap();
    assert_eq!(plan.events.len(), CHEAP.len() + 1);
    let lacking = plan.lacking.unwrap();
    assert_eq!(lacking.code, "unknown_reason");
    assert!(lacking.detail.starts_with("no such exit reason: hallt; "));
    assert!(lacking.detail.contains(" hlt,") && !lacking.detail.contains("ept_violation"));
}

#[test]
fn unreported_exits_are_unknown_and_not_0() {
    let plan = read(&host("kvm_pvm"), &["hlt"]).unwrap();
    assert_eq!(shown(&plan), CHEAP[..5]);
    assert_eq!(plan.lacking.unwrap().code, "no_exit_tracepoint");
    let without = host("kvm_intel");
    without.remove("sys/kernel/tracing/events/kvm/kvm_exit");
    let plan = read(&without, &[]).unwrap();
    assert_eq!(shown(&plan), CHEAP[..5]);
    assert_eq!(plan.lacking.unwrap().code, "no_exit_tracepoint");
}

#[test]
fn missing_tracefs_or_kvm_has_a_fix() {
    let host = FakeHost::new();
    let reason = read(&host, &[]).unwrap_err();
    assert_eq!(reason.code, "no_tracefs");
    assert!(reason.fix.unwrap().starts_with("mount -t tracefs"));
    host.file("sys/kernel/tracing/events/sched/enable", "0\n");
    let reason = read(&host, &[]).unwrap_err();
    assert_eq!(reason.code, "no_kvm");
    assert!(reason.fix.unwrap().contains("modprobe"));
}

#[test]
fn id_that_is_no_number_is_refused() {
    let host = host("kvm_intel");
    host.file("sys/kernel/tracing/events/kvm/kvm_pio/id", "x\n");
    assert_eq!(read(&host, &[]).unwrap_err().code, "not_understood");
}

#[test]
fn lockdown_and_permissions_have_different_reasons() {
    let roots = Roots::default();
    let code = |errno| {
        refused(
            &roots,
            Path::new("/x"),
            &io::Error::from_raw_os_error(errno),
        )
        .code
    };
    assert_eq!(code(libc::EPERM), "lockdown");
    assert_eq!(code(libc::EACCES), "no_permission");
    assert_eq!(code(libc::EIO), "unreadable");
}

#[test]
fn labels_are_the_kernels_names() {
    let labels: Vec<&str> = EVENTS.iter().map(|(name, _)| label(name)).collect();
    let expected = [
        "userspace_exit",
        "vcpu_wakeup",
        "pio",
        "mmio",
        "inj_virq",
        "wfx",
    ];
    assert_eq!(labels, expected);
}
