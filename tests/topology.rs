//! Machines with repeated `core_id`s within a package, and with NUMA nodes without CPUs.
#![cfg(feature = "fixtures")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use crate::support::exposition::Exposition;
use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::diagnosis::{Cause, View};
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::fake_host::{Block, FakeHost, FakeVm, UUID_A};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::snapshot::Snapshot;
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::telemetry::Telemetry;

fn pipeline(host: &FakeHost) -> Pipeline {
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    let counters = Arc::new(Scripted::default());
    Pipeline::new(&Config::default(), roots, counters, 0, telemetry).unwrap()
}

/// The only vCPU of a VM ran on this CPU for another second.
fn run(host: &FakeHost, vm: &FakeVm, cpu: u32) {
    host.set(vm.pid, vm.vcpus[0], |t| {
        (t.cpu, t.cpus_allowed) = (cpu, "0-31".into());
        (t.run, t.timeslices) = (t.run + 1_000_000_000, t.timeslices + 1);
    });
}

fn tick(pipeline: &mut Pipeline) -> Arc<Snapshot> {
    pipeline.pass();
    pipeline.tick();
    pipeline.snapshots().load().unwrap()
}

fn exposition(snapshot: &Snapshot) -> Exposition {
    let mut text = Vec::new();
    encode_snapshot(
        Format::OpenMetrics,
        snapshot,
        snapshot.taken_mono,
        &mut text,
    );
    Exposition::parse(&String::from_utf8(text).unwrap())
}

/// Values of a label in all samples of a metric with these labels.
fn values(
    seen: &Exposition,
    metric: &str,
    labels: &[(&str, &str)],
    label: &str,
) -> BTreeSet<String> {
    let values = seen.all(metric, labels).map(|sample| sample.label(label));
    values
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The report of `check`.
fn check(host: &FakeHost) -> String {
    let root = host.root().display();
    let roots = ["proc", "sys"].map(|name| format!("--path.{name}fs={root}/{name}"));
    let mut check = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"));
    let output = check.arg("check").args(roots).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The counts in `check`.
fn machine_of(host: &FakeHost) -> String {
    let report = check(host);
    let mut lines = report.lines();
    lines
        .find(|line| line.starts_with("host "))
        .unwrap()
        .to_owned()
}

#[test]
fn two_busy_vcpus_on_cores_of_one_id_share_no_core() {
    let host = FakeHost::new();
    host.rk3588();
    let vms = [host.qemu(1000, "a", "", 1), host.qemu(2000, "b", "", 1)];
    let mut pipeline = pipeline(&host);
    let mut second = || {
        run(&host, &vms[0], 0);
        run(&host, &vms[1], 4);
        tick(&mut pipeline)
    };
    let base = second();
    second();
    let newest = second();

    let seen = exposition(&newest);
    assert_eq!(values(&seen, "kvm_host_cpu_info", &[], "core").len(), 8);
    let of_cpu = [("cpu", "4")];
    assert_eq!(
        values(&seen, "kvm_host_cpu_info", &of_cpu, "cluster_id"),
        ["1".to_owned()].into()
    );
    assert!(values(&seen, "kvm_host_cpu_info", &[], "die_id").is_empty());
    assert_eq!(
        values(&seen, "kvm_vcpu_placement_info", &[], "core").len(),
        2
    );
    let time = |core| {
        seen.one(
            "kvm_vcpu_time_seconds_total",
            &[("vm", "b"), ("core", core)],
        )
    };
    assert_eq!((time("4"), time("0")), (Some(3.0), Some(0.0)));
    assert_eq!(
        values(&seen, "kvm_host_core_frequency_hertz", &[], "core").len(),
        8
    );
    let slow = seen.one("kvm_host_core_frequency_hertz", &[("core", "0")]);
    let fast = seen.one("kvm_host_core_frequency_hertz", &[("core", "4")]);
    assert_eq!((slow, fast), (Some(1.8e9), Some(2.4e9)));

    let view = View::new(&base, &newest, Instant::now());
    assert_eq!(view.host.cores, 8);
    let cores = view.nodes.iter().flat_map(|node| &node.cores);
    assert!(cores.clone().all(|core| core.threads.len() == 1));
    assert!(cores.clone().all(|core| core.smt_shared.is_none()));
    for vm in &view.vms {
        assert!(
            vm.trouble().all(|cause| cause.cause != Cause::Smt),
            "{}",
            vm.verdict
        );
    }
    assert!(
        machine_of(&host).contains("8 CPUs, 8 cores, 1 package"),
        "{}",
        machine_of(&host)
    );
}

#[test]
fn a_move_between_cores_of_one_id_crosses_a_core() {
    let host = FakeHost::new();
    host.guest_of_two_dies();
    let vm = host.qemu(1000, "a", "", 1);
    let mut pipeline = pipeline(&host);
    for cpu in [0, 16, 16] {
        run(&host, &vm, cpu);
        tick(&mut pipeline);
    }
    let seen = exposition(&pipeline.snapshots().load().unwrap());
    let moves = |crossed| seen.one("kvm_vcpu_moves_total", &[("vm", "a"), ("crossed", crossed)]);
    assert_eq!((moves("core"), moves("cpu")), (Some(1.0), Some(0.0)));
    assert_eq!(values(&seen, "kvm_host_cpu_info", &[], "core").len(), 32);
    assert_eq!(
        values(&seen, "kvm_host_cpu_info", &[("cpu", "16")], "die_id"),
        ["1".to_owned()].into()
    );
    assert!(values(&seen, "kvm_host_cpu_info", &[], "cluster_id").is_empty());
    assert!(
        machine_of(&host).contains("32 CPUs, 32 cores"),
        "{}",
        machine_of(&host)
    );
}

#[test]
fn a_core_keeps_its_series_when_its_lowest_cpu_goes_offline_and_comes_back() {
    let host = FakeHost::new();
    host.rk3588();
    // Cores 4 and 5 become one core with two threads, 4 and 5.
    for cpu in [4, 5] {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        host.file(format!("{topology}/core_id"), "0\n");
        host.file(format!("{topology}/thread_siblings_list"), "4-5\n");
    }
    let vm = host.qemu(1000, "a", "", 1);
    let mut pipeline = pipeline(&host);
    let mut second = |online: &str, siblings: &str, cpu| {
        host.online(online);
        host.file(
            "sys/devices/system/cpu/cpu5/topology/thread_siblings_list",
            siblings,
        );
        run(&host, &vm, cpu);
        exposition(&tick(&mut pipeline))
    };
    let time = |seen: &Exposition, core| {
        seen.one(
            "kvm_vcpu_time_seconds_total",
            &[("vm", "a"), ("core", core)],
        )
    };
    assert_eq!(time(&second("0-7", "4-5", 5), "4"), Some(1.0));
    assert_eq!(time(&second("0-3,5-7", "5", 5), "4"), Some(2.0));
    let seen = second("0-7", "4-5", 4);
    assert_eq!((time(&seen, "4"), time(&seen, "5")), (Some(3.0), None));
}

/// A CXL expander, HBM or persistent memory in kmem mode: node 2 has memory and no CPU; there is no
/// node 1.
#[test]
fn memory_interleaved_over_a_node_without_cpus_is_no_trouble_of_placement() {
    const GIB: u64 = 1 << 30;
    let host = FakeHost::new();
    host.file("sys/devices/system/node/node2/cpulist", "\n");
    let vm = host.qemu(1000, "web", "", 1);
    host.memory(vm.pid, &[Block::ram(&[GIB, 0, 3 * GIB])]);
    let mut pipeline = pipeline(&host);
    let mut second = || {
        run(&host, &vm, 1);
        tick(&mut pipeline)
    };
    let base = second();
    second();
    let newest = second();
    let bytes = |node| {
        exposition(&newest).one("kvm_vm_memory_bytes", &[("vm", "web"), ("numa_node", node)])
    };
    assert_eq!(
        (bytes("0"), bytes("2")),
        (Some(GIB as f64), Some(3.0 * GIB as f64))
    );
    let view = View::new(&base, &newest, Instant::now());
    let web = &view.vms[0];
    assert_eq!(web.memory_remote, Some(0.0));
    assert!(web.trouble().next().is_none(), "{}", web.verdict);
    let memory = web
        .causes
        .iter()
        .find(|cause| cause.cause == Cause::MemoryRemote)
        .unwrap();
    assert!(
        memory.text.contains("node 2, which has no CPUs"),
        "{}",
        memory.text
    );
}

/// lxcfs shows a container only its own CPUs in `cpu/online`.
#[test]
fn vcpu_on_a_cpu_that_sysfs_does_not_list_is_reported_by_check() {
    let host = FakeHost::new();
    host.cpus(1, 1, 4, 1);
    let vm = host.qemu(1000, "a", UUID_A, 1);
    run(&host, &vm, 3);
    let all_listed = check(&host);
    assert!(!all_listed.contains("does not list"), "{all_listed}");
    run(&host, &vm, 17);
    let report = check(&host);
    let expected = "1 vCPU ran on CPUs that sysfs does not list";
    assert!(report.contains(expected), "{report}");
}
