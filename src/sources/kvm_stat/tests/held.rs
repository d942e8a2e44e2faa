//! VMMs that hold descriptors of statistics.

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::host::kvm_stats::file;

/// Files by descriptor. Several readers may share them.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<HashMap<i32, Vec<u8>>>>);

impl Held {
    fn set(&self, fd: i32, file: Vec<u8>) {
        self.0.lock().unwrap().insert(fd, file);
    }
}

impl ReadStats for Held {
    fn read(&self, _: i32, fds: &[i32]) -> io::Result<Vec<Vec<u8>>> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |fd| files.get(fd).cloned();
        let read = fds.iter().map(file).collect::<Option<_>>();
        read.ok_or(io::Error::from_raw_os_error(libc::EBADF))
    }
}

/// A VM with vCPUs of these ids, whose descriptors are 50 and so on, and 49 of the VM.
struct Sim {
    host: FakeHost,
    held: Held,
    source: KvmStat,
    vm: Vm,
}

impl Sim {
    fn new(ids: &[u32]) -> Self {
        let host = FakeHost::new();
        let own = format!("NSpid:\t{}\n", std::process::id());
        host.file("proc/self/status", own);
        let mut vm = running(&host, 100, 9);
        let vcpu = |index| Vcpu {
            index,
            tid: 200 + index as i32,
            start_time: 1,
        };
        vm.vcpus = (0..).take(ids.len()).map(vcpu).collect();
        for (fd, id) in (50..).zip(ids) {
            host.fd(100, fd, &format!("anon_inode:kvm-vcpu-stats:{id}"));
        }
        host.fd(100, 49, "anon_inode:kvm-vm-stats");
        let held = Held::default();
        let config = config::KvmStat {
            vcpus: true,
            ..config::KvmStat::default()
        };
        let roots = Arc::new(Roots::below(host.root()));
        let sim = Self {
            source: KvmStat::with_reader(config, roots, Arc::new(held.clone())),
            host,
            held,
            vm,
        };
        sim.set_vm(0);
        sim
    }

    fn set_vm(&self, flushes: u64) {
        let stats: &[(&str, u32, &[u64])] =
            &[("remote_tlb_flush", 0, &[flushes]), ("pages_2m", 1, &[512])];
        self.held.set(49, file("kvm-100", stats));
    }

    /// The statistics of the nth vCPU.
    fn set(&self, n: i32, exits: u64, waits: &[u64; 32], wait_ns: u64) {
        let stats: &[(&str, u32, &[u64])] = &[
            ("exits", 0, &[exits]),
            ("halt_wait_ns", 0, &[wait_ns]),
            ("halt_wait_hist", 4, waits),
            ("blocking", 1, &[1]),
            ("exits_of_tomorrow", 0, &[3]),
        ];
        self.held
            .set(50 + n, file(&format!("kvm-100/vcpu-{n}"), stats));
    }

    /// Each fact as `metric{label="value"} number`, sorted, without `kvm_`.
    fn read(&mut self) -> Vec<String> {
        let facts = self.source.read(&self.vm).unwrap();
        let shown = facts.iter().map(|fact| {
            let labels = fact.labels.iter().map(|(n, v)| format!("{n}={v}"));
            let labels = labels.collect::<Vec<_>>().join(",");
            let value = match &fact.value {
                FactValue::Int(value) => value.to_string(),
                FactValue::Histogram(buckets) => {
                    let some = buckets.iter().filter(|(_, count)| *count > 0);
                    format!("{:?} sum {}", some.collect::<Vec<_>>(), buckets.sum())
                }
                other => panic!("{other:?}"),
            };
            format!("{}{{{labels}}} {value}", fact.metric.name)
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_unstable();
        shown
    }

    fn value(&mut self, series: &str) -> Option<String> {
        let all = self.read();
        let line = all.iter().find_map(|line| line.strip_prefix(series));
        line.map(|value| value.trim().to_owned())
    }
}

/// One wait in each of these buckets.
fn waits(buckets: &[usize]) -> [u64; 32] {
    let mut waits = [0; 32];
    buckets.iter().for_each(|n| waits[*n] += 1);
    waits
}

#[test]
fn everything_that_the_descriptors_name_is_shown() {
    let mut sim = Sim::new(&[0, 1]);
    // Numbers 10 and 11 count below 1.024 us and below 2.048 us, number 31 from 1.07 s on.
    sim.set(0, 7, &waits(&[10, 11, 12]), 5_000);
    sim.set(1, 5, &waits(&[0, 31]), 2_000_000_000);
    sim.set_vm(4);
    assert_eq!(
        sim.read(),
        [
            "kvm_vcpu_halt_seconds{vcpu=0,outcome=wait} [(Some(1024), 1), (Some(4096), 2)] sum 5000",
            "kvm_vcpu_halt_seconds{vcpu=1,outcome=wait} [(Some(1024), 1), (None, 1)] sum 2000000000",
            "kvm_vcpu_kvm_stat_current{vcpu=0,stat=blocking} 1",
            "kvm_vcpu_kvm_stat_current{vcpu=1,stat=blocking} 1",
            "kvm_vcpu_kvm_stat_total{vcpu=0,stat=exits_of_tomorrow} 3",
            "kvm_vcpu_kvm_stat_total{vcpu=0,stat=exits} 7",
            "kvm_vcpu_kvm_stat_total{vcpu=0,stat=halt_wait_ns} 5000",
            "kvm_vcpu_kvm_stat_total{vcpu=1,stat=exits_of_tomorrow} 3",
            "kvm_vcpu_kvm_stat_total{vcpu=1,stat=exits} 5",
            "kvm_vcpu_kvm_stat_total{vcpu=1,stat=halt_wait_ns} 2000000000",
            "kvm_vm_halt_seconds{outcome=wait} [(Some(1024), 2), (Some(4096), 2), (None, 1)] sum 2000005000",
            "kvm_vm_kvm_stat_current{stat=pages_2m} 512",
            "kvm_vm_kvm_stat_info{method=descriptor} 1",
            "kvm_vm_kvm_stat_total{stat=exits_of_tomorrow} 6",
            "kvm_vm_kvm_stat_total{stat=exits} 12",
            "kvm_vm_kvm_stat_total{stat=halt_wait_ns} 2000005000",
            "kvm_vm_kvm_stat_total{stat=remote_tlb_flush} 4",
        ]
    );
    assert_eq!(sim.source.state(), SourceState::Up);
}

#[test]
fn a_reset_or_a_vcpu_that_left_takes_nothing_away() {
    let mut sim = Sim::new(&[0, 1]);
    sim.set(0, 7, &waits(&[]), 0);
    sim.set(1, 5, &waits(&[]), 0);
    let exits = "kvm_vm_kvm_stat_total{stat=exits}";
    assert_eq!(sim.value(exits).as_deref(), Some("12"));
    sim.set(0, 1, &waits(&[]), 0);
    assert_eq!(sim.value(exits).as_deref(), Some("13"));
    sim.host.close(100, 51);
    sim.vm.vcpus.pop();
    sim.set(0, 2, &waits(&[]), 0);
    assert_eq!(sim.value(exits).as_deref(), Some("14"));
    assert_eq!(
        sim.value("kvm_vcpu_kvm_stat_total{vcpu=1,stat=exits}"),
        None
    );
}

#[test]
fn ids_with_gaps_are_vcpus_in_the_same_order() {
    let mut sim = Sim::new(&[0, 1, 4]);
    for n in 0..3 {
        sim.set(n, 10 + n as u64, &waits(&[]), 0);
    }
    let last = "kvm_vcpu_kvm_stat_total{vcpu=2,stat=exits}";
    assert_eq!(sim.value(last).as_deref(), Some("12"));
    // A vCPU without a known thread: which ids are the others' is unknown.
    sim.vm.vcpus.pop();
    assert_eq!(sim.value(last), None);
    assert_eq!(
        sim.value("kvm_vcpu_kvm_stat_total{vcpu=0,stat=exits}"),
        None
    );
    let sum = sim.value("kvm_vm_kvm_stat_total{stat=exits}");
    assert_eq!(sum.as_deref(), Some("33"));
}

#[test]
fn closed_descriptors_are_searched_again() {
    let mut sim = Sim::new(&[0]);
    sim.set(0, 7, &waits(&[]), 0);
    sim.read();
    // The VMM closed its descriptor, and opened it again with another number.
    sim.host.close(100, 50);
    sim.held.0.lock().unwrap().remove(&50);
    assert!(matches!(
        sim.source.read(&sim.vm),
        Err(ReadError::Failed(_))
    ));
    sim.host.fd(100, 51, "anon_inode:kvm-vcpu-stats:0");
    sim.set(1, 9, &waits(&[]), 0);
    let exits = "kvm_vm_kvm_stat_total{stat=exits}";
    assert_eq!(sim.value(exits).as_deref(), Some("9"));
}

#[test]
fn a_file_of_something_else_is_an_error() {
    let mut sim = Sim::new(&[0]);
    sim.held.set(50, vec![0; 4096]);
    assert!(matches!(
        sim.source.read(&sim.vm),
        Err(ReadError::Failed(_))
    ));
}

#[test]
fn a_vm_without_descriptors_is_read_in_debugfs_or_is_the_reason() {
    let mut sim = Sim::new(&[]);
    sim.host.kvm_stat(100, 9, "exits", 7);
    let debugfs = [
        "kvm_vm_kvm_stat_info{method=debugfs} 1",
        "kvm_vm_kvm_stat_total{stat=exits} 7",
    ];
    assert_eq!(sim.read(), debugfs);
    assert_eq!(sim.source.state(), SourceState::Up);
    sim.host.remove("sys/kernel/debug/kvm");
    assert_eq!(sim.read(), [""; 0]);
    let SourceState::Down(reason) = sim.source.state() else {
        panic!("{:?}", sim.source.state())
    };
    assert_eq!(reason.code, "no_debugfs");
    assert!(
        reason.detail.contains("QEMU does from 8.1 on"),
        "{reason:?}"
    );
    // Beside a VM that is read, the source is not down.
    let other = running(&sim.host, 300, 9);
    sim.host.fd(300, 50, "anon_inode:kvm-vcpu-stats:0");
    sim.set(0, 1, &waits(&[]), 0);
    sim.source.read(&other).unwrap();
    assert!(matches!(sim.source.state(), SourceState::Degraded(_)));
    sim.source.forget(sim.vm.key);
    assert_eq!(sim.source.state(), SourceState::Up);
}

#[test]
fn a_process_that_blocks_its_descriptors_is_a_reason() {
    let mut sim = Sim::new(&[1]);
    sim.set(0, 7, &waits(&[]), 0);
    sim.read();
    // Who holds the files holds every reader.
    let files = sim.held.0.clone();
    let held = files.lock().unwrap();
    assert!(matches!(
        sim.source.read(&sim.vm),
        Err(ReadError::Failed(_))
    ));
    assert_eq!(sim.source.state().code(), "blocked");
    // Meanwhile the VM gets another vCPU, with a lower id.
    sim.host.fd(100, 51, "anon_inode:kvm-vcpu-stats:0");
    drop(held);
    while sim.source.read(&sim.vm).is_err() {}
    assert_eq!(sim.source.state(), SourceState::Up);
    let vcpus = &sim.source.vms[&sim.vm.key].vcpus;
    assert_eq!(
        vcpus.keys().collect::<Vec<_>>(),
        [&1],
        "the late answer is of the other"
    );
}
