//! Connects the stages: discovery, sources, sampler, snapshots.

use std::any::Any;
use std::future::Future;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::{Config, Sampling};
use crate::discover::discovery::Discovery;
use crate::engine::background::BackgroundCollector;
use crate::engine::sampler::{Published, Sampler};
use crate::engine::ThreadedSource;
use crate::host::identity::Identity;
use crate::host::roots::Roots;
use crate::host::topology::TopologyError;
use crate::snapshot::build::Builder;
use crate::snapshot::Handle;
use crate::sources::pmu::counters::OpenCounters;
use crate::sources::pt::{PerfPt, RecordPt};
use crate::sources::{Setup, Sources};
use crate::stop::Stop;
use crate::telemetry::{Heartbeats, Telemetry};

/// How long shutdown waits for the threads. A tick, a scan and a recording take milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// All stages up to the snapshot, not started.
pub struct Pipeline {
    discovery: Discovery,
    slow: BackgroundCollector,
    threaded: Vec<Box<dyn ThreadedSource>>,
    sampler: Sampler,
    builder: Builder,
    snapshots: Handle,
    heartbeats: Heartbeats,
}

/// The pipeline's running threads.
pub(super) struct Running {
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    ended: Arc<ThreadEnd>,
    heartbeats: Heartbeats,
}

/// Number of threads that exited.
#[derive(Debug, Default)]
struct ThreadEnd {
    any: Notify,
    count: Mutex<usize>,
    one_more: Condvar,
}

impl Pipeline {
    /// Connects all stages over these roots. For `born_after` see [`Setup`].
    ///
    /// # Errors
    /// If the CPU topology cannot be read.
    pub fn new(
        config: &Config,
        roots: Arc<Roots>,
        counters: Arc<dyn OpenCounters>,
        born_after: u64,
        telemetry: Telemetry,
    ) -> Result<Self, TopologyError> {
        let recorder = Arc::new(PerfPt);
        Self::with_recorder(config, roots, counters, recorder, born_after, telemetry)
    }

    /// Like [`Pipeline::new`], with another recorder of Intel PT than the kernel's.
    ///
    /// # Errors
    /// See [`Pipeline::new`].
    pub fn with_recorder(
        config: &Config,
        roots: Arc<Roots>,
        counters: Arc<dyn OpenCounters>,
        recorder: Arc<dyn RecordPt>,
        born_after: u64,
        telemetry: Telemetry,
    ) -> Result<Self, TopologyError> {
        let discovery = Discovery::new(roots.clone(), telemetry.clone())?;
        let host_name = Identity::read(&roots).name;
        let sources = Sources::new(&Setup {
            config,
            roots: roots.clone(),
            counters,
            recorder,
            born_after,
            inventory: discovery.newest(),
            telemetry: telemetry.clone(),
        });
        let snapshots = Handle::default();
        let (periodic, newest) = (sources.periodic, discovery.newest());
        let slow = BackgroundCollector::new(periodic, roots, newest, telemetry.clone());
        let threaded = sources.threaded;
        let facts = threaded.iter().map(|source| source.newest());
        let infos = threaded.iter().map(|source| source.info());
        let published = Published {
            inventory: discovery.newest(),
            facts: std::iter::once(slow.newest()).chain(facts).collect(),
            sources: slow.infos().into_iter().chain(infos).collect(),
        };
        let mut builder = Builder::new(snapshots.clone(), Some(sources.pmu_mode));
        builder.host_name(host_name);
        Ok(Self {
            heartbeats: telemetry.heartbeats.clone(),
            builder,
            sampler: Sampler::new(
                config,
                sources.of_vcpus,
                sources.columns,
                published,
                telemetry,
            ),
            discovery,
            slow,
            threaded,
            snapshots,
        })
    }

    /// Marks every snapshot as synthetic, with the name of the scenario.
    #[must_use]
    pub fn synthetic(mut self, scenario: &str) -> Self {
        self.builder.synthetic(scenario);
        self
    }

    /// A handle that returns the latest snapshot.
    pub fn snapshots(&self) -> Handle {
        self.snapshots.clone()
    }

    /// Scans for VMs, and reads the slow sources that are due.
    pub fn pass(&mut self) {
        self.find();
        self.read_slow(Instant::now());
    }

    /// Scans for VMs.
    pub fn find(&mut self) {
        self.discovery.pass();
    }

    /// Reads the slow sources that are due at `now`, those with a thread of their own among them.
    pub fn read_slow(&mut self, now: Instant) {
        self.slow.pass(now);
        for source in &mut self.threaded {
            source.pass(now);
        }
    }

    /// Number of file descriptors open for vCPUs.
    pub fn descriptors(&self) -> usize {
        self.sampler.descriptors()
    }

    /// Reads every vCPU once and publishes a snapshot.
    pub fn tick(&mut self) {
        self.sampler.tick();
        self.builder.publish(&self.sampler.view());
    }

    /// Starts the threads. The first scan and the first tick finish before this returns, so the
    /// exporter has data when it reports ready. The sampler's thread calls `after_tick`.
    pub(super) fn start(
        mut self,
        periods: &Sampling,
        stop: &Stop,
        after_tick: impl Fn() + Send + 'static,
    ) -> io::Result<Running> {
        self.discovery.pass();
        self.tick();
        let Self {
            discovery,
            slow,
            threaded,
            sampler,
            mut builder,
            heartbeats,
            ..
        } = self;
        let (tick, inventory) = (periods.tick, periods.inventory);
        let mut running = Running::new(stop, heartbeats);
        running.spawn("inventory", move |stop| discovery.run(inventory, stop))?;
        running.spawn("slow", move |stop| slow.run(stop))?;
        for source in threaded.into_iter().filter(|source| source.is_able()) {
            running.spawn(source.info().name, move |stop| source.run(stop))?;
        }
        running.spawn("sampler", move |stop| {
            sampler.run(tick, stop, |sampler| {
                builder.publish(&sampler.view());
                after_tick();
            });
        })?;
        Ok(running)
    }
}

mod in_step;

impl Running {
    fn new(stop: &Stop, heartbeats: Heartbeats) -> Self {
        Self {
            stop: stop.clone(),
            threads: Vec::new(),
            ended: Arc::default(),
            heartbeats,
        }
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Stop) + Send + 'static) -> io::Result<()> {
        let stop = self.stop.clone();
        let notify = NotifyOnDrop(self.ended.clone());
        let builder = ThreadBuilder::new().name(name.to_owned());
        self.threads.push(builder.spawn(move || {
            let _notify = notify;
            run(&stop);
        })?);
        Ok(())
    }

    /// Resolves when a worker thread exits; before shutdown only a panic does that.
    ///
    /// The exporter then exits, and its supervisor restarts it. If it continued, it would serve
    /// numbers that no longer change, or miss new VMs; restarting only the thread could leave
    /// inconsistent state.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended = self.ended.clone();
        async move { ended.any.notified().await }
    }

    /// Stops the threads and waits for at most `PATIENCE`. A thread that hangs in the kernel ends
    /// with the process.
    pub(super) fn stop(mut self) -> Result<(), Panicked> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Panicked> {
        self.stop.stop();
        let all_ended = self.ended.wait_for(self.threads.len(), PATIENCE);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if !all_ended && !thread.is_finished() {
                let doing = self.heartbeats.doing(&name, Instant::now());
                let doing = doing.map(|hang| hang.to_string());
                tracing::error!(
                    thread = name,
                    doing,
                    "the thread did not stop in time; exiting without waiting for it"
                );
                continue;
            }
            result = result.and(thread.join().map_err(|panic| Panicked {
                thread: name,
                message: message(&*panic).to_owned(),
            }));
        }
        result
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error);
        }
    }
}

/// Reports when the thread exits, also by a panic.
struct NotifyOnDrop(Arc<ThreadEnd>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        let ended = &*self.0;
        ended.any.notify_one();
        *ended.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        ended.one_more.notify_all();
    }
}

impl ThreadEnd {
    /// Waits for `threads` exits; false after `patience`.
    fn wait_for(&self, threads: usize, patience: Duration) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let some_live = |ended: &mut usize| *ended < threads;
        let waited = self.one_more.wait_timeout_while(count, patience, some_live);
        let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *count >= threads
    }
}

/// A thread of the pipeline panicked.
#[derive(Debug, thiserror::Error)]
#[error("the {thread} thread panicked: {message}; this is a bug in the exporter, please report it")]
pub(super) struct Panicked {
    thread: String,
    message: String,
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Start time of this process in clock ticks since boot; 0 if unknown.
pub(super) fn own_start_time() -> u64 {
    let stat = procfs::process::Process::myself().and_then(|me| me.stat());
    stat.map_or(0, |stat| stat.starttime)
}

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod tests;
