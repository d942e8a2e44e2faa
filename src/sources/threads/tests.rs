//! The source on fixture hosts.

use std::fmt::Write;

use super::*;
use crate::fake_host::{FakeHost, FakeVm, Thread, START, UUID_A};

const PID: i32 = 1000;
/// Threads of a simulated QEMU.
const RCU: i32 = PID + 1;
const IOTHREAD: i32 = PID + 4;
const VCPU: i32 = PID + 10;
const S: u64 = 1_000_000_000;

/// A host with four cores and a QEMU with one vCPU and one I/O thread.
struct Host {
    host: FakeHost,
    vm: Vm,
    source: Threads,
    now: Instant,
}

impl Host {
    fn new(born_after: u64) -> Self {
        let host = FakeHost::new();
        let FakeVm { pid, vcpus } = host.qemu(PID, "a", UUID_A, 1);
        host.thread(pid, IOTHREAD, "IO iothread1", START + 2);
        let mut vm = crate::engine::fixture::vm(pid, vcpus[0], START + 1);
        vm.key.start_time = START;
        let roots = Arc::new(Roots::below(host.root()));
        let source = Threads::new(&Config::default(), roots, born_after);
        Self {
            host,
            vm,
            source,
            now: Instant::now(),
        }
    }

    fn set(&self, tid: i32, change: impl FnOnce(&mut Thread)) -> &Self {
        self.host.set(PID, tid, change);
        self
    }

    /// The thread runs on this CPU and has run this long.
    fn ran(&self, tid: i32, cpu: u32, run: u64) -> &Self {
        self.set(tid, |t| (t.cpu, t.run) = (cpu, run))
    }

    /// Sets the CPU time of the whole process, in clock ticks.
    fn process(&self, ticks: u64) -> &Self {
        let halves = (ticks / 2, ticks - ticks / 2);
        let was = |t: &mut Thread| (t.user_ticks, t.system_ticks) = halves;
        self.set(PID, was);
        let text = std::fs::read(self.host.path(format!("proc/{PID}/stat"))).unwrap();
        self.set(PID, |t| (t.user_ticks, t.system_ticks) = (0, 0));
        self.host.file(format!("proc/{PID}/stat"), text);
        self
    }

    fn facts(&mut self) -> Vec<Fact> {
        self.source.read_at(&self.vm, self.now).unwrap()
    }

    /// Each series with time, as `role@core:seconds`.
    fn times(&mut self) -> String {
        shown(&self.facts(), "kvm_vm_thread_time_seconds_total")
    }

    fn code(&self) -> &'static str {
        self.source.state().code()
    }
}

fn shown(facts: &[Fact], metric: &str) -> String {
    let mut text = String::new();
    for fact in facts.iter().filter(|fact| fact.metric == metric) {
        let label = |name| {
            let mut own = fact.labels.iter().filter(|(n, _)| *n == name);
            own.next().map_or(String::new(), |(_, v)| v.to_string())
        };
        let value = match fact.value {
            FactValue::Nanoseconds(0) | FactValue::Int(0) => continue,
            FactValue::Nanoseconds(n) => n as f64 / 1e9,
            FactValue::Int(n) => n as f64,
            FactValue::Float(x) => x,
            FactValue::Histogram(_) => panic!("{fact:?}"),
        };
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{}@{}:{value}", label("role"), label("core")).unwrap();
    }
    text
}

#[test]
fn each_thread_is_charged_by_role_to_its_current_core() {
    let mut host = Host::new(0);
    host.ran(PID, 0, S).ran(RCU, 0, S).ran(IOTHREAD, 1, 2 * S);
    host.ran(VCPU, 1, 4 * S);
    host.set(IOTHREAD, |t| t.delay = 5 * S);
    let facts = host.facts();
    assert_eq!(
        shown(&facts, "kvm_vm_thread_time_seconds_total"),
        "vcpu@1:4 emulator@0:2 iothread@1:2"
    );
    let delay = shown(&facts, "kvm_vm_thread_delay_seconds_total");
    assert_eq!(delay, "iothread@1:5");
    // The main loop, call_rcu, the monitor thread and the kernel's own thread.
    let threads = shown(&facts, "kvm_vm_threads");
    assert_eq!(threads, "vcpu@:1 emulator@:4 iothread@:1");
    host.ran(IOTHREAD, 2, 3 * S);
    assert_eq!(
        host.times(),
        "vcpu@1:4 emulator@0:2 iothread@1:2 iothread@2:1"
    );
}

#[test]
fn vcpus_are_those_of_the_inventory_regardless_of_their_names() {
    let mut host = Host::new(0);
    host.host.qemu_without_thread_names(PID, "a", 1);
    host.ran(VCPU, 1, S).ran(RCU, 0, 2 * S);
    assert_eq!(host.times(), "vcpu@1:1 emulator@0:2");
    // A vCPU that was just plugged is identified by its name.
    host.host.thread(PID, PID + 11, "CPU 1/KVM", START + 9);
    host.ran(PID + 11, 2, S);
    assert_eq!(host.times(), "vcpu@1:1 vcpu@2:1 emulator@0:2");
}

#[test]
fn left_location_hides_and_returns_with_its_total() {
    let mut host = Host::new(0);
    host.ran(IOTHREAD, 1, 2 * S);
    assert_eq!(host.times(), "iothread@1:2");
    host.ran(IOTHREAD, 2, 3 * S);
    host.now += Duration::from_secs(599);
    assert_eq!(host.times(), "iothread@1:2 iothread@2:1");
    host.now += Duration::from_secs(1);
    assert_eq!(host.times(), "iothread@2:1");
    host.ran(IOTHREAD, 1, 4 * S);
    assert_eq!(host.times(), "iothread@1:3 iothread@2:1");
}

#[test]
fn older_threads_count_from_now_and_younger_ones_from_their_start() {
    let mut host = Host::new(START + 2);
    host.ran(VCPU, 0, 9 * S)
        .ran(IOTHREAD, 0, 2 * S)
        .process(1100);
    assert_eq!(host.times(), "iothread@0:2");
    let series = host.facts().len();
    let counts = crate::discover::Role::ALL.len();
    assert_eq!(
        series,
        2 * 3 + counts,
        "a series of 0 for each existing role"
    );
    host.ran(VCPU, 0, 10 * S).process(1200);
    assert_eq!(host.times(), "vcpu@0:1 iothread@0:2");
    // All but 9 s of its past, what two roundings may hide, and these 3 s.
    host.process(1502);
    assert_eq!(host.times(), "vcpu@0:1 emulator@:3 iothread@0:2");
}

#[test]
fn exited_thread_leaves_its_time() {
    let mut host = Host::new(0);
    host.ran(RCU, 0, 3 * S).process(300);
    assert_eq!(host.times(), "emulator@0:3");
    // It ran for another 2 s after its last read, and another thread for 1 s.
    host.host.exit_thread(PID, RCU);
    host.process(600);
    assert_eq!(host.times(), "emulator@:3 emulator@0:3");
    assert_eq!(host.times(), "emulator@:3 emulator@0:3", "once");
    let threads = shown(&host.facts(), "kvm_vm_threads");
    assert_eq!(threads, "vcpu@:1 emulator@:3 iothread@:1");
}

#[test]
fn reused_tid_is_a_new_thread() {
    let mut host = Host::new(0);
    host.ran(RCU, 0, 3 * S).process(300);
    assert_eq!(host.times(), "emulator@0:3");
    host.host.thread(PID, RCU, "IO iothread2", START + 100);
    host.ran(RCU, 1, 4 * S).process(700);
    assert_eq!(host.times(), "emulator@0:3 iothread@1:4");
}

#[test]
fn rest_excludes_time_charged_to_a_thread_later() {
    let mut host = Host::new(0);
    // The clocks of threads run ahead of the process's rounded one.
    host.ran(VCPU, 0, S + 19_000_000).process(101);
    assert_eq!(host.times(), "vcpu@0:1.019");
    host.process(102);
    assert_eq!(host.times(), "vcpu@0:1.019 emulator@:0.001");
}

#[test]
fn older_process_has_no_rest_of_its_past() {
    let mut host = Host::new(START + 1000);
    host.ran(VCPU, 0, S).process(5000);
    assert_eq!(host.times(), "");
    host.process(5002);
    assert_eq!(host.times(), "", "what two roundings may hide");
    host.process(5102);
    assert_eq!(host.times(), "emulator@:1");
}

#[test]
fn very_many_threads_lose_no_time() {
    let mut host = Host::new(0);
    host.source.max_others = 10;
    let more = PID + 100..PID + 120;
    for tid in more.clone() {
        host.host.thread(PID, tid, "worker", START + 5);
        host.ran(tid, 0, S);
    }
    host.process(2000);
    let sum = |facts: &[Fact]| -> u64 {
        let time = facts.iter().filter(|f| f.metric.name.contains("_time_"));
        let ns = time.map(|fact| match &fact.value {
            FactValue::Nanoseconds(n) => *n,
            other => panic!("{other:?}"),
        });
        ns.sum()
    };
    // Five threads that every QEMU here has did nothing.
    assert_eq!(host.times(), "emulator@:15 emulator@0:5");
    assert_eq!(host.code(), "many_threads");
    // The threads that were read exit, and others move up.
    for tid in more.take(15) {
        host.host.exit_thread(PID, tid);
    }
    assert_eq!(sum(&host.facts()), 20 * S);
    assert_eq!(host.code(), "");
    host.ran(PID + 119, 0, 3 * S).process(2200);
    assert_eq!(host.times(), "emulator@:15 emulator@0:7");
}

#[test]
fn vhost_workers_are_found_in_the_process_and_among_kernel_threads() {
    let mut host = Host::new(0);
    let of_kernel = |t: &mut Thread| t.flags = 0x4000;
    host.host.thread(PID, PID + 5, "vhost-1000", START + 3);
    host.ran(PID + 5, 1, S).set(PID + 5, of_kernel);
    // As before Linux 6.4: one for a thread of the process, one for another process, and a fake.
    let workers = [
        (300, format!("vhost-{RCU}"), 0x0020_8040),
        (301, "vhost-77".to_owned(), 0x0020_8040),
        (302, "vhost-1000".to_owned(), 0),
    ];
    for (pid, name, flags) in workers {
        host.host.process(pid, 7, &[&name], "0::/\n");
        host.host
            .set(pid, pid, |t| (t.run, t.cpu, t.flags) = (4 * S, 3, flags));
    }
    // The kernel's own thread is not part of the process.
    host.process(300);
    let expected = "emulator@:2 vhost@1:1 vhost@3:4";
    assert_eq!(host.times(), expected, "among all processes");
    let mut again = Host {
        source: Threads::new(&Config::default(), host.source.roots.clone(), 0),
        ..host
    };
    again.host.file("proc/2/task/2/children", "17 300 301 \n");
    assert_eq!(again.times(), expected, "from the list of children");
}

#[test]
fn io_uring_workers_have_the_role_of_their_thread() {
    let mut host = Host::new(0);
    for (tid, of) in [(PID + 5, IOTHREAD), (PID + 6, VCPU)] {
        host.host
            .thread(PID, tid, &format!("iou-wrk-{of}"), START + 3);
        host.ran(tid, 2, S).set(tid, |t| t.flags = 0x10);
    }
    assert_eq!(host.times(), "emulator@2:1 iothread@2:1");
}

#[test]
fn vms_of_one_process_have_only_their_vcpus() {
    let mut host = Host::new(0);
    host.host.thread(PID, PID + 11, "CPU 0/KVM", START + 2);
    let mut other = host.vm.clone();
    (other.key.ordinal, other.vcpus[0].tid) = (1, PID + 11);
    host.ran(VCPU, 0, S).ran(PID + 11, 1, 2 * S);
    host.ran(RCU, 0, 3 * S).process(600);
    host.times();
    let facts = host.source.read_at(&other, host.now).unwrap();
    assert_eq!(
        shown(&facts, "kvm_vm_thread_time_seconds_total"),
        "vcpu@1:2"
    );
    assert_eq!(host.code(), "shared_process");
    host.ran(RCU, 0, 4 * S);
    host.times();
    // Alone again, it continues with its other threads from here.
    host.source.forget(other.key);
    host.process(0).ran(VCPU, 0, 3 * S);
    assert_eq!(host.times(), "vcpu@0:3 vcpu@1:2 emulator@0:3");
    assert_eq!(host.code(), "");
}

#[test]
fn failed_pass_makes_no_old_thread_a_new_one() {
    let mut host = Host::new(START + 1000);
    host.ran(VCPU, 0, 9 * S).ran(RCU, 0, 7 * S);
    let schedstat = format!("proc/{PID}/task/{RCU}/schedstat");
    let text = std::fs::read(host.host.path(&schedstat)).unwrap();
    host.host.file(&schedstat, "odd\n");
    let read = host.source.read_at(&host.vm, host.now);
    assert!(matches!(read, Err(ReadError::Failed(_))));
    host.host.file(&schedstat, text);
    assert_eq!(host.times(), "");
    host.ran(RCU, 0, 8 * S);
    assert_eq!(host.times(), "emulator@0:1");
}

#[test]
fn a_kernel_without_schedstat_is_a_reason() {
    let mut host = Host::new(0);
    let tids = [PID, RCU, PID + 2, PID + 3, IOTHREAD, VCPU];
    host.ran(VCPU, 0, S).process(100);
    for tid in tids {
        host.host.remove(format!("proc/{PID}/task/{tid}/schedstat"));
    }
    assert_eq!(host.facts(), []);
    assert_eq!(host.code(), "no_schedstat");
    let mut host = Host::new(0);
    for tid in tids {
        host.set(tid, |t| (t.run, t.user_ticks) = (0, 50));
    }
    assert_eq!(host.facts(), [], "of all 0");
    assert_eq!(host.code(), "no_schedstat");
    for tid in tids {
        host.ran(tid, 0, S);
    }
    assert!(!host.facts().is_empty());
    assert_eq!(host.code(), "");
}

#[test]
fn ended_process_is_gone() {
    let mut host = Host::new(0);
    host.times();
    host.vm.key.start_time += 1;
    let read = host.source.read_at(&host.vm, host.now);
    assert!(
        matches!(read, Err(ReadError::Gone)),
        "the PID of another process"
    );
    host.vm.key.start_time -= 1;
    host.host.exit(PID);
    let read = host.source.read_at(&host.vm, host.now);
    assert!(matches!(read, Err(ReadError::Gone)));
}

#[test]
fn placement_bounds_the_labels() {
    let mut host = Host::new(0);
    host.source.placement = Placement::None;
    host.ran(VCPU, 1, S).ran(IOTHREAD, 2, S);
    assert_eq!(host.times(), "vcpu@:1 iothread@:1");
}

/// Threads without names may have any role.
#[test]
fn unidentified_roles_are_absent_and_not_0() {
    let roles = |vm: &Vm| {
        let totals = ThreadTotals::default();
        let facts = facts(vm, &totals, Duration::ZERO, Instant::now());
        let role = |fact: Fact| {
            fact.labels
                .iter()
                .map(|(_, role)| role.to_string())
                .collect()
        };
        facts.into_iter().map(role).collect::<Vec<String>>()
    };
    let mut vm = crate::engine::fixture::vm(PID, VCPU, START);
    let all = ["vcpu", "emulator", "migration", "iothread", "vhost"];
    assert_eq!(roles(&vm), all);
    vm.vmm = "cloud-hypervisor";
    assert_eq!(roles(&vm), ["vcpu", "emulator", "iothread", "vhost"]);
    vm.vmm = "unknown";
    assert_eq!(roles(&vm), ["vcpu", "emulator", "vhost"]);
    (vm.vmm, vm.names_threads, vm.threadless) = ("qemu", false, 4);
    assert_eq!(roles(&vm), ["emulator", "vhost"]);
}
