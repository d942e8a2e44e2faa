//! KVM's own statistics of real guests, compared with what their descriptors say.
#![cfg(feature = "demo")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use vcpu_exporter::demo::guest::Load;

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::run::{alone, eventually, Frozen};

const CONFIG: &str = "sources: {kvm_stat: {period: 1s, vcpus: true}}";

/// Histograms of halts and their `outcome`.
const HALTS: [(&str, &str); 3] = [
    ("halt_poll_success_hist", "poll_success"),
    ("halt_poll_fail_hist", "poll_fail"),
    ("halt_wait_hist", "wait"),
];

/// Descriptors of statistics of a process, by name: `kvm-vm-stats`, `kvm-vcpu-stats:0` …
fn descriptors(pid: u32) -> BTreeMap<String, i32> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it is ours");
    let named = links.filter_map(|link| {
        let link = link.ok()?;
        let target = fs::read_link(link.path()).ok()?;
        let name = target.to_str()?.strip_prefix("anon_inode:")?.to_owned();
        let number = link.file_name().to_str()?.parse().ok()?;
        name.contains("-stats").then_some((name, number))
    });
    named.collect()
}

/// A descriptor's file, through a copy of the descriptor.
fn contents(pid: u32, fd: i32) -> Vec<u8> {
    let pid = Pid::from_raw(pid as i32).expect("a process");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    let file = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).expect("it is ours");
    let mut bytes = vec![0; 1 << 16];
    let len = rustix::io::pread(&file, &mut bytes[..], 0).expect("statistics can be read");
    bytes.truncate(len);
    bytes
}

/// Each statistic's type and numbers (struct kvm_stats_header and kvm_stats_desc of linux/kvm.h).
fn statistics(file: &[u8]) -> BTreeMap<String, (u32, Vec<u64>)> {
    let field = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("4 bytes"));
    let [name_size, count, _, descriptors, data] = [4, 8, 12, 16, 20].map(|at| field(at) as usize);
    let all = (0..count).map(|n| {
        let at = descriptors + n * (16 + name_size);
        let size = u16::from_ne_bytes(file[at + 6..at + 8].try_into().expect("2 bytes"));
        let numbers = data + field(at + 8) as usize;
        let number = |n: usize| {
            let at = numbers + 8 * n;
            u64::from_ne_bytes(file[at..at + 8].try_into().expect("8 bytes"))
        };
        let name = &file[at + 16..at + 16 + name_size];
        let name = name.split(|byte| *byte == 0).next().expect("a part");
        let name = String::from_utf8(name.to_vec()).expect("text");
        (
            name,
            (field(at) & 0xf, (0..size.into()).map(number).collect()),
        )
    });
    all.collect()
}

/// A guest whose statistics can be had, and an exporter that watches it; prints why not.
fn watched(name: &str, vcpus: u32) -> Option<(Exporter, MicroVm)> {
    if !kvm_works() {
        return None;
    }
    let vm = MicroVm::start(name, Load::Halt, vcpus);
    if descriptors(vm.pid()).is_empty() {
        println!("skipped: this kernel has no descriptors of KVM's statistics (Linux 5.14)");
        return None;
    }
    Some((Exporter::with(&[], CONFIG), vm))
}

/// The method by which the VM is read.
fn method(e: &Exposition, vm: &str) -> Option<String> {
    let vm = [("vm", vm)];
    let mut info = e.all("kvm_vm_kvm_stat_info", &vm);
    info.next().map(|info| info.label("method").to_owned())
}

/// What the exporter shows of a vCPU differently from its descriptor.
fn differences(e: &Exposition, vm: &str, vcpu: u32, file: &[u8]) -> Vec<String> {
    let index = vcpu.to_string();
    let subject = [("vm", vm), ("vcpu", &index)];
    let mut differences = Vec::new();
    for (name, (kind, numbers)) in statistics(file) {
        let total: u64 = numbers.iter().sum();
        let with = |key: &'static str, value| [subject[0], subject[1], (key, value)];
        let halt = HALTS.iter().find(|(histogram, _)| *histogram == name);
        let shown = match (halt, kind) {
            (Some((_, outcome)), _) => {
                e.one("kvm_vcpu_halt_seconds_count", &with("outcome", outcome))
            }
            (None, 1 | 2) => e.one("kvm_vcpu_kvm_stat_current", &with("stat", &name)),
            (None, _) => e.one("kvm_vcpu_kvm_stat_total", &with("stat", &name)),
        };
        if shown != Some(total as f64) {
            differences.push(format!("{name}: {shown:?}, not {total}"));
        }
    }
    differences
}

#[test]
fn statistics_of_a_stopped_vmm_equal_its_descriptors() {
    let _alone = alone();
    let Some((exporter, vm)) = watched("stats", 2) else {
        return;
    };
    exporter.until(|e| method(e, vm.name()).as_deref() == Some("descriptor"));
    // At rest, and unable to answer.
    let _frozen = Frozen::new(vm.pid());
    let fds = descriptors(vm.pid());
    for vcpu in 0..2 {
        let file = contents(vm.pid(), fds[&format!("kvm-vcpu-stats:{vcpu}")]);
        let all = statistics(&file);
        let histograms = all.values().filter(|(kind, _)| *kind == 4).count();
        // Linux 5.14 has 31 and 3 on x86-64, 6.18 has 42 and 3.
        assert!(all.len() - histograms >= 20, "{}", all.len());
        assert_eq!(histograms, 3);
        let exits = &all["exits"].1;
        assert!(exits[0] > 0, "it ran");
        exporter.until(|e| differences(e, vm.name(), vcpu, &file).is_empty());
    }
    let own = contents(vm.pid(), fds["kvm-vm-stats"]);
    let e = exporter.scrape();
    for (name, (kind, numbers)) in statistics(&own) {
        let metric = match kind {
            1 | 2 => "kvm_vm_kvm_stat_current",
            _ => "kvm_vm_kvm_stat_total",
        };
        let shown = e.one(metric, &[("vm", vm.name()), ("stat", &name)]);
        assert_eq!(shown, Some(numbers[0] as f64), "{name}");
    }
    let exits = |e: &Exposition, metric| e.sum(metric, &[("vm", vm.name()), ("stat", "exits")]);
    assert_eq!(
        exits(&e, "kvm_vm_kvm_stat_total"),
        exits(&e, "kvm_vcpu_kvm_stat_total")
    );
}

/// A copy of a descriptor would hold the VM in the kernel after its VMM ended.
#[test]
fn no_descriptor_is_kept_and_a_dead_vm_is_gone() {
    let _alone = alone();
    let Some((exporter, vm)) = watched("gone", 1) else {
        return;
    };
    let exits = [("vm", vm.name()), ("vcpu", "0"), ("stat", "exits")];
    let total = |e: &Exposition| e.one("kvm_vcpu_kvm_stat_total", &exits);
    let first = total(&exporter.until(|e| total(e).is_some()));
    exporter.until(|e| total(e) > first);
    assert_eq!(descriptors(exporter.pid()), BTreeMap::new());
    let kvm = Path::new("/sys/kernel/debug/kvm");
    let own = format!("{}-", vm.pid());
    let is_there = || {
        let names = fs::read_dir(kvm).into_iter().flatten().flatten();
        let mut names = names.map(|name| name.file_name());
        names.any(|name| name.to_string_lossy().starts_with(&own))
    };
    if !is_there() {
        println!("skipped: debugfs does not show the VM");
        return;
    }
    drop(vm);
    eventually(|| (!is_there()).then_some(())).expect("the kernel ends the VM");
}
