//! The exporter and `perf stat` open the same events: perf prints the perf_event_attr of each
//! event, even if the open then fails for lack of a PMU.

// Test helpers may fail the test.

use std::collections::BTreeSet;
use std::process::Command;

use vcpu_exporter::config::{self, EventSet, RawEvent};
use vcpu_exporter::host::cpu_model::CpuModel;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::sources::pmu::counters::Attr;
use vcpu_exporter::sources::pmu::plan::{plan, Machine, Plan};
use vcpu_exporter::sources::pmu::probe::Kernel;

/// Metric, further label and mode, and perf's name of the event.
const EVENTS: &[(&str, &str, &str, &str)] = &[
    ("kvm_vcpu_cycles_total", "", "guest", "cycles:G"),
    ("kvm_vcpu_cycles_total", "", "host", "cycles:H"),
    ("kvm_vcpu_instructions_total", "", "guest", "instructions:G"),
    ("kvm_vcpu_instructions_total", "", "host", "instructions:H"),
    ("kvm_vcpu_ref_cycles_total", "", "guest", "ref-cycles:G"),
    (
        "kvm_vcpu_cache_references_total",
        "",
        "guest",
        "cache-references:G",
    ),
    ("kvm_vcpu_cache_misses_total", "", "guest", "cache-misses:G"),
    (
        "kvm_vcpu_branch_misses_total",
        "",
        "guest",
        "branch-misses:G",
    ),
    ("kvm_vcpu_branches_total", "", "guest", "branches:G"),
    ("kvm_vcpu_branches_total", "", "host", "branches:H"),
    (
        "kvm_vcpu_dtlb_load_misses_total",
        "",
        "guest",
        "dTLB-load-misses:G",
    ),
    (
        "kvm_vcpu_stalled_cycles_total",
        "frontend",
        "guest",
        "stalled-cycles-frontend:G",
    ),
    (
        "kvm_vcpu_stalled_cycles_total",
        "backend",
        "host",
        "stalled-cycles-backend:H",
    ),
    ("kvm_vcpu_pmu_event_total", "raw", "guest", "r1a8:G"),
    ("kvm_vcpu_pmu_event_total", "raw", "host", "r1a8:H"),
];

/// A kernel that grants everything, so that all events are planned on any machine.
struct Generous;

impl Kernel for Generous {
    fn opens(&self, _: &[Attr]) -> Result<(), i32> {
        Ok(())
    }

    fn runs(&self, _: &[Attr]) -> bool {
        true
    }
}

#[test]
fn attributes_are_those_of_perf_stat() {
    if let Err(error) = Command::new("perf").arg("--version").output() {
        println!("skipped: cannot run perf (package linux-perf): {error}");
        return;
    }
    if !may_count_the_kernel() {
        println!("skipped: perf may not count the kernel here, and asks again for less");
        return;
    }
    let roots = Roots::default();
    let config = everything();
    let model = CpuModel::read(&roots).unwrap_or_default();
    let machine = Machine::read(&roots, &model, &config);
    let plan = plan(&config, &machine, &Generous);
    for (metric, label, mode, event) in EVENTS {
        let ours = ours(&plan, metric, label, mode);
        assert!(!ours.is_empty(), "{metric} {label} {mode} is not planned");
        let theirs = theirs(event);
        // Newer perf looks up generic names in sysfs first, and finds the model's own event.
        let generic = ours.iter().all(|attr| attr[0].1 != 4);
        if generic && theirs.iter().any(|attr| attr[0].1 >= 4) {
            println!("skipped: this perf asks for {event} as an event of the CPU model");
            continue;
        }
        assert_eq!(ours, theirs, "{metric} {label} {mode}, perf's {event}");
    }
}

/// Unprivileged use depends on `kernel.perf_event_paranoid`
/// (Documentation/admin-guide/sysctl/kernel.rst).
fn may_count_the_kernel() -> bool {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    let level = paranoid.ok().and_then(|text| text.trim().parse().ok());
    rustix::process::geteuid().is_root() || level.is_some_and(|level: i32| level < 2)
}

fn everything() -> config::Pmu {
    config::Pmu {
        events: vec![EventSet::Branches, EventSet::Dtlb, EventSet::Stalled],
        raw: vec![RawEvent {
            name: "raw".to_owned(),
            event: "r1a8".to_owned(),
            guest: true,
            host: true,
        }],
        ..config::Pmu::default()
    }
}

/// Fields of a perf_event_attr that determine what is counted; fields that perf does not print are
/// 0.
type Fields = [(&'static str, u64); 11];

const FIELDS: [&str; 11] = [
    "type",
    "config",
    "config1",
    "config2",
    "config3",
    "exclude_user",
    "exclude_kernel",
    "exclude_hv",
    "exclude_idle",
    "exclude_host",
    "exclude_guest",
];

fn ours(plan: &Plan, metric: &str, label: &str, mode: &str) -> BTreeSet<Fields> {
    let mut attrs = BTreeSet::new();
    for group in &plan.groups {
        for (n, feed) in group.feeds.iter().enumerate() {
            let has = |value: &str| value.is_empty() || feed.labels.iter().any(|(_, v)| v == value);
            if feed.metric == metric && has(label) && has(mode) {
                attrs.extend(group.parts.iter().map(|part| fields(&part[n])));
            }
        }
    }
    attrs
}

fn fields(attr: &Attr) -> Fields {
    FIELDS.map(|name| {
        let value = match name {
            "type" => attr.kind.into(),
            "config" => attr.words[0],
            "config1" => attr.words[1],
            "config2" => attr.words[2],
            "config3" => attr.words[3],
            "exclude_host" => attr.exclude_host.into(),
            "exclude_guest" => attr.exclude_guest.into(),
            _ => 0,
        };
        (name, value)
    })
}

/// Output of `perf stat -vv` between its `perf_event_attr:` lines and the rules after them.
fn theirs(event: &str) -> BTreeSet<Fields> {
    let output = Command::new("perf")
        .args(["stat", "-vv", "-e", event, "true"])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut attrs = BTreeSet::new();
    let mut lines = text.lines();
    while lines
        .by_ref()
        .any(|line| line.starts_with("perf_event_attr:"))
    {
        attrs.insert(block(
            lines.by_ref().take_while(|line| !line.starts_with("---")),
        ));
    }
    assert!(
        !attrs.is_empty(),
        "perf prints no attributes for {event}: {text}"
    );
    attrs
}

fn block<'a>(lines: impl Iterator<Item = &'a str>) -> Fields {
    let mut fields = FIELDS.map(|name| (name, 0));
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(field) = fields.iter_mut().find(|(field, _)| *field == name) {
            let value = match value.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => value.parse(),
            };
            field.1 = value.unwrap();
        }
    }
    fields
}
