//! Each source on the fixture machines.

mod cpu_time;
mod logged;

use super::cpu_time::CpuTime;
use super::kernel_log::Log;
use super::numa::Numa;
use super::thermal::Thermal;
use super::*;
use crate::engine::{Fact, HostSource, Origin, SourceState};
use crate::fake_host::{FakeHost, NodeMemory};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::FactValue;

fn roots(host: &FakeHost) -> Roots {
    Roots::below(host.root())
}

fn xeon() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(2, 4, 2, 1).xeon_server();
    host
}

fn epyc() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(2, 8, 2, 4).epyc_server();
    host
}

fn hybrid() -> FakeHost {
    let host = FakeHost::new();
    host.hybrid(2, 4).hybrid_client();
    host
}

/// A source under test, and the host it reads.
struct Watched<'a, R> {
    host: &'a FakeHost,
    roots: Roots,
    reader: R,
    topology: Topology,
    state: SourceState,
}

impl<'a, R: HostSource> Watched<'a, R> {
    fn new(host: &'a FakeHost, reader: R) -> Self {
        Self {
            host,
            roots: roots(host),
            reader,
            topology: Topology::default(),
            state: SourceState::Up,
        }
    }

    /// One read, as `metric{label="value"} number` without `kvm_host_`.
    fn read(&mut self) -> Vec<String> {
        self.topology = Topology::read(&roots(self.host), &self.topology).unwrap();
        let found = self.reader.read(&self.roots, &self.topology);
        self.state = found.state();
        found.facts.iter().map(line).collect()
    }

    fn code(&self) -> &'static str {
        self.state.code()
    }
}

fn line(fact: &Fact) -> String {
    let metric = fact.metric;
    let labels = fact.labels.iter().map(|(name, value)| {
        assert!(
            metric.own_labels.contains(name),
            "{name} of {}",
            metric.name
        );
        format!("{name}={value}")
    });
    let labels = labels.collect::<Vec<_>>().join(",");
    let value = match &fact.value {
        FactValue::Int(n) => n.to_string(),
        FactValue::Nanoseconds(n) => format!("{}s", *n as f64 / 1e9),
        FactValue::Float(x) => x.to_string(),
        FactValue::Histogram(_) => panic!("{fact:?}"),
    };
    let name = metric.name.strip_prefix("kvm_host_").unwrap();
    format!("{name}{{{labels}}} {value}")
}

#[track_caller]
fn assert_has(lines: &[String], expected: &[&str]) {
    for line in expected {
        assert!(lines.iter().any(|l| l == line), "no {line} in {lines:#?}");
    }
}

#[track_caller]
fn assert_lacks(lines: &[String], part: &str) {
    let found = lines.iter().find(|line| line.contains(part));
    assert_eq!(found, None);
}

#[test]
fn core_frequency_is_the_highest_of_its_threads() {
    let host = xeon();
    let lines = Watched::new(&host, frequency::read).read();
    assert_eq!(lines.len(), 8 * 4);
    assert_has(
        &lines,
        &[
            "core_frequency_hertz{package=0,core=3} 2900003000",
            "core_frequency_min_hertz{package=0,core=3} 800000000",
            "core_frequency_max_hertz{package=1,core=0} 3500000000",
            "core_frequency_base_hertz{package=1,core=0} 2400000000",
        ],
    );
}

#[test]
fn base_frequency_of_amd_is_from_cppc_and_of_a_hybrid_unknown() {
    let base = "core_frequency_base_hertz{package=1,core=7} 2450000000";
    assert_has(&Watched::new(&epyc(), frequency::read).read(), &[base]);
    let host = hybrid();
    let lines = Watched::new(&host, frequency::read).read();
    assert_lacks(&lines, "base");
    assert_has(
        &lines,
        &[
            "core_frequency_max_hertz{package=0,core=0} 5200000000",
            "core_frequency_max_hertz{package=0,core=8} 3900000000",
        ],
    );
}

#[test]
fn throttling_is_counted_from_boot() {
    let host = xeon();
    let topology = Topology::read(&roots(&host), &Topology::default()).unwrap();
    let facts = Thermal::default().read(&roots(&host), &topology).facts;
    let counters = facts
        .iter()
        .filter(|fact| fact.metric.name.ends_with("_total"));
    let origins: Vec<Origin> = counters.map(|fact| fact.origin).collect();
    assert_eq!(origins, vec![Origin::Boot; 2 * (8 + 2)]);
}

#[test]
fn driver_without_frequency_gives_none() {
    let host = xeon();
    for cpu in 0..16 {
        let file = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq");
        host.file(file, if cpu < 8 { "0\n" } else { "<unknown>\n" });
    }
    let mut watched = Watched::new(&host, frequency::read);
    let lines = watched.read();
    assert_lacks(&lines, "core_frequency_hertz");
    assert_eq!((lines.len(), watched.code()), (8 * 3, "no_cpufreq"));
}

#[test]
fn event_counted_by_both_threads_counts_once() {
    let host = xeon();
    let mut watched = Watched::new(&host, Thermal::default());
    let lines = watched.read();
    assert_eq!(lines.len(), 2 * 8 + 2 * 2 + 2);
    assert_has(
        &lines,
        &[
            "core_throttles_total{package=0,core=2} 3",
            "core_throttled_seconds_total{package=0,core=2} 1.2s",
            "core_throttles_total{package=0,core=1} 0",
            "package_throttles_total{package=0} 7",
            "package_throttled_seconds_total{package=0} 4.5s",
            "temperature_celsius{package=0} 61",
            "temperature_celsius{package=1} 65.5",
        ],
    );
    // The thread that counted goes offline; the other comes back with a reset counter.
    host.online("0-1,3-15").throttles(10, [1, 5], [8, 9]);
    let lines = watched.read();
    assert_has(&lines, &["core_throttles_total{package=0,core=2} 4"]);
}

/// coretemp numbers the dies of the machine, independent of package IDs
/// (`topology_logical_die_id`).
#[test]
fn die_temperature_belongs_to_its_package() {
    let host = FakeHost::new();
    host.cpus(2, 4, 1, 1);
    for cpu in 0..8 {
        let package = format!("sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id");
        host.file(package, if cpu < 4 { "0\n" } else { "3\n" });
        host.die(cpu, cpu / 2 % 2);
    }
    for (die, millidegrees) in [(0, 40_000), (1, 45_000), (2, 70_000), (3, 60_000)] {
        let label = format!("Package id {die}");
        host.sensor(
            die,
            "coretemp",
            &format!("coretemp.{die}"),
            &[(&label, millidegrees)],
        );
    }
    let mut watched = Watched::new(&host, Thermal::default());
    let expected = [
        "temperature_celsius{package=0} 45",
        "temperature_celsius{package=3} 70",
    ];
    assert_eq!(watched.read(), expected);
}

#[test]
fn amd_packages_follow_the_order_of_their_devices() {
    let host = epyc();
    let mut watched = Watched::new(&host, Thermal::default());
    let lines = watched.read();
    let expected = [
        "temperature_celsius{package=0} 55.875",
        "temperature_celsius{package=1} 71.25",
    ];
    assert_eq!(
        (lines, watched.code()),
        (expected.map(String::from).into(), "")
    );
    // Three devices on two packages cannot be attributed.
    host.sensor(3, "k10temp", "0000:00:1a.3", &[("Tctl", 1000)]);
    assert_eq!(watched.read().len(), 0);
    assert_eq!(watched.code(), "no_sensor");
}

#[test]
fn memory_states_of_a_node_add_up_to_its_total() {
    let host = xeon();
    let mut watched = Watched::new(&host, Numa::default());
    let lines = watched.read();
    assert_has(
        &lines,
        &[
            "numa_distance{from=0,to=1} 21",
            "numa_distance{from=1,to=1} 10",
            "hugepages{numa_node=1,size=2m,state=free} 24",
            "hugepages{numa_node=1,size=2m,state=used} 1000",
            "hugepages{numa_node=0,size=1g,state=used} 12",
            "numa_memory_bytes{numa_node=0,state=hugetlb} 19327352832",
        ],
    );
    let of_node = lines
        .iter()
        .filter(|l| l.starts_with("numa_memory_bytes{numa_node=1"));
    let bytes = of_node.map(|l| l.split(' ').nth(1).unwrap().parse::<u64>().unwrap());
    assert_eq!(bytes.sum::<u64>(), 64 << 30);
    assert_eq!(watched.code(), "");
}

#[test]
fn allocations_count_from_boot_and_never_decrease() {
    let host = xeon();
    let mut watched = Watched::new(&host, Numa::default());
    let of = |lines: &[String], outcome: &str| {
        let name = format!("numa_allocations_total{{numa_node=1,outcome={outcome}}} ");
        let value = |line: &String| line.strip_prefix(&name).map(str::to_owned);
        lines.iter().find_map(value)
    };
    let lines = watched.read();
    let outcomes = [
        "hit",
        "miss",
        "foreign",
        "interleave_hit",
        "local_node",
        "other_node",
    ];
    let reported = outcomes.map(|outcome| of(&lines, outcome).unwrap());
    assert_eq!(reported, ["9000001", "100", "0", "1134", "8999000", "1000"]);
    // The node went offline and came back.
    host.numastat(1, [7, 0, 0, 0, 7, 0]);
    assert_eq!(of(&watched.read(), "hit").unwrap(), "9000008");
    host.file("sys/devices/system/node/node1/numastat", "numa_hit 5\n");
    assert_eq!(of(&watched.read(), "hit"), None, "unknown is absent");
    assert_eq!(watched.code(), "");
}

#[test]
fn negative_rest_is_unknown() {
    let host = epyc();
    let memory = NodeMemory {
        total: 100,
        free: 60,
        anon: 60,
        file: 0,
        shmem: 0,
        slab: 0,
    };
    host.node_memory(3, memory);
    let lines = Watched::new(&host, Numa::default()).read();
    assert_has(&lines, &["numa_memory_bytes{numa_node=3,state=anon} 61440"]);
    assert_lacks(&lines, "numa_node=3,state=other");
    assert_has(
        &lines,
        &[
            "numa_distance{from=0,to=3} 12",
            "numa_distance{from=0,to=4} 32",
        ],
    );
}

#[test]
fn distances_that_do_not_match_the_nodes_are_omitted() {
    let host = xeon();
    host.distance(0, "10 21 31");
    let lines = Watched::new(&host, Numa::default()).read();
    assert_lacks(&lines, "from=0");
    assert_has(&lines, &["numa_distance{from=1,to=0} 21"]);
}

fn feature(lines: &[String], name: &str) -> Option<bool> {
    let start = format!("cpu_feature{{feature={name}}} ");
    let value = lines.iter().find_map(|line| line.strip_prefix(&start))?;
    Some(value == "1")
}

#[test]
fn features_are_listed_missing_or_unknown() {
    let [xeon, epyc, hybrid] =
        [xeon(), epyc(), hybrid()].map(|host| Watched::new(&host, features::read).read());
    let of = |name: &str| [&xeon, &epyc, &hybrid].map(|lines| feature(lines, name));
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(of("vmx"), [yes, no, yes]);
    assert_eq!(of("ept"), [yes, no, yes]);
    assert_eq!(of("npt"), [no, yes, no]);
    assert_eq!(of("intel_pt"), [yes, no, yes]);
    assert_eq!(of("sev_snp"), [no, yes, no]);
    assert_eq!(of("smep"), [yes; 3]);
    assert_eq!(of("apicv"), [yes, no, no]);
    // Before Linux 5.6 there is no separate line for VMX features.
    let host = FakeHost::new();
    host.cpuinfo(&[("flags", "vmx ept")]);
    let old = Watched::new(&host, features::read).read();
    assert_eq!(feature(&old, "apicv"), None);
    assert_eq!(feature(&old, "ept"), yes);
}

#[test]
fn arm_machine_has_no_features_with_a_reason() {
    let host = FakeHost::new();
    host.cpuinfo(&[("CPU implementer", "0x41"), ("Features", "fp asimd sve")]);
    let mut watched = Watched::new(&host, features::read);
    assert_eq!(watched.read().len(), 0);
    assert_eq!(watched.code(), "not_x86");
}

#[test]
fn only_parameters_of_kvm_are_reported() {
    let host = epyc();
    host.parameter("kvmgt", "x", "1")
        .parameter("nvme", "y", "2");
    let mut watched = Watched::new(&host, parameters::read);
    let lines = watched.read();
    assert_eq!(lines.len(), 6);
    let avic = "kvm_parameter_info{module=kvm_amd,parameter=avic,value=Y} 1";
    assert_has(&lines, &[avic]);
    let long = "x\u{7}".repeat(200);
    host.parameter("kvm", "odd", &long);
    let odd = watched
        .read()
        .into_iter()
        .find(|l| l.contains("odd"))
        .unwrap();
    assert!(odd.len() < 250 && !odd.contains('\u{7}'), "{odd}");
    host.remove("sys/module");
    assert_eq!((watched.read().len(), watched.code()), (0, "no_kvm"));
}

#[test]
fn a_vulnerability_has_one_state() {
    let lines = Watched::new(&xeon(), vulnerabilities::read).read();
    let expected = [
        "vulnerability_info{vulnerability=itlb_multihit,state=mitigated,detail=Split huge pages} 1",
        "vulnerability_info{vulnerability=meltdown,state=not_affected,detail=} 1",
        "vulnerability_info{vulnerability=mmio_stale_data,state=mitigated,\
         detail=Clear CPU buffers; SMT vulnerable} 1",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn system_reports_versions_smt_and_isolated_cpus() {
    let host = xeon();
    host.cpuinfo(&[("model name", "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz")]);
    let lines = Watched::new(&host, system::read).read();
    assert_eq!(lines.len(), 2 + 16);
    assert_has(
        &lines,
        &[
            "info{kernel=6.12.43+deb13-amd64,microcode=0xd0003f6,\
             cpu_model=Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz} 1",
            "smt_active{} 1",
            "cpu_isolated{cpu=1} 0",
            "cpu_isolated{cpu=11} 1",
        ],
    );
}

#[test]
fn empty_machine_gives_reasons() {
    let host = FakeHost::new();
    host.remove("sys/devices/system/node");
    let codes = [
        empty(&host, CpuTime::default()),
        empty(&host, frequency::read),
        empty(&host, Thermal::default()),
        empty(&host, Numa::default()),
        empty(&host, features::read),
        empty(&host, parameters::read),
        empty(&host, vulnerabilities::read),
        empty(&host, system::read),
        empty(&host, Log::default()),
    ];
    let expected = [
        "unreadable",
        "no_cpufreq",
        "no_sensor",
        "no_numa",
        "unreadable",
        "no_kvm",
        "unreadable",
        "no_data",
        "no_kmsg",
    ];
    assert_eq!(codes, expected);
}

fn empty(host: &FakeHost, reader: impl HostSource) -> &'static str {
    let mut watched = Watched::new(host, reader);
    assert_eq!(watched.read(), [""; 0]);
    assert!(matches!(watched.state, SourceState::Down(_)));
    watched.code()
}
