//! CPU time for a whole host: 1,000 vCPUs in 250 VMs with every source that is on by default, above
//! the unavoidable system calls, measured in the same run.
//!
//! The fixture host has data for each source: threads, cgroups, KVM's counters, memory, and two
//! sockets with frequencies, throttling, sensors, nodes and a log. Counters are scripted: reading
//! them is a system call on a real host, and here counts as our work. The run simulates half a
//! minute at once: every vCPU has run before each of its 30 ticks; inventory and background
//! collectors run when they are due, all of them in the first second.
//!
//! The baseline is one read of each open file of each vCPU per tick, and one open, read and close
//! for each file or directory that was opened. Times are CPU time of the measuring thread.
//!
//! The fixture is rewritten between ticks, which on a disk would leave cold caches, unlike /proc
//! and /sys. Therefore it is in memory (/dev/shm) if possible.
//!
//! Exit status 1 if the time above the baseline is more than 1 % of a core.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::measure;

use vcpu_exporter::cli::pipeline::Pipeline;
use vcpu_exporter::config::Config;
use vcpu_exporter::fake_host::{Block, FakeHost, FakeVm};
use vcpu_exporter::host::privileges::raise_descriptor_limit;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::sources::pmu::scripted::Scripted;
use vcpu_exporter::telemetry::Telemetry;

const VMS: i32 = 250;
const VCPUS: u32 = 4;
const SECONDS: u64 = 30;
/// Share of one core.
const MOST: f64 = 0.01;

fn fixture() -> (FakeHost, Vec<FakeVm>) {
    let host = FakeHost::in_memory();
    host.cpus(2, 32, 2, 1).xeon_server();
    for cpu in 16..128 {
        host.frequency(cpu, 2_000_000, 800_000, 3_500_000)
            .throttles(cpu, [0, 0], [0, 0]);
    }
    host.tracepoints("kvm_intel");
    host.file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
    host.file(
        "proc/pressure/cpu",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    );
    let vms = (0..VMS).map(|n| {
        let vm = host.libvirt_v2(1000 + 100 * n, &format!("vm{n}"), &uuid(n), VCPUS);
        fill(&host, n, &vm);
        vm
    });
    let vms = vms.collect();
    (host, vms)
}

fn uuid(n: i32) -> String {
    format!("{n:08x}-0000-4000-8000-000000000001")
}

/// Control groups, memory and KVM's counters of a VM.
fn fill(host: &FakeHost, n: i32, vm: &FakeVm) {
    let cgroup = std::fs::read_to_string(host.path(format!("proc/{}/cgroup", vm.pid))).unwrap();
    let own = cgroup.trim().strip_prefix("0::/").unwrap();
    let scope = own.strip_suffix("/emulator").unwrap_or(own);
    let vcpus = (0..VCPUS).map(|vcpu| format!("{scope}/vcpu{vcpu}"));
    for group in vcpus.chain([scope.to_owned()]) {
        let dir = format!("sys/fs/cgroup/{group}");
        host.file(format!("{dir}/cpu.max"), "25000 100000\n");
        host.file(format!("{dir}/cpu.weight"), "100\n");
        let stat = format!("usage_usec 1\nnr_periods {n}\nnr_throttled 1\nthrottled_usec 5\n");
        host.file(format!("{dir}/cpu.stat"), stat);
        host.file(format!("{dir}/cpuset.cpus.effective"), "0-63\n");
        for resource in ["cpu", "memory", "io"] {
            let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\n";
            host.file(format!("{dir}/{resource}.pressure"), text);
        }
    }
    host.memory(vm.pid, &[Block::ram(&[1 << 30, 0])]);
    host.memory_cgroup(scope, &[1 << 30, 0], &[0, 0], &[0, 0]);
    advance_kvm(host, vm, 0);
}

/// Advances KVM's counters.
fn advance_kvm(host: &FakeHost, vm: &FakeVm, second: u64) {
    for (n, stat) in (1u64..).zip(STATS) {
        host.kvm_stat(vm.pid, 10, stat, second * 100 * n);
    }
}

/// As many counters as the exporter reads on an x86 kernel.
const STATS: [&str; 30] = [
    "exits",
    "io_exits",
    "mmio_exits",
    "halt_exits",
    "irq_exits",
    "irq_window_exits",
    "nmi_window_exits",
    "request_irq_exits",
    "signal_exits",
    "hypercalls",
    "insn_emulation",
    "irq_injections",
    "nmi_injections",
    "nested_run",
    "directed_yield_attempted",
    "directed_yield_successful",
    "preemption_reported",
    "preemption_other",
    "halt_attempted_poll",
    "halt_successful_poll",
    "halt_wakeup",
    "halt_poll_success_ns",
    "halt_poll_fail_ns",
    "halt_wait_ns",
    "pf_taken",
    "pf_fixed",
    "pf_emulate",
    "tlb_flush",
    "remote_tlb_flush",
    "mmu_shadow_zapped",
];

/// Every vCPU has run for a second on its own CPU.
fn advance(host: &FakeHost, vms: &[FakeVm], second: u64) {
    for (n, vm) in (0u32..).zip(vms) {
        for (vcpu, tid) in (0u32..).zip(&vm.vcpus) {
            host.set(vm.pid, *tid, |t| {
                t.cpu = (n * VCPUS + vcpu) % 128;
                t.cpus_allowed = "0-127".into();
                t.run = second * 900_000_000;
                (t.delay, t.timeslices) = (second * 1000, second * 10);
                (t.voluntary, t.guest_ticks) = (second * 9, second * 80);
            });
        }
    }
}

/// Cost of reading the vCPUs' files and of opening other files.
struct Bare {
    kept: Vec<[File; 3]>,
    small: std::path::PathBuf,
}

impl Bare {
    fn new(host: &FakeHost, vms: &[FakeVm]) -> Self {
        let kept = vms.iter().flat_map(|vm| {
            let dir = |tid| host.path(format!("proc/{}/task/{tid}", vm.pid));
            let files = |dir: std::path::PathBuf| {
                ["schedstat", "stat", "sched"].map(|name| File::open(dir.join(name)).unwrap())
            };
            vm.vcpus.iter().map(move |tid| files(dir(*tid)))
        });
        Self {
            kept: kept.collect(),
            small: host.path("sys/kernel/debug/kvm/exits"),
        }
    }

    fn tick(&self, buffer: &mut [u8]) {
        for file in self.kept.iter().flatten() {
            file.read_at(buffer, 0).unwrap();
        }
    }

    fn opens(&self, count: u64, buffer: &mut [u8]) {
        for _ in 0..count {
            let mut file = File::open(&self.small).unwrap();
            // To the end, as for any whole file.
            while file.read(buffer).unwrap() > 0 {}
        }
    }
}

/// Total of one kind of work.
#[derive(Default)]
struct Work {
    ours: Duration,
    bare: Duration,
}

impl Work {
    fn report(&self, what: &str) -> f64 {
        let share = |time: Duration| time.as_secs_f64() / SECONDS as f64;
        let beyond = share(self.ours) - share(self.bare);
        println!(
            "{what:10} {:.2} % of a core, bare system calls {:.2} %, ratio {:.2}, beyond {:.2} %",
            100.0 * share(self.ours),
            100.0 * share(self.bare),
            self.ours.as_secs_f64() / self.bare.as_secs_f64(),
            100.0 * beyond,
        );
        beyond
    }
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    let (host, vms) = fixture();
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    let counters = Arc::new(Scripted::new());
    let config = Config::default();
    let pipeline = Pipeline::new(&config, roots.clone(), counters, 0, telemetry);
    let mut pipeline = pipeline.unwrap();
    advance(&host, &vms, 1);
    let (first, ()) = measure(|| {
        pipeline.find();
        pipeline.tick();
    });
    let bare = Bare::new(&host, &vms);
    let mut buffer = vec![0; 16 << 10];
    let start = Instant::now();
    let (mut ticks, mut slow, mut inventory) = (Work::default(), Work::default(), Work::default());
    for second in 0..SECONDS {
        advance(&host, &vms, second + 2);
        let mut passes = |work: &mut Work, pass: &mut dyn FnMut()| {
            let opens = roots.opens();
            work.ours += measure(pass).0;
            let opens = roots.opens() - opens;
            work.bare += measure(|| bare.opens(opens, &mut buffer)).0;
        };
        if second % config.sampling.inventory.as_secs() == 0 {
            passes(&mut inventory, &mut || pipeline.find());
        }
        if second % 15 == 0 {
            vms.iter().for_each(|vm| advance_kvm(&host, vm, second + 2));
        }
        let now = start + Duration::from_secs(second);
        passes(&mut slow, &mut || pipeline.read_slow(now));
        ticks.ours += measure(|| pipeline.tick()).0;
        ticks.bare += measure(|| bare.tick(&mut buffer)).0;
    }
    let snapshot = pipeline.snapshots().load().unwrap();
    println!(
        "{} VMs, {} vCPUs, {} CPUs: {} series; first pass and tick {:.0} ms",
        snapshot.vms.len(),
        snapshot.vcpus.len(),
        snapshot.cpu_labels.len(),
        snapshot.series_count,
        first.as_secs_f64() * 1e3,
    );
    let sources = snapshot
        .sources
        .iter()
        .filter(|s| s.state.reason().is_some());
    let lacking: Vec<String> = sources
        .map(|s| format!("{} ({})", s.info.name, s.state.code()))
        .collect();
    println!("without: {}", lacking.join(", "));
    let beyond = [
        (&ticks, "ticks"),
        (&slow, "background"),
        (&inventory, "inventory"),
    ];
    let beyond: f64 = beyond.iter().map(|(work, what)| work.report(what)).sum();
    let total = Work {
        ours: ticks.ours + slow.ours + inventory.ours,
        bare: ticks.bare + slow.bare + inventory.bare,
    };
    total.report("all");
    if beyond > MOST {
        println!("beyond {:.1} % of a core", 100.0 * MOST);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
