//! Suspects: never a VM that used nothing, and never in a circle.

use super::*;

/// Runs on a CPU for `time` ms per second and waits for `delay` ms.
fn did(cpu: u32, time: u64, delay: u64) -> Did {
    Did {
        time,
        delay,
        ..Did::on(cpu)
    }
}

/// Time of a core in a mode, ms per second, as facts 40 s apart.
fn of_core(host: Host, core: &'static str, mode: &'static str, ms: f64) -> Host {
    let labels = [
        ("package", "0"),
        ("core", core),
        ("numa_node", "0"),
        ("mode", mode),
    ];
    host.fact(
        "kvm_host_core_seconds_total",
        &labels,
        [0.0, ms / 1e3 * 40.0],
    )
}

/// The same for vCPU threads of a VM.
fn of_vcpus(host: Host, vm: &'static str, core: &'static str, ms: f64) -> Host {
    let labels = [
        ("vm", vm),
        ("role", "vcpu"),
        ("package", "0"),
        ("core", core),
        ("numa_node", "0"),
    ];
    host.fact(
        "kvm_vm_thread_time_seconds_total",
        &labels,
        [0.0, ms / 1e3 * 40.0],
    )
}

#[test]
fn the_vm_that_uses_most_of_the_core_is_named_and_pushes() {
    let view = Host::new(&[
        ("a", vec![did(0, 300, 300)]),
        ("b", vec![did(0, 600, 10)]),
        ("idle", vec![did(0, 5, 0)]),
    ])
    .view();
    let verdict = &view.vms[0].verdict;
    assert!(verdict.ends_with(": b uses 0.60 of core 0/0."), "{verdict}");
    let named = view.vms[0].mentions[0];
    assert_eq!((&verdict[named.start..named.end], named.vm), ("b", 1));
    let push = view.vms[1].pushes[0];
    assert_eq!((push.vm, push.cause), (0, Cause::Delay));
    assert!(push.score >= 10.0 && view.vms[0].pushes.is_empty());
    assert!(view.vms[2].pushes.is_empty());
}

#[test]
fn a_host_process_is_to_blame_where_no_vm_used_the_core() {
    let host = Host::new(&[("a", vec![did(0, 300, 300)]), ("idle", vec![did(0, 5, 0)])]);
    let host = of_core(of_core(host, "0", "user", 800.0), "0", "guest", 300.0);
    let view = of_vcpus(host, "a", "0", 300.0).view();
    let verdict = &view.vms[0].verdict;
    assert!(
        verdict.ends_with(": host processes, not VMs, use 0.80 of core 0/0."),
        "{verdict}"
    );
    assert!(close(view.host.wanted, 1.1 + 0.3));
}

#[test]
fn two_vms_do_not_blame_each_other() {
    let view = Host::new(&[
        ("a", vec![did(0, 300, 300), did(1, 900, 0)]),
        ("b", vec![did(0, 900, 0), did(1, 300, 300)]),
    ])
    .view();
    for (vm, other) in [(0, "b"), (1, "a")] {
        let vm = &view.vms[vm];
        let verdict = &vm.verdict;
        assert!(verdict.contains(&format!(" with {other}.")), "{verdict}");
        assert!(vm.pushes.is_empty());
    }
}

#[test]
fn full_host_is_reported_first_and_blames_no_vm() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut host = Host::new(&names.map(|name| (name, vec![did(0, 900, 300)])));
    for (cpu, vm) in host.vms.iter_mut().enumerate() {
        vm.2[0].cpu = cpu as u32;
    }
    let view = host.view();
    assert_eq!(
        view.host.verdict,
        "The host wants 10 of 8 CPUs: it is full, and VMs wait for CPUs."
    );
    for vm in &view.vms {
        assert!(
            vm.verdict.ends_with(", because the host is full."),
            "{}",
            vm.verdict
        );
        assert!(vm.only_waits() && vm.pushes.is_empty());
    }
    host.vms.truncate(4);
    let view = host.view();
    assert!(!view.host.is_full() && view.host.verdict.is_empty());
}

#[test]
fn vm_in_another_cache_is_not_a_suspect() {
    let misses = |cpu, mpki| {
        vec![Did {
            mpki,
            ..did(cpu, 500, 0)
        }]
    };
    // CPU 2 belongs to the other node, with another cache.
    for (cpu, is_named) in [(1, true), (2, false)] {
        let host = Host::new(&[
            ("a1", misses(0, 2.0)),
            ("a2", misses(0, 2.0)),
            ("a3", misses(0, 20.0)),
            ("a4", misses(0, 2.0)),
            ("a5", misses(0, 2.0)),
            ("z", misses(cpu, 40.0)),
        ]);
        let view = host.view();
        let named = view.vms[2].mentions.iter().any(|mention| mention.vm == 5);
        assert_eq!(named, is_named, "{}", view.vms[2].verdict);
    }
}

#[test]
fn remote_memory_is_the_chance_to_meet_it() {
    let memory = |node| [("vm", "db"), ("numa_node", node)];
    let distance = |from, to| [("from", from), ("to", to)];
    let vm = Host::new(&[("db", vec![did(0, 900, 0), did(2, 100, 0)])])
        .fact("kvm_vm_memory_bytes", &memory("0"), [5e9; 2])
        .fact("kvm_vm_memory_bytes", &memory("1"), [95e9; 2])
        .fact("kvm_host_numa_distance", &distance("0", "0"), [10.0; 2])
        .fact("kvm_host_numa_distance", &distance("0", "1"), [21.0; 2])
        .fact("kvm_host_numa_distance", &distance("1", "0"), [21.0; 2])
        .fact("kvm_host_numa_distance", &distance("1", "1"), [10.0; 2])
        .view();
    let vm = &vm.vms[0];
    assert!(close(vm.memory_remote, 0.86) && close(vm.memory_distance, 1.946));
    assert!(
        vm.verdict.ends_with("; mean distance 19, local is 10."),
        "{}",
        vm.verdict
    );
}

/// Node 2 is memory-only, and nearer to node 0.
#[test]
fn memory_without_cpus_counts_by_its_distance() {
    let memory = [("vm", "db"), ("numa_node", "2")];
    let distance = |from| [("from", from), ("to", "2")];
    let remote = |cpu| {
        let host = Host::new(&[("db", vec![did(cpu, 900, 0)])])
            .fact("kvm_vm_memory_bytes", &memory, [1e9; 2])
            .fact("kvm_host_numa_distance", &distance("0"), [17.0; 2])
            .fact("kvm_host_numa_distance", &distance("1"), [28.0; 2]);
        host.view().vms[0].memory_remote
    };
    assert!(close(remote(0), 0.0) && close(remote(2), 1.0));
}

#[test]
fn a_quota_explains_the_seconds_it_took_and_no_more() {
    let level = [("vm", "ci"), ("level", "vcpu")];
    let delay = |throttled: f64| {
        let view = Host::new(&[("ci", vec![did(0, 400, 600)])])
            .fact("kvm_vm_cpu_periods_total", &level, [0.0, 400.0])
            .fact("kvm_vm_cpu_throttled_periods_total", &level, [0.0, 120.0])
            .fact(
                "kvm_vm_cpu_throttled_seconds_total",
                &level,
                [0.0, throttled * 40.0],
            )
            .view();
        let vm = &view.vms[0];
        let cause = vm.causes.iter().find(|cause| cause.cause == Cause::Delay);
        cause.map(|cause| cause.observed)
    };
    assert!(close(delay(0.6), 0.0) && close(delay(0.2), 0.4) && close(delay(0.0), 0.6));
}
