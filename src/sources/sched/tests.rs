//! The sched source on a fixture host, and on this machine's own threads.

use super::reader::{crossed_between, AFFINITY_EVERY, IDLE_SHARE};
use super::*;
use crate::engine::fixture::vm;
use crate::engine::{ReadError, Reading};
use crate::fake_host::{FakeHost, Thread};
use crate::host::thread;
use crate::host::topology::{Place, Topology};

const PID: i32 = 100;
const TID: i32 = 101;

/// A vCPU thread that started 500 clock ticks after boot, on a machine with two packages, two
/// nodes per package, two cores per node and two threads per core (CPUs n and n + 8).
struct Bench {
    host: FakeHost,
    source: SchedSource,
    reading: Reading,
    ids: Ids,
}

impl Bench {
    fn new(exporter_started: u64) -> Self {
        let host = FakeHost::new();
        host.cpus(2, 4, 2, 2);
        host.process(PID, 500, &["/usr/bin/qemu"], "0::/\n");
        host.thread(PID, TID, "CPU 0/KVM", 500);
        host.set(PID, TID, |t| {
            (t.run, t.delay, t.timeslices) = (1000, 200, 3);
            (t.voluntary, t.involuntary, t.migrations) = (30, 20, 10);
            t.guest_ticks = 7;
            t.minor_faults = 40;
            t.cpus_allowed = "0-63".into();
        });
        let roots = Arc::new(Roots::below(host.root()));
        let topology = Topology::read(&roots, &Topology::default()).unwrap();
        let mut columns = Columns::default();
        let source = SchedSource::new(roots, exporter_started, &mut columns);
        Self {
            reading: Reading::new(&columns, Arc::new(topology)),
            ids: source.ids,
            host,
            source,
        }
    }

    fn open(&mut self) -> Result<Box<dyn Reader>, OpenError> {
        let vm = vm(PID, TID, 500);
        let vcpu = vm.vcpus[0];
        self.source.open(&Target { vm: &vm, vcpu })
    }

    fn set(&self, change: impl FnOnce(&mut Thread)) {
        self.host.set(PID, TID, change);
    }

    fn read(&mut self, reader: &mut Box<dyn Reader>) -> Result<(), ReadError> {
        self.reading.clear();
        reader.read(&mut self.reading)
    }

    fn get(&self, id: ColumnId) -> Option<u64> {
        self.reading.get(id)
    }

    fn crossed(&self) -> Vec<u64> {
        self.ids
            .crossed
            .iter()
            .map(|id| self.get(*id).unwrap())
            .collect()
    }
}

#[test]
fn a_thread_younger_than_the_exporter_is_charged_its_whole_life() {
    let mut bench = Bench::new(500);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    let ids = bench.ids;
    let clock_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    let expected = [
        (ids.time, 1000),
        (ids.delay, 200),
        (ids.timeslices, 3),
        (ids.guest, 7 * clock_tick),
        (ids.voluntary, 30),
        (ids.involuntary, 20),
        (ids.minor_faults, 40),
        (ids.major_faults, 0),
        (ids.migrations, 10),
        (ids.affinity_cpus, 16),
        (ids.affinity_nodes, 4),
    ];
    for (id, value) in expected {
        assert_eq!(bench.get(id), Some(value), "{id:?}");
    }
    assert_eq!(bench.reading.cpu, Some(0));
}

#[test]
fn an_older_thread_is_charged_from_now_on() {
    let mut bench = Bench::new(501);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.time), Some(0), "0 is known");
    assert_eq!(bench.get(bench.ids.migrations), Some(0));
    bench.set(|t| (t.run, t.timeslices, t.migrations) = (1500, 4, 12));
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.time), Some(500));
    assert_eq!(bench.get(bench.ids.migrations), Some(2));
    assert_eq!(bench.get(bench.ids.delay), Some(0));
}

#[test]
fn a_thread_that_did_not_run_is_not_active_and_costs_one_read() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert!(bench.reading.active);
    // Not read before the thread runs again.
    bench.set(|t| t.guest_ticks = 8);
    bench.read(&mut reader).unwrap();
    assert!(!bench.reading.active);
    assert_eq!(bench.get(bench.ids.guest), None);
    assert_eq!(bench.reading.cpu, Some(0));
    bench.set(|t| t.run += 1);
    bench.read(&mut reader).unwrap();
    assert!(bench.reading.active);
    assert!(bench.get(bench.ids.guest).unwrap() > 0);
}

#[test]
fn moves_count_under_the_farthest_boundary_they_cross() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    // CPUs 0 and 8 share a core; CPU 1 is in the same node, CPU 2 in the other node of the package.
    let moves = [
        (0, [0, 0, 0, 0]),
        (8, [1, 0, 0, 0]),
        (1, [0, 1, 0, 0]),
        (1, [0, 0, 0, 0]),
        (2, [0, 0, 0, 1]),
        (4, [0, 0, 0, 1]),
    ];
    for (cpu, expected) in moves {
        bench.set(|t| (t.cpu, t.run) = (cpu, t.run + 1));
        bench.read(&mut reader).unwrap();
        assert_eq!(bench.crossed(), expected, "to CPU {cpu}");
    }
}

#[test]
fn packages_of_one_node_are_a_boundary_too() {
    let place = |package, core| Place {
        package,
        core,
        numa_node: 0,
    };
    let to = |cpu, package, core| crossed_between((0, place(0, 0)), (cpu, place(package, core)));
    assert_eq!(to(4, 1, 0), Some(2));
    assert_eq!(to(0, 0, 0), None);
}

/// CPUs 2 and 3, in the package's other node, come online; the topology has them a tick later.
#[test]
fn move_to_cpu_of_unknown_place_counts_once_the_place_is_known() {
    let mut bench = Bench::new(0);
    let whole = bench.reading.topology.clone();
    let cpus = whole.cpus.iter().filter(|cpu| cpu.id < 2);
    let before = Topology {
        cpus: cpus.cloned().collect(),
    };
    bench.reading.topology = Arc::new(before);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.crossed(), [0, 0, 0, 0]);
    bench.set(|t| (t.cpu, t.run) = (2, t.run + 1));
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.ids.crossed.map(|id| bench.get(id)), [None; 4]);
    bench.reading.topology = whole;
    bench.set(|t| t.run += 1);
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.crossed(), [0, 0, 0, 1], "from CPU 0 to CPU 2");
}

#[test]
fn affinity_to_cpus_the_topology_lacks_is_unknown() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.affinity_cpus), Some(16));
    for lacking in ["16-17", "", "what?"] {
        bench.set(|t| t.cpus_allowed = lacking.into());
        // A new topology is read at once.
        bench.reading.topology = Arc::new((*bench.reading.topology).clone());
        bench.read(&mut reader).unwrap();
        assert_eq!(bench.get(bench.ids.affinity_cpus), None, "{lacking:?}");
        assert_eq!(bench.get(bench.ids.affinity_nodes), None);
        assert_eq!(bench.reading.withdrawn_of_vcpu().count_ones(), 2);
    }
}

#[test]
fn affinity_is_reported_when_it_changes() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.reading.allowed.as_ref().map(Vec::len), Some(16));
    bench.set(|t| t.cpus_allowed = "0,8".into());
    let mut seen = Vec::new();
    for _ in 0..2 * AFFINITY_EVERY * IDLE_SHARE {
        bench.read(&mut reader).unwrap();
        seen.extend(bench.reading.allowed.clone());
    }
    assert_eq!(seen, [[0, 8]], "reported once");
}

#[test]
fn affinity_is_reported_again_when_a_cpu_goes_offline() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    bench.host.online("0-3,8-11");
    let roots = Roots::below(bench.host.root());
    let topology = Topology::read(&roots, &bench.reading.topology).unwrap();
    bench.reading.topology = Arc::new(topology);
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.affinity_cpus), Some(8));
    assert_eq!(bench.get(bench.ids.affinity_nodes), Some(2));
}

#[test]
fn reused_tid_is_not_opened() {
    let mut bench = Bench::new(0);
    bench.set(|t| t.start_time = 501);
    assert!(matches!(bench.open(), Err(OpenError::Gone)));
    bench.host.exit_thread(PID, TID);
    assert!(matches!(bench.open(), Err(OpenError::Gone)));
}

#[test]
fn a_kernel_without_sched_file_leaves_migrations_unknown() {
    let mut bench = Bench::new(0);
    bench.host.remove(format!("proc/{PID}/task/{TID}/sched"));
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.voluntary), Some(30));
    assert_eq!(bench.get(bench.ids.involuntary), Some(20));
    assert_eq!(bench.get(bench.ids.migrations), None);
    let SourceState::Degraded(reason) = bench.source.state() else {
        panic!("{:?}", bench.source.state());
    };
    assert_eq!(reason.code, "no_sched_file");
}

#[test]
fn kernel_without_schedstat_file_is_still_read() {
    let mut bench = Bench::new(0);
    let file = format!("proc/{PID}/task/{TID}/schedstat");
    bench.host.remove(&file);
    let mut reader = bench.open().unwrap();
    assert_eq!(reader.descriptors(), 3);
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.time), None);
    assert_eq!(bench.get(bench.ids.voluntary), Some(30));
    assert_eq!(bench.source.state().code(), "no_schedstat");
}

#[test]
fn next_thread_corrects_a_missing_schedstat() {
    let mut bench = Bench::new(0);
    bench.set(|t| t.timeslices = 0);
    bench.open().unwrap();
    assert_eq!(bench.source.state().code(), "no_schedstat");
    // A thread that has not run yet shows nothing.
    bench.set(|t| t.guest_ticks = 0);
    bench.open().unwrap();
    assert_eq!(bench.source.state().code(), "no_schedstat");
    bench.set(|t| t.timeslices = 1);
    bench.open().unwrap();
    assert_eq!(bench.source.state(), SourceState::Up);
}

#[test]
fn truncated_status_leaves_affinity_unknown() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    // The buffer ends with CPU 1, the file with CPU 15.
    let last = "Cpus_allowed_list:\t0,1";
    let groups = "1".repeat(thread::BUFFER - "Groups:\t\n".len() - last.len());
    let status = format!("Groups:\t{groups}\n{last}5\n");
    bench
        .host
        .file(format!("proc/{PID}/task/{TID}/status"), status);
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.affinity_cpus), None);
    assert_eq!(bench.reading.allowed, None);
}

#[test]
fn a_kernel_without_schedstat_leaves_time_unknown() {
    let mut bench = Bench::new(0);
    bench.set(|t| (t.run, t.delay, t.timeslices) = (0, 0, 0));
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.time), None);
    assert!(bench.get(bench.ids.guest).unwrap() > 0);
    bench.read(&mut reader).unwrap();
    assert!(
        bench.reading.active,
        "without timeslices it counts as active"
    );
    let SourceState::Degraded(reason) = bench.source.state() else {
        panic!("{:?}", bench.source.state());
    };
    assert_eq!(reason.code, "no_schedstat");
}

#[test]
fn unexpected_format_adds_nothing_and_loses_nothing() {
    let mut bench = Bench::new(0);
    let mut reader = bench.open().unwrap();
    bench.read(&mut reader).unwrap();
    bench.set(|t| (t.run, t.timeslices) = (3000, 4));
    bench
        .host
        .file(format!("proc/{PID}/task/{TID}/sched"), "what?");
    let Err(ReadError::Failed(error)) = bench.read(&mut reader) else {
        panic!("read without an error");
    };
    assert!(
        error.contains("sched") && error.contains("what?"),
        "{error}"
    );
    assert_eq!(bench.get(bench.ids.time), None);
    bench.set(|_| ());
    bench.read(&mut reader).unwrap();
    assert_eq!(bench.get(bench.ids.time), Some(2000));
}

#[test]
fn a_real_thread_is_read_until_it_ends() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (tell, reported) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        wait.recv().ok();
    });
    let tid = reported.recv().unwrap();
    let pid = std::process::id() as i32;
    let roots = Arc::new(Roots::default());
    let text = roots
        .read(&roots.proc.join(format!("{pid}/task/{tid}/stat")))
        .unwrap();
    let vm = vm(pid, tid, thread::parse_stat(&text).unwrap().start_time);
    let mut columns = Columns::default();
    let mut source = SchedSource::new(roots, 0, &mut columns);
    let mut reading = Reading::new(&columns, Arc::default());
    let vcpu = vm.vcpus[0];
    let mut reader = source.open(&Target { vm: &vm, vcpu }).unwrap();
    reader.read(&mut reading).unwrap();
    assert!(reading.get(source.ids.time).unwrap() > 0);
    assert!(reading.get(source.ids.voluntary).is_some());
    drop(go);
    thread.join().unwrap();
    assert!(matches!(reader.read(&mut reading), Err(ReadError::Gone)));
}
