use super::*;
use crate::config::{EventSet, RawEvent};
use crate::sources::pmu::probe::OwnThread;
use crate::sources::pmu::scripted::Scripted;
use std::path::Path;
use std::sync::Arc;

fn config(events: &[EventSet]) -> config::Pmu {
    config::Pmu {
        events: events.to_vec(),
        ..config::Pmu::default()
    }
}

fn raw_event(name: &str, event: &str) -> RawEvent {
    RawEvent {
        name: name.to_owned(),
        event: event.to_owned(),
        guest: true,
        host: false,
    }
}

fn plan_with(config: &config::Pmu, machine: &Machine, counters: Scripted) -> Plan {
    plan(config, machine, &OwnThread::new(Arc::new(counters)))
}

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn host(files: &[(&str, &str)], config: &config::Pmu) -> Machine {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        write(dir.path(), file, text);
    }
    let roots = Roots::below(dir.path());
    let model = CpuModel::read(&roots).unwrap_or_default();
    Machine::read(&roots, &model, config)
}

const DEVICES: &str = "sys/bus/event_source/devices";

fn hybrid(config: &config::Pmu) -> Machine {
    let files = [
        (format!("{DEVICES}/cpu_core/type"), "4"),
        (format!("{DEVICES}/cpu_core/cpus"), "0-7"),
        (format!("{DEVICES}/cpu_core/format/event"), "config:0-7"),
        (format!("{DEVICES}/cpu_atom/type"), "10"),
        (format!("{DEVICES}/cpu_atom/cpus"), "8-15"),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (&**file, *text)).collect();
    host(&files, config)
}

fn names(plan: &Plan) -> Vec<(&str, usize)> {
    let group = |group: &'_ GroupPlan| group.feeds.len();
    plan.groups.iter().map(|g| (&*g.name, group(g))).collect()
}

fn code(plan: &Plan) -> &'static str {
    plan.reason
        .as_ref()
        .map_or("", |reason| reason.code.label())
}

#[test]
fn guest_and_host_share_a_group_if_they_fit() {
    let plan = plan_with(&config(&[]), &Machine::default(), Scripted::new());
    assert_eq!(plan.mode, PmuMode::Full);
    assert_eq!(names(&plan), [("guest+host", 8)]);
    let attrs = &plan.groups[0].parts[0];
    assert!(attrs[..6]
        .iter()
        .all(|a| a.exclude_host && !a.exclude_guest));
    assert!(attrs[6..]
        .iter()
        .all(|a| !a.exclude_host && a.exclude_guest));
}

#[test]
fn few_counters_or_the_watchdog_separate_guest_and_host() {
    let config = config(&[]);
    let mut machine = Machine::default();
    let few = plan_with(&config, &machine, Scripted::new().with_counters(7));
    assert_eq!(names(&few), [("guest", 6), ("host", 2)]);
    machine.nmi_watchdog = true;
    let watched = plan_with(&config, &machine, Scripted::new().with_counters(8));
    assert_eq!(names(&watched), [("guest", 6), ("host", 2)]);
    let room = plan_with(&config, &machine, Scripted::new().with_counters(9));
    assert_eq!(names(&room), [("guest+host", 8)]);
}

#[test]
fn group_without_counters_is_halved() {
    let few = Scripted::new().with_counters(4);
    let plan = plan_with(&config(&[]), &Machine::default(), few);
    assert_eq!(names(&plan), [("guest", 3), ("guest_2", 3), ("host", 2)]);
}

#[test]
fn missing_default_events_are_skipped_silently() {
    let no_ref_cycles = |_, a: &Attr| (a.kind == 0 && a.words[0] == 9).then_some(libc::ENOENT);
    let counters = Scripted::new().refusing(no_ref_cycles);
    let plan = plan_with(&config(&[]), &Machine::default(), counters);
    assert_eq!(names(&plan), [("guest+host", 7)]);
    assert!(plan.missing.is_empty());
}

#[test]
fn mediated_vpmu_counts_only_host_mode_and_never_probes_guest_mode() {
    let param = "sys/module/kvm_intel/parameters/enable_mediated_pmu";
    let config = config(&[]);
    let machine = host(&[(param, "Y\n")], &config);
    let counters = Scripted::new().refusing(|_, attr| {
        assert!(!attr.exclude_host, "probed guest mode");
        None
    });
    let plan = plan_with(&config, &machine, counters);
    assert_eq!(
        (plan.mode, code(&plan)),
        (PmuMode::HostOnly, "mediated_vpmu")
    );
    assert_eq!(names(&plan), [("host", 2)]);
    assert_eq!(host(&[(param, "N\n")], &config).mediated_vpmu, None);
}

#[test]
fn a_kernel_that_refuses_exclude_host_counts_the_host() {
    let counters = Scripted::new().refusing(|_, a| a.exclude_host.then_some(libc::EINVAL));
    let plan = plan_with(&config(&[]), &Machine::default(), counters);
    assert_eq!(
        (plan.mode, code(&plan)),
        (PmuMode::HostOnly, "exclude_host_refused")
    );
}

#[test]
fn without_a_pmu_software_events_are_counted() {
    let hardware = |_, a: &Attr| (a.kind != 1).then_some(libc::ENOENT);
    let counters = Scripted::new().refusing(hardware);
    let plan = plan_with(&config(&[]), &Machine::default(), counters);
    assert_eq!((plan.mode, code(&plan)), (PmuMode::Software, "no_pmu"));
    assert_eq!(names(&plan), [("software", 3)]);
    assert_eq!(
        plan.groups[0].feeds[0].labels,
        [("event", "context-switches".to_owned())]
    );
}

#[test]
fn without_permission_it_is_off_with_a_fix() {
    let files = [("proc/sys/kernel/perf_event_paranoid", "3\n")];
    let config = config(&[]);
    let counters = Scripted::new().refusing(|_, _| Some(libc::EACCES));
    let plan = plan_with(&config, &host(&files, &config), counters);
    assert_eq!((plan.mode, code(&plan)), (PmuMode::Off, "no_permission"));
    assert_eq!(plan.groups, []);
    let reason = plan.reason.unwrap();
    assert!(
        reason.detail.contains("perf_event_paranoid is 3"),
        "{}",
        reason.detail
    );
    let fix = reason.fix.unwrap();
    assert!(fix.contains("CAP_PERFMON"), "{fix}");
    // Levels above 2 refuse even with CAP_PERFMON.
    assert!(fix.contains("perf_event_paranoid=2"), "{fix}");
}

#[test]
fn thread_ids_of_another_pid_namespace_are_never_opened() {
    let own = std::process::id();
    let in_namespace = |pid: u32| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::os::unix::fs::symlink(pid.to_string(), dir.path().join("proc/self")).unwrap();
        let roots = Roots::below(dir.path());
        Machine::read(&roots, &CpuModel::Unknown, &config(&[]))
    };
    let counters = Scripted::new().refusing(|_, _| panic!("asked"));
    let plan = plan_with(&config(&[]), &in_namespace(own + 1), counters);
    assert_eq!((plan.mode, code(&plan)), (PmuMode::Off, "pid_namespace"));
    let plan = plan_with(&config(&[]), &in_namespace(own), Scripted::new());
    assert_eq!(plan.mode, PmuMode::Full);
}

#[test]
fn disabled_source_probes_nothing() {
    let config = config::Pmu {
        enabled: false,
        ..config(&[])
    };
    let counters = Scripted::new().refusing(|_, _| panic!("asked"));
    let plan = plan_with(&config, &Machine::default(), counters);
    assert_eq!((plan.mode, code(&plan)), (PmuMode::Off, "disabled"));
}

#[test]
fn each_type_of_core_has_its_part_with_the_pmu_in_config() {
    let config = config(&[EventSet::Branches, EventSet::Topdown]);
    let plan = plan_with(&config, &hybrid(&config), Scripted::new());
    let group = &plan.groups[0];
    assert_eq!(group.parts.len(), 2);
    let configs: Vec<u64> = group.parts.iter().map(|part| part[1].words[0]).collect();
    assert_eq!(configs, [10 << 32 | 1, 4 << 32 | 1]);
    assert!(group
        .parts
        .iter()
        .all(|part| part.len() == group.feeds.len()));
    assert!(group.scaled);
    assert_eq!(plan.missing, ["topdown: not known for this CPU"]);
}

#[test]
fn event_of_one_type_of_core_is_its_own_group_and_unscaled() {
    let config = config::Pmu {
        raw: vec![raw_event("x", "cpu_core/event=0xd3/")],
        ..config(&[])
    };
    let plan = plan_with(&config, &hybrid(&config), Scripted::new());
    assert_eq!(names(&plan), [("guest+host", 8), ("x_guest", 1)]);
    assert_eq!(
        (plan.groups[1].parts.len(), plan.groups[1].scaled),
        (1, false)
    );
}

#[test]
fn missing_events_are_named() {
    let config = config::Pmu {
        raw: vec![raw_event("bad", "cpu/event=1/"), raw_event("good", "r1a8")],
        ..config(&[EventSet::DramLoads, EventSet::Stalled])
    };
    let machine = host(&[], &config);
    let no_backend = |_, a: &Attr| (a.kind == 0 && a.words[0] == 8).then_some(libc::ENOENT);
    let plan = plan_with(&config, &machine, Scripted::new().refusing(no_backend));
    let missing = plan.missing.join("\n");
    for expected in [
        "dram_loads: not known",
        "bad: event",
        "stalled_guest: refused",
    ] {
        assert!(missing.contains(expected), "{missing}");
    }
    let feeds: Vec<&Feed> = plan.groups.iter().flat_map(|g| &g.feeds).collect();
    assert_eq!(feeds.len(), 9);
    assert_eq!(feeds[8].labels[1], ("event", "good".to_owned()));
}

#[test]
fn topdown_is_its_own_group_led_by_slots() {
    let mut files = vec![(format!("{DEVICES}/cpu/type"), "4".to_owned())];
    files.push((
        format!("{DEVICES}/cpu/format/event"),
        "config:0-7".to_owned(),
    ));
    files.push((
        format!("{DEVICES}/cpu/format/umask"),
        "config:8-15".to_owned(),
    ));
    let events = [
        "slots",
        "topdown-retiring",
        "topdown-bad-spec",
        "topdown-fe-bound",
        "topdown-be-bound",
    ];
    for (n, event) in events.iter().enumerate() {
        let umask = [0x4, 0x80, 0x81, 0x82, 0x83][n];
        let text = format!("event=0x00,umask={umask:#x}");
        files.push((format!("{DEVICES}/cpu/events/{event}"), text));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(f, t)| (&**f, &**t)).collect();
    let config = config(&[EventSet::Topdown, EventSet::Branches, EventSet::Branches]);
    let plan = plan_with(&config, &host(&files, &config), Scripted::new());
    let expected = [
        ("guest+host", 10),
        ("topdown_guest", 5),
        ("topdown_host", 5),
    ];
    assert_eq!(names(&plan), expected);
    assert_eq!(plan.groups[1].parts[0][0].words[0], 0x400);
    assert_eq!(plan.groups[1].feeds[4].labels[1].1, "backend_bound");
}

#[test]
fn a_name_used_twice_is_one_series() {
    let config = config::Pmu {
        raw: vec![raw_event("x", "r1a8"), raw_event("x", "r1a9")],
        ..config(&[])
    };
    let plan = plan_with(&config, &host(&[], &config), Scripted::new());
    assert_eq!(names(&plan), [("guest+host", 9)]);
    assert_eq!(plan.missing, ["x: the name is used twice"]);
}
