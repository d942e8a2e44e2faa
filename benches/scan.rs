//! CPU time of discovery: the first pass, and a pass over an unchanged host, relative to the
//! unavoidable system calls, measured in the same run.
//!
//! The fixture host has many VMs, whose files are in a temporary directory; this machine's own
//! /proc has few, but the real cost of a stat. The baseline lists the processes, stats `PID/fd` and
//! `PID/task` and reads the link `PID/exe` of each, and stats each vCPU's thread. Times are CPU
//! time of the measuring thread; the ratio of the two is the result.
//!
//! `cargo bench --bench scan`; exit status 1 if the ratio is above 1.5, or if an unchanged pass
//! over the fixture opens any file.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ffi::CString;
use std::fs::File;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[path = "support/cpu_clock.rs"]
mod cpu_clock;
use cpu_clock::measure;

use rustix::fs::{readlinkat_raw, seek, statat, AtFlags, RawDir, SeekFrom};
use vcpu_exporter::discover::{Inventory, Scanner};
use vcpu_exporter::fake_host::FakeHost;
use vcpu_exporter::host::roots::Roots;

const VMS: i32 = 300;
const VCPUS: u32 = 16;
/// Further processes.
const OTHERS: i32 = 1000;
const ROUNDS: u32 = 50;
const MOST: f64 = 1.5;

fn fixture() -> FakeHost {
    let host = FakeHost::new();
    for n in 0..OTHERS {
        host.process(100_000 + n, 1, &["/usr/bin/other"], "0::/\n")
            .fd(100_000 + n, 0, "/dev/null");
    }
    for n in 0..VMS {
        host.libvirt_v2(1000 + 100 * n, &format!("vm{n}"), &uuid(n), VCPUS);
    }
    host
}

fn uuid(n: i32) -> String {
    format!("{n:08x}-0000-4000-8000-000000000001")
}

/// The paths that a pass uses, prepared in advance.
struct Bare {
    proc: File,
    processes: Vec<[CString; 3]>,
    threads: Vec<CString>,
}

impl Bare {
    fn new(roots: &Roots, inventory: &Inventory) -> Self {
        let path = |path: String| CString::new(path).unwrap();
        let names = roots.list(&roots.proc).unwrap();
        let pids = names.iter().filter_map(|name| name.parse::<i32>().ok());
        let files = |pid| ["fd", "task", "exe"].map(|file| path(format!("{pid}/{file}")));
        let threads = inventory.vms.iter().flat_map(|vm| {
            let pid = vm.key.pid;
            let tids = vm.vcpus.iter().map(|vcpu| vcpu.tid);
            tids.map(move |tid| path(format!("{pid}/task/{tid}")))
        });
        Self {
            proc: File::open(&roots.proc).unwrap(),
            processes: pids.map(files).collect(),
            threads: threads.collect(),
        }
    }

    fn pass(&self, buffer: &mut [MaybeUninit<u8>]) {
        seek(&self.proc, SeekFrom::Start(0)).unwrap();
        let mut entries = RawDir::new(&self.proc, buffer);
        while entries.next().is_some() {}
        let mut target = [0u8; 256];
        for [fd, task, exe] in &self.processes {
            let _ = statat(&self.proc, fd, AtFlags::empty());
            let _ = statat(&self.proc, task, AtFlags::empty());
            let _ = readlinkat_raw(&self.proc, exe, &mut target);
        }
        for thread in &self.threads {
            let _ = statat(&self.proc, thread, AtFlags::empty());
        }
    }
}

/// Measures the passes over one host; returns the ratio and the opens of an unchanged pass.
fn passes(what: &str, roots: Roots) -> (f64, u64) {
    let roots = Arc::new(roots);
    let topology = Arc::default();
    let mut scanner = Scanner::new(roots.clone());
    let (first, inventory) = measure(|| scanner.scan(&topology));
    let first_opens = roots.opens();
    (0..5).for_each(|_| drop(scanner.scan(&topology))); // for threads that are not yet named
    let bare = Bare::new(&roots, &inventory);
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let (mut ours, mut bares) = (Duration::ZERO, Duration::ZERO);
    let opens = roots.opens();
    for _ in 0..ROUNDS {
        ours += measure(|| scanner.scan(&topology)).0;
        bares += measure(|| bare.pass(&mut buffer)).0;
    }
    let opens = roots.opens() - opens;
    let (processes, vcpus) = (bare.processes.len(), bare.threads.len());
    let ratio = ours.as_secs_f64() / bares.as_secs_f64();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (ours, bares) = (micros(ours / ROUNDS), micros(bares / ROUNDS));
    let each = |time: f64| {
        let a_vcpu = match vcpus {
            0 => String::new(),
            _ => format!(", {:.1} a vCPU", time / vcpus as f64),
        };
        format!(
            "{time:.0} µs, {:.1} a process{a_vcpu}",
            time / processes as f64
        )
    };
    println!(
        "{what}: {} VMs of {vcpus} vCPUs among {processes} processes\n  \
         first pass      {}; {first_opens} opens\n  \
         unchanged pass  {}; {opens} opens in {ROUNDS} passes\n  \
         bare calls      {}; ratio {ratio:.2}",
        inventory.vms.len(),
        each(micros(first)),
        each(ours),
        each(bares),
    );
    (ratio, opens)
}

fn main() -> ExitCode {
    let host = fixture();
    let (ratio, opens) = passes("fixture host", Roots::below(host.root()));
    let (of_proc, _) = passes("this machine", Roots::default());
    let mut code = ExitCode::SUCCESS;
    if ratio.max(of_proc) > MOST {
        println!("ratio above {MOST:.1}");
        code = ExitCode::FAILURE;
    }
    if opens > 0 {
        println!("an unchanged pass opened something");
        code = ExitCode::FAILURE;
    }
    code
}
