//! The demo command: its page shows what the command announces, and no guest survives it.

#![cfg(feature = "demo")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::support::exporter::{get, Exposition, Sample};
use crate::support::micro_vm::{comm, ends, is_alive, kvm_works};
use crate::support::run::{alone, eventually, stolen, DEADLINE};
use rustix::process::{kill_process, Pid, Signal};
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use vcpu_exporter::demo::guests::{Plan, PLANS};

/// A running demo. Dropping it kills it.
struct Demo {
    child: Child,
    address: String,
    guests: Vec<u32>,
}

impl Demo {
    /// Starts the demo and waits until it prints its address.
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
            .args(["demo", "--web.listen-address=127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut demo = Self {
            child,
            address: String::new(),
            guests: Vec::new(),
        };
        let (sender, receiver) = mpsc::channel();
        // Reads to the end, so that the demo never writes to a pipe without a reader.
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| sender.send(l)));
        loop {
            let line = receiver.recv_timeout(DEADLINE).expect("the demo starts");
            demo.guests.extend(guest(&line));
            if let Some((_, rest)) = line.split_once("Metrics: http://") {
                demo.address = rest.strip_suffix("/metrics").unwrap().to_owned();
                return demo;
            }
        }
    }

    /// Scrapes until `test` holds; fails with the last exposition after the deadline.
    fn until(&self, test: impl Fn(&Exposition) -> bool) -> Exposition {
        let mut last = String::new();
        let found = eventually(|| {
            let exposition = Exposition::parse(&get(&self.address, "/metrics"));
            last.clone_from(&exposition.text);
            test(&exposition).then_some(exposition)
        });
        found.unwrap_or_else(|| panic!("this never came:\n{last}"))
    }

    /// Two scrapes whose samples are this many seconds apart.
    fn window(&self, seconds: f64) -> (Exposition, Exposition) {
        let before = self.until(|_| true);
        let after = self.until(|e| taken(e) >= taken(&before) + seconds);
        (before, after)
    }

    /// The `vm` label of a guest. Another demo on this host has guests with the same names, so
    /// guests are identified by UUID.
    fn vm(&self, exposition: &Exposition, plan: usize) -> Option<String> {
        let pid = self.child.id();
        let uuid = format!("{pid:08x}-0000-8000-8000-{:012x}", plan + 1);
        let info = exposition
            .all("kvm_vm_info", &[("uuid", &uuid)])
            .next()?
            .clone();
        Some(info.label("vm").to_owned())
    }

    /// Samples of a vCPU.
    fn samples(&self, e: &Exposition, name: &str, plan: usize, vcpu: u32) -> Vec<Sample> {
        let vm = self.vm(e, plan).unwrap_or_default();
        let vcpu = vcpu.to_string();
        e.all(name, &[("vm", &vm), ("vcpu", &vcpu)])
            .cloned()
            .collect()
    }

    fn total(&self, e: &Exposition, name: &str, plan: usize, vcpu: u32) -> f64 {
        let samples = self.samples(e, name, plan, vcpu);
        assert!(!samples.is_empty(), "no {name}");
        samples.iter().map(|sample| sample.value).sum()
    }

    fn end(mut self, signal: Signal) -> (ExitStatus, Vec<u32>) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let status = eventually(|| self.child.try_wait().unwrap());
        (status.expect("the demo ends"), self.guests.clone())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sample time by the exporter's clock.
fn taken(exposition: &Exposition) -> f64 {
    let taken = exposition.one("kvm_exporter_sample_timestamp_seconds", &[]);
    taken.expect("it is always there")
}

/// The PID in a line about a guest: `spin pid 123 …`.
fn guest(line: &str) -> Option<u32> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "pid");
    words.nth(1)?.parse().ok()
}

#[test]
fn it_ends_its_guests_on_sigterm_and_on_ctrl_c() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let (status, guests) = Demo::start().end(signal);
        assert!(status.success(), "{signal:?}: {status}");
        assert_eq!(guests.len(), 3);
        for pid in guests {
            assert!(!is_alive(pid), "{pid} outlived {signal:?}");
        }
    }
}

#[test]
fn its_guests_end_also_when_it_is_killed() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let (_, guests) = Demo::start().end(Signal::KILL);
    assert_eq!(guests.len(), 3);
    let outlived: Vec<u32> = guests.into_iter().filter(|pid| !ends(*pid)).collect();
    assert!(outlived.is_empty(), "{outlived:?} outlived the demo");
}

/// Every vCPU of the demo: its guest's index among the plans, and its own index.
fn vcpus() -> impl Iterator<Item = (usize, u32)> {
    let vcpus = |(n, plan): (usize, &Plan)| (0..plan.vcpus).map(move |vcpu| (n, vcpu));
    PLANS.iter().enumerate().flat_map(vcpus)
}

const TIME: &str = "kvm_vcpu_time_seconds_total";
const DELAY: &str = "kvm_vcpu_delay_seconds_total";
const MIGRATIONS: &str = "kvm_vcpu_migrations_total";
const PLACEMENT: &str = "kvm_vcpu_placement_info";

const PLACE: [&str; 3] = ["package", "core", "numa_node"];

#[test]
fn every_vcpu_has_its_series_with_all_labels() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let demo = Demo::start();
    let placed = |e: &Exposition, (plan, vcpu)| demo.samples(e, PLACEMENT, plan, vcpu).len() == 1;
    let page = demo.until(|e| vcpus().all(|vcpu| placed(e, vcpu)));
    for (plan, vcpu) in vcpus() {
        for (name, labels) in [
            (TIME, &PLACE[..]),
            (DELAY, &PLACE),
            (MIGRATIONS, &[]),
            (PLACEMENT, &["cpu", "package", "core", "numa_node"]),
        ] {
            let samples = demo.samples(&page, name, plan, vcpu);
            assert!(!samples.is_empty(), "no {name} of {plan}/{vcpu}");
            for sample in samples {
                let given = labels.iter().all(|label| !sample.label(label).is_empty());
                assert!(given, "a label of {sample:?} is missing");
                assert_eq!(sample.labels.len(), 2 + labels.len(), "{sample:?}");
            }
        }
    }
}

/// Seconds of a window: long enough for the 10 ms by which the kernel's total of a running thread
/// can lag, and for a sampler that is preempted before it reads the clock.
const WINDOW: f64 = 4.0;

/// Tolerated relative error of a delta.
const TOLERANCE: f64 = 0.02;

/// The spinning guest among the plans.
const SPIN: usize = 0;

/// Waits for a window in which each spinning vCPU was always running or waiting, and in which the
/// time of each per second is `fair`.
///
/// On a busy machine the sampler can be preempted between reading the clock and the vCPU; then
/// another window is used.
fn spinning(demo: &Demo, fair: impl Fn([f64; 2]) -> bool) {
    let mut said = Vec::new();
    let found = eventually(|| {
        let start = stolen();
        let (before, after) = demo.window(WINDOW);
        let stolen = stolen() - start;
        let elapsed = taken(&after) - taken(&before);
        let total = |e, name, vcpu| demo.total(e, name, SPIN, vcpu);
        let delta = |name, vcpu| total(&after, name, vcpu) - total(&before, name, vcpu);
        let both = [0, 1].map(|vcpu| [delta(TIME, vcpu), delta(DELAY, vcpu)]);
        said.push(format!("{both:?} in {elapsed} s, {stolen} s stolen"));
        let (low, high) = (1.0 - TOLERANCE, 1.0 + TOLERANCE);
        let busy = (elapsed * low - stolen)..=(elapsed * high);
        let all_busy = both
            .iter()
            .all(|[time, delay]| busy.contains(&(time + delay)));
        (all_busy && fair(both.map(|[time, _]| time / elapsed))).then_some(())
    });
    assert!(found.is_some(), "time and delay of each vCPU: {said:#?}");
}

/// The vCPU threads of the spinning guest.
fn spinning_threads(demo: &Demo) -> [Pid; 2] {
    let pid = demo.guests[SPIN];
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tids = tasks.filter_map(|task| task.unwrap().file_name().to_str()?.parse().ok());
    let tids: Vec<i32> = tids.collect();
    ["CPU 0/KVM", "CPU 1/KVM"].map(|name| {
        let tid = tids
            .iter()
            .find(|tid| comm(pid, **tid).as_deref() == Some(name));
        Pid::from_raw(*tid.expect("a vCPU's thread")).unwrap()
    })
}

#[test]
fn spinning_vcpus_grow_a_second_a_second_divided_by_the_cores_they_share() {
    let _alone = alone();
    if !kvm_works() {
        return;
    }
    let demo = Demo::start();
    demo.until(|e| demo.vm(e, SPIN).is_some());
    let cpus = sched_getaffinity(None).unwrap();
    let most = f64::from(cpus.count().min(2)) * (1.0 + TOLERANCE);
    spinning(&demo, |each| each.iter().sum::<f64>() <= most);

    let cpu = (0..CpuSet::MAX_CPU).find(|cpu| cpus.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu);
    for thread in spinning_threads(&demo) {
        sched_setaffinity(Some(thread), &one).unwrap();
    }
    let there = |e: &Exposition, vcpu| {
        let placement = demo.samples(e, PLACEMENT, SPIN, vcpu);
        placement
            .iter()
            .all(|sample| sample.label("cpu") == cpu.to_string())
    };
    let moved = demo.until(|e| there(e, 0) && there(e, 1));
    // The tick of the move still has time on both cores.
    demo.until(|e| taken(e) > taken(&moved));
    // The scheduler is fair to two threads of equal weight.
    spinning(&demo, |[first, second]| {
        first + second <= 1.0 + TOLERANCE && (first - second).abs() <= 2.0 * TOLERANCE
    });
}
