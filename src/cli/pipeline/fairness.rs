//! One user with very many vCPUs next to other users, on a fixture host.

use super::tests::{pipeline, series};
use super::*;
use crate::fake_host::{FakeHost, FakeVm, UUID_A, UUID_B};
use crate::snapshot::Snapshot;
use crate::sources::pmu::scripted::Scripted;

/// Eight VMs of user 1000 with 20 vCPUs each. All have run; their affinity is `cpus`.
fn host_with_a_hog(cpus: &str) -> (FakeHost, Vec<FakeVm>) {
    let host = FakeHost::new();
    let mut vms = Vec::new();
    for n in 0..8 {
        let vm = host.qemu(1000 + 100 * n, &format!("hog{n}"), UUID_A, 20);
        host.set(vm.pid, vm.pid, |t| t.uid = 1000);
        run(&host, &vm, cpus);
        vms.push(vm);
    }
    (host, vms)
}

fn run(host: &FakeHost, vm: &FakeVm, cpus: &str) {
    for tid in &vm.vcpus {
        host.set(vm.pid, *tid, |t| {
            (t.run, t.timeslices) = (t.run + 1_000_000, t.timeslices + 1);
            t.cpus_allowed = cpus.to_owned();
        });
    }
}

/// Number of a metric's series whose labels contain all of these.
fn count(snapshot: &Snapshot, metric: &str, labels: &[&str]) -> usize {
    let series = series(snapshot).values;
    let matching = |(name, text): &&(&str, String)| {
        *name == metric && labels.iter().all(|label| text.contains(label))
    };
    series.keys().filter(matching).count()
}

const TIME: &str = "kvm_vcpu_time_seconds_total";
const CYCLES: &str = "kvm_vcpu_pmu_enabled_seconds_total";

#[test]
fn descriptors_are_shared_with_a_new_user_in_the_first_tick() {
    let (host, hog) = host_with_a_hog("0");
    let mut pipeline = pipeline(&host, &Config::default(), Scripted::new());
    pipeline.sampler = pipeline.sampler.with_descriptors(900);
    let alone = pipeline.pass_and_tick();
    assert_eq!(count(&alone, TIME, &["vm=\"hog"]), 160);
    assert!(count(&alone, CYCLES, &["vm=\"hog"]) > 0);
    assert!(pipeline.sampler.descriptors() > 880);
    let of_root = host.libvirt_v2(3000, "honest", UUID_A, 4);
    let of_user = host.qemu(4000, "small", UUID_B, 4);
    host.set(of_user.pid, of_user.pid, |t| t.uid = 1001);
    [of_root, of_user].iter().for_each(|vm| run(&host, vm, "0"));
    let together = pipeline.pass_and_tick();
    let cycles = |vm: &str| count(&together, CYCLES, &[vm]);
    assert_eq!(count(&together, TIME, &["vm=\"honest\""]), 4);
    assert_eq!(count(&together, TIME, &["vm=\"small\""]), 4);
    assert!(cycles("vm=\"honest\"") > 0);
    assert_eq!(cycles("vm=\"honest\""), cycles("vm=\"small\""));
    assert_eq!(
        count(&together, TIME, &["vm=\"hog"]),
        160,
        "all are scheduled"
    );
    let before = count(&alone, CYCLES, &["vm=\"hog"]);
    assert!(cycles("vm=\"hog") < before, "absent, not a constant total");
    assert!(pipeline.sampler.descriptors() <= 900);
    // The counters return when descriptors are free again and the vCPUs run.
    [3000, 4000].iter().for_each(|pid| _ = host.exit(*pid));
    hog.iter().for_each(|vm| run(&host, vm, "0"));
    assert_eq!(
        count(&pipeline.pass_and_tick(), CYCLES, &["vm=\"hog"]),
        before
    );
}

#[test]
fn series_limit_reduces_detail_of_the_largest_user_only() {
    let (host, _) = host_with_a_hog("0-3");
    let honest = host.libvirt_v2(3000, "honest", UUID_A, 4);
    run(&host, &honest, "0-3");
    let mut config = Config::default();
    let all = pipeline(&host, &config, Scripted::new()).pass_and_tick();
    config.limits.max_series = all.series_count / 2;
    let mut pipeline = pipeline(&host, &config, Scripted::new());
    let snapshot = pipeline.pass_and_tick();
    assert!(snapshot.series_count <= all.series_count / 2);
    assert_eq!(count(&snapshot, TIME, &["vm=\"honest\"", "core="]), 16);
    assert_eq!(count(&snapshot, TIME, &["vm=\"hog", "core="]), 0);
    assert_eq!(count(&snapshot, TIME, &["vm=\"hog"]), 160);
    let view = pipeline.sampler.view();
    assert!(!view.limit.dropped().is_empty());
}

/// The exporter does not know in advance how many descriptors the process needs for other purposes.
#[test]
fn descriptors_that_run_out_earlier_than_expected_are_shared_by_the_next_tick() {
    let (host, _) = host_with_a_hog("0");
    let counters = Scripted::new().with_descriptors(260);
    let mut pipeline = pipeline(&host, &Config::default(), counters);
    pipeline.sampler = pipeline.sampler.with_descriptors(100_000);
    pipeline.pass_and_tick();
    let honest = host.libvirt_v2(3000, "honest", UUID_A, 4);
    run(&host, &honest, "0");
    assert_eq!(
        count(&pipeline.pass_and_tick(), CYCLES, &["vm=\"honest\""]),
        0
    );
    run(&host, &honest, "0");
    assert!(count(&pipeline.pass_and_tick(), CYCLES, &["vm=\"honest\""]) > 0);
}
