//! The fixture host works with the parsers of a real host and with the whole pipeline.
#![cfg(feature = "fixtures")]

use std::sync::Arc;

use crate::support::exposition::Exposition;
use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::discover::Scanner;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::fake_host::FakeHost;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::thread::{cpus_allowed, parse_sched, parse_schedstat, parse_stat};
use vcpu_exporter::host::topology::{CoreType, Topology};
use vcpu_exporter::snapshot::metrics;
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::telemetry::Telemetry;

#[test]
fn what_is_set_for_a_thread_is_what_the_parsers_read() {
    let host = FakeHost::new();
    let vm = host.qemu(1000, "a", "u", 2);
    let tid = vm.vcpus[1];
    host.set(1000, tid, |t| {
        (t.cpu, t.guest_ticks, t.major_faults) = (3, 44, 5);
        (t.run, t.delay, t.timeslices) = (6, 7, 8);
        (t.migrations, t.voluntary, t.involuntary) = (9, 10, 11);
        t.cpus_allowed = "2-3".into();
    });
    let read =
        |name: &str| std::fs::read(host.path(format!("proc/1000/task/{tid}/{name}"))).unwrap();
    let stat = parse_stat(&read("stat")).unwrap();
    assert_eq!((stat.cpu, stat.guest_ticks, stat.major_faults), (3, 44, 5));
    let schedstat = parse_schedstat(&read("schedstat")).unwrap();
    assert_eq!(
        (schedstat.run, schedstat.delay, schedstat.timeslices),
        (6, 7, 8)
    );
    let sched = parse_sched(&read("sched")).unwrap();
    assert_eq!(
        (sched.migrations, sched.voluntary, sched.involuntary),
        (9, 10, 11)
    );
    assert_eq!(cpus_allowed(&read("status")), Some("2-3"));
}

#[test]
fn a_server_is_numbered_as_linux_does() {
    let host = FakeHost::new();
    host.cpus(2, 8, 2, 4);
    let topology = Topology::read(&Roots::below(host.root()), &Topology::default()).unwrap();
    assert_eq!(topology.cpus.len(), 32);
    let cpu = topology.cpu(27).unwrap();
    assert_eq!(cpu.siblings, [11, 27]);
    assert_eq!(
        (cpu.place.package, cpu.place.core, cpu.place.numa_node),
        (1, 3, 5)
    );
}

#[test]
fn a_hybrid_client_has_two_kinds_of_cores() {
    let host = FakeHost::new();
    host.hybrid(2, 4);
    let topology = Topology::read(&Roots::below(host.root()), &Topology::default()).unwrap();
    let kinds: Vec<_> = topology.cpus.iter().map(|cpu| cpu.core_type).collect();
    assert_eq!(kinds[..4], [CoreType::Performance; 4]);
    assert_eq!(kinds[4..], [CoreType::Efficiency; 4]);
}

#[test]
fn every_fact_a_manager_knows_is_a_label_of_the_catalogue() {
    let host = FakeHost::menagerie();
    let mut scanner = Scanner::new(Arc::new(Roots::below(host.root())));
    let inventory = scanner.scan(&Arc::default());
    let labels = metrics::find("kvm_vm_info").unwrap().own_labels;
    let facts = inventory.vms.iter().flat_map(|vm| &vm.facts);
    let facts: Vec<&str> = facts.map(|(label, _)| *label).collect();
    assert_eq!(facts.len(), 8);
    assert!(
        facts.iter().all(|label| labels.contains(label)),
        "{facts:?}"
    );
}

/// One pass and one tick of the whole pipeline, then a scrape.
fn exposition(pipeline: &mut Pipeline) -> Exposition {
    pipeline.pass();
    pipeline.tick();
    let snapshot = pipeline.snapshots().load().unwrap();
    let mut text = Vec::new();
    let now = snapshot.taken_mono;
    encode_snapshot(Format::OpenMetrics, &snapshot, now, &mut text);
    Exposition::parse(&String::from_utf8(text).unwrap())
}

#[test]
fn cpus_go_offline_and_come_online_and_no_time_is_lost_or_moved() {
    let host = FakeHost::new();
    host.cpus(1, 4, 1, 2).online("0-2");
    let vm = host.qemu(1000, "a", "", 1);
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    let counters = Arc::new(Scripted::default());
    let pipeline = Pipeline::new(&Config::default(), roots, counters, 0, telemetry);
    let mut pipeline = pipeline.unwrap();
    let mut second = |online: &str, cpu: u32| {
        host.online(online);
        host.set(vm.pid, vm.vcpus[0], |t| {
            (t.cpu, t.run, t.timeslices) = (cpu, t.run + 1_000_000_000, t.timeslices + 1);
        });
        exposition(&mut pipeline)
    };
    let time = |seen: &Exposition, core: &str, node: &str| {
        let labels = [("vm", "a"), ("core", core), ("numa_node", node)];
        seen.sum("kvm_vcpu_time_seconds_total", &labels)
    };
    assert_eq!(time(&second("0-2", 2), "2", "1"), Some(1.0));
    let seen = second("0-1", 0);
    assert_eq!(
        (time(&seen, "2", "1"), time(&seen, "0", "0")),
        (Some(1.0), Some(1.0))
    );
    // CPU 3 was never online since the exporter started.
    let seen = second("0-1,3", 3);
    assert_eq!(
        (time(&seen, "3", "1"), time(&seen, "2", "1")),
        (Some(1.0), Some(1.0))
    );
    let seen = second("0-3", 2);
    assert_eq!(time(&seen, "2", "1"), Some(2.0));
    assert_eq!(
        seen.sum("kvm_vcpu_time_seconds_total", &[("vm", "a")]),
        Some(4.0)
    );
}

#[test]
fn a_vm_and_a_vcpu_that_leave_take_their_series_with_them() {
    let host = FakeHost::new();
    let vm = host.qemu(1000, "a", "", 2);
    host.firecracker(1200, "b", 1);
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    let counters = Arc::new(Scripted::default());
    let pipeline = Pipeline::new(&Config::default(), roots, counters, 0, telemetry);
    let mut pipeline = pipeline.unwrap();
    let vcpus = |seen: &Exposition, vm| seen.one("kvm_vm_vcpus", &[("vm", vm)]);
    let seen = exposition(&mut pipeline);
    assert_eq!(
        (vcpus(&seen, "a"), vcpus(&seen, "b")),
        (Some(2.0), Some(1.0))
    );
    host.exit_thread(vm.pid, vm.vcpus[1]).exit(1200);
    let seen = exposition(&mut pipeline);
    assert_eq!((vcpus(&seen, "a"), vcpus(&seen, "b")), (Some(1.0), None));
    let of = |labels| seen.sum("kvm_vcpu_time_seconds_total", labels);
    assert_eq!(
        (of(&[("vm", "a"), ("vcpu", "1")]), of(&[("vm", "b")])),
        (None, None)
    );
}

/// QEMU with `-S`: descriptors are the only sign of vCPUs that never ran.
#[test]
fn vcpus_of_a_guest_that_waits_to_be_started_are_counted_and_have_no_series() {
    let host = FakeHost::new();
    host.qemu_without_thread_names(1000, "halted", 4);
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    let counters = Arc::new(Scripted::default());
    let pipeline = Pipeline::new(&Config::default(), roots, counters, 0, telemetry);
    let seen = exposition(&mut pipeline.unwrap());
    let of_vm = [("vm", "halted")];
    assert_eq!(seen.one("kvm_vm_vcpus", &of_vm), Some(4.0));
    assert_eq!(seen.sum("kvm_vcpu_time_seconds_total", &of_vm), None);
}
