//! Real KVM guests with independent measurements: the exporter's totals must be between the
//! thread's own clocks and counters before and after its sample.
#![cfg(feature = "demo")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rustix::thread::{sched_setaffinity, CpuSet};
use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::topology::Topology;

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::run::{allowed_cpus, alone, eventually};

/// The scheduler updates a running thread's total at least once in this time: one tick of a kernel
/// with HZ=100.
const STALE: f64 = 0.010;

/// Figures of a vCPU thread in /proc: time on a core and delay in seconds, voluntary and
/// involuntary switches, migrations.
fn truth(vm: &MicroVm, index: usize) -> [f64; 5] {
    let dir = format!("/proc/{}/task/{}", vm.pid(), vm.tid(index));
    let text = std::fs::read_to_string(format!("{dir}/schedstat")).expect("it runs");
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|n| n.parse().expect("a number"))
        .collect();
    let sched = std::fs::read_to_string(format!("{dir}/sched")).unwrap_or_default();
    let field = |name: &str| {
        let line = sched.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit_once(':'));
        value
            .and_then(|(_, n)| n.trim().parse().ok())
            .unwrap_or(f64::NAN)
    };
    [
        numbers[0] / 1e9,
        numbers[1] / 1e9,
        field("nr_voluntary_switches"),
        field("nr_involuntary_switches"),
        field("se.nr_migrations"),
    ]
}

/// The exporter's figures, summed over locations.
fn account(exposition: &Exposition, vm: &str, vcpu: &str) -> [f64; 5] {
    let id = [("vm", vm), ("vcpu", vcpu)];
    let sum = |name: &str, more: &[(&str, &str)]| {
        let labels: Vec<_> = id.iter().chain(more).copied().collect();
        exposition.sum(name, &labels).unwrap_or(f64::NAN)
    };
    let switches = "kvm_vcpu_context_switches_total";
    [
        sum("kvm_vcpu_time_seconds_total", &[]),
        sum("kvm_vcpu_delay_seconds_total", &[]),
        sum(switches, &[("type", "voluntary")]),
        sum(switches, &[("type", "involuntary")]),
        sum("kvm_vcpu_migrations_total", &[]),
    ]
}

/// Requires the exporter's figures to be between the thread's before and after.
fn check_between(exporter: &Exporter, vm: &MicroVm, index: usize) -> Exposition {
    let name = vm.name();
    let before = truth(vm, index);
    let exposition = exporter.scrape_anew();
    let after = truth(vm, index);
    let account = account(&exposition, name, &index.to_string());
    let what = [
        "time",
        "delay",
        "voluntary switches",
        "involuntary switches",
        "migrations",
    ];
    for (n, what) in what.into_iter().enumerate() {
        let (low, high) = (before[n], after[n]);
        // A switch away from the core, and a migration while the thread waits, are read only when
        // the thread is on a core again.
        let low = if n < 2 { low } else { low - 1.0 };
        let is = account[n];
        assert!(
            low - 1e-6 <= is && is <= high + 1e-6,
            "{what} of {name}/{index}: {is} is not between {low} and {high}"
        );
    }
    exposition
}

fn until_seen(exporter: &Exporter, vm: &MicroVm, vcpus: f64) {
    let name = vm.name();
    exporter.until(|e| e.one("kvm_vm_vcpus", &[("vm", name)]) == Some(vcpus));
    // The sampler has read each of them once.
    exporter.until(|e| e.all("kvm_vcpu_placement_info", &[("vm", name)]).count() == vcpus as usize);
}

#[test]
fn time_and_switches_are_those_of_the_threads() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::start();
    let spin = MicroVm::start("truth-spin", Load::Spin, 2);
    let halt = MicroVm::start("truth-halt", Load::Halt, 1);
    until_seen(&exporter, &spin, 2.0);
    until_seen(&exporter, &halt, 1.0);
    for _ in 0..5 {
        check_between(&exporter, &spin, 0);
        check_between(&exporter, &spin, 1);
        check_between(&exporter, &halt, 0);
    }
}

#[test]
fn time_is_the_threads_own_cpu_clock() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::start();
    let mut vm = MicroVm::start("truth-clock", Load::Spin, 1);
    until_seen(&exporter, &vm, 1.0);
    for _ in 0..5 {
        let before = vm.vcpu_stats(0).1.cpu_ns as f64 / 1e9;
        let exposition = exporter.scrape_anew();
        let after = vm.vcpu_stats(0).1.cpu_ns as f64 / 1e9;
        let time = account(&exposition, vm.name(), "0")[0];
        assert!(
            before - STALE <= time && time <= after,
            "{before} <= {time} <= {after}"
        );
    }
}

#[test]
fn moves_land_on_the_right_place_and_no_series_goes_down() {
    let _alone = alone();
    let cpus = allowed_cpus();
    if cpus.len() < 2 {
        println!("skipped: one CPU leaves nowhere to move");
        return;
    }
    if !kvm_works() {
        return;
    }
    let topology = Topology::read(&Roots::default(), &Topology::default()).expect("sysfs");
    let exporter = Exporter::start();
    let mut vm = MicroVm::start("truth-move", Load::Spin, 1);
    until_seen(&exporter, &vm, 1.0);
    let name = vm.name().to_owned();
    let mut last = exporter.scrape();
    for round in 0..10 {
        let cpu = cpus[round % 2];
        vm.pin(0, cpu);
        let place = topology.place(cpu).expect("an online CPU has a place");
        let labels = [
            ("vm", name.clone()),
            ("package", place.package.to_string()),
            ("core", place.core.to_string()),
            ("numa_node", place.numa_node.to_string()),
        ];
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let on_cpu = cpu.to_string();
        exporter.until(|e| {
            let id = [("vm", name.as_str()), ("cpu", on_cpu.as_str())];
            e.one("kvm_vcpu_placement_info", &id) == Some(1.0)
        });
        let here = |e: &Exposition| e.sum("kvm_vcpu_time_seconds_total", &labels).unwrap_or(0.0);
        let before = here(&exporter.scrape());
        exporter.until(|e| here(e) > before);
        let now = check_between(&exporter, &vm, 0);
        assert_no_decrease(&last, &now, &name);
        last = now;
    }
    let moves = last.sum("kvm_vcpu_moves_total", &[("vm", &name)]);
    assert!(moves >= Some(9.0), "{moves:?}");
}

/// For one VM: other VMs of this machine can exit meanwhile.
fn assert_no_decrease(before: &Exposition, after: &Exposition, vm: &str) {
    let (before, after) = (before.counters(), after.counters());
    let label = format!("{:?}: {vm:?}", "vm");
    let ours = |series: &str| series.starts_with("kvm_vcpu_") && series.contains(&label);
    let mut compared = 0;
    for (series, was) in before.iter().filter(|(series, _)| ours(series)) {
        compared += 1;
        let is = after
            .get(series)
            .unwrap_or_else(|| panic!("{series} is gone"));
        assert!(is >= was, "{series} went from {was} to {is}");
    }
    assert!(compared > 0, "no counters of {vm}");
}

#[test]
fn a_starved_vcpu_shows_its_delay() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let cpu = allowed_cpus()[0];
    let exporter = Exporter::start();
    let mut vm = MicroVm::start("truth-delay", Load::Spin, 1);
    vm.pin(0, cpu);
    until_seen(&exporter, &vm, 1.0);
    let over = Arc::new(AtomicBool::new(false));
    let until = over.clone();
    let competitor = std::thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(cpu as usize);
        sched_setaffinity(None, &set).expect("pinned");
        while !until.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let start = truth(&vm, 0)[1];
    let starved = eventually(|| (truth(&vm, 0)[1] > start + 0.3).then_some(()));
    let exposition = check_between(&exporter, &vm, 0);
    over.store(true, Ordering::Relaxed);
    competitor.join().expect("the competitor ends");
    assert!(starved.is_some(), "two threads on one CPU and none waited");
    let delay = account(&exposition, vm.name(), "0")[1];
    assert!(delay >= start + 0.3, "{delay}");
}

#[test]
fn vms_and_vcpus_come_and_go() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::start();
    let mut vm = MicroVm::start("truth-come", Load::Halt, 1);
    until_seen(&exporter, &vm, 1.0);
    vm.add_vcpu();
    until_seen(&exporter, &vm, 2.0);
    check_between(&exporter, &vm, 1);
    let name = vm.name().to_owned();
    vm.stop();
    exporter.until(|e| e.all("kvm_vm_info", &[("vm", &name)]).count() == 0);
    assert!(!exporter.scrape().text.contains(&name));
}

/// Set in a test that runs in its own PID namespace.
const INSIDE: &str = "VCPU_EXPORTER_TESTS_PID_NAMESPACE";

/// Runs a test of this program again in its own PID namespace, where no other process takes the
/// next PID and `kernel.ns_last_pid` is not the machine's; prints why if it cannot.
fn in_pid_namespace(test: &str) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let program = std::env::current_exe().expect("this program has a path");
    let output = unshare
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "")
        .output();
    match output {
        Err(error) => println!("skipped: cannot run unshare (apt-get install util-linux): {error}"),
        Ok(output) => {
            let all = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&all);
            match output.status.code() {
                Some(0) => assert!(said.contains("1 passed"), "{test} did not run:\n{said}"),
                // Exit status of a failed unshare.
                Some(1) => println!("skipped: no PID namespace can be made: {said}"),
                _ => panic!("{test} in a PID namespace: {}\n{said}", output.status),
            }
        }
    }
}

#[test]
fn a_pid_used_again_is_another_vm() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        return in_pid_namespace("truth::a_pid_used_again_is_another_vm");
    }
    let exporter = Exporter::start();
    let first = MicroVm::start("truth-first", Load::Spin, 1);
    until_seen(&exporter, &first, 1.0);
    let pid = first.pid();
    drop(first);
    let second = eventually(|| {
        // The next task gets the number after this one (kernel/pid_namespace.c,
        // pid_ns_ctl_handler).
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
            .expect("it is this namespace's own");
        let vm = MicroVm::start("truth-second", Load::Spin, 1);
        (vm.pid() == pid).then_some(vm)
    });
    let second = second.expect("the kernel gives the PID again");
    until_seen(&exporter, &second, 1.0);
    let exposition = check_between(&exporter, &second, 0);
    assert!(!exposition.text.contains("truth-first"));
}

/// Open descriptors and resident bytes of the exporter.
fn used(e: &Exposition) -> [f64; 2] {
    ["process_open_fds", "process_resident_memory_bytes"]
        .map(|name| e.one(name, &[]).expect("it is always there"))
}

/// Resources that the exporter may hold for VMs of other processes now.
fn for_others(e: &Exposition) -> [f64; 2] {
    let vcpus = e.all("kvm_vcpu_placement_info", &[]).count() as f64;
    [32.0 * vcpus, 1e5 * vcpus]
}

/// Descriptors of a running scrape and of the previous one.
const CONNECTIONS: f64 = 2.0;

/// Bytes that the allocator may keep.
const KEPT: f64 = 4e6;

#[test]
fn two_hundred_vms_leave_nothing_behind() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    // A huge page that the kernel assigns later is not a leak. The exporter inherits this setting.
    rustix::thread::disable_transparent_huge_pages(true).expect("a process may go without");
    let exporter = Exporter::start();
    rustix::thread::disable_transparent_huge_pages(false).expect("a process may have them");
    let mut first_round = None;
    for round in 0..10 {
        let vms: Vec<MicroVm> = (0..20)
            .map(|n| MicroVm::start(&format!("churn-{round}-{n}"), Load::Halt, 1))
            .collect();
        let names: BTreeSet<&str> = vms.iter().map(MicroVm::name).collect();
        exporter.until(|e| {
            let placed = e.all("kvm_vcpu_placement_info", &[]);
            placed.filter(|s| names.contains(s.label("vm"))).count() == 20
        });
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        drop(vms);
        exporter.until(|e| !names.iter().any(|name| e.text.contains(name)));
        // The first round brings every buffer to its full size, and each later round must return to
        // this level; other VMs of this machine start and exit at any time.
        let passes = |e: &Exposition| e.one("kvm_exporter_inventory_passes_total", &[]);
        let now = passes(&exporter.scrape()).expect("it is always there");
        let settled = exporter.until(|e| {
            let (used, others) = (used(e), for_others(e));
            let first = first_round.unwrap_or(used);
            // The figures are read once per inventory pass.
            passes(e) > Some(now + 1.0)
                && used[0] <= first[0] + CONNECTIONS + others[0]
                && used[1] <= first[1] + KEPT + others[1]
        });
        first_round.get_or_insert(used(&settled));
    }
}
