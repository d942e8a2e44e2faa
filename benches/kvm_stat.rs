//! CPU time of a pass of the source `kvm_stat` over 1,000 vCPUs, relative to the unavoidable system
//! calls, measured in the same run.
//!
//! The vCPUs are real, of VMMs that hold descriptors of statistics and are stopped. The baseline
//! opens a pidfd for each VMM, and copies, reads and closes each descriptor. Times are CPU time of
//! the process, because the source reads on another thread than it is called on.
//!
//! `cargo bench --bench kvm_stat`; exit status 1 if a pass without series of vCPUs takes more than
//! 4 times as long as its system calls.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{
    kill_process, pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags, Signal,
};
use rustix::time::{clock_gettime, ClockId};
use vcpu_exporter::config::KvmStat as Config;
use vcpu_exporter::discover::{Scanner, Vm};
use vcpu_exporter::engine::VmSource;
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::topology::Topology;
use vcpu_exporter::sources::kvm_stat::KvmStat;

const VMS: usize = 20;
const VCPUS: usize = 50;
const RUNS: usize = 30;
const MOST: f64 = 4.0;

/// A running VMM; dropping it kills it.
struct Vmm(Child);

impl Vmm {
    fn start(n: usize) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
            .args(["micro-vm", "--name", &format!("bench-{n}")])
            .args(["--load", "halt", "--vcpus", &VCPUS.to_string()])
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until all vCPUs are discovered.
fn discovered(roots: &Arc<Roots>, vmms: &[Vmm]) -> Option<Vec<Arc<Vm>>> {
    let topology = Arc::new(Topology::read(roots, &Topology::default()).ok()?);
    let mut scanner = Scanner::new(roots.clone());
    let begun = Instant::now();
    loop {
        let inventory = scanner.scan(&topology);
        let own = |vm: &&Arc<Vm>| {
            let is_own = |vmm: &Vmm| vmm.pid().as_raw_nonzero().get() == vm.key.pid;
            vmms.iter().any(is_own)
        };
        let vms: Vec<_> = inventory.vms.iter().filter(own).cloned().collect();
        if vms.iter().map(|vm| vm.vcpus.len()).sum::<usize>() == VMS * VCPUS {
            return Some(vms);
        }
        if begun.elapsed() > Duration::from_secs(120) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Descriptors of statistics of a process.
fn descriptors(pid: i32) -> Vec<i32> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let numbers = links.filter_map(|link| {
        let link = link.ok()?;
        let target = std::fs::read_link(link.path()).ok()?;
        let number = link.file_name().to_str()?.parse().ok()?;
        target.to_str()?.contains("-stats").then_some(number)
    });
    numbers.collect()
}

/// Lowest CPU time of several runs.
fn least(mut work: impl FnMut()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let times = (0..RUNS).map(|_| {
        let begun = now();
        work();
        now() - begun
    });
    times.min().unwrap_or_default()
}

fn read_bare(vmms: &[(Pid, Vec<i32>)], buffer: &mut [u8]) {
    for (pid, fds) in vmms {
        let process = pidfd_open(*pid, PidfdFlags::empty()).unwrap();
        for fd in fds {
            let file = pidfd_getfd(&process, *fd, PidfdGetfdFlags::empty()).unwrap();
            rustix::io::pread(&file, &mut *buffer, 0).unwrap();
        }
    }
}

fn main() -> ExitCode {
    if let Err(why) = vcpu_exporter::demo::vm::probe() {
        println!("skipped: {why}");
        return ExitCode::SUCCESS;
    }
    let roots = Arc::new(Roots::default());
    let vmms: Vec<Vmm> = (0..VMS).map(Vmm::start).collect();
    let Some(vms) = discovered(&roots, &vmms) else {
        println!("the guests did not start");
        return ExitCode::FAILURE;
    };
    let held: Vec<_> = vmms
        .iter()
        .map(|vmm| (vmm.pid(), descriptors(vmm.pid().as_raw_nonzero().get())))
        .collect();
    if held.iter().any(|(_, fds)| fds.len() != VCPUS + 1) {
        println!("skipped: this kernel has no descriptors of KVM's statistics (Linux 5.14)");
        return ExitCode::SUCCESS;
    }
    for vmm in &vmms {
        kill_process(vmm.pid(), Signal::STOP).unwrap();
    }
    let mut buffer = vec![0; 1 << 16];
    let bare = least(|| read_bare(&held, &mut buffer));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{} vCPUs of {VMS} VMs: bare system calls {:.2} ms",
        VMS * VCPUS,
        milliseconds(bare)
    );
    let mut ratios = Vec::new();
    for vcpus in [false, true] {
        let config = Config {
            vcpus,
            ..Config::default()
        };
        let mut source = KvmStat::new(config, roots.clone());
        let mut facts = 0;
        let ours = least(|| {
            facts = vms.iter().map(|vm| source.read(vm).unwrap().len()).sum();
        });
        let ratio = ours.as_secs_f64() / bare.as_secs_f64();
        println!(
            "a pass {:.2} ms, ratio {ratio:.2}: {facts} facts (vcpus: {vcpus})",
            milliseconds(ours)
        );
        ratios.push(ratio);
    }
    if ratios[0] > MOST {
        println!("above {MOST}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
