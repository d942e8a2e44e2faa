//! The exporter's figures about this machine against independent sources: the nodes' files, the
//! CPUID instruction, uname and schedstat. Whatever the machine lacks must have a reason.
// CPUID has no safe form in the standard library before Rust 1.93.
#![allow(unsafe_code, unused_unsafe)]
#![cfg(feature = "demo")]

use std::process::Command;

use rustix::thread::{sched_setaffinity, CpuSet};

use vcpu_exporter::demo::guest::Load;

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::run::{allowed_cpus, eventually};

/// An exporter, and its exposition after every source has read.
fn watched() -> (Exporter, Exposition) {
    let exporter = Exporter::start();
    let told = exporter.until(|e| {
        let states = e.all("kvm_exporter_source_up", &[]);
        states.map(|s| s.label("source")).any(|s| s == "kernel_log")
    });
    (exporter, told)
}

#[test]
fn every_source_about_the_host_gives_data_or_a_reason() {
    let (_exporter, told) = watched();
    for (source, metric) in [
        ("resctrl", "kvm_vm_llc_occupancy_bytes"),
        ("host_cpu", "kvm_host_core_seconds_total"),
        ("frequency", "kvm_host_core_frequency_hertz"),
        ("thermal", "kvm_host_temperature_celsius"),
        ("numa", "kvm_host_numa_memory_bytes"),
        ("cpu_features", "kvm_host_cpu_feature"),
        ("kvm_parameters", "kvm_host_kvm_parameter_info"),
        ("vulnerabilities", "kvm_host_vulnerability_info"),
        ("system", "kvm_host_info"),
        ("kernel_log", "kvm_host_kernel_log_lines_total"),
    ] {
        let mut states = told.all("kvm_exporter_source_up", &[]);
        let state = states.find(|state| state.label("source") == source);
        let state = state.unwrap_or_else(|| panic!("no word of {source}"));
        let reason = state.label("reason");
        println!("{source}: up {} {reason}", state.value);
        if reason.is_empty() && source != "resctrl" {
            assert!(told.all(metric, &[]).count() > 0, "{source} has no data");
        }
        if state.value == 0.0 {
            assert_ne!(reason, "", "{source} has no reason");
            assert_eq!(told.all(metric, &[]).count(), 0, "{source} is down");
        }
    }
}

/// Bytes of a field in a node's own meminfo. /proc/meminfo is not used: where memory is initialized
/// or accepted late, its total differs by gigabytes.
fn node_meminfo(node: &str, field: &str) -> f64 {
    let path = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let value = |line: &str| {
        let line = line.strip_prefix("Node ")?.strip_prefix(node)?.trim_start();
        let (name, value) = line.split_once(':')?;
        let kb = value.trim().strip_suffix(" kB")?;
        (name == field).then(|| kb.parse().ok())?
    };
    let kb: Option<f64> = text.lines().find_map(value);
    kb.unwrap_or_else(|| panic!("no {field} in {path}")) * 1024.0
}

/// The present error in the memory figures of a node.
fn wrong_memory(told: &Exposition, node: &str) -> Option<String> {
    let of = |state: &str| {
        let labels = [("numa_node", node), ("state", state)];
        told.one("kvm_host_numa_memory_bytes", &labels)
    };
    let total = node_meminfo(node, "MemTotal");
    // Memory changes between the two readings.
    let tolerance = total / 100.0;
    let states = [
        ("free", node_meminfo(node, "MemFree")),
        ("anon", node_meminfo(node, "AnonPages")),
        ("shmem", node_meminfo(node, "Shmem")),
        ("slab", node_meminfo(node, "Slab")),
    ];
    let wrong = states.into_iter().find_map(|(state, truth)| {
        let is = of(state);
        let near = is.is_some_and(|is| (is - truth).abs() < tolerance);
        (!near).then(|| format!("{state} of node {node}: {is:?} is not {truth}"))
    });
    let all = told.sum("kvm_host_numa_memory_bytes", &[("numa_node", node)]);
    let adds_up = all == Some(total);
    wrong.or_else(|| (!adds_up).then(|| format!("node {node}: {all:?} is not {total}")))
}

#[test]
fn memory_of_each_node_is_that_of_its_own_file() {
    let exporter = Exporter::with(&[], "sources: {numa: {period: 1s}}");
    let told = exporter.until(|e| {
        e.all("kvm_exporter_source_up", &[("source", "numa")])
            .count()
            > 0
    });
    let metric = "kvm_host_numa_memory_bytes";
    let nodes = told.all(metric, &[("state", "free")]);
    let nodes: Vec<String> = nodes.map(|s| s.label("numa_node").to_owned()).collect();
    if nodes.is_empty() {
        println!("skipped: no memory by node here");
        return;
    }
    for node in nodes {
        let mut wrong = None;
        let right = eventually(|| {
            wrong = wrong_memory(&exporter.scrape(), &node);
            wrong.is_none().then_some(())
        });
        assert!(right.is_some(), "{wrong:?}");
    }
}

/// Counters in a node's own file.
fn numastat(node: &str) -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/node/node{node}/numastat"));
    let text = text.unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let lines = lines.filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    lines.collect()
}

#[test]
fn allocations_of_each_node_are_between_two_readings_of_its_own_file() {
    let before = numastat("0");
    if before.is_empty() {
        println!("skipped: no numastat here");
        return;
    }
    let exporter = Exporter::with(&[], "sources: {numa: {period: 1s}}");
    let metric = "kvm_host_numa_allocations_total";
    let told = exporter.until(|e| e.all(metric, &[]).count() > 0);
    for ((name, before), (_, after)) in before.iter().zip(numastat("0")) {
        let outcome = name.strip_prefix("numa_").unwrap_or(name);
        let seen = told.one(metric, &[("numa_node", "0"), ("outcome", outcome)]);
        println!("{outcome}: {before} {seen:?} {after}");
        assert!(seen >= Some(*before) && seen <= Some(after), "{outcome}");
    }
}

/// Whether CPUID has bit `bit` of register `register` (0 to 3: eax to edx) of a leaf.
#[cfg(target_arch = "x86_64")]
fn cpuid(leaf: u32, register: usize, bit: u32) -> bool {
    use std::arch::x86_64::__cpuid_count;
    // SAFETY: every x86-64 CPU has the instruction, and it changes nothing.
    let of = |leaf| unsafe { __cpuid_count(leaf, 0) };
    if of(leaf & 0x8000_0000).eax < leaf {
        return false;
    }
    let r = of(leaf);
    [r.eax, r.ebx, r.ecx, r.edx][register] >> bit & 1 == 1
}

/// AMD's manual (APM volume 3, appendix E) and Intel's (SDM volume 2, CPUID).
#[cfg(target_arch = "x86_64")]
#[test]
fn features_are_those_of_the_cpuid_instruction() {
    let (_exporter, told) = watched();
    let listed = |name| told.one("kvm_host_cpu_feature", &[("feature", name)]) == Some(1.0);
    for (name, has) in [
        ("smep", cpuid(7, 1, 7)),
        ("smap", cpuid(7, 1, 20)),
        ("hypervisor", cpuid(1, 2, 31)),
    ] {
        println!("{name}: {has}");
        assert_eq!(listed(name), has, "{name}");
    }
    // Firmware and the kernel can leave these unused.
    for (name, has) in [
        ("vmx", cpuid(1, 2, 5)),
        ("intel_pt", cpuid(7, 1, 25)),
        ("svm", cpuid(0x8000_0001, 2, 2)),
        ("ibs", cpuid(0x8000_0001, 2, 10)),
        ("npt", cpuid(0x8000_000a, 3, 0)),
        ("avic", cpuid(0x8000_000a, 3, 13)),
        ("sme", cpuid(0x8000_001f, 0, 0)),
        ("sev", cpuid(0x8000_001f, 0, 1)),
        ("sev_es", cpuid(0x8000_001f, 0, 3)),
        ("sev_snp", cpuid(0x8000_001f, 0, 4)),
    ] {
        println!("{name}: {has}");
        assert!(has || !listed(name), "{name}");
    }
}

#[test]
fn the_kernel_is_the_one_that_runs() {
    let (_exporter, told) = watched();
    let uname = Command::new("uname").arg("-r").output().expect("coreutils");
    let release = String::from_utf8(uname.stdout).expect("text");
    let mut infos = told.all("kvm_host_info", &[]);
    let info = infos.next().expect("procfs has it");
    assert_eq!(info.label("kernel"), release.trim());
}

#[test]
fn a_cpus_demand_is_that_of_the_vcpus_that_are_on_it() {
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::start();
    let mut vm = MicroVm::start("host-demand", Load::Spin, 1);
    let cpu = allowed_cpus()[0];
    vm.pin(0, cpu);
    let cpu = cpu.to_string();
    let id = [("vm", vm.name())];
    exporter.until(|e| e.one("kvm_vcpu_placement_info", &id) == Some(1.0));
    let on_cpu = |e: &Exposition| e.one("kvm_host_cpu_vcpu_time_seconds_total", &[("cpu", &cpu)]);
    let run = || schedstat(vm.pid(), vm.tid(0));
    let was = on_cpu(&exporter.scrape_anew()).expect("time is known");
    let began = run();
    exporter.until(|_| run() - began > 1.0);
    let ran = run() - began;
    let told = exporter.scrape_anew();
    let more = on_cpu(&told).expect("time is known") - was;
    println!("CPU {cpu}: {more} s, of it the vCPU at least {ran} s");
    // Other VMs may run here too, but this one ran on no other CPU.
    assert!(more >= ran - 1e-6);
    for what in ["time", "delay"] {
        let of_cpus = told.sum(&format!("kvm_host_cpu_vcpu_{what}_seconds_total"), &[]);
        let of_vcpus = told.sum(&format!("kvm_vcpu_{what}_seconds_total"), &[]);
        // The CPUs still include time of VMs that exited.
        let of_vcpus = of_vcpus.map(|seconds| seconds - 1e-6);
        assert!(of_cpus >= of_vcpus, "{what}: {of_cpus:?} {of_vcpus:?}");
    }
}

/// Seconds of this thread on a core.
fn own_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn time_of_a_core_has_what_a_thread_uses_of_it_that_is_no_vms() {
    let exporter = Exporter::with(&[], "sources: {host_cpu: {period: 1s}}");
    let cpu = allowed_cpus()[0];
    let mut only = CpuSet::new();
    only.set(cpu as usize);
    sched_setaffinity(None, &only).expect("it may run there");
    let number = cpu.to_string();
    let told = exporter.until(|e| e.all("kvm_host_core_seconds_total", &[]).count() > 0);
    let mut places = told.all("kvm_host_cpu_info", &[]);
    let place = places.find(|place| place.label("cpu") == number);
    let place = place.expect("sysfs has the CPU");
    let core = [
        ("package", place.label("package")),
        ("core", place.label("core")),
    ];
    let core = core.map(|(name, value)| (name, value.to_owned()));
    let seconds = |e: &Exposition, modes: &[&str]| {
        let of = |mode: &&str| {
            let [package, core] = &core;
            let labels = [(package.0, &*package.1), (core.0, &*core.1), ("mode", mode)];
            e.one("kvm_host_core_seconds_total", &labels)
                .expect("it is known")
        };
        modes.iter().map(of).sum::<f64>()
    };
    let busy = ["user", "guest", "system", "irq", "softirq", "steal"];
    let was = seconds(&exporter.scrape(), &busy);
    let began = own_seconds();
    while own_seconds() - began < 2.0 {
        std::hint::black_box(0);
    }
    // Time is sampled at ticks of 4 ms, and some ticks hit another thread.
    let told = exporter.until(|e| seconds(e, &busy) - was > 1.8);
    println!("core of CPU {cpu}: {} s", seconds(&told, &busy) - was);
}

/// Seconds of a thread on a core.
fn schedstat(pid: u32, tid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
    let text = text.expect("it runs");
    let run = text.split(' ').next().and_then(|n| n.parse().ok());
    run.map_or(f64::NAN, |ns: f64| ns / 1e9)
}
