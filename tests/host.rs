//! The exporter's account of this very machine against other ways to learn the same: the nodes' files,
//! the CPUID instruction, uname and schedstat. What the machine lacks must have a reason.
// CPUID has no safe form in the standard library before Rust 1.93.
#![allow(unsafe_code, unused_unsafe)]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(feature = "demo")]

use std::process::Command;

use vcpu_exporter::demo::guest::Load;

#[path = "support/exporter.rs"]
mod exporter;
#[path = "support/micro_vm.rs"]
mod micro_vm;
#[path = "support/run.rs"]
mod run;

use exporter::{Exporter, Exposition};
use micro_vm::{kvm_works, MicroVm};
use run::{allowed_cpus, eventually};

/// An exporter, and what it says once every source has read.
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

/// Bytes of a field of a node's own meminfo. The machine's (/proc/meminfo) is another account: where memory is
/// initialized or accepted late, the two totals differ by gigabytes.
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

/// What is wrong with the memory of a node at this moment.
fn wrong_memory(told: &Exposition, node: &str) -> Option<String> {
    let of = |state: &str| {
        let labels = [("numa_node", node), ("state", state)];
        told.one("kvm_host_numa_memory_bytes", &labels)
    };
    let total = node_meminfo(node, "MemTotal");
    // The machine goes on between the two readings.
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
    // Firmware and the kernel may leave these unused.
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
    let info = infos.next().expect("procfs tells");
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
    // Other VMs may run here too, but this one ran nowhere else.
    assert!(more >= ran - 1e-6);
    for what in ["time", "delay"] {
        let of_cpus = told.sum(&format!("kvm_host_cpu_vcpu_{what}_seconds_total"), &[]);
        let of_vcpus = told.sum(&format!("kvm_vcpu_{what}_seconds_total"), &[]);
        // Of VMs that are gone the CPUs still tell.
        let of_vcpus = of_vcpus.map(|seconds| seconds - 1e-6);
        assert!(of_cpus >= of_vcpus, "{what}: {of_cpus:?} {of_vcpus:?}");
    }
}

/// Seconds a thread was on a core.
fn schedstat(pid: u32, tid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat"));
    let text = text.expect("it runs");
    let run = text.split(' ').next().and_then(|n| n.parse().ok());
    run.map_or(f64::NAN, |ns: f64| ns / 1e9)
}
