//! Memory and descriptors of the exporter on a scripted host. A program of its own, because its size
//! is part of what is measured; each test runs in a process of its own.
#![cfg(feature = "fixtures")]
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::Arc;

use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::fake_host::{FakeHost, FakeVm};
use vcpu_exporter::host::privileges::raise_descriptor_limit;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::telemetry::Telemetry;

/// What both files share.
mod support {
    pub(crate) mod allocations;
    pub(crate) mod own_process;
    pub(crate) mod snapshots;
}

mod otlp_footprint;

use support::{allocations, own_process};

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let me = procfs::process::Process::myself().expect("own /proc");
    me.statm().expect("own statm").resident * procfs::page_size()
}

struct Watched {
    host: FakeHost,
    vms: Vec<FakeVm>,
    pipeline: Pipeline,
    text: Vec<u8>,
    tick: u64,
}

impl Watched {
    fn new(vms: i32, vcpus: u32) -> Self {
        let host = FakeHost::new();
        host.cpus(2, 16, 2, 1);
        host.file(
            "proc/cpuinfo",
            "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 106\nstepping\t: 6\n",
        );
        host.file("sys/bus/event_source/devices/cpu/type", "4\n");
        let uuid = |n: i32| format!("00000000-0000-4000-8000-{n:012}");
        let vms: Vec<FakeVm> = (0..vms)
            .map(|n| host.qemu(1000 + 100 * n, &format!("vm-{n}"), &uuid(n), vcpus))
            .collect();
        let roots = Arc::new(Roots::below(host.root()));
        let (telemetry, _) = Telemetry::new();
        let counters = Arc::new(Scripted::new());
        let config = Config::default();
        let pipeline = Pipeline::new(&config, roots, counters, 0, telemetry);
        let mut pipeline = pipeline.expect("the fixture has a topology");
        pipeline.pass();
        Self {
            host,
            vms,
            pipeline,
            text: Vec::new(),
            tick: 0,
        }
    }

    /// Lets every `n`-th VM run and move, ticks, and encodes a scrape.
    fn tick(&mut self, n: usize) {
        self.tick += 1;
        for vm in self.vms.iter().step_by(n) {
            let cpu = (self.tick % 4) as u32;
            self.host.set(vm.pid, vm.vcpus[0], |t| {
                (t.run, t.timeslices, t.cpu) = (t.run + 1000, t.timeslices + 1, cpu);
            });
        }
        self.pipeline.tick();
        let snapshot = self.pipeline.snapshots().load().expect("a tick has ended");
        self.text.clear();
        encode_snapshot(Format::Text, &snapshot, snapshot.taken_mono, &mut self.text);
    }
}

/// Allocations of one tick in which every vCPU runs on its core.
fn allocations_of_a_tick(vms: i32) -> u64 {
    let mut watched = Watched::new(vms, 4);
    let mut allocations = 0;
    for _ in 0..40 {
        for vm in &watched.vms {
            for tid in &vm.vcpus {
                watched.host.set(vm.pid, *tid, |t| {
                    (t.run, t.timeslices) = (t.run + 1000, t.timeslices + 1);
                });
            }
        }
        allocations = allocations::count(|| watched.pipeline.tick());
    }
    allocations
}

#[test]
fn memory_stays_where_it_was() {
    own_process::run("memory_stays_where_it_was", memory_of_ticks);
}

fn memory_of_ticks() {
    raise_descriptor_limit();
    // A huge page that the kernel assigns later must not count as an increase.
    let without = rustix::thread::disable_transparent_huge_pages(true);
    without.expect("a process may go without");
    let (few, many) = (allocations_of_a_tick(2), allocations_of_a_tick(20));
    println!("a tick of 8 vCPUs allocates {few} times, one of 80 {many} times");
    assert_eq!(few, many, "a tick allocates for each vCPU");

    let before = resident();
    let mut watched = Watched::new(250, 4);
    for _ in 0..50 {
        watched.tick(2);
    }
    let used = resident();
    println!(
        "1,000 vCPUs: {} kB resident, {} kB of it before; a scrape has {} kB",
        used / 1000,
        before / 1000,
        watched.text.len() / 1000
    );
    assert!(used < 40_000_000, "{used} bytes resident at 1,000 vCPUs");
    drop(watched);

    let mut watched = Watched::new(5, 4);
    for _ in 0..200 {
        watched.tick(1);
    }
    let (settled, descriptors) = (resident(), watched.pipeline.descriptors());
    for _ in 0..10_000 {
        watched.tick(1);
    }
    let increase = resident().saturating_sub(settled);
    println!("10,000 ticks: {increase} bytes grown");
    assert!(increase < 500_000, "{increase} bytes grown in 10,000 ticks");
    assert_eq!(watched.pipeline.descriptors(), descriptors);
}
