//! Threads of real processes by role, against the kernel's schedstat of each thread, and in sum
//! against the process's CPU clock, which the source does not read.
//!
//! Tests print what the machine lacks and are skipped.
// The CPU clock of another process requires unsafe code.
#![allow(unsafe_code)]
#![cfg(feature = "demo")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vcpu_exporter::config::Config;
use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::discover::{Owner, Scanner, Vm, VmKey};
use vcpu_exporter::engine::{Fact, SourceState, VmSource};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::thread::{comm, parse_stat};
use vcpu_exporter::host::topology::Topology;
use vcpu_exporter::metric::FactValue;
use vcpu_exporter::sources::threads::Threads;

use crate::support::exporter::Exporter;
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::real_vms::{qemu, qemu_works, Guest};
use crate::support::run::{eventually, unique, Frozen};

const TIME: &str = "kvm_vm_thread_time_seconds_total";
const DELAY: &str = "kvm_vm_thread_delay_seconds_total";
const ROLES: [&str; 4] = ["vcpu", "emulator", "iothread", "vhost"];

/// User and system time of a process are each rounded down to clock ticks of 10 ms.
const ROUNDED: u64 = 20_000_000;

/// Time of a role, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Used {
    run: u64,
    delay: u64,
    threads: u64,
}

/// The process's CPU clock (clock_getcpuclockid(3)), which includes exited threads, ns.
fn cpu_clock(pid: u32) -> u64 {
    let pid = libc::pid_t::try_from(pid).unwrap();
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both write only to these two variables, which live until they return.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) | libc::clock_gettime(clock, &mut time)
    };
    assert_eq!(failed, 0, "process {pid} has a clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The kernel's figures of each thread, summed by names from the test or from QEMU's sources.
fn kernel(pid: u32) -> BTreeMap<&'static str, Used> {
    let mut roles = BTreeMap::from(ROLES.map(|role| (role, Used::default())));
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let dir = entry.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        let (Some(name), Some(schedstat)) = (read("comm"), read("schedstat")) else {
            continue; // it exited
        };
        let role = match name.trim_end() {
            name if name.starts_with("CPU ") => "vcpu",
            "IO disks" => "iothread",
            _ => "emulator",
        };
        let numbers = schedstat.split_whitespace().map(|n| n.parse().unwrap());
        let numbers: Vec<u64> = numbers.collect();
        let used = roles.entry(role).or_default();
        used.run += numbers[0];
        used.delay += numbers[1];
        used.threads += 1;
    }
    roles
}

fn source() -> Threads {
    Threads::new(&Config::default(), Arc::default(), 0)
}

/// The source's figures, summed over all locations.
fn told(source: &mut Threads, vm: &Vm) -> BTreeMap<&'static str, Used> {
    let facts = source.read(vm).unwrap();
    assert_eq!(source.state(), SourceState::Up);
    let sum = |metric: &str, role: &str| {
        let of_role =
            |f: &&Fact| f.metric == metric && f.labels.contains(&("role", role.to_owned().into()));
        let values = facts.iter().filter(of_role).map(|fact| match &fact.value {
            FactValue::Nanoseconds(n) | FactValue::Int(n) => *n,
            other => panic!("{other:?}"),
        });
        values.sum()
    };
    BTreeMap::from(ROLES.map(|role| {
        let used = Used {
            run: sum(TIME, role),
            delay: sum(DELAY, role),
            threads: sum("kvm_vm_threads", role),
        };
        (role, used)
    }))
}

fn total(roles: &BTreeMap<&'static str, Used>) -> u64 {
    roles.values().map(|used| used.run).sum()
}

fn find(name: &str, vcpus: usize) -> Arc<Vm> {
    let mut scanner = Scanner::new(Arc::new(Roots::default()));
    let found = eventually(|| {
        let inventory = scanner.scan(&Arc::new(Topology::default()));
        let mut vms = inventory.vms.iter();
        vms.find(|vm| vm.name == name && vm.vcpus.len() == vcpus)
            .cloned()
    });
    found.unwrap_or_else(|| panic!("no {name} of {vcpus} vCPUs"))
}

/// Firmware code that reads 16 KiB of the disk in a loop: in real mode at 0x7c00, `mov ax, 0x0220;
/// mov bx, 0x8000; mov cx, 1; mov dx, 0x80; int 0x13; jmp` to the start.
const READER: &[u8] = b"\x31\xc0\x8e\xd8\x8e\xc0\
    \xb8\x20\x02\xbb\x00\x80\xb9\x01\x00\xba\x80\x00\xcd\x13\xeb\xf0";

/// A QEMU with two vCPUs, one of which reads from a disk served by an I/O thread.
struct Reading {
    guest: Guest,
    vm: Arc<Vm>,
    _disk: tempfile::NamedTempFile,
}

impl Reading {
    fn start() -> Self {
        let mut disk = tempfile::NamedTempFile::new().unwrap();
        let mut image = READER.to_vec();
        image.resize(510, 0);
        image.extend([0x55, 0xaa]);
        image.resize(1 << 20, 0);
        disk.write_all(&image).unwrap();
        let name = unique("threads");
        let file = disk.path().display();
        let guest = qemu(&[
            "-name",
            &format!("guest={name},debug-threads=on"),
            "-smp",
            "2",
            "-object",
            "iothread,id=disks",
            "-drive",
            &format!("if=none,id=d,format=raw,file={file}"),
            "-device",
            "virtio-blk-pci,drive=d,iothread=disks",
        ]);
        let vm = find(&name, 2);
        let reading = Self {
            guest,
            vm,
            _disk: disk,
        };
        let pid = reading.guest.pid();
        let reads = || (kernel(pid)["iothread"].run >= 20_000_000).then_some(());
        assert!(
            eventually(reads).is_some(),
            "the guest reads: {:?}",
            kernel(pid)
        );
        reading
    }
}

/// One guest for both: its start is slow.
#[test]
fn roles_of_a_qemu_with_an_io_thread_are_the_kernels_own() {
    if !qemu_works() {
        return;
    }
    let reading = Reading::start();
    time_by_role_lies_between_the_kernels_before_and_after(&reading);
    at_rest_all_roles_together_are_the_process_own_clock(&reading);
}

fn time_by_role_lies_between_the_kernels_before_and_after(reading: &Reading) {
    let (pid, mut source) = (reading.guest.pid(), source());
    for _ in 0..20 {
        let before = kernel(pid);
        let told = told(&mut source, &reading.vm);
        let after = kernel(pid);
        for role in ["vcpu", "iothread"] {
            let (least, is, most) = (before[role], told[role], after[role]);
            assert!(
                least.run <= is.run && is.run <= most.run,
                "{role}: {least:?} <= {is:?} <= {most:?}"
            );
            assert!(
                least.delay <= is.delay && is.delay <= most.delay,
                "{role}: {least:?} <= {is:?} <= {most:?}"
            );
        }
        // Its workers start and exit.
        assert!(told["emulator"].run >= before["emulator"].run);
        assert!(total(&told) <= cpu_clock(pid));
    }
}

fn at_rest_all_roles_together_are_the_process_own_clock(reading: &Reading) {
    let (pid, mut source) = (reading.guest.pid(), source());
    told(&mut source, &reading.vm);
    let _frozen = Frozen::new(pid);
    let (is, kernel) = (told(&mut source, &reading.vm), kernel(pid));
    for role in ["vcpu", "iothread"] {
        assert_eq!(is[role], kernel[role], "{role}");
        assert!(is[role].run > 0);
    }
    assert_eq!(is["emulator"].threads, kernel["emulator"].threads);
    assert_eq!((is["vcpu"].threads, is["iothread"].threads), (2, 1));
    let clock = cpu_clock(pid);
    let late = clock.checked_sub(total(&is));
    assert!(
        late.is_some_and(|late| late <= ROUNDED),
        "{} of {clock}, late by {late:?}",
        total(&is)
    );
    println!("{clock} ns, of which {late:?} are not known yet");
    // Time of exited workers.
    assert!(total(&is) >= total(&kernel));
}

/// A VM of this process: its threads are the test's.
fn this_process() -> Vm {
    let stat = std::fs::read("/proc/self/stat").unwrap();
    Vm {
        key: VmKey {
            pid: std::process::id() as i32,
            start_time: parse_stat(&stat).unwrap().start_time,
            ordinal: 0,
        },
        name: comm(&stat).unwrap(),
        name_source: "pid",
        uuid: None,
        vmm: "qemu",
        manager: None,
        owner: Owner::Host,
        facts: Vec::new(),
        vcpus: Vec::new(),
        threadless: 0,
        names_threads: true,
    }
}

fn burn(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[test]
fn a_thousand_threads_that_come_and_go_are_neither_lost_nor_counted_twice() {
    let (vm, mut source) = (this_process(), source());
    let pid = std::process::id();
    let mut last = 0;
    for _ in 0..50 {
        let short: Vec<_> = (0..20)
            .map(|_| thread::spawn(|| burn(Duration::from_micros(500))))
            .collect();
        let now = total(&told(&mut source, &vm));
        let clock = cpu_clock(pid);
        assert!(last <= now && now <= clock, "{last} <= {now} <= {clock}");
        last = now;
        for thread in short {
            thread.join().unwrap();
        }
    }
    let before = cpu_clock(pid);
    let now = total(&told(&mut source, &vm));
    let after = cpu_clock(pid);
    // The kernel updates running threads at each timer tick of at most 10 ms; threads of concurrent
    // tests run too.
    let cpus = thread::available_parallelism().unwrap().get() as u64;
    let stale = ROUNDED + cpus * 10_000_000;
    assert!(
        before <= now + stale && now <= after,
        "{before} - {stale} <= {now} <= {after}"
    );
}

#[test]
fn the_exporter_shows_a_micro_vm_by_role_and_every_source_says_how_it_is() {
    if !kvm_works() {
        return;
    }
    let exporter = Exporter::with(
        &[],
        "sources: {threads: {period: 1s}, devices: {period: 1s}}",
    );
    let vm = MicroVm::start("threads-spin", Load::Spin, 2);
    let kernel = || kernel(vm.pid());
    let of = |role: &'static str| [("vm", vm.name()), ("role", role)];
    exporter.until(|e| e.sum("kvm_vm_threads", &of("vcpu")) == Some(2.0));
    let mut before = kernel();
    for _ in 0..3 {
        let seen = exporter.until(|e| {
            e.sum(TIME, &of("vcpu"))
                .is_some_and(|time| time >= before["vcpu"].run as f64 / 1e9)
        });
        let after = kernel();
        for role in ["vcpu", "emulator"] {
            let (is, most) = (seen.sum(TIME, &of(role)), after[role].run as f64 / 1e9);
            assert!(is.is_some_and(|is| is <= most), "{role}: {is:?} <= {most}");
        }
        before = after;
    }
    let exposition = exporter.scrape();
    let state = |source| {
        let labels = [("source", source)];
        let mut rows = exposition.all("kvm_exporter_source_up", &labels);
        let row = rows.next().unwrap_or_else(|| panic!("no row of {source}"));
        (row.value, row.label("reason").to_owned())
    };
    assert_eq!(state("threads"), (1.0, String::new()));
    let (up, reason) = state("devices");
    assert_eq!(up == 1.0, reason.is_empty(), "data or a reason: {reason}");
}
