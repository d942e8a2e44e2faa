mod refusals;

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::fake_host::{FakeHost, FakeVm, Thread};
use crate::host::topology::Topology;
use crate::metric::FactValue;
use crate::sources::pt::ring_view::FLAG_PARTIAL;
use crate::sources::pt::scripted::{refusal, whole, Recorded, ScriptedPt};
use crate::sources::pt::Step;

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The thread's files on the fixture host.
fn thread(host: &FakeHost, pid: i32, tid: i32) -> Thread {
    let mut found = None;
    host.set(pid, tid, |thread| found = Some(thread.clone()));
    found.unwrap()
}

/// A recorder on its own fixture host, with a simulated clock.
struct Sim {
    host: FakeHost,
    recorder: PtRecorder,
    inventory: Arc<ArcSwap<Inventory>>,
    start: Instant,
    now: Instant,
    recorded: Recorded,
    /// Each recording: time, thread, core.
    log: Vec<(Duration, i32, Core)>,
    /// Threads that ran before their first turn.
    begun: HashSet<i32>,
}

fn config() -> config::Pt {
    config::Pt {
        enabled: true,
        ..config::Pt::default()
    }
}

/// 2 packages of 2 cores of 2 threads: CPUs 0-7.
fn host() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(2, 2, 2, 1);
    let pmu = "sys/bus/event_source/devices/intel_pt";
    host.file(format!("{pmu}/type"), "8\n");
    host.file(format!("{pmu}/format/pt"), "config:0\n");
    host
}

impl Sim {
    fn new(host: FakeHost, config: &config::Pt, recorder: ScriptedPt) -> Self {
        let roots = Arc::new(Roots::below(host.root()));
        let topology = Topology::read(&roots, &Topology::default()).unwrap();
        let inventory = Arc::new(ArcSwap::from_pointee(Inventory {
            topology: Arc::new(topology),
            ..Inventory::default()
        }));
        let recorded = recorder.recorded();
        let (telemetry, _) = Telemetry::new();
        let recorder = PtRecorder::new(
            config,
            roots,
            Arc::new(recorder),
            ReasonNames::new(),
            inventory.clone(),
            telemetry,
        );
        let start = recorder.due();
        Self {
            host,
            recorder,
            inventory,
            start,
            now: start,
            recorded,
            log: Vec::new(),
            begun: HashSet::new(),
        }
    }

    /// Publishes these VMs as the inventory.
    fn watch(&self, vms: &[&FakeVm]) {
        let known = |fake: &&FakeVm| {
            let vcpus = fake.vcpus.iter().zip(0..);
            Arc::new(Vm {
                name: format!("vm-{}", fake.pid),
                vcpus: vcpus
                    .map(|(tid, index)| Vcpu {
                        index,
                        tid: *tid,
                        start_time: thread(&self.host, fake.pid, *tid).start_time,
                    })
                    .collect(),
                ..crate::engine::fixture::vm(fake.pid, 0, 1)
            })
        };
        let before = self.inventory.load();
        self.inventory.store(Arc::new(Inventory {
            generation: before.generation + 1,
            topology: before.topology.clone(),
            vms: vms.iter().map(known).collect(),
            ..Inventory::default()
        }));
    }

    /// Advances the clock to the next turn. Threads run before their first turn and after each
    /// turn, on the CPU that `runs` returns for them.
    fn step(&mut self, vms: &[&FakeVm], mut runs: impl FnMut(i32) -> Option<u32>) {
        self.now = self.now.max(self.recorder.due());
        let all = || {
            vms.iter()
                .flat_map(|vm| vm.vcpus.iter().map(|tid| (vm.pid, *tid)))
        };
        for (pid, tid) in all() {
            if self.begun.insert(tid) {
                self.run(pid, tid, &mut runs);
            }
        }
        let before = self.taken().len();
        self.recorder.pass(self.now);
        let taken = self.taken();
        for tid in &taken[before..] {
            let vm = vms.iter().find(|vm| vm.vcpus.contains(tid)).unwrap();
            let cpu = thread(&self.host, vm.pid, *tid).cpu;
            let place = self.inventory.load().topology.place(cpu).unwrap();
            let at = self.now - self.start;
            self.log.push((at, *tid, (place.package, place.core)));
            self.run(vm.pid, *tid, &mut runs);
        }
        self.now += MS;
    }

    fn run(&self, pid: i32, tid: i32, runs: &mut impl FnMut(i32) -> Option<u32>) {
        if let Some(cpu) = runs(tid) {
            self.host
                .set(pid, tid, |t| (t.run, t.cpu) = (t.run + 1000, cpu));
        }
    }

    fn taken(&self) -> Vec<i32> {
        let recorded = self.recorded.lock();
        recorded.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn until(&mut self, end: Duration, vms: &[&FakeVm], mut runs: impl FnMut(i32) -> Option<u32>) {
        while self.now.max(self.recorder.due()) - self.start < end {
            self.step(vms, &mut runs);
        }
    }

    /// The longest recorded time of any core in any minute.
    fn worst_duty(&self, window: Duration) -> Duration {
        let mut worst = Duration::ZERO;
        for (n, (end, _, core)) in self.log.iter().enumerate() {
            let end = *end + window;
            let within = self.log[..=n].iter().rev();
            let within = within.take_while(|(at, ..)| *at + window + MINUTE > end);
            let of_core = within.filter(|(.., c)| c == core);
            let part = |at: &Duration| *at + window - (*at).max(end.saturating_sub(MINUTE));
            worst = worst.max(of_core.map(|(at, ..)| part(at)).sum());
        }
        worst
    }

    /// Longest time between two turns of a thread, or from the start to its first.
    fn longest_wait(&self, tid: i32) -> Duration {
        let mut before = Duration::ZERO;
        let mut longest = Duration::ZERO;
        for (at, ..) in self.log.iter().filter(|(_, t, _)| *t == tid) {
            longest = longest.max(*at - before);
            before = *at;
        }
        longest
    }

    fn facts(&self, vm: &FakeVm, metric: &str) -> Vec<(String, FactValue)> {
        let newest = self.recorder.newest().load_full();
        let known = newest.vms.iter().filter(|(key, _)| key.pid == vm.pid);
        let facts = known.flat_map(|(_, lists)| lists.iter().flat_map(|list| list.iter()));
        let labels = |fact: &Fact| {
            let values: Vec<_> = fact.labels.iter().map(|(_, v)| v.to_string()).collect();
            values.join(" ")
        };
        let of = facts.filter(|fact| fact.metric == metric);
        let mut reported: Vec<_> = of.map(|f| (labels(f), f.value.clone())).collect();
        reported.sort_by(|a, b| a.0.cmp(&b.0));
        reported
    }

    fn code(&self) -> &'static str {
        self.recorder.state().code()
    }
}

fn vm(host: &FakeHost, n: i32, vcpus: u32) -> FakeVm {
    let uuid = format!("00000000-0000-4000-8000-{n:012}");
    host.qemu(1000 * n, &format!("vm-{n}"), &uuid, vcpus)
}

fn recorder() -> ScriptedPt {
    ScriptedPt::of_bytes(vec![0; 32])
}

#[test]
fn each_of_100_vcpus_has_one_turn_per_period() {
    let host = host();
    let vms: Vec<FakeVm> = (1..=25).map(|n| vm(&host, n, 4)).collect();
    let vms: Vec<&FakeVm> = vms.iter().collect();
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&vms);
    // All threads run all the time, and move to the next CPU at each turn.
    let mut n = 0;
    sim.until(2 * 60 * MINUTE, &vms, |tid| {
        n += 1;
        Some(((tid as u32).wrapping_add(n / 100)) % 8)
    });
    for tid in vms.iter().flat_map(|vm| &vm.vcpus) {
        let turns = sim.log.iter().filter(|(_, t, _)| t == tid).count();
        assert!((119..=120).contains(&turns), "{tid}: {turns} turns");
        // A turn is due on the millisecond, and runs at the clock's last value.
        let longest = sim.longest_wait(*tid);
        assert!(longest <= MINUTE + 2 * MS, "{tid} waited {longest:?}");
    }
    let worst = sim.worst_duty(10 * MS);
    assert!(worst <= 600 * MS, "{worst:?} of a minute");
    // 100 turns of 10 ms per minute on 4 cores.
    assert!(worst >= 250 * MS, "{worst:?}: nothing is measured");
}

#[test]
fn one_core_stretches_the_period_equally() {
    let host = host();
    let vms: Vec<FakeVm> = (1..=25).map(|n| vm(&host, n, 4)).collect();
    let vms: Vec<&FakeVm> = vms.iter().collect();
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&vms);
    // 100 vCPUs on the two threads of one core: 60 of them in a minute are 1 %.
    sim.until(60 * MINUTE, &vms, |tid| Some(tid as u32 % 2 * 4));
    let worst = sim.worst_duty(10 * MS);
    assert!(worst <= 600 * MS, "{worst:?} of a minute");
    let turns = |tid: &i32| sim.log.iter().filter(|(_, t, _)| t == tid).count();
    let turns: Vec<usize> = vms.iter().flat_map(|vm| &vm.vcpus).map(turns).collect();
    let (least, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
    assert!(most - least <= 1, "from {least} to {most} turns");
    // 60 minutes of 60 turns for 100 vCPUs are 36 each.
    assert!((35..=36).contains(least), "{least}");
}

#[test]
fn crowded_core_does_not_delay_others() {
    let host = host();
    let vms: Vec<FakeVm> = (1..=26).map(|n| vm(&host, n, 4)).collect();
    let (lone, crowd) = vms.split_last().unwrap();
    let all: Vec<&FakeVm> = vms.iter().collect();
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&all);
    sim.until(60 * MINUTE, &all, |tid| {
        let alone = lone.vcpus.contains(&tid);
        Some(if alone { 6 } else { 0 })
    });
    for tid in &lone.vcpus {
        let turns = sim.log.iter().filter(|(_, t, _)| t == tid).count();
        assert!((59..=60).contains(&turns), "{tid}: {turns} turns");
        // A vCPU on the crowded core that waited longer may go first.
        let longest = sim.longest_wait(*tid);
        assert!(longest <= MINUTE + 2000 * MS, "{tid} waited {longest:?}");
    }
    let crowded = crowd.iter().flat_map(|vm| &vm.vcpus);
    let longest = crowded.map(|tid| sim.longest_wait(*tid)).max().unwrap();
    // 100 of them at 60 per minute, in bursts: each minute's burst starts where the last one did.
    assert!(longest <= 2 * MINUTE, "{longest:?}");
    assert!(sim.worst_duty(10 * MS) <= 600 * MS);
}

#[test]
fn new_vcpus_join_and_ended_vms_lose_their_totals() {
    let host = host();
    let stays = vm(&host, 1, 3);
    let guests: Vec<FakeVm> = (2..12).map(|n| vm(&host, n, 2)).collect();
    let mut sim = Sim::new(host, &config(), recorder());
    for (guest, n) in guests.iter().zip(1u32..) {
        let here = [&stays, guest];
        sim.watch(&here);
        sim.until(20 * MINUTE * n, &here, |tid| Some(tid as u32 % 8));
        for tid in &guest.vcpus {
            let turns = sim.log.iter().filter(|(_, t, _)| t == tid).count();
            assert!((19..=21).contains(&turns), "{tid}: {turns}");
        }
        let known: Vec<i32> = sim
            .recorder
            .newest()
            .load()
            .vms
            .keys()
            .map(|k| k.pid)
            .collect();
        assert_eq!(known.len(), 2, "{known:?}");
        assert!(known.contains(&guest.pid));
    }
    for tid in &stays.vcpus {
        let longest = sim.longest_wait(*tid);
        assert!(longest <= MINUTE + 2 * MS, "{tid} waited {longest:?}");
    }
    let captures = sim.facts(&stays, "kvm_vcpu_pt_captures_total");
    assert_eq!(captures.len(), 3);
    let FactValue::Int(n) = captures[0].1 else {
        panic!("{captures:?}")
    };
    assert!((199..=201).contains(&n), "{n}: totals continue");
}

#[test]
fn unplugged_vcpu_leaves_alone() {
    let host = host();
    let whole = vm(&host, 1, 2);
    let less = FakeVm {
        vcpus: whole.vcpus[..1].to_vec(),
        ..vm(&host, 2, 1)
    };
    let less = FakeVm {
        pid: whole.pid,
        ..less
    };
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&[&whole]);
    sim.until(3 * MINUTE, &[&whole], |_| Some(0));
    let histogram = "kvm_vm_pt_guest_run_seconds";
    assert_eq!(sim.facts(&whole, "kvm_vcpu_pt_bytes_total").len(), 2);
    assert_eq!(sim.facts(&whole, histogram).len(), 1);
    sim.watch(&[&less]);
    sim.step(&[&less], |_| Some(0));
    assert_eq!(sim.facts(&whole, "kvm_vcpu_pt_bytes_total").len(), 1);
    assert_eq!(sim.facts(&whole, histogram).len(), 1);
}

#[test]
fn idle_vcpu_is_skipped_and_counted() {
    let host = host();
    let vm = vm(&host, 1, 2);
    let (busy, idle) = (vm.vcpus[0], vm.vcpus[1]);
    let mut sim = Sim::new(host, &config(), recorder());
    sim.watch(&[&vm]);
    // Both ran before.
    sim.host.set(vm.pid, idle, |t| t.run = 5);
    sim.until(10 * MINUTE, &[&vm], |tid| (tid == busy).then_some(0));
    let turns = |tid| sim.log.iter().filter(|(_, t, _)| *t == tid).count();
    assert_eq!(turns(busy), 10);
    assert_eq!(turns(idle), 1, "the first turn has nothing to compare with");
    let captures = sim.facts(&vm, "kvm_vcpu_pt_captures_total");
    let n = FactValue::Int;
    let expected = [
        ("0 complete", n(10)),
        ("1 complete", n(1)),
        ("1 idle", n(9)),
    ];
    let reported: Vec<_> = captures
        .iter()
        .map(|(l, v)| (l.as_str(), v.clone()))
        .collect();
    assert_eq!(reported, expected);
}

#[test]
fn disabled_or_without_pmu_nothing_is_recorded() {
    let off = config::Pt::default();
    for (host, config, code) in [
        (host(), &off, "disabled"),
        (FakeHost::new(), &config(), "no_pt"),
    ] {
        let vm = vm(&host, 1, 1);
        let mut sim = Sim::new(host, config, recorder());
        sim.watch(&[&vm]);
        sim.recorder.pass(sim.now);
        assert_eq!(sim.code(), code);
        assert!(!sim.recorder.is_able());
        assert!(sim.taken().is_empty());
        assert!(sim.recorder.newest().load().vms.is_empty());
        let sources = &sim.recorder.newest().load().sources;
        assert_eq!(sources[0].1.code(), code, "reported from the start");
    }
}

#[test]
fn recorder_runs_until_stop() {
    let host = host();
    let vm = vm(&host, 1, 1);
    let (reported, tell) = std::sync::mpsc::channel();
    let recorder = ScriptedPt::new(move |_, request| {
        let _ = reported.send(());
        Ok(whole(vec![0; 32], request))
    });
    let sim = Sim::new(host, &config(), recorder);
    sim.watch(&[&vm]);
    let stop = Stop::default();
    let theirs = stop.clone();
    let recorder = sim.recorder;
    let thread = std::thread::spawn(move || Box::new(recorder).run(&theirs));
    tell.recv().unwrap();
    stop.stop();
    thread.join().unwrap();
}
