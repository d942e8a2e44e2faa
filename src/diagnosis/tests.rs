//! Views of hand-built hosts: two nodes, each a package of two cores with two threads.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::demand::OfCpu;
use crate::engine::reading::Unit;
use crate::host::topology::{Cpu, Place};
use crate::metric::FactValue;
use crate::snapshot::fixture::{column, empty, labels};
use crate::snapshot::CpuRow;

mod locality;
mod rules;
mod suspects;

/// CPUs n and n + 4 are threads of core n; cores 0 and 1 belong to node 0.
fn place(cpu: u32) -> Place {
    let core = cpu % 4;
    Place {
        package: (core / 2) as i32,
        core: (core % 2) as i32,
        numa_node: core / 2,
    }
}

/// Activity of a vCPU per second: ms on a core, ms of delay, millions of guest instructions, CPI,
/// cache misses per 1000 instructions, exits.
#[derive(Clone, Copy)]
struct Did {
    cpu: u32,
    time: u64,
    delay: u64,
    cpi: f64,
    mpki: f64,
    exits: u64,
}

impl Default for Did {
    fn default() -> Self {
        Self {
            cpu: 0,
            time: 500,
            delay: 0,
            cpi: 1.0,
            mpki: 1.0,
            exits: 1000,
        }
    }
}

impl Did {
    fn on(cpu: u32) -> Self {
        Self {
            cpu,
            ..Self::default()
        }
    }

    fn totals(self, seconds: u64) -> Vec<u64> {
        let instructions = 1_000_000 * seconds;
        vec![
            self.time * 1_000_000 * seconds,
            self.delay * 1_000_000 * seconds,
            (instructions as f64 * self.cpi) as u64,
            instructions,
            (instructions as f64 / 1000.0 * self.mpki) as u64,
            self.exits * seconds,
        ]
    }
}

type Pairs = Vec<(&'static str, &'static str)>;

struct Host {
    vms: Vec<(&'static str, Pairs, Vec<Did>)>,
    /// Facts in the base and the latest snapshot.
    facts: Vec<(&'static str, Pairs, [f64; 2])>,
}

/// Time of the base and the latest snapshot, seconds.
const TAKEN: [u64; 2] = [60, 68];

impl Host {
    fn new(vms: &[(&'static str, Vec<Did>)]) -> Self {
        let vms = vms.iter();
        Self {
            vms: vms
                .map(|(name, did)| (*name, vec![], did.clone()))
                .collect(),
            facts: Vec::new(),
        }
    }

    fn fact(
        mut self,
        metric: &'static str,
        labels: &[(&'static str, &'static str)],
        values: [f64; 2],
    ) -> Self {
        self.facts.push((metric, labels.to_vec(), values));
        self
    }

    fn snapshot(&self, start: Instant, after: u64) -> Snapshot {
        let mut snapshot = empty(start, Duration::from_secs(after)).on((0..8).map(cpu).collect());
        let guest = [("mode", "guest")];
        snapshot.placed = Arc::new([
            column("kvm_vcpu_time_seconds_total", &[], Unit::Nanoseconds),
            column("kvm_vcpu_delay_seconds_total", &[], Unit::Nanoseconds),
            column("kvm_vcpu_cycles_total", &guest, Unit::Count),
            column("kvm_vcpu_instructions_total", &guest, Unit::Count),
            column("kvm_vcpu_cache_misses_total", &guest, Unit::Count),
            column("kvm_vcpu_exits_total", &[("reason", "hlt")], Unit::Count),
        ]);
        let mut wanted = [OfCpu::default(); 8];
        for (name, info, vcpus) in &self.vms {
            snapshot.add_vm(name, info);
            for did in vcpus {
                let totals = did.totals(after);
                wanted[did.cpu as usize].time += totals[0];
                wanted[did.cpu as usize].delay += totals[1];
                snapshot.add_vcpu(&[(did.cpu, place(did.cpu), &totals)], &[]);
            }
        }
        let row = |(n, demand): (u32, OfCpu)| CpuRow {
            cpu: n,
            labels: labels(&[("cpu", &n.to_string())]),
            demand,
        };
        snapshot.demand = (0..).zip(wanted).map(row).collect();
        snapshot
    }

    fn view(&self) -> View {
        let start = Instant::now();
        let mut newest = self.snapshot(start, TAKEN[1]);
        let facts = |n: usize, after| {
            let mut snapshot = empty(start, Duration::from_secs(after));
            for (metric, labels, values) in &self.facts {
                snapshot.add_fact(metric, labels, FactValue::Float(values[n]));
            }
            snapshot.facts
        };
        (newest.facts_before, newest.facts) = (facts(0, 20), facts(1, 60));
        let now = newest.taken_mono + Duration::from_millis(1500);
        View::new(&self.snapshot(start, TAKEN[0]), &newest, now)
    }
}

fn cpu(id: u32) -> Cpu {
    Cpu {
        id,
        place: place(id),
        siblings: vec![id % 4, id % 4 + 4],
        ids: Default::default(),
        core_type: Default::default(),
        llc: Some(place(id).numa_node),
        online: true,
    }
}

fn close(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-6)
}

fn troubles(vm: &VmView) -> Vec<Cause> {
    vm.trouble().map(|cause| cause.cause).collect()
}

#[test]
fn numbers_are_rates_and_ratios_of_the_window() {
    let busy = Did {
        delay: 125,
        cpi: 2.5,
        ..Did::on(5)
    };
    let view = Host::new(&[("a", vec![Did::on(1), busy])]).view();
    assert_eq!((view.age, view.window), (1.5, 8.0));
    let vm = &view.vms[0];
    let [calm, waits] = [0, 1].map(|n| &vm.vcpus[n].numbers);
    assert!(close(calm.time, 0.5) && close(calm.delay_ratio, 0.0));
    assert!(close(waits.delay, 0.125) && close(waits.delay_ratio, 0.2));
    assert!(close(waits.cpi, 2.5) && close(waits.cache_mpki, 1.0));
    assert!(close(vm.numbers.cpi, 1.75) && close(vm.numbers.exits, 2000.0));
    assert!(close(vm.numbers.delay_ratio, 125.0 / 1125.0));
    assert_eq!(vm.numbers.migrations, None, "not counted");
    let core = &view.nodes[0].cores[1];
    assert!(close(core.demand, 1.125) && close(view.host.demand, 1.125));
    let seen: Vec<_> = core
        .threads
        .iter()
        .map(|t| (t.cpu, t.vcpus.len()))
        .collect();
    assert_eq!(seen, [(1, 1), (5, 1)]);
    assert_eq!(core.threads[1].vcpus[0], Tenant { vm: 0, vcpu: 1 });
}

#[test]
fn nothing_is_known_before_the_second_tick() {
    let snapshot = Host::new(&[("a", vec![Did::on(1)])]).snapshot(Instant::now(), 60);
    let view = View::new(&snapshot, &snapshot, snapshot.taken_mono);
    let vm = &view.vms[0];
    assert_eq!(vm.numbers, Numbers::default());
    assert_eq!(vm.vcpus[0].numbers, Numbers::default());
    assert_eq!(
        (vm.memory_remote, vm.throttled, vm.nodes_used),
        (None, None, None)
    );
    assert_eq!((vm.causes.len(), vm.verdict.as_str()), (0, ""));
    assert_eq!(view.host.demand, None);
    let handle = Handle::default();
    assert!(View::latest(&handle, Instant::now()).is_none());
    handle.publish(Arc::new(snapshot));
    assert!(View::latest(&handle, Instant::now()).is_some());
}

#[test]
fn a_calm_host_has_no_troubles() {
    let view = Host::new(&[("a", vec![Did::on(0), Did::on(1)]), ("b", vec![Did::on(2)])]).view();
    for vm in &view.vms {
        assert!(troubles(vm).is_empty() && vm.verdict.is_empty(), "{vm:?}");
        assert!(!vm.causes.is_empty(), "all causes are known");
    }
}

#[test]
fn io_thread_on_the_core_of_a_vcpu_is_reported() {
    let waits = Did {
        delay: 306,
        ..Did::on(0)
    };
    let io = [
        ("vm", "db"),
        ("role", "iothread"),
        ("package", "0"),
        ("core", "0"),
    ];
    let host = Host::new(&[("db", vec![waits, Did::on(1), Did::on(2)])]);
    let view = host
        .fact("kvm_vm_thread_time_seconds_total", &io, [10.0, 30.0])
        .view();
    let vm = &view.vms[0];
    assert!(close(vm.io_time, 0.5) && close(vm.io_on_its_cores, 0.5));
    assert!(close(vm.vcpus[1].io_on_core, 0.0));
    assert_eq!(troubles(vm), [Cause::Delay, Cause::Starved]);
    assert_eq!(
        vm.verdict,
        "vCPU 0 waits 38\u{a0}% of the time it wants to run: I/O threads of the same VM use 0.50 of \
         core 0/0."
    );
}

#[test]
fn equal_use_of_a_core_blames_no_vm() {
    let waits = Did {
        time: 300,
        delay: 300,
        ..Did::on(0)
    };
    let view = Host::new(&[("a", vec![waits]), ("b", vec![waits]), ("c", vec![waits])]).view();
    assert!(view.vms[0]
        .verdict
        .ends_with(": it shares core 0/0 with b and c."));
    assert!(view.vms.iter().all(|vm| vm.pushes.is_empty()));
    let view = Host::new(&[("a", vec![waits, waits])]).view();
    assert!(view.vms[0]
        .verdict
        .ends_with(": 2 of its own vCPUs run on the same CPU."));
}

#[test]
fn quota_is_reported_instead_of_its_delay() {
    let waits = Did {
        delay: 400,
        ..Did::on(0)
    };
    let level = [("vm", "ci"), ("level", "vm")];
    let host = Host::new(&[("ci", vec![waits])])
        .fact("kvm_vm_cpu_quota_cores", &level, [0.5, 0.5])
        .fact("kvm_vm_cpu_periods_total", &level, [100.0, 500.0])
        .fact("kvm_vm_cpu_throttled_periods_total", &level, [0.0, 240.0])
        .fact(
            "kvm_vm_cpu_throttled_seconds_total",
            &level,
            [0.0, 0.4 * 40.0],
        );
    let vm = &host.view().vms[0];
    assert_eq!(troubles(vm), [Cause::Quota]);
    assert_eq!(
        vm.verdict,
        "Its CPU quota of 0.5 cores takes 44\u{a0}% of the time it wants to run."
    );
}

#[test]
fn peers_share_a_name_but_for_its_number_and_leave_the_vm_itself_out() {
    // The last VM has the same size, but does other work.
    let names = ["web-1", "web-2", "web-3", "web-4", "web-5", "orders"];
    let cpi = |cpi| vec![Did { cpi, ..Did::on(0) }];
    let of_name = |name| match name {
        "web-3" => 2.0,
        "orders" => 3.0,
        _ => 1.0,
    };
    let mut host = Host::new(&names.map(|name| (name, cpi(of_name(name)))));
    for vm in &mut host.vms {
        vm.1 = vec![("openstack_flavor", "m1.small")];
    }
    let peers = |cause| {
        let view = host.view();
        let troubled = view.vms.iter().filter(|vm| troubles(vm).contains(&cause));
        troubled.map(|vm| vm.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(peers(Cause::CpiPeers), ["web-3"]);
    host.vms[0].1 = vec![("openstack_name", "web-1"), ("openstack_project_id", "p")];
    let known = |vm: &VmView| vm.causes.iter().any(|c| c.cause == Cause::CpiPeers);
    assert!(
        !host.view().vms.iter().any(known),
        "three peers are too few"
    );
}

#[test]
fn a_storm_of_misses_is_one_against_peers_and_who_makes_it_is_named() {
    let misses = |mpki| vec![Did { mpki, ..Did::on(0) }];
    let names = ["a1", "a2", "a3", "a4", "a5", "z"];
    let host = Host::new(&names.map(|name| match name {
        "a3" => (name, misses(20.0)),
        "z" => (name, misses(40.0)),
        _ => (name, misses(2.0)),
    }));
    let view = host.view();
    let cause = |n: usize| view.vms[n].causes.iter().find(|c| c.cause == Cause::Cache);
    let storm = cause(2).unwrap();
    assert_eq!((storm.observed, storm.threshold), (20.0, 10.0));
    assert_eq!(
        storm.text,
        "20 cache misses per 1000 instructions (limit 10); z misses most in the same cache"
    );
    assert!(cause(0).is_some_and(|c| c.score < 1.0));
    assert!(cause(5).is_none(), "a VM without peers is not compared");
}

#[test]
fn siblings_hot_packages_and_exits_are_seen() {
    let full = |cpu| Did {
        time: 990,
        exits: 80_000,
        ..Did::on(cpu)
    };
    // Both threads of core 0 are busy, while core 1 of the node is idle enough.
    let mut host = Host::new(&[("a", vec![full(0)]), ("b", vec![Did::on(4)])]).fact(
        "kvm_host_package_throttled_seconds_total",
        &[("package", "0")],
        [0.0, 10.0],
    );
    let view = host.view();
    let vm = &view.vms[0];
    assert!(close(vm.smt_shared, 0.98 / 1.49) && close(vm.hot, 0.25));
    assert!(close(view.nodes[0].cores[1].throttled, 0.25));
    assert_eq!(view.nodes[1].cores[0].throttled, None);
    let mut seen = troubles(vm);
    seen.sort_by_key(|cause| Cause::ALL.iter().position(|c| c == cause));
    assert_eq!(seen, [Cause::Smt, Cause::Throttling, Cause::Exits]);
    // Without an idle core, SMT contention is not avoidable.
    host.vms.push(("c", vec![], vec![full(1), full(5)]));
    assert!(!troubles(&host.view().vms[0]).contains(&Cause::Smt));
}

#[test]
fn a_view_is_read_back_as_it_was_written() {
    let view = Host::new(&[("a", vec![Did::on(0)])]).view();
    let json = serde_json::to_string(&view).unwrap();
    let back: View = serde_json::from_str(&json).unwrap();
    assert_eq!(back.vms[0].vcpus, view.vms[0].vcpus);
    assert!(json.contains(r#""cause":"delay""#) && json.contains(r#""cpi":1.0"#));
}
