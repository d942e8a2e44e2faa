//! CPU time of one tick, relative to the unavoidable system calls, measured in the same run.
//!
//! The vCPUs are waiting threads of this process; before each round all or none of them run for a
//! moment. Each round is measured twice: with the sampler, and with only `pread` of the same open
//! files and `read` of a counter group of the same size. Times are CPU time of the measuring
//! thread; the ratio of the two is the result.
//!
//! `cargo bench --bench tick`; exit status 1 if the ratio is above 2.0.
#![allow(unsafe_code, clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Arc;
use std::time::Duration;

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::measure;

use arc_swap::ArcSwap;
use perf_event::events::Software;
use perf_event::{Builder as PerfBuilder, Counter, ReadFormat};
use vcpu_exporter::config::Config;
use vcpu_exporter::discover::{Inventory, Owner, Vcpu, Vm, VmKey};
use vcpu_exporter::engine::sampler::{Published, Sampler};
use vcpu_exporter::host::privileges::raise_descriptor_limit;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::thread::parse_stat;
use vcpu_exporter::host::topology::Topology;
use vcpu_exporter::snapshot::build::Builder;
use vcpu_exporter::snapshot::Handle;
use vcpu_exporter::sources::pmu::perf::Perf;
use vcpu_exporter::sources::pt::scripted::ScriptedPt;
use vcpu_exporter::sources::{Setup, Sources};
use vcpu_exporter::telemetry::Telemetry;

const VCPUS: usize = 200;
const ROUNDS: u32 = 200;
const MOST: f64 = 2.0;

/// Threads that act as vCPUs.
struct Threads {
    wake: Vec<SyncSender<()>>,
    tids: Vec<i32>,
    ran: Arc<AtomicUsize>,
}

impl Threads {
    fn start() -> Self {
        let ran = Arc::new(AtomicUsize::new(0));
        let (tell, told) = sync_channel(VCPUS);
        let wake = (0..VCPUS).map(|_| {
            let (wake, wait) = sync_channel::<()>(1);
            let (tell, ran) = (tell.clone(), ran.clone());
            std::thread::spawn(move || {
                tell.send(rustix::thread::gettid().as_raw_nonzero().get())
                    .unwrap();
                while wait.recv().is_ok() {
                    ran.fetch_add(1, Ordering::Release);
                }
            });
            wake
        });
        let wake = wake.collect();
        let tids = (0..VCPUS).map(|_| told.recv().unwrap()).collect();
        Self { wake, tids, ran }
    }

    /// Lets each thread run once, and waits until all sleep again.
    fn run(&self) {
        self.ran.store(0, Ordering::Release);
        self.wake.iter().for_each(|wake| wake.send(()).unwrap());
        while self.ran.load(Ordering::Acquire) < VCPUS {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An inventory of one VM with these threads as vCPUs.
fn inventory(roots: &Roots, tids: &[i32]) -> Inventory {
    let pid = std::process::id() as i32;
    let start_time = |tid: &i32| {
        let stat = roots.read(&roots.proc.join(format!("{pid}/task/{tid}/stat")));
        parse_stat(&stat.unwrap()).unwrap().start_time
    };
    let vcpus = (0..).zip(tids).map(|(index, tid)| Vcpu {
        index,
        tid: *tid,
        start_time: start_time(tid),
    });
    let vm = Vm {
        key: VmKey {
            pid,
            start_time: start_time(&pid),
            ordinal: 0,
        },
        name: "bench".to_owned(),
        name_source: "cmdline",
        uuid: None,
        vmm: "unknown",
        manager: None,
        owner: Owner::Host,
        facts: Vec::new(),
        vcpus: vcpus.collect(),
        threadless: 0,
        names_threads: true,
    };
    Inventory {
        generation: 1,
        topology: Arc::new(Topology::read(roots, &Topology::default()).unwrap()),
        vms: vec![Arc::new(vm)],
        visibility_gaps: Vec::new(),
        blocked: 0,
    }
}

/// The files and counters of one thread, read without parsing.
struct Bare {
    schedstat: File,
    others: [File; 2],
    group: Option<(Counter, Vec<Counter>)>,
}

impl Bare {
    fn open(tid: i32) -> Self {
        let file = |name| File::open(format!("/proc/self/task/{tid}/{name}")).unwrap();
        Self {
            schedstat: file("schedstat"),
            others: [file("stat"), file("sched")],
            group: counters(tid).ok(),
        }
    }

    fn read_idle(&self, buffer: &mut [u8]) {
        self.schedstat.read_at(buffer, 0).unwrap();
    }

    fn read_active(&self, buffer: &mut [u8]) {
        self.read_idle(buffer);
        for file in &self.others {
            file.read_at(buffer, 0).unwrap();
        }
        if let Some((leader, _)) = &self.group {
            // SAFETY: the counter owns the descriptor and outlives the call.
            let fd = unsafe { BorrowedFd::borrow_raw(leader.as_raw_fd()) };
            rustix::io::read(fd, &mut *buffer).unwrap();
        }
    }
}

/// A group with as many software events as the exporter opens on a machine without PMU.
fn counters(tid: i32) -> std::io::Result<(Counter, Vec<Counter>)> {
    let format =
        ReadFormat::GROUP | ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING;
    let builder = |event| {
        let mut builder = PerfBuilder::new(event);
        builder
            .observe_pid(tid)
            .any_cpu()
            .include_kernel()
            .read_format(format);
        builder
    };
    let mut leader = builder(Software::CONTEXT_SWITCHES).build()?;
    let members = [Software::CPU_MIGRATIONS, Software::PAGE_FAULTS]
        .map(|event| builder(event).build_with_group(&mut leader))
        .into_iter()
        .collect::<Result<_, _>>()?;
    leader.enable_group()?;
    Ok((leader, members))
}

fn main() -> ExitCode {
    raise_descriptor_limit();
    let roots = Arc::new(Roots::default());
    let threads = Threads::start();
    let config = Config::default();
    let (telemetry, _) = Telemetry::new();
    let sources = Sources::new(&Setup {
        config: &config,
        roots: roots.clone(),
        counters: Arc::new(Perf),
        recorder: Arc::new(ScriptedPt::of_bytes(Vec::new())),
        born_after: 0,
        inventory: Arc::default(),
        telemetry: telemetry.clone(),
    });
    let inventory = ArcSwap::from_pointee(inventory(&roots, &threads.tids));
    let published = Published {
        inventory: Arc::new(inventory),
        ..Published::default()
    };
    let mut sampler = Sampler::new(
        &config,
        sources.of_vcpus,
        sources.columns,
        published,
        telemetry,
    );
    let mut builder = Builder::new(Handle::default(), Some(sources.pmu_mode));
    let bare: Vec<Bare> = threads.tids.iter().map(|tid| Bare::open(*tid)).collect();
    let mut buffer = [0; 4096];
    sampler.tick();
    let mut worst = 0f64;
    for active in [true, false] {
        let (mut ticks, mut snapshots, mut bares) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            if active {
                threads.run();
            }
            ticks += measure(|| sampler.tick()).0;
            snapshots += measure(|| builder.publish(&sampler.view())).0;
            if active {
                threads.run();
            }
            bares += measure(|| {
                for bare in &bare {
                    if active {
                        bare.read_active(&mut buffer)
                    } else {
                        bare.read_idle(&mut buffer)
                    }
                }
            })
            .0;
        }
        let per_vcpu = |time: Duration| time.as_nanos() as f64 / f64::from(ROUNDS) / VCPUS as f64;
        let ratio = ticks.as_secs_f64() / bares.as_secs_f64();
        println!(
            "{} vCPUs, {}: tick {:.0} ns a vCPU, bare system calls {:.0} ns, ratio {ratio:.2}; snapshot {:.0} ns (pmu: {})",
            VCPUS,
            if active { "all ran" } else { "none ran" },
            per_vcpu(ticks),
            per_vcpu(bares),
            per_vcpu(snapshots),
            sources.pmu_mode.0,
        );
        worst = worst.max(ratio);
    }
    if worst > MOST {
        println!("above {MOST:.1}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
