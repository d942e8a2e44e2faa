//! The synthetic host, watched by the whole pipeline with manually advanced time.
#![cfg(feature = "demo")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::demo::synthetic::scenario::{Trouble, EMBEDDED};
use vcpu_exporter::demo::synthetic::{configuration, Host, Scenario};
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::telemetry::Telemetry;

use crate::support::exposition::Exposition;

#[path = "synthetic/figures.rs"]
mod figures;
use figures::{changed, Figures};

/// Speed-up relative to the written times.
const SPEED: f64 = 60.0;

const MINUTE: Duration = Duration::from_secs(60);

/// A host and the exporter that watches it.
struct Watched {
    host: Host,
    pipeline: Pipeline,
    begun: Instant,
}

impl Watched {
    fn new(scenario: &str, seed: u64) -> Self {
        Self::of(Scenario::load(scenario).expect("it is valid"), seed)
    }

    fn of(scenario: Scenario, seed: u64) -> Self {
        let mut config = configuration(Config::default(), SPEED);
        // The memory period uses the real clock, which does not advance here.
        config.sources.memory.period = Duration::ZERO;
        let name = scenario.name.clone();
        let host = Host::new(Arc::new(scenario), seed, SPEED, config.sampling.tick);
        let host = host.expect("there is room for it");
        let pipeline = Pipeline::with_recorder(
            &config,
            Arc::new(Roots::below(host.root())),
            host.counters(),
            host.recorder(),
            host.born_after(),
            Telemetry::new().0,
        );
        Self {
            pipeline: pipeline.expect("it has a topology").synthetic(&name),
            host,
            begun: Instant::now(),
        }
    }

    /// The exposition at this time of the script.
    fn at(&mut self, script: Duration) -> Exposition {
        let elapsed = script.div_f64(SPEED);
        self.host.advance(elapsed).expect("it can be written");
        self.pipeline.find();
        self.pipeline.read_slow(self.begun + elapsed);
        self.pipeline.tick();
        self.show()
    }

    fn show(&self) -> Exposition {
        let snapshot = self.pipeline.snapshots().load().expect("a tick has ended");
        let mut text = Vec::new();
        let (format, now) = (Format::OpenMetrics, snapshot.taken_mono);
        encode_snapshot(format, &snapshot, now, &mut text);
        Exposition::parse(&String::from_utf8(text).expect("an exposition is text"))
    }

    /// Changes between these times of the script.
    fn figures(&mut self, from: Duration, to: Duration) -> Figures {
        let before = self.at(from);
        let after = self.at(to);
        Figures::between(&before, &after, (to - from).as_secs_f64() / SPEED)
    }
}

/// Lines that depend only on the state of the host.
fn timeless(shown: &Exposition) -> Vec<String> {
    let of_clock = ["kvm_exporter_sample_", "kvm_vm_memory_sample_"];
    let lines = shown.text.lines();
    let lines = lines.filter(|line| !of_clock.iter().any(|name| line.contains(name)));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_source_is_up_and_all_of_it_says_that_it_is_synthetic() {
    let mut calm = Watched::new("calm", 1);
    calm.at(Duration::ZERO);
    let shown = calm.at(MINUTE);
    let up: Vec<_> = shown.all("kvm_exporter_source_up", &[]).collect();
    assert!(up.len() >= 19, "{}", up.len());
    for source in up {
        assert_eq!(
            (source.value, source.label("reason")),
            (1.0, ""),
            "{source:?}"
        );
    }
    assert_eq!(
        shown.one("kvm_exporter_pmu_mode", &[("mode", "full")]),
        Some(1.0)
    );
    assert_eq!(shown.one("kvm_exporter_synthetic", &[]), Some(1.0));
    assert_eq!(shown.one("kvm_exporter_blind_spots", &[]), Some(0.0));
    assert_eq!(
        shown
            .all("kvm_vm_info", &[("manager", "openstack")])
            .count(),
        24
    );
    assert_eq!(shown.sum("kvm_vm_vcpus", &[]), Some(176.0));
    let flavored = [
        ("openstack_flavor", "m1.medium"),
        ("openstack_name", "web-3"),
    ];
    assert_eq!(shown.one("kvm_vm_info", &flavored), Some(1.0));
}

#[test]
fn one_seed_is_one_exposition_however_often_it_was_asked_for() {
    let mut once = Watched::new("troubles", 7);
    let mut often = Watched::new("troubles", 7);
    let mut other = Watched::new("troubles", 8);
    for watched in [&mut once, &mut often, &mut other] {
        watched.at(Duration::ZERO);
    }
    for minute in [11, 12, 25, 31] {
        often
            .host
            .advance((MINUTE * minute).div_f64(SPEED))
            .expect("it is written");
    }
    let to = 35 * MINUTE;
    let [once, often, other] = [once, often, other].map(|mut watched| timeless(&watched.at(to)));
    // `often` advanced the host without ticks: a tick determines where earlier activity is added.
    assert_eq!(once, often);
    assert_ne!(once, other);
}

#[test]
fn counters_only_grow_and_no_vcpu_has_more_than_a_second_a_second() {
    let mut troubles = Watched::new("troubles", 3);
    let mut before = troubles.at(Duration::ZERO).counters();
    for minute in (10..390).step_by(20) {
        let shown = troubles.at(minute * MINUTE);
        let now = shown.counters();
        for (series, value) in &before {
            // A location without activity leaves the exposition.
            let now = now.get(series).unwrap_or(&f64::INFINITY);
            assert!(
                now >= value,
                "{series}: {value}, then {now} at {minute} min"
            );
        }
        let elapsed = f64::from(minute) * 60.0 / SPEED;
        for (vcpu, [time, delay]) in figures::time_and_delay(&shown) {
            assert!(
                time + delay <= elapsed * 1.000_001,
                "{vcpu}: {time} + {delay} in {elapsed}"
            );
            assert!(time > 0.0, "{vcpu}");
        }
        before = now;
    }
}

/// Busy time of each core is that of the VMs' threads on it and a little of the host's; the rest is
/// idle.
#[test]
fn time_of_each_core_is_that_of_vms_and_the_host() {
    let mut troubles = Watched::new("troubles", 1);
    let before = troubles.at(15 * MINUTE);
    let after = troubles.at(25 * MINUTE);
    let seconds = 600.0 / SPEED;
    let by_core = |name: &str, labels: &[(&str, &str)]| {
        figures::rates(&before, &after, seconds, &["package", "core"], name, labels)
    };
    let modes = |mode: &str| by_core("kvm_host_core_seconds_total", &[("mode", mode)]);
    let all = by_core("kvm_host_core_seconds_total", &[]);
    let [user, guest, system, irq, softirq, steal] =
        ["user", "guest", "system", "irq", "softirq", "steal"].map(modes);
    let threads = by_core("kvm_vm_thread_time_seconds_total", &[]);
    assert_eq!(all.len(), 56);
    // 2 threads x 8 modes in steps of 10 ms each.
    let exact = 0.16 / seconds;
    for (core, all) in &all {
        assert!((all - 2.0).abs() < exact, "{core}: {all} seconds a second");
        let busy = [&user, &guest, &system, &irq, &softirq, &steal];
        let busy: f64 = busy.iter().map(|mode| mode[core]).sum();
        let of_vms = threads.get(core).copied().unwrap_or(0.0);
        let host = busy - of_vms;
        assert!(
            (host - 0.02).abs() < exact,
            "{core}: {busy} busy, {of_vms} of VMs"
        );
        assert_eq!(steal[core], 0.0);
    }
    let sum = |of: &std::collections::BTreeMap<String, f64>| of.values().sum::<f64>();
    let of_vcpus = by_core("kvm_vcpu_guest_seconds_total", &[]);
    let (guest, of_vcpus) = (sum(&guest), sum(&of_vcpus));
    assert!((guest / of_vcpus - 1.0).abs() < 0.01, "{guest} {of_vcpus}");
}

#[test]
fn nothing_is_wrong_on_a_calm_day() {
    let mut calm = Watched::new("calm", 1);
    for hour in 0..3u32 {
        let figures = calm.figures(60 * hour * MINUTE, (60 * hour + 50) * MINUTE);
        for (name, value) in &figures.all {
            let (what, _) = name.split_once(' ').unwrap_or((name, ""));
            let range = match what {
                "delay" => 0.0..0.01,
                "smt" => 0.0..0.1,
                "core" => 0.0..1.2,
                "throttled" | "memory_remote" | "quota" => 0.0..0.001,
                "device_remote" => 0.0..0.5,
                "frequency" => 1.25..1.35,
                "exits" => 0.0..12_000.0,
                "running" => 0.99..1.01,
                "busy" => 0.27..20.0,
                _ => continue,
            };
            assert!(range.contains(value), "{name}: {value} in hour {hour}");
        }
        assert_eq!(
            figures
                .all
                .keys()
                .filter(|name| name.starts_with("busy"))
                .count(),
            24
        );
    }
}

/// Figures that each trouble changes visibly; no other figure changes.
const CHANGES: [(&str, &[&str]); 9] = [
    (
        "noisy-neighbour",
        &[
            "busy batch-1",
            "cpi api-1",
            "cpi web-1",
            "mpki api-1",
            "mpki web-1",
        ],
    ),
    (
        "memory-remote",
        &["cpi db-2", "dram_remote db-2", "memory_remote db-2"],
    ),
    ("shared-cores", &["busy api-2", "cpi api-2", "smt api-2"]),
    ("quota", &["busy ci-1", "delay ci-1", "quota ci-1"]),
    ("iothread-on-core", &["delay db-1", "iothread db-1"]),
    ("package-throttled", &["frequency 1", "throttled 1"]),
    ("exit-storm", &["exits api-3"]),
    ("device-remote", &["device_remote gpu-1"]),
    ("multiplexed", &["running 0"]),
];

#[test]
fn each_trouble_changes_what_it_is_about_and_nothing_else() {
    let scenario = Scenario::load("troubles").expect("it is valid");
    let names: Vec<&str> = scenario.troubles.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, CHANGES.map(|(name, _)| name));
    let mut watched = Watched::of(scenario.clone(), 1);
    watched.at(Duration::ZERO);
    for (
        Trouble {
            name,
            start,
            length,
            ..
        },
        (_, expected),
    ) in scenario.troubles.iter().zip(CHANGES)
    {
        let calm = watched.figures(*start - 15 * MINUTE, *start - MINUTE);
        let during = watched.figures(*start + 3 * MINUTE, *start + *length - MINUTE);
        assert_eq!(changed(&calm, &during), expected, "{name}");
    }
}

/// At 60 times the speed, the alerts of a scenario take a sixtieth of the time.
#[test]
fn what_is_expected_comes_while_the_trouble_is_there() {
    let alerts = std::fs::read_to_string(root().join("alerts/alerts.yaml"));
    for (name, _) in EMBEDDED {
        for trouble in Scenario::load(name).expect("it is valid").troubles {
            assert!(!trouble.expect.is_empty(), "{}", trouble.name);
            for expect in trouble.expect {
                assert!(expect.within < trouble.length, "{}", trouble.name);
                if let Ok(alerts) = &alerts {
                    let line = format!("- alert: {}\n", expect.alert);
                    assert!(alerts.contains(&line), "{}", expect.alert);
                }
            }
        }
    }
}

#[test]
fn every_vcpu_is_recorded_in_its_turn() {
    let mut calm = Watched::new("calm", 1);
    calm.at(Duration::ZERO);
    calm.at(5 * MINUTE);
    // One round of 176 turns takes six seconds.
    for turn in 0..200 {
        let now = calm.begun + Duration::from_millis(5000 + 34 * turn);
        calm.pipeline.read_slow(now);
    }
    calm.pipeline.tick();
    let shown = calm.show();
    let traced = shown.all("kvm_vcpu_pt_captures_total", &[("result", "complete")]);
    assert_eq!(traced.count(), 176);
    for lost in [
        "kvm_vcpu_pt_decode_errors_total",
        "kvm_vcpu_pt_skipped_bytes_total",
    ] {
        assert_eq!(shown.sum(lost, &[]), Some(0.0), "{lost}");
    }
    let cycles = |mode| shown.sum("kvm_vcpu_pt_cycles_total", &[("mode", mode)]);
    assert!(cycles("guest") > cycles("host") && cycles("host") > Some(0.0));
    assert_eq!(cycles("unknown"), None);
}

#[test]
fn vms_come_and_go_and_may_have_any_name() {
    let text = r#"
workloads: { any: { demand: 0.2, cpi: 1, cache_mpki: 1, exits: 1000 } }
vms:
  - { name: "<b>&\"bold\"</b>, {n}/x", count: 2, flavor: "<i>", workload: any, vcpus: 2, memory_gib: 1, cpus: 0-3, pin: float }
  - { name: late, flavor: f, workload: any, vcpus: 1, memory_gib: 1, cpus: "5", pin: cpu, starts_after: 10m }
  - { name: early, flavor: f, workload: any, vcpus: 1, memory_gib: 1, cpus: "6", pin: cpu, ends_after: 20m }
"#;
    let mut watched = Watched::of(Scenario::parse("own", text).expect("it is valid"), 1);
    let mut names = |minute| {
        let shown = watched.at(minute * MINUTE);
        let up = shown.all("kvm_exporter_source_up", &[]);
        // resctrl caches its list of groups for half a second of real time.
        let up = up.filter(|source| source.label("source") != "resctrl");
        up.for_each(|source| assert_eq!(source.label("reason"), "", "{source:?}"));
        let infos = shown.all("kvm_vm_info", &[]);
        infos
            .map(|info| info.label("vm").to_owned())
            .collect::<Vec<_>>()
    };
    let (one, two) = ("<b>&\"bold\"</b>, 1/x", "<b>&\"bold\"</b>, 2/x");
    assert_eq!(names(1), [one, two, "early"]);
    assert_eq!(names(11), [one, two, "early", "late"]);
    assert_eq!(names(21), [one, two, "late"]);
    // All activity of a VM since its start is shown.
    let shown = watched.show();
    let time = shown.sum("kvm_vcpu_time_seconds_total", &[("vm", "late")]);
    let wanted = 0.2 * 11.0 * 60.0 / SPEED;
    assert!(
        time.is_some_and(|time| (0.8 * wanted..1.2 * wanted).contains(&time)),
        "{time:?}"
    );
}

/// A scenario in deploy/scenarios.
fn shipped(name: &str) -> Scenario {
    let path = root().join(format!("deploy/scenarios/{name}.yaml"));
    Scenario::load(path.to_str().expect("it is text")).expect(name)
}

/// nova's display name of each VM, by libvirt's name.
fn display_names(shown: &Exposition) -> std::collections::BTreeMap<String, String> {
    let infos = shown.all("kvm_vm_info", &[]);
    let names = infos.map(|info| (info.label("vm"), info.label("openstack_name")));
    names
        .map(|(vm, name)| (vm.to_owned(), name.to_owned()))
        .collect()
}

#[test]
fn full_host_wants_more_cpus_than_it_has_and_names_its_vms_as_nova_does() {
    let mut full = Watched::of(shipped("full"), 1);
    let before = full.at(5 * MINUTE);
    let after = full.at(15 * MINUTE);
    let names = display_names(&after);
    assert_eq!(names.len(), 32);
    assert_eq!(names["instance-0000002a"], "f-1");
    assert_eq!(names["instance-00000049"], "g-16");
    let seconds = 600.0 / SPEED;
    let rate = |name, labels: &[(&str, &str)]| {
        figures::rates(&before, &after, seconds, &[], name, labels)[""]
    };
    let time = rate("kvm_vcpu_time_seconds_total", &[]);
    let wanted = time + rate("kvm_vcpu_delay_seconds_total", &[]);
    assert!((145.0..162.0).contains(&wanted), "{wanted} of 112 CPUs");
    let idle = rate("kvm_host_core_seconds_total", &[("mode", "idle")]);
    assert!(time > 100.0 && idle < 3.0, "{time} used, {idle} idle");
}

/// 1 minus the chance that a load from the VM's node meets local memory, and the share of its loads
/// that were remote.
#[test]
fn memory_and_dram_loads_of_floating_vms_are_equally_far() {
    let mut floating = Watched::of(shipped("floating"), 1);
    floating.at(Duration::ZERO);
    let mut before = floating.at(10 * MINUTE);
    // Every minute, so that moves are seen.
    for minute in 11..=30 {
        let after = floating.at(minute * MINUTE);
        if minute % 10 > 0 {
            continue;
        }
        let seconds = 600.0 / SPEED;
        let by = |name, by: &[&str]| figures::rates(&before, &after, seconds, by, name, &[]);
        let time = by("kvm_vcpu_time_seconds_total", &["vm", "numa_node"]);
        let loads = by("kvm_vcpu_dram_loads_total", &["vm", "target"]);
        for (vm, name) in display_names(&after) {
            let of = |all: &std::collections::BTreeMap<String, f64>, key: &str| {
                all.get(&format!("{vm}:{key}")).copied().unwrap_or(0.0)
            };
            let (near, far) = (of(&time, "0"), of(&time, "1"));
            let bytes = |node| {
                let labels = [("vm", &*vm), ("numa_node", node)];
                after
                    .one("kvm_vm_memory_bytes", &labels)
                    .expect("it is known")
            };
            let (here, there) = (bytes("0"), bytes("1"));
            let together = (near * here + far * there) / (near + far) / (here + there);
            let (local, remote) = (of(&loads, "local"), of(&loads, "remote"));
            let (memory, dram) = (1.0 - together, remote / (local + remote));
            assert!((memory - dram).abs() < 0.1, "{name}: {memory} {dram}");
            let expected = match &*name {
                "apart" => 0.75..0.95,
                "together" => 0.0..0.25,
                "mostly-0" => 0.2..0.35,
                _ => 0.45..0.55,
            };
            assert!(expected.contains(&memory), "{name}: {memory}");
        }
        before = after;
    }
}

#[test]
fn host_process_takes_the_cpus_of_a_vm_and_is_no_vms_time() {
    let mut host = Watched::of(shipped("host-process"), 1);
    host.at(Duration::ZERO);
    let calm = host.figures(2 * MINUTE, 9 * MINUTE);
    let before = host.at(12 * MINUTE);
    let after = host.at(22 * MINUTE);
    let seconds = 600.0 / SPEED;
    let during = Figures::between(&before, &after, seconds);
    let names = display_names(&after);
    let api = names.iter().find(|(_, name)| *name == "api-2");
    let (api, _) = api.expect("it runs");
    let changed = changed(&calm, &during);
    assert_eq!(changed, [format!("busy {api}"), format!("delay {api}")]);
    assert!(during.all[&format!("delay {api}")] > 0.4);
    let core = ["package", "core"];
    let modes = |mode| {
        let labels = [("mode", mode)];
        figures::rates(
            &before,
            &after,
            seconds,
            &core,
            "kvm_host_core_seconds_total",
            &labels,
        )
    };
    let (user, system) = (modes("user"), modes("system"));
    for n in 0..28 {
        let busy = user[&format!("0:{n}")] + system[&format!("0:{n}")];
        let taken = (18..=25).contains(&n);
        assert_eq!(busy > 0.8, taken, "core {n}: {busy}");
    }
}

#[test]
fn memory_only_node_has_memory_of_vms_and_no_cpu() {
    let mut host = Watched::of(shipped("memory-only-node"), 1);
    let before = host.at(5 * MINUTE);
    let after = host.at(15 * MINUTE);
    let up = after.all("kvm_exporter_source_up", &[]);
    up.for_each(|source| assert_eq!(source.label("reason"), "", "{source:?}"));
    assert_eq!(
        after
            .all("kvm_host_cpu_info", &[("numa_node", "2")])
            .count(),
        0
    );
    let distance = |from, to| after.one("kvm_host_numa_distance", &[("from", from), ("to", to)]);
    assert_eq!(
        [distance("0", "2"), distance("1", "2")],
        [Some(24.0), Some(14.0)]
    );
    let all = after.sum("kvm_host_numa_memory_bytes", &[("numa_node", "2")]);
    assert_eq!(all, Some((256_u64 << 30) as f64));
    let loads = |by: &[&str]| {
        let name = "kvm_vcpu_dram_loads_total";
        figures::rates(&before, &after, 600.0 / SPEED, by, name, &[])
    };
    let (by_target, all) = (loads(&["vm", "target"]), loads(&["vm"]));
    for (vm, name) in display_names(&after) {
        let labels = [("vm", &*vm), ("numa_node", "2")];
        let bytes = after
            .one("kvm_vm_memory_bytes", &labels)
            .expect("it is known");
        let part = bytes
            / after
                .sum("kvm_vm_memory_bytes", &labels[..1])
                .expect("it is known");
        let remote = by_target[&format!("{vm}:remote")] / all[&vm];
        let (on_it, far) = match &*name {
            "near" => (0.5, 0.0),
            "some" => (0.35, 0.35),
            _ => (0.75, 0.75),
        };
        assert!((part - on_it).abs() < 0.01, "{name}: {part}");
        assert!((remote - far).abs() < 0.05, "{name}: {remote}");
    }
}

#[test]
fn the_large_host_has_a_thousand_vcpus() {
    let scenario = shipped("large");
    assert_eq!(scenario.name, "large");
    let vcpus: u32 = scenario.vms.iter().map(|vm| vm.vcpus).sum();
    assert_eq!((scenario.vms.len(), vcpus), (63, 1008));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The error in each text.
const WRONG: &[(&str, &str)] = &[
    ("vms: 7", "vms"),
    ("vmz: []", "unknown field `vmz`"),
    ("extends: nothing", "unknown scenario \"nothing\""),
    ("troubles: [{name: a, kind: rain, start: 1m, length: 1m}]", "unknown variant `rain`"),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: 1m, length: 1m}]", "vm: required"),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: 1m, length: 1m, vm: web-9}]", "no VM named \"web-9\""),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: 1m, length: 1m, vm: web-1}]", "has no quota_cores"),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: 1m, length: 0s, vm: ci-1}]", "length: expected more"),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: soon, length: 1m, vm: ci-1}]", "expected a time such as"),
    ("extends: calm\ntroubles: [{name: a, kind: quota, start: 1m, length: 1m, vm: ci-1, package: 1}]", "package: not a key of this kind, which takes vm, demand"),
    ("extends: calm\ntroubles: [{name: a, kind: steady, start: 1m, length: 1m, share: 1}]", "share: not a key of this kind, which takes none"),
    ("extends: calm\ntroubles: [{name: a, kind: host_process, start: 1m, length: 1m}]", "cpus: required"),
    ("extends: calm\ntroubles: [{name: a, kind: steady, start: 1m, length: 1m, expect: [{alert: A, labels: {vm: x}, within: 1m}]}]", "expect: no VM named \"x\""),
    ("extends: calm\nnames: numbers", "unknown variant `numbers`"),
    ("memory_node: {gib: 1, package: 2}", "memory_node: package: expected 0 to 1"),
    ("extends: calm\ntroubles: [{name: a, kind: multiplexed, start: 1m, length: 1m, share: .nan}]", "share: expected 0 to 1"),
    ("extends: calm\ntroubles: [{name: a, kind: device_remote, start: 1m, length: 1m, vm: web-1}]", "has no device"),
    ("extends: calm\ntroubles: [{name: a, kind: iothread_on_core, start: 1m, length: 1m, vm: web-1}]", "has no iothread"),
    ("extends: calm\ntroubles: [{name: a, kind: shared_cores, start: 1m, length: 1m, vm: web-1, cpus: '1-900'}]", "CPUs of 0 to 111"),
];

#[test]
fn what_is_impossible_is_refused_with_what_would_be_possible() {
    for (text, expected) in WRONG {
        let error = Scenario::parse("own", text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let vm = |keys: &str| {
        let workloads = "workloads: { any: { demand: 0.2, cpi: 1, cache_mpki: 1, exits: 1000 } }";
        let text = format!("{workloads}\nvms: [{{ {keys} }}]");
        Scenario::parse("own", &text).map_err(|error| error.to_string())
    };
    let good = "name: a, flavor: f, workload: any, vcpus: 1, memory_gib: 1, cpus: '5', pin: cpu";
    vm(good).expect("it is valid");
    for (from, to, expected) in [
        ("vcpus: 1", "vcpus: 0", "vcpus: expected 1 to 288"),
        ("vcpus: 1", "vcpus: -1", "expected u32"),
        ("cpus: '5'", "cpus: '5-'", "expected CPUs of 0 to 111"),
        ("cpus: '5'", "cpus: ''", "expected CPUs of 0 to 111"),
        ("name: a", "name: \"a\\nb\"", "control"),
        ("name: a", "name: ''", "non-empty text"),
        ("name: a", "name: a, count: 2", "expected {n} in it"),
        (
            "name: a",
            "name: 'a{n}', count: 4000000000",
            "expected at most 512",
        ),
        (
            "workload: any",
            "workload: none",
            "no workload named \"none\"",
        ),
        ("pin: cpu", "pin: glue", "unknown variant `glue`"),
        (
            "pin: cpu",
            "pin: cpu, memory_nodes: {2: 1}",
            "node 2 requires memory_node",
        ),
        (
            "pin: cpu",
            "pin: cpu, memory_nodes: {0: 0}",
            "expected a part above 0",
        ),
        (
            "pin: cpu",
            "pin: cpu, memory_nodes: {3: 1}",
            "node: expected 0 to 2",
        ),
        (
            "memory_gib: 1",
            "memory_gib: 99999999",
            "memory_gib: expected",
        ),
    ] {
        let error = vm(&good.replace(from, to)).expect_err(to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    let name = "x".repeat(200);
    assert!(vm(&good.replace("name: a", &format!("name: {name}"))).is_err());
}

#[test]
fn a_file_that_extends_itself_ends() {
    let dir = tempfile::tempdir().expect("there is room");
    let path = dir.path().join("loop.yaml");
    std::fs::write(&path, "extends: loop.yaml\n").expect("there is room");
    let error = Scenario::load(path.to_str().expect("it is text"));
    let error = error.expect_err("it has no end").to_string();
    assert!(error.contains("extends: more than 4 levels"), "{error}");
}

#[test]
fn a_real_host_does_not_say_that_it_is_synthetic() {
    let text = std::fs::read_to_string(root().join("tests/golden/xeon-2s.txt"));
    let shown = text.expect("the golden file exists");
    assert!(shown.contains("kvm_exporter_series"));
    assert!(!shown.contains("kvm_exporter_synthetic"));
}
