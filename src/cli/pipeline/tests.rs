//! The whole pipeline on a fixture host.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fake_host::{FakeHost, UUID_A, UUID_B};
use crate::metric::{Buckets, Kind, Metric};
use crate::snapshot::{metrics, Labels, Row, Snapshot, Value, Visitor};
use crate::sources::pmu::scripted::Scripted;

pub(super) fn pipeline(host: &FakeHost, config: &Config, counters: Scripted) -> Pipeline {
    let roots = Arc::new(Roots::below(host.root()));
    let (telemetry, _) = Telemetry::new();
    Pipeline::new(config, roots, Arc::new(counters), 0, telemetry).unwrap()
}

impl Pipeline {
    pub(super) fn pass_and_tick(&mut self) -> Arc<Snapshot> {
        self.pass();
        self.tick();
        self.snapshots.load().unwrap()
    }
}

/// The error with which a pipeline with a period of 10 ms ends by itself.
fn ends_by_itself(pipeline: Pipeline, then: impl FnOnce()) -> String {
    let periods = Sampling {
        tick: Duration::from_millis(10),
        inventory: Duration::from_millis(10),
    };
    let running = pipeline.start(&periods, &Stop::default(), || ()).unwrap();
    then();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(Duration::from_secs(20), running.ended());
        ended.await.expect("the pipeline did not end");
    });
    running.stop().unwrap_err().to_string()
}

#[test]
fn a_sampler_that_panics_ends_the_exporter() {
    let host = FakeHost::new();
    let counters = Scripted::new().refusing(|tid, _| match tid {
        0 => None,
        tid => panic!("thread {tid} is one too many"),
    });
    let pipeline = pipeline(&host, &Config::default(), counters);
    let error = ends_by_itself(pipeline, || {
        host.qemu(1000, "a", UUID_A, 1);
    });
    assert!(error.contains("sampler thread panicked"), "{error}");
    assert!(error.contains("one too many"), "{error}");
}

#[test]
fn threads_that_are_asked_to_stop_end_without_error() {
    let host = FakeHost::new();
    let pipeline = pipeline(&host, &Config::default(), Scripted::new());
    let running = pipeline
        .start(&Sampling::default(), &Stop::default(), || ())
        .unwrap();
    running.stop().unwrap();
}

/// Every series about VMs and its value.
#[derive(Default)]
pub(super) struct Series {
    metric: Option<&'static Metric>,
    pub(super) values: HashMap<(&'static str, String), u64>,
}

impl Visitor for Series {
    fn metric(&mut self, metric: &'static Metric) {
        self.metric = Some(metric);
    }

    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
        let metric = self.metric.unwrap();
        let (Value::Int(n) | Value::Nanoseconds(n)) = value else {
            return;
        };
        if metric.source != "self" {
            let labels = format!("{},{}", row.labels.text(), fixed.text());
            let before = self.values.insert((metric.name, labels.clone()), n);
            assert_eq!(before, None, "twice: {}{{{labels}}}", metric.name);
        }
    }

    fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
        self.sample(row, &Labels::default(), Value::Int(buckets.count()));
    }
}

pub(super) fn series(snapshot: &Snapshot) -> Series {
    let mut series = Series::default();
    snapshot.visit(snapshot.taken_mono, &mut series);
    series
}

fn is_counter(name: &str) -> bool {
    metrics::find(name).is_some_and(|metric| metric.kind == Kind::Counter)
}

/// A change on the host.
#[derive(Debug, Clone)]
enum Event {
    /// A vCPU runs and is on this CPU afterwards.
    Run { vcpu: usize, cpu: u32 },
    /// A second VM of the same name starts, with a suffix, or ends.
    Twin,
    /// The last vCPU is unplugged, or plugged in.
    Hotplug,
    /// A vCPU gets a new thread.
    Replace { vcpu: usize },
    /// CPUs 2 and 3 go offline or online.
    Offline,
    /// From now on the thread may run only on this CPU.
    Bind { vcpu: usize, cpu: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    let (vcpu, cpu) = (0..3usize, 0..4u32);
    prop_oneof![
        4 => (vcpu.clone(), cpu.clone()).prop_map(|(vcpu, cpu)| Event::Run { vcpu, cpu }),
        1 => Just(Event::Twin),
        1 => Just(Event::Hotplug),
        1 => vcpu.clone().prop_map(|vcpu| Event::Replace { vcpu }),
        1 => Just(Event::Offline),
        1 => (vcpu, cpu).prop_map(|(vcpu, cpu)| Event::Bind { vcpu, cpu }),
    ]
}

/// A host with a VM of two or three vCPUs, and random changes.
struct Busy {
    host: FakeHost,
    tids: Vec<i32>,
    next_tid: i32,
    has_twin: bool,
    is_offline: bool,
}

const PID: i32 = 1000;

impl Busy {
    fn new() -> Self {
        let host = FakeHost::new();
        let tids = host.qemu(PID, "a", UUID_A, 2).vcpus;
        Self {
            host,
            tids,
            next_tid: 5000,
            has_twin: false,
            is_offline: false,
        }
    }

    fn start_thread(&mut self, vcpu: usize) -> i32 {
        self.next_tid += 1;
        let comm = format!("CPU {vcpu}/KVM");
        self.host.thread(PID, self.next_tid, &comm, 9000);
        self.next_tid
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Run { vcpu, cpu } => {
                if let Some(tid) = self.tids.get(vcpu) {
                    self.host.set(PID, *tid, |t| {
                        (t.cpu, t.run, t.timeslices) = (cpu, t.run + 1000, t.timeslices + 1);
                    });
                }
            }
            Event::Twin if self.has_twin => {
                self.host.exit(2000);
                self.has_twin = false;
            }
            Event::Twin => {
                self.host.qemu(2000, "a", UUID_B, 1);
                self.has_twin = true;
            }
            Event::Hotplug => match self.tids.len() {
                2 => {
                    let tid = self.start_thread(2);
                    self.host.fd(PID, 13, "anon_inode:kvm-vcpu:2");
                    self.tids.push(tid);
                }
                _ => {
                    let tid = self.tids.pop().unwrap();
                    self.host.exit_thread(PID, tid).close(PID, 13);
                }
            },
            Event::Replace { vcpu } => {
                if let Some(tid) = self.tids.get(vcpu) {
                    self.host.exit_thread(PID, *tid);
                    self.tids[vcpu] = self.start_thread(vcpu);
                }
            }
            Event::Offline => {
                self.is_offline = !self.is_offline;
                self.host
                    .online(if self.is_offline { "0-1" } else { "0-3" });
            }
            Event::Bind { vcpu, cpu } => {
                if let Some(tid) = self.tids.get(vcpu) {
                    self.host
                        .set(PID, *tid, |t| t.cpus_allowed = cpu.to_string());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens, no counter of a vCPU that stays decreases, no series exists twice, and the
    /// number of series is counted correctly and within the limit.
    #[test]
    fn counters_survive_whatever_happens_to_a_host(
        events in prop::collection::vec(event(), 1..40),
        max_series in prop::sample::select(vec![1000usize, 90, 70]),
    ) {
        let mut busy = Busy::new();
        let mut config = Config::default();
        config.limits.max_series = max_series;
        let mut pipeline = pipeline(&busy.host, &config, Scripted::new());
        let mut seen = HashMap::new();
        pipeline.pass_and_tick();
        for event in &events {
            busy.happen(event);
            let snapshot = pipeline.pass_and_tick();
            prop_assert_eq!(snapshot.vcpus.len(), busy.tids.len() + usize::from(busy.has_twin));
            let limit = pipeline.sampler.view().limit;
            prop_assert_eq!(limit.series(), snapshot.count_series());
            let all_given_up = limit.dropped().len() == 3;
            prop_assert!(snapshot.series_count <= max_series || all_given_up, "{}", snapshot.series_count);
            let now = series(&snapshot).values;
            prop_assert_eq!(now.len(), snapshot.series_count);
            if let Event::Hotplug = event {
                seen.retain(|(_, labels): &(&str, String), _| !labels.contains("vcpu=\"2\""));
            }
            if let Event::Twin = event {
                seen.retain(|(_, labels): &(&str, String), _| !labels.contains("a-bbbbbbbb"));
            }
            for (series, value) in now.into_iter().filter(|((name, _), _)| is_counter(name)) {
                let before = seen.insert(series.clone(), value);
                prop_assert!(before <= Some(value), "{series:?} went from {before:?} to {value}");
            }
        }
    }
}
