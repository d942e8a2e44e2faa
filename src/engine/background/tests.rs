use super::*;
use std::sync::Mutex;

const PERIOD: Duration = Duration::from_secs(15);

/// Reports for each VM how often it was read; fails for PID 2.
#[derive(Default)]
struct Counting {
    read: u64,
    forgotten: Arc<Mutex<Vec<i32>>>,
}

impl VmSource for Counting {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "counting",
            needs: "",
            cost: "",
        }
    }

    fn state(&self) -> SourceState {
        SourceState::Up
    }

    fn period(&self) -> Duration {
        PERIOD
    }

    fn read(&mut self, vm: &Vm) -> Result<Vec<Fact>, ReadError> {
        self.read += 1;
        match vm.key.pid {
            2 => Err(ReadError::Failed("odd".to_owned())),
            3 => Err(ReadError::Gone),
            _ => Ok(vec![Fact {
                metric: &crate::sources::threads::THREADS,
                labels: Vec::new(),
                value: FactValue::Int(self.read),
                origin: Origin::Exporter,
            }]),
        }
    }

    fn forget(&mut self, vm: VmKey) {
        self.forgotten.lock().unwrap().push(vm.pid);
    }
}

fn vm(pid: i32) -> Arc<Vm> {
    Arc::new(crate::engine::fixture::vm(pid, pid, 1))
}

fn inventory(pids: &[i32]) -> Inventory {
    Inventory {
        vms: pids.iter().map(|pid| vm(*pid)).collect(),
        ..Inventory::default()
    }
}

/// The facts of each VM that has any.
fn known(lane: &BackgroundCollector) -> Vec<(i32, FactValue)> {
    let newest = lane.newest.load();
    let all = newest.vms.iter();
    let mut known: Vec<_> = all
        .flat_map(|(key, facts)| facts.iter().map(|f| (key.pid, f[0].value.clone())))
        .collect();
    known.sort_by_key(|(pid, _)| *pid);
    known
}

#[test]
fn facts_stay_until_the_next_read_and_are_dropped_with_the_vm() {
    let vms = Arc::new(ArcSwap::from_pointee(inventory(&[1, 2, 3, 4])));
    let source = Counting::default();
    let forgotten = source.forgotten.clone();
    let (telemetry, _) = Telemetry::new();
    let sources = vec![Source::Vm(Box::new(source))];
    let mut lane = BackgroundCollector::new(sources, vms.clone(), telemetry);
    let start = Instant::now();
    lane.pass(start);
    assert_eq!(
        known(&lane),
        [(1, FactValue::Int(1)), (4, FactValue::Int(4))]
    );
    lane.pass(start + PERIOD / 2);
    assert_eq!(known(&lane).len(), 2, "not due");
    vms.store(Arc::new(inventory(&[4])));
    lane.pass(start + PERIOD);
    assert_eq!(known(&lane), [(4, FactValue::Int(5))]);
    let mut gone = forgotten.lock().unwrap().clone();
    gone.sort_unstable();
    assert_eq!(gone, [1, 2, 3], "including VMs without facts");
    let failed = lane
        .telemetry
        .read_errors
        .get_or_create(&SourceLabel { source: "counting" });
    assert_eq!(failed.get(), 1);
}

/// Returns the value and state that the test sets.
struct Shared(Arc<Mutex<(u64, SourceState)>>);

impl HostSource for Shared {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "shared",
            needs: "",
            cost: "",
        }
    }

    fn state(&self) -> SourceState {
        self.0.lock().unwrap().1.clone()
    }

    fn period(&self) -> Duration {
        PERIOD
    }

    fn read(&mut self, topology: &Topology) -> Result<Vec<Fact>, ReadError> {
        assert_eq!(topology.cpus.len(), 1, "the topology of the inventory");
        match self.0.lock().unwrap().0 {
            0 => Err(ReadError::Failed("odd".to_owned())),
            n => Ok(vec![Fact {
                metric: &crate::sources::host::HOST_INFO,
                labels: Vec::new(),
                value: FactValue::Int(n),
                origin: Origin::Exporter,
            }]),
        }
    }
}

#[test]
fn only_changed_host_facts_are_published_and_a_failure_keeps_them() {
    let shared = Arc::new(Mutex::new((1, SourceState::Up)));
    let inventory = Inventory {
        topology: Arc::new(Topology {
            cpus: vec![crate::engine::fixture::cpu(0, 0, 0)],
        }),
        ..Inventory::default()
    };
    let vms = Arc::new(ArcSwap::from_pointee(inventory));
    let (telemetry, _) = Telemetry::new();
    let sources = vec![Source::Host(Box::new(Shared(shared.clone())))];
    let mut lane = BackgroundCollector::new(sources, vms, telemetry);
    let mut now = Instant::now();
    let mut newest = lane.newest().load_full();
    let mut pass = |value, state| {
        *shared.lock().unwrap() = (value, state);
        lane.pass(now);
        now += PERIOD;
        let before = std::mem::replace(&mut newest, lane.newest().load_full());
        let facts = newest.host.iter().flat_map(|facts| facts.iter());
        let values: Vec<_> = facts.map(|fact| fact.value.clone()).collect();
        (values, !Arc::ptr_eq(&before, &newest))
    };
    let down = SourceState::Down(crate::engine::ReasonCode::NoData.reason(String::new()));
    let (one, two) = (vec![FactValue::Int(1)], vec![FactValue::Int(2)]);
    assert_eq!(pass(1, SourceState::Up), (one.clone(), true));
    assert_eq!(pass(1, SourceState::Up), (one.clone(), false));
    assert_eq!(pass(0, SourceState::Up), (one.clone(), false), "a failure");
    assert_eq!(pass(1, down.clone()), (one, true), "a state");
    assert_eq!(pass(2, down), (two, true), "a value");
    assert_eq!(newest.count(&Inventory::default()), 1);
}

#[test]
fn collector_runs_until_stop_even_without_sources() {
    let (telemetry, _) = Telemetry::new();
    let lane = BackgroundCollector::new(Vec::new(), Arc::default(), telemetry);
    let stop = Stop::default();
    let reported = stop.clone();
    let thread = std::thread::spawn(move || lane.run(&reported));
    stop.stop();
    thread.join().unwrap();
}
