//! QEMU guests and a libvirt domain on /metrics and in `list --json`, from start to end.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::alone;
use crate::exporter::{Exporter, Exposition};
use crate::real_vms::{qemu, qemu_works, vcpus_held, Libvirt};
use crate::run::{eventually, unique};

/// A picture that is at least one whole inventory pass and one whole tick newer than this call.
fn after_a_pass(exporter: &Exporter) -> Exposition {
    let passes = |e: &Exposition| e.one("kvm_exporter_inventory_passes_total", &[]);
    let before = passes(&exporter.scrape());
    // One pass may have been under way already, and have missed what just happened.
    exporter.until(|e| passes(e) >= before.map(|n| n + 2.0));
    exporter.scrape_anew()
}

/// What is said of a VM beside its name: its number of vCPUs, and the labels of `kvm_vm_info`.
fn facts(exposition: &Exposition, vm: &str, labels: &[&str]) -> (Option<f64>, Vec<String>) {
    let id = [("vm", vm)];
    let mut info = exposition.all("kvm_vm_info", &id);
    let first = info.next();
    assert_eq!(info.next(), None, "{vm} has more than one kvm_vm_info");
    let value = |label: &&str| first.map_or("", |info| info.label(label)).to_owned();
    let vcpus = exposition.one("kvm_vm_vcpus", &id);
    (vcpus, labels.iter().map(value).collect())
}

/// The vCPUs of a VM that have a sample of this name.
fn vcpus(exposition: &Exposition, name: &str, vm: &str) -> BTreeSet<String> {
    let id = [("vm", vm)];
    let all = exposition.all(name, &id);
    all.map(|sample| sample.label("vcpu").to_owned()).collect()
}

fn assert_all_series(exposition: &Exposition, vm: &str, count: usize) {
    let expected: BTreeSet<String> = (0..count).map(|n| n.to_string()).collect();
    for name in [
        "kvm_vcpu_time_seconds_total",
        "kvm_vcpu_delay_seconds_total",
        "kvm_vcpu_migrations_total",
        "kvm_vcpu_placement_info",
    ] {
        assert_eq!(vcpus(exposition, name, vm), expected, "{name} of {vm}");
    }
}

/// `list --json`: one object a vCPU.
fn list(args: &[&str], vm: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
        .args(["list", "--json"])
        .args(args)
        .output()
        .expect("list runs");
    assert!(output.status.success(), "{output:?}");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).expect("an array");
    all.into_iter().filter(|row| row["vm"] == vm).collect()
}

/// Holds the rows of `list --json` against the kernel's own view and the exporter's topology.
fn check_list(rows: &[Value], exposition: &Exposition, uuid: &str, pid: u32) {
    let keys = "vm uuid vmm manager pid vcpu tid cpu package core numa_node";
    let keys: BTreeSet<&str> = keys.split(' ').collect();
    for (n, row) in rows.iter().enumerate() {
        let object = row.as_object().expect("an object");
        assert_eq!(
            object.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            keys
        );
        assert_eq!(row["uuid"], uuid);
        assert_eq!(row["vmm"], "qemu");
        assert_eq!(row["pid"], pid);
        assert_eq!(row["vcpu"], n);
        let comm = std::fs::read_to_string(format!("/proc/{pid}/task/{}/comm", row["tid"]));
        assert_eq!(comm.expect("a thread").trim_end(), format!("CPU {n}/KVM"));
        let place = ["package", "core", "numa_node"].map(|key| row[key].to_string());
        let [cpu, place @ ..] = [&row["cpu"].to_string(), &place[0], &place[1], &place[2]];
        let cpu = [("cpu", cpu.as_str())];
        let info = exposition.all("kvm_host_cpu_info", &cpu).next();
        let info = info.expect("its CPU is one of the host's");
        assert_eq!(
            ["package", "core", "numa_node"].map(|l| info.label(l)),
            place
        );
    }
}

#[test]
fn a_qemu_guest_is_shown_within_one_pass_and_gone_within_one() {
    let _alone = alone();
    if !qemu_works() {
        return;
    }
    let exporter = Exporter::start();
    let name = unique("by,hand");
    let guest = format!("guest={},debug-threads=on", name.replace(',', ",,"));
    let uuid = "5a0de2e8-9c1d-4b55-8c9e-3d2c1b0a9f8e";
    let vm = qemu(&["-name", &guest, "-uuid", uuid, "-smp", "2"]);
    eventually(|| (vcpus_held(vm.pid()) == 2).then_some(())).expect("QEMU makes 2 vCPUs");

    let seen = after_a_pass(&exporter);
    let (count, labels) = facts(&seen, &name, &["uuid", "vmm", "manager", "name_source"]);
    assert_eq!(count, Some(2.0));
    assert_eq!(labels, [uuid, "qemu", "", "cmdline"]);
    assert_all_series(&seen, &name, 2);
    let rows = list(&[], &name);
    assert_eq!(rows.len(), 2);
    check_list(&rows, &seen, uuid, vm.pid());
    assert!(rows.iter().all(|row| row["manager"].is_null()));

    vm.kill();
    let gone = after_a_pass(&exporter);
    assert!(!gone.text.contains(&name));
    assert!(list(&[], &name).is_empty());
}

#[test]
fn a_libvirt_domain_is_shown_as_virsh_shows_it() {
    let _alone = alone();
    if !qemu_works() {
        return;
    }
    let Some(mut libvirt) = Libvirt::start() else {
        return;
    };
    let name = libvirt.domain().to_owned();
    let run = format!("--path.runfs={}", libvirt.run_dir().display());
    let exporter = Exporter::with(&[&run], "");
    let uuid = "b813b8d7-0c4e-4f6a-9a86-1f6a3f1f7c12";
    libvirt.create(uuid);
    let pid = eventually(|| libvirt.pid().filter(|pid| vcpus_held(*pid) == 2));
    let pid = pid.expect("libvirt starts the domain");
    assert_eq!(libvirt.ask(&format!("domuuid {name}")).trim(), uuid);

    let seen = after_a_pass(&exporter);
    let (count, labels) = facts(
        &seen,
        &name,
        &["uuid", "vmm", "manager", "openstack_flavor"],
    );
    assert_eq!(count, Some(2.0));
    assert_eq!(labels, [uuid, "qemu", "openstack", "m1.tiny"]);
    assert_all_series(&seen, &name, 2);
    let rows = list(&[&run], &name);
    assert_eq!(rows.len(), 2);
    check_list(&rows, &seen, uuid, pid);
    assert!(rows.iter().all(|row| row["manager"] == "openstack"));
    compare_with_domstats(&exporter, &mut libvirt);

    libvirt.ask(&format!("destroy {name}"));
    let gone = after_a_pass(&exporter);
    assert!(!gone.text.contains(&name));
}

/// What `virsh domstats --vcpu` says of a vCPU, in seconds: time and delay.
fn domstats(libvirt: &mut Libvirt, vcpu: usize) -> [f64; 2] {
    let line = format!("domstats --vcpu {}", libvirt.domain());
    let answer = libvirt.ask(&line);
    ["time", "delay"].map(|what| {
        let key = format!("vcpu.{vcpu}.{what}=");
        let lines = answer.lines().map(str::trim);
        let value = lines.filter_map(|line| line.strip_prefix(&key)).next();
        let value = value.unwrap_or_else(|| panic!("no {key} in {answer}"));
        value.parse::<f64>().expect("nanoseconds") / 1e9
    })
}

/// libvirt reads time as ticks of 10 ms of user and of system time, each rounded down
/// (proc_pid_stat(5)).
const LIBVIRT_LOSES: f64 = 0.020;

/// The exporter's totals lie between what libvirt says before and after.
fn compare_with_domstats(exporter: &Exporter, libvirt: &mut Libvirt) {
    let name = libvirt.domain().to_owned();
    for vcpu in 0..2 {
        let id = [("vm", name.as_str()), ("vcpu", &vcpu.to_string())];
        let before = domstats(libvirt, vcpu);
        let between = exporter.scrape_anew();
        let after = domstats(libvirt, vcpu);
        let time = between.sum("kvm_vcpu_time_seconds_total", &id);
        let delay = between.sum("kvm_vcpu_delay_seconds_total", &id);
        let [time, delay] = [time, delay].map(|total| total.expect("a total"));
        let what = format!("vCPU {vcpu}: {before:?}, {time} and {delay}, {after:?}");
        assert!(
            before[0] <= time && time <= after[0] + LIBVIRT_LOSES,
            "{what}"
        );
        assert!(
            before[1] <= delay + 1e-9 && delay <= after[1] + 1e-9,
            "{what}"
        );
        assert!(time > 0.0, "the firmware has run: {what}");
    }
}
