//! Fixture hosts watched by the whole pipeline, and their expected expositions.
//!
//! `UPDATE_EXPECT=1 cargo test --test library golden` rewrites the files below tests/golden; review the
//! difference before you commit it.
#![cfg(feature = "fixtures")]

use std::sync::Arc;

use expect_test::expect_file;
use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::{Config, EventSet, ExitReason, RawEvent};
use vcpu_exporter::expose::negotiate::Format;
use vcpu_exporter::expose::text::encode_snapshot;
use vcpu_exporter::fake_host::{Block, FakeHost, FakeVm, Pci, START};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::telemetry::Telemetry;

const GIB: u64 = 1 << 30;

/// A CPU in /proc/cpuinfo and in the PMU's directory of sysfs.
fn cpu(host: &FakeHost, vendor: &str, family: u32, model: u32) {
    let cpuinfo = format!(
        "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
         model name\t: a CPU\nstepping\t: 1\n\n"
    );
    host.file("proc/cpuinfo", cpuinfo);
    host.file("proc/sys/kernel/nmi_watchdog", "0\n");
    host.file("proc/sys/kernel/perf_event_paranoid", "2\n");
    pmu(host, "cpu", 4);
}

fn pmu(host: &FakeHost, name: &str, number: u32) {
    let dir = format!("sys/bus/event_source/devices/{name}");
    host.file(format!("{dir}/type"), format!("{number}\n"));
    host.file(format!("{dir}/format/event"), "config:0-7\n");
    host.file(format!("{dir}/format/umask"), "config:8-15\n");
}

/// The first second: vCPU n of each VM has run for (n + 1) tenths of it on CPU `cpus[n]`.
fn first_second(host: &FakeHost, vm: &FakeVm, cpus: &[u32], allowed: &str) {
    for (n, (tid, cpu)) in (1u64..).zip(vm.vcpus.iter().zip(cpus)) {
        host.set(vm.pid, *tid, |t| {
            t.cpu = *cpu;
            t.cpus_allowed = allowed.into();
            (t.run, t.delay, t.timeslices) = (n * 100_000_000, n * 1_000_001, n * 10);
            (t.voluntary, t.involuntary, t.migrations) = (n * 8, n * 2, n);
            (t.minor_faults, t.major_faults, t.guest_ticks) = (n * 300, n - 1, n * 9);
        });
    }
}

/// The second second: vCPU 0 has moved to another CPU, and the others were idle.
fn second_second(host: &FakeHost, vm: &FakeVm, cpu: u32) {
    host.set(vm.pid, vm.vcpus[0], |t| {
        t.cpu = cpu;
        t.run += 500_000_000;
        t.delay += 7;
        (t.timeslices, t.involuntary, t.migrations) =
            (t.timeslices + 1, t.involuntary + 1, t.migrations + 1);
        t.guest_ticks += 50;
    });
}

/// A further thread of a VM that has run on a CPU for some milliseconds.
fn thread(host: &FakeHost, vm: &FakeVm, n: i32, name: &str, cpu: u32, ms: u64) {
    let tid = vm.pid + 4 + n;
    host.thread(vm.pid, tid, name, START + 2);
    host.set(vm.pid, tid, |t| {
        (t.cpu, t.run, t.delay) = (cpu, ms * 1_000_000, ms * 1000);
        // PF_USER_WORKER of include/linux/sched.h.
        t.flags = if name.starts_with("vhost-") {
            0x4000
        } else {
            0
        };
    });
}

/// A group in a v2 hierarchy with every file that the exporter reads; numbers derive from `n`.
fn group_v2(host: &FakeHost, group: &str, n: u64, quota: &str) {
    let dir = format!("sys/fs/cgroup/{group}");
    let throttled = n * 1_234_567;
    let pressure = |total| {
        format!(
            "some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total={}\n",
            total / 2
        )
    };
    host.file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
    host.file("proc/pressure/cpu", pressure(0));
    host.file(format!("{dir}/cpu.max"), format!("{quota} 100000\n"));
    host.file(format!("{dir}/cpu.weight"), format!("{}\n", n * 100));
    let stat = format!(
        "nr_periods {}\nnr_throttled {n}\nthrottled_usec {throttled}\n",
        n * 9
    );
    host.file(format!("{dir}/cpu.stat"), format!("usage_usec 1\n{stat}"));
    host.file(format!("{dir}/cpuset.cpus.effective"), format!("0-{n}\n"));
    let stat = format!(
        "anon 4096\nnuma_pages_migrated {}\nnuma_pte_updates {}\nnuma_hint_faults {}\n",
        n * 5,
        n * 700,
        n * 60
    );
    host.file(format!("{dir}/memory.stat"), stat);
    for (resource, total) in [("cpu", 4_000_002), ("memory", 2), ("io", 0)] {
        let file = format!("{dir}/{resource}.pressure");
        host.file(file, pressure(n * total));
    }
}

/// A group in the v1 hierarchies.
fn group_v1(host: &FakeHost, group: &str, quota: i64) {
    let dir = format!("sys/fs/cgroup/cpu/{group}");
    host.file(format!("{dir}/cpu.shares"), "2048\n");
    host.file(format!("{dir}/cpu.cfs_quota_us"), format!("{quota}\n"));
    host.file(format!("{dir}/cpu.cfs_period_us"), "50000\n");
    let stat = "nr_periods 40\nnr_throttled 4\nthrottled_time 123456789\n";
    host.file(format!("{dir}/cpu.stat"), stat);
    let dir = format!("sys/fs/cgroup/cpuset/{group}");
    host.file(format!("{dir}/cpuset.effective_cpus"), "0-1\n");
}

struct Watched {
    pipeline: Pipeline,
}

impl Watched {
    fn new(host: &FakeHost, config: &Config, counters: Scripted) -> Self {
        let roots = Arc::new(Roots::below(host.root()));
        let (telemetry, _) = Telemetry::new();
        let pipeline = Pipeline::new(config, roots, Arc::new(counters), 0, telemetry);
        let mut pipeline = pipeline.expect("the fixture has a topology");
        pipeline.pass();
        pipeline.tick();
        Self { pipeline }
    }

    /// The exposition about VMs and host after one more tick.
    fn exposition(mut self) -> String {
        self.pipeline.tick();
        let snapshot = self.pipeline.snapshots().load().expect("a tick has ended");
        let mut text = Vec::new();
        encode_snapshot(
            Format::OpenMetrics,
            &snapshot,
            snapshot.taken_mono,
            &mut text,
        );
        let text = String::from_utf8(text).expect("an exposition is text");
        let timeless = text
            .lines()
            .filter(|l| l.starts_with('#') || !l.contains("_sample_timestamp_seconds"));
        timeless.map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn two_socket_xeon_with_libvirt_and_openstack() {
    let host = FakeHost::new();
    host.cpus(2, 4, 2, 1);
    cpu(&host, "GenuineIntel", 6, 106);
    host.xeon_server();
    host.tracepoints("kvm_intel");
    let web = host.libvirt_v2(1000, "web-1", "0f0e0d0c-0b0a-4908-8706-050403020100", 2);
    let nova = host.openstack(
        2000,
        "instance-0000002a",
        "shop, front",
        "1f0e0d0c-0b0a-4908-8706-050403020100",
        1,
    );
    let scope = "machine.slice/machine-qemu\\x2d1\\x2dweb\\x2d1.scope/libvirt";
    host.memory(web.pid, &[Block::ram(&[3 * GIB, GIB])]);
    host.memory_cgroup(scope, &[3 * GIB, GIB], &[0, 0], &[2 * GIB, GIB]);
    let (ram, heap) = (Block::ram(&[0, 2 * GIB]), Block::own(&[GIB / 16, 0]));
    host.memory(nova.pid, &[Block { thp: GIB, ..ram }, heap]);
    // libvirt's quota of each vCPU, and a quota on the slice around the other VM.
    let scope = "machine.slice/machine-qemu\\x2d1\\x2dweb\\x2d1.scope";
    group_v2(&host, scope, 2, "max");
    for vcpu in ["vcpu0", "vcpu1"] {
        group_v2(&host, &format!("{scope}/libvirt/{vcpu}"), 1, "25000");
    }
    let scope = "machine.slice/machine-qemu\\x2d1\\x2dinstance\\x2d0000002a.scope";
    group_v2(&host, scope, 3, "max");
    group_v2(&host, &format!("{scope}/libvirt/vcpu0"), 1, "max");
    group_v2(&host, "machine.slice", 5, "600000");
    first_second(&host, &web, &[0, 8], "0-3,8-11");
    first_second(&host, &nova, &[5], "0-15");
    let mut config = Config::default();
    config.sources.pmu.events = vec![EventSet::DramLoads, EventSet::Stalled];
    config.sources.pmu.raw = vec![RawEvent {
        name: "my_event".into(),
        event: "cpu/event=0xd1,umask=0x20/".into(),
        guest: true,
        host: false,
    }];
    config.sources.exits.reasons = vec![ExitReason("hlt".into()), ExitReason("npf".into())];
    // An I/O thread on the core of vCPU 0, a vhost worker, and two virtual functions of a card.
    thread(&host, &web, 0, "IO iothread1", 8, 70);
    thread(&host, &web, 1, "vhost-1000", 1, 30);
    thread(&host, &web, 2, "worker", 2, 20);
    let card = Pci {
        driver: "ice",
        numa_node: 1,
        ..Pci::new("0000:d8:00.0", 0x02_00_00, 150)
    };
    host.pci(card);
    for (address, group) in [("0000:d8:01.0", 151), ("0000:d8:01.1", 152)] {
        let function = Pci::new(address, card.class, group);
        host.pci(Pci {
            numa_node: card.numa_node,
            physfn: card.address,
            ..function
        });
    }
    host.fd(web.pid, 50, "/dev/vfio/151");
    host.vfio_dev(3, "0000:d8:01.1");
    host.fd(nova.pid, 50, "/dev/vfio/devices/vfio3");
    host.kvm_stat(web.pid, 10, "exits", 4711);
    host.kvm_stat(web.pid, 10, "halt_wait_ns", 5_000_000_000);
    let watched = Watched::new(&host, &config, Scripted::new());
    // To the other thread of the core, and from one node to the other.
    second_second(&host, &web, 8);
    second_second(&host, &nova, 2);
    expect_file!["golden/xeon-2s.txt"].assert_eq(&watched.exposition());
}

#[test]
fn two_socket_epyc_with_four_nodes_a_socket_proxmox_and_kubevirt() {
    let host = FakeHost::new();
    host.cpus(2, 8, 2, 4);
    cpu(&host, "AuthenticAMD", 25, 17);
    host.epyc_server();
    host.tracepoints("kvm_amd");
    let pve = host.proxmox(1000, 101, "mail", "2f0e0d0c-0b0a-4908-8706-050403020100", 2);
    let virt = host.kubevirt(
        2000,
        "prod",
        "db",
        "3f0e0d0c-0b0a-4908-8706-050403020100",
        2,
    );
    let pool = Block {
        path: "/run/hugepages/kvm/1048576kB/ram-node0 (deleted)",
        page_size: GIB,
        ..Block::ram(&[0, 0, 0, 0, 4 * GIB])
    };
    let memfd = Block {
        path: "/memfd:pc.ram (deleted)",
        ..Block::ram(&[0, GIB / 4, GIB])
    };
    host.memory(pve.pid, &[pool]).memory(virt.pid, &[memfd]);
    group_v2(&host, "qemu.slice/101.scope", 1, "150000");
    // Kubernetes sets the limit on the container and on its pod.
    let pods = "kubepods.slice/kubepods-burstable.slice";
    let pod = format!("{pods}/kubepods-burstable-pod6f1e2d3c_4b5a_4968_8776_655443322110.slice");
    group_v2(&host, pods, 4, "max");
    group_v2(&host, &pod, 3, "200000");
    group_v2(
        &host,
        &format!("{pod}/cri-containerd-2a.scope"),
        2,
        "200000",
    );
    // A graphics card is held with its audio function, and another is partitioned.
    let gpu = Pci {
        id: (0x10de, 0x20b5),
        ..Pci::new("0000:41:00.0", 0x03_02_00, 60)
    };
    let sound = Pci {
        address: "0000:41:00.1",
        class: 0x04_03_00,
        ..gpu
    };
    let cut_up = Pci {
        address: "0000:81:00.0",
        driver: "nvidia",
        numa_node: 6,
        iommu_group: 90,
        ..gpu
    };
    let uuid = "c0ffee00-0000-4000-8000-000000000001";
    host.pci(gpu).pci(sound).pci(cut_up);
    host.mdev(uuid, cut_up.address, "nvidia-558", 91);
    host.fd(pve.pid, 50, "/dev/vfio/60");
    host.fd(virt.pid, 50, "/dev/vfio/91");
    thread(&host, &pve, 0, "IO iothread-vir", 16, 5);
    first_second(&host, &pve, &[0, 17], "0-31");
    first_second(&host, &virt, &[8, 9], "8-9");
    let mut config = Config::default();
    config.sources.pmu.events = vec![EventSet::DramLoads];
    config.sources.exits.reasons = vec![ExitReason("npf".into())];
    let watched = Watched::new(&host, &config, Scripted::new());
    second_second(&host, &pve, 2);
    second_second(&host, &virt, 9);
    expect_file!["golden/epyc-2s-nps4.txt"].assert_eq(&watched.exposition());
}

#[test]
fn hybrid_client_with_qemu_by_hand_and_firecracker() {
    let host = FakeHost::new();
    host.hybrid(2, 4);
    cpu(&host, "GenuineIntel", 6, 151);
    host.hybrid_client();
    host.remove("sys/bus/event_source/devices/cpu");
    pmu(&host, "cpu_core", 4);
    pmu(&host, "cpu_atom", 10);
    let qemu = host.qemu(1000, "dev", "4f0e0d0c-0b0a-4908-8706-050403020100", 1);
    let fire = host.firecracker(2000, "fn-7", 1);
    host.memory(qemu.pid, &[Block::ram(&[2 * GIB])]);
    host.memory(fire.pid, &[Block::own(&[GIB / 8])]);
    // No quota at any level, and a disabled controller.
    let session = "user.slice/user-0.slice/session-1.scope";
    group_v2(&host, session, 1, "max");
    for file in ["cpu.max", "cpu.weight", "cpuset.cpus.effective"] {
        host.remove(format!("sys/fs/cgroup/{session}/{file}"));
    }
    group_v2(&host, "firecracker/fn-7", 7, "max");
    first_second(&host, &qemu, &[0], "0-7");
    host.pci(Pci {
        numa_node: -1,
        ..Pci::new("0000:01:00.0", 0x01_08_02, 14)
    });
    host.fd(qemu.pid, 50, "/dev/vfio/14");
    thread(&host, &fire, 0, "fc_api", 6, 1);
    first_second(&host, &fire, &[4], "4-7");
    let watched = Watched::new(&host, &Config::default(), Scripted::new());
    second_second(&host, &qemu, 5);
    second_second(&host, &fire, 6);
    expect_file!["golden/hybrid-client.txt"].assert_eq(&watched.exposition());
}

#[test]
fn single_node_without_pmu_and_with_hostile_names() {
    let host = FakeHost::new();
    host.cpus(1, 2, 1, 1);
    cpu(&host, "GenuineIntel", 6, 85);
    let hypervisor = host.cloud_hypervisor(1000, "/run/ch/build.sock", 2);
    let nasty = host.libvirt_v1(2000, "a\"b\\c,d", "5f0e0d0c-0b0a-4908-8706-050403020100", 1);
    let twin = host.qemu(3000, "twin", "6f0e0d0c-0b0a-4908-8706-050403020100", 1);
    let other_twin = host.qemu(4000, "twin", "7f0e0d0c-0b0a-4908-8706-050403020100", 1);
    // The kernel does not report memory of the others.
    host.memory(nasty.pid, &[Block::ram(&[GIB])]);
    let machine = "machine/qemu-1-a\"b\\c,d.libvirt-qemu";
    group_v1(&host, machine, 30_000);
    group_v1(&host, &format!("{machine}/emulator"), -1);
    group_v1(&host, &format!("{machine}/vcpu0"), -1);
    for vm in [&hypervisor, &nasty, &twin, &other_twin] {
        first_second(&host, vm, &[0, 1], "0-1");
    }
    thread(&host, &hypervisor, 0, "_disk0_q0", 1, 40);
    let no_pmu = |_, attr: &vcpu_exporter::sources::pmu::counters::Attr| {
        // PERF_TYPE_SOFTWARE is 1 (linux/perf_event.h).
        (attr.kind != 1).then_some(libc::ENOENT)
    };
    let counters = Scripted::new().refusing(no_pmu);
    let watched = Watched::new(&host, &Config::default(), counters);
    second_second(&host, &nasty, 1);
    expect_file!["golden/single-node.txt"].assert_eq(&watched.exposition());
}
