use caps::Capability;

use super::inventory::{hidepid_of, lockdown};
use super::*;
use crate::cli::check::State;
use crate::discover::VisibilityGap;

/// The temporary directory, which must live as long as the roots in it.
struct Host(#[allow(dead_code)] tempfile::TempDir, Roots);

fn host(files: &[(&str, &str)]) -> Host {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let roots = Roots::below(dir.path());
    Host(dir, roots)
}

fn none() -> Capabilities {
    Capabilities::default()
}

fn with(capability: Capability) -> Capabilities {
    [capability].into_iter().collect()
}

#[track_caller]
fn assert_finding(finding: &Finding, state: State, detail: &str) {
    assert_eq!(finding.state, state, "{finding:?}");
    assert!(finding.detail.contains(detail), "{finding:?}");
}

#[test]
fn paranoid_matters_only_without_cap_perfmon() {
    let at = |level| host(&[("proc/sys/kernel/perf_event_paranoid", level)]);
    for (level, without, held) in [
        ("-1", State::Degraded, State::Ok),
        ("1", State::Degraded, State::Ok),
        ("2", State::Missing, State::Ok),
        ("3", State::Missing, State::Ok),
    ] {
        let host = at(level);
        let finding = perf_events(&host.1, &none());
        assert_finding(&finding, without, &format!("paranoid is {level}"));
        assert!(finding
            .fix
            .unwrap()
            .contains("AmbientCapabilities=CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH"));
        assert_finding(
            &perf_events(&host.1, &with(Capability::CAP_PERFMON)),
            held,
            level,
        );
    }
    assert_finding(
        &perf_events(&host(&[]).1, &none()),
        State::Missing,
        "no kernel.perf_event",
    );
}

#[test]
fn hidepid_is_read_from_the_mount_of_this_procfs() {
    let mounts =
        "x / ext4 rw 0 0\nproc /proc proc rw,hidepid=invisible 0 0\nproc /other proc rw 0 0\n";
    assert_eq!(hidepid_of(mounts, "/proc"), Some("invisible"));
    assert_eq!(hidepid_of(mounts, "/other"), None);
    assert_eq!(hidepid_of(mounts, "/"), None);
    assert_eq!(
        hidepid_of("proc /proc proc rw,hidepid=off 0 0", "/proc"),
        None
    );
    assert_eq!(hidepid_of("proc /proc proc", "/proc"), None);
    // The mount on top counts.
    assert_eq!(
        hidepid_of("p /proc proc hidepid=2 0 0\np /proc proc rw 0 0", "/proc"),
        None
    );
}

#[test]
fn hidepid_hides_nothing_from_cap_sys_ptrace() {
    let host = host(&[]);
    let point = host.1.proc.display();
    let path = host.1.proc.join("self/mounts");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("proc {point} proc rw,hidepid=2 0 0\n")).unwrap();
    assert_finding(&hidepid(&host.1, &none()), State::Degraded, "hidepid=2");
    assert_finding(
        &hidepid(&host.1, &with(Capability::CAP_SYS_PTRACE)),
        State::Ok,
        "hidepid=2",
    );
}

#[test]
fn mediated_vpmu_is_reported_for_both_vendors() {
    let at = |file, value| mediated_pmu(&host(&[(file, value)]).1);
    assert_finding(
        &at("sys/module/kvm_amd/parameters/enable_mediated_pmu", "Y\n"),
        State::Degraded,
        "only host mode",
    );
    assert_finding(
        &at("sys/module/kvm_intel/parameters/enable_mediated_pmu", "N\n"),
        State::Ok,
        "off",
    );
    assert_finding(&at("sys/module/kvm/x", ""), State::Ok, "has none");
}

#[test]
fn schedstat_of_zeros_is_missing() {
    let at = |text| schedstat(&host(&[("proc/self/schedstat", text)]).1);
    assert_finding(&at("5 0 1\n"), State::Ok, "works");
    assert_finding(&at("0 0 0\n"), State::Missing, "stays at 0");
    assert_finding(&at("what\n"), State::Missing, "unexpected format");
    assert_finding(&schedstat(&host(&[]).1), State::Missing, "No such file");
}

#[test]
fn without_the_sched_file_the_source_still_works() {
    assert_finding(&sched(&host(&[]).1), State::Degraded, "no migration");
}

#[test]
fn descriptors_are_compared_with_what_the_vcpus_need() {
    let limit = |hard| DescriptorLimit { soft: 10, hard };
    assert_finding(
        &descriptors(limit(1024), 10),
        State::Ok,
        "enough for 42 vCPUs",
    );
    let finding = descriptors(limit(1024), 1000);
    assert_finding(&finding, State::Degraded, "about 18256 needed");
    assert!(finding.fix.unwrap().contains("LimitNOFILE=32768"));
    assert_finding(&descriptors(limit(u64::MAX), 1000), State::Ok, "");
}

#[test]
fn lockdown_is_the_word_in_brackets() {
    assert_eq!(
        lockdown("none [integrity] confidentiality"),
        Some("integrity")
    );
    assert_eq!(lockdown("none"), None);
}

#[test]
fn kvm_debugfs_is_there_or_says_how_to_mount_it() {
    let missing = kvm_debugfs(&host(&[]).1, &none());
    assert_finding(&missing, State::Degraded, "No such file");
    assert!(missing.fix.unwrap().starts_with("mount -t debugfs none /"));
    let there = host(&[("sys/kernel/debug/kvm/exits", "0\n")]);
    assert_finding(&kvm_debugfs(&there.1, &none()), State::Ok, "readable");
}

#[test]
fn kvm_says_which_module_is_loaded() {
    let there = host(&[("sys/module/kvm/x", ""), ("sys/module/kvm_amd/x", "")]);
    assert_finding(&kvm(&there.1), State::Ok, "kvm_amd");
    assert_finding(&kvm(&host(&[]).1), State::Degraded, "no KVM guest");
}

#[test]
fn visibility_gap_has_its_requirement_as_fix() {
    let all: Capabilities = NEEDED.into_iter().collect();
    let gap = |unseen: &str, needs: &'static str| VisibilityGap {
        unseen: unseen.to_owned(),
        needs: needs.into(),
    };
    let hidden = gap("1 VM is hidden", "CAP_SYS_PTRACE");
    let finding = blind_spot(&hidden, &none());
    assert_finding(&finding, State::Degraded, "1 VM is hidden");
    assert!(finding.detail.contains("CAP_SYS_PTRACE"));
    assert!(finding.fix.unwrap().starts_with("run it as root, or "));
    assert!(blind_spot(&hidden, &all).fix.unwrap().contains("AppArmor"));
    let debugfs = blind_spot(&gap("no thread known", "KVM debugfs (mount it)"), &all);
    assert_eq!(debugfs.fix.as_deref(), Some("KVM debugfs (mount it)"));
}

#[test]
fn a_procfs_without_processes_is_missing() {
    assert_finding(
        &procfs(&host(&[("proc/version", "")]).1),
        State::Missing,
        "no process",
    );
    assert_finding(
        &procfs(&host(&[("proc/1/stat", "")]).1),
        State::Ok,
        "1 process",
    );
}
