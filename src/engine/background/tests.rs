use super::*;
use crate::engine::{Found, Origin, ReasonCode, VmSource};
use crate::host::topology::Topology;
use crate::metric::FactValue;
use std::sync::Mutex;

const PERIOD: Duration = Duration::from_secs(15);

/// Reports for each VM how often it was read; fails for PID 2.
#[derive(Default)]
struct Counting {
    read: u64,
    forgotten: Arc<Mutex<Vec<i32>>>,
}

impl VmSource for Counting {
    fn state(&self) -> SourceState {
        SourceState::Up
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

fn source(name: &'static str, reads: Reads) -> (SourceInfo, Periodic) {
    let (needs, cost) = ("", "");
    let source = Periodic {
        enabled: true,
        period: PERIOD,
        reads,
    };
    (SourceInfo { name, needs, cost }, source)
}

/// A collector of these sources.
fn collector(
    sources: Vec<(SourceInfo, Periodic)>,
    vms: &Arc<ArcSwap<Inventory>>,
) -> BackgroundCollector {
    BackgroundCollector::new(sources, Arc::default(), vms.clone(), Telemetry::new().0)
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
fn known(collector: &BackgroundCollector) -> Vec<(i32, FactValue)> {
    let newest = collector.newest.load();
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
    let counting = Counting::default();
    let forgotten = counting.forgotten.clone();
    let sources = vec![source("counting", Reads::Vms(Box::new(counting)))];
    let mut collector = collector(sources, &vms);
    let start = Instant::now();
    collector.pass(start);
    assert_eq!(
        known(&collector),
        [(1, FactValue::Int(1)), (4, FactValue::Int(4))]
    );
    collector.pass(start + PERIOD / 2);
    assert_eq!(known(&collector).len(), 2, "not due");
    vms.store(Arc::new(inventory(&[4])));
    collector.pass(start + PERIOD);
    assert_eq!(known(&collector), [(4, FactValue::Int(5))]);
    let mut gone = forgotten.lock().unwrap().clone();
    gone.sort_unstable();
    assert_eq!(gone, [1, 2, 3], "including VMs without facts");
    let failed = collector
        .telemetry
        .read_errors
        .get_or_create([("source", "counting".into())]);
    assert_eq!(failed.get(), 1);
}

#[test]
fn disabled_source_is_not_read_and_has_a_reason() {
    let vms = Arc::new(ArcSwap::from_pointee(inventory(&[1])));
    let reads = Reads::Vms(Box::new(Counting::default()));
    let mut disabled = source("counting", reads);
    disabled.1.enabled = false;
    let mut collector = collector(vec![disabled], &vms);
    collector.pass(Instant::now());
    assert_eq!(known(&collector), []);
    let newest = collector.newest.load();
    let [(_, SourceState::Down(reason))] = &newest.sources[..] else {
        panic!("{:?}", newest.sources)
    };
    assert_eq!(reason.code, "disabled");
    let fix = reason.fix.as_deref();
    assert_eq!(fix, Some("set sources.counting.enabled: true"));
}

#[test]
fn only_changed_host_facts_are_published() {
    let shared = Arc::new(Mutex::new((1, None)));
    let inventory = Inventory {
        topology: Arc::new(Topology {
            cpus: vec![crate::engine::fixture::cpu(0, 0, 0)],
        }),
        ..Inventory::default()
    };
    let vms = Arc::new(ArcSwap::from_pointee(inventory));
    let given = shared.clone();
    let read = move |_: &Roots, topology: &Topology| {
        assert_eq!(topology.cpus.len(), 1, "the topology of the inventory");
        let (value, missing) = given.lock().unwrap().clone();
        let facts = vec![Fact::int(&crate::sources::host::HOST_INFO, [], value)];
        Found { facts, missing }
    };
    let sources = vec![source("shared", Reads::Host(Box::new(read)))];
    let mut collector = collector(sources, &vms);
    let mut now = Instant::now();
    let mut newest = collector.newest().load_full();
    let mut pass = |value, missing| {
        *shared.lock().unwrap() = (value, missing);
        collector.pass(now);
        now += PERIOD;
        let before = std::mem::replace(&mut newest, collector.newest().load_full());
        let facts = newest.host.iter().flat_map(|facts| facts.iter());
        let values: Vec<_> = facts.map(|fact| fact.value.clone()).collect();
        (values, !Arc::ptr_eq(&before, &newest))
    };
    let missing = Some(ReasonCode::NoData.reason(String::new()));
    let (one, two) = (vec![FactValue::Int(1)], vec![FactValue::Int(2)]);
    assert_eq!(pass(1, None), (one.clone(), true));
    assert_eq!(pass(1, None), (one.clone(), false));
    assert_eq!(pass(1, missing.clone()), (one, true), "a state");
    assert_eq!(pass(2, missing), (two, true), "a value");
    assert_eq!(newest.count(&Inventory::default()), 1);
}

#[test]
fn collector_runs_until_stop_even_without_sources() {
    let collector = collector(Vec::new(), &Arc::default());
    let stop = Stop::default();
    let reported = stop.clone();
    let thread = std::thread::spawn(move || collector.run(&reported));
    stop.stop();
    thread.join().unwrap();
}
