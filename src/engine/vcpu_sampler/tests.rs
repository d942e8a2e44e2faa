//! A vCPU whose thread exits or whose sources fail.

use super::*;
use crate::engine::fixture;
use crate::engine::reading::{Column, ColumnId, Scope, Unit};
use crate::engine::{SourceInfo, SourceState};
use crate::host::topology::Topology;
use std::collections::VecDeque;
use std::sync::Mutex;

/// The next result of a scripted source; `true` stands for an active thread.
enum Answer {
    Open,
    Refuse,
    OpenGone,
    Read(bool),
    ReadFails,
    ReadGone,
}

type Script = Arc<Mutex<VecDeque<Answer>>>;

/// A source that follows a script and adds 1 to its column with each read.
struct Scripted {
    script: Script,
    column: ColumnId,
    is_sched: bool,
}

fn next(script: &Script) -> Answer {
    let next = script.lock().unwrap().pop_front();
    next.expect("more calls than scripted")
}

impl VcpuSource for Scripted {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "scripted",
            needs: "",
            cost: "",
        }
    }

    fn state(&self) -> SourceState {
        SourceState::Up
    }

    fn open(&mut self, _: &Target<'_>) -> Result<Box<dyn Reader>, OpenError> {
        match next(&self.script) {
            Answer::Open => Ok(Box::new(ScriptedReader {
                script: self.script.clone(),
                column: self.column,
                is_sched: self.is_sched,
            })),
            Answer::Refuse => Err(OpenError::Refused(ReasonCode::Busy.reason("not today"))),
            Answer::OpenGone => Err(OpenError::Gone),
            _ => panic!("unexpected open"),
        }
    }

    fn descriptors(&self) -> usize {
        0
    }
}

struct ScriptedReader {
    script: Script,
    column: ColumnId,
    is_sched: bool,
}

impl Reader for ScriptedReader {
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError> {
        match next(&self.script) {
            Answer::Read(active) => {
                if self.is_sched {
                    (reading.active, reading.cpu) = (active, Some(0));
                }
                reading.add(self.column, 1);
                Ok(())
            }
            Answer::ReadFails => Err(ReadError::Failed("odd".to_owned())),
            Answer::ReadGone => Err(ReadError::Gone),
            _ => panic!("unexpected read"),
        }
    }

    fn descriptors(&self) -> usize {
        3
    }
}

/// A vCPU with a sched source and a second source.
struct Bench {
    scripts: [Script; 2],
    sources: Vec<Box<dyn VcpuSource>>,
    vcpu_sampler: VcpuSampler,
    shares: Shares,
    reading: Reading,
    errors: [u64; 2],
    now: Instant,
}

fn vm(tid: i32) -> (Arc<Vm>, Vcpu) {
    let vm = fixture::vm(1, tid, 3);
    let vcpu = vm.vcpus[0];
    (Arc::new(vm), vcpu)
}

impl Bench {
    fn new(sched: Vec<Answer>, other: Vec<Answer>) -> Self {
        let mut columns = Columns::default();
        let scripts = [sched, other].map(|answers| Arc::new(Mutex::new(VecDeque::from(answers))));
        let mut source = |n: usize| -> Box<dyn VcpuSource> {
            let column = columns.add(Column {
                metric: &crate::sources::sched::TIME,
                labels: Vec::new(),
                unit: Unit::Count,
                scope: Scope::Placed,
            });
            Box::new(Scripted {
                script: scripts[n].clone(),
                column,
                is_sched: n == 0,
            })
        };
        let sources = vec![source(0), source(1)];
        let topology = Topology {
            cpus: vec![fixture::cpu(0, 0, 0)],
        };
        let (vm, vcpu) = vm(2);
        Self {
            vcpu_sampler: VcpuSampler::new(vm, vcpu, &columns),
            shares: Shares::limited_to(usize::MAX),
            reading: Reading::new(&columns, Arc::new(topology)),
            scripts,
            sources,
            errors: [0; 2],
            now: Instant::now(),
        }
    }

    /// Runs one tick and returns the totals of both columns.
    fn tick(&mut self) -> [u64; 2] {
        self.reading.clear();
        let (reading, errors) = (&mut self.reading, &mut self.errors);
        let shares = &mut self.shares;
        self.vcpu_sampler
            .read(&mut self.sources, shares, reading, errors, self.now);
        self.vcpu_sampler.totals.charge(&self.reading, self.now);
        let series = self.vcpu_sampler.totals.series.iter();
        series.fold([0; 2], |sum, c| {
            [sum[0] + c.totals[0], sum[1] + c.totals[1]]
        })
    }

    fn is_over(&self) -> bool {
        self.scripts
            .iter()
            .all(|script| script.lock().unwrap().is_empty())
    }
}

use Answer::{Open, OpenGone, Read, ReadFails, ReadGone, Refuse};

#[test]
fn idle_thread_skips_other_sources() {
    let mut bench = Bench::new(vec![Open, Read(true), Read(false)], vec![Open, Read(true)]);
    assert_eq!(bench.tick(), [1, 1]);
    assert_eq!(bench.tick(), [2, 1]);
    assert!(bench.is_over());
    assert_eq!(bench.vcpu_sampler.descriptors(), 6);
}

#[test]
fn refused_source_is_retried_and_others_go_on() {
    let sched = vec![Open, Read(true), Read(true), Read(true)];
    let mut bench = Bench::new(sched, vec![Refuse, Open, Read(true)]);
    assert_eq!(bench.tick(), [1, 0]);
    assert_eq!(
        bench.vcpu_sampler.refusal(1).unwrap().code,
        ReasonCode::Busy
    );
    assert_eq!(bench.tick(), [2, 0]);
    bench.now += RETRY_AFTER;
    assert_eq!(bench.tick(), [3, 1]);
    assert_eq!(bench.vcpu_sampler.refusal(1), None);
    assert!(bench.is_over());
}

#[test]
fn exited_thread_keeps_its_totals() {
    let mut bench = Bench::new(
        vec![Open, Read(true), Read(true)],
        vec![Open, Read(true), ReadGone],
    );
    assert_eq!(bench.tick(), [1, 1]);
    assert_eq!(bench.tick(), [2, 1], "sched read the last tick");
    assert_eq!(bench.vcpu_sampler.descriptors(), 0);
    assert_eq!(bench.tick(), [2, 1], "no source is read again");
    assert!(bench.is_over());
}

#[test]
fn thread_that_exits_during_open_is_no_refusal() {
    let mut bench = Bench::new(vec![Open, ReadGone], vec![Refuse]);
    assert_eq!(bench.tick(), [0, 0]);
    assert_eq!(bench.vcpu_sampler.refusal(1), None);
    assert!(bench.is_over());
}

#[test]
fn new_thread_continues_the_totals() {
    let sched = vec![Open, Read(true), ReadGone, Open, Read(true)];
    let mut bench = Bench::new(sched, vec![Open, Read(true), Open, Read(true)]);
    bench.tick();
    bench.tick();
    let (vm, vcpu) = vm(5);
    bench.vcpu_sampler.update(vm, vcpu);
    assert_eq!(bench.tick(), [2, 2]);
    assert!(bench.is_over());
}

#[test]
fn thread_that_exited_before_open_is_skipped() {
    let mut bench = Bench::new(vec![OpenGone], vec![]);
    assert_eq!(bench.tick(), [0, 0]);
    assert_eq!(bench.tick(), [0, 0]);
    assert!(bench.is_over());
}

#[test]
fn failed_read_is_counted_and_retried() {
    let sched = vec![Open, Read(true), Read(true)];
    let mut bench = Bench::new(sched, vec![Open, ReadFails, Read(true)]);
    assert_eq!(bench.tick(), [1, 0]);
    assert_eq!(bench.errors, [0, 1]);
    assert_eq!(bench.tick(), [2, 1]);
    assert_eq!(bench.errors, [0, 1]);
}

#[test]
fn unknown_cpu_leaves_deltas_in_the_kernel() {
    let mut bench = Bench::new(vec![Open, ReadFails, Read(true)], vec![Open, Read(true)]);
    assert_eq!(bench.tick(), [0, 0]);
    assert_eq!(bench.tick(), [1, 1]);
    assert!(bench.is_over());
}
