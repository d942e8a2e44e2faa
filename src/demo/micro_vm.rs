//! The micro-VM process: its arguments, its vCPU threads, and its control channel.
//!
//! With `--control` it reports when it is ready and executes commands ([`super::protocol`]). End of
//! file on its input ends it, so it does not outlive the process at the other end of the pipe.
//! Without `--control` it runs until it is killed or its parent ends.

use std::convert::Infallible;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context};
use rustix::process::{getppid, set_parent_process_death_signal, Pid, Signal};
use rustix::thread::{gettid, sched_setaffinity, CpuSet};

use super::guest::{Load, MAX_VCPUS};
use super::pace::{self, Schedule};
use super::protocol::{Command, Ready, Reply, Stats, VcpuStats, VcpuThread};
use super::vm::{spin, thread_cpu_time, Exit, Vcpu, Vm, VmError};

/// Wake-up period of a pacing vCPU: 100 per second.
pub const WAKE_PERIOD: Duration = Duration::from_millis(10);

/// Port writes between two wake-ups of the `io` load.
pub const WRITES_PER_WAKE: u64 = 10;

/// Arguments of the hidden `micro-vm` command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MicroVmArgs {
    /// Name of the VM
    #[arg(long)]
    pub name: String,
    /// UUID of the VM
    #[arg(long)]
    pub uuid: Option<String>,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    pub vcpus: u32,
    /// What the vCPUs do
    #[arg(long, value_enum)]
    pub load: Load,
    /// Additional guest memory (MiB), all of it touched at start
    #[arg(long, default_value_t = 0, value_parser = at_most_1_gib)]
    pub memory: usize,
    /// Read commands from standard input and write JSON to standard output
    #[arg(long)]
    pub control: bool,
}

/// Pages of 4 KiB.
const PAGES_PER_MIB: usize = 256;

fn at_most_1_gib(text: &str) -> Result<usize, String> {
    let mib = text.parse().map_err(|error| format!("{error}"))?;
    match mib {
        0..=1024 => Ok(mib),
        _ => Err("more than 1024".to_owned()),
    }
}

/// Runs a micro-VM until it is stopped.
///
/// # Errors
/// If KVM is missing or failed, or the process could not be set up. With `--control`, the error is
/// also sent as a [`Reply::Error`].
pub(crate) fn main(args: &MicroVmArgs) -> anyhow::Result<ExitCode> {
    let result = run(args);
    if let (true, Err(error)) = (args.control, &result) {
        let error = format!("{error:#}");
        // Ignore errors: the exit status reports the failure too.
        let _ = say(&Reply::Error { error });
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn run(args: &MicroVmArgs) -> anyhow::Result<()> {
    let (events, inbox) = mpsc::channel();
    if !args.control {
        die_with_parent()?;
    }
    let mut machine = MicroVm::start(args, events.clone())?;
    if args.control {
        say(&Reply::Ready(machine.ready()))?;
        spawn("control", move || read_commands(&events))?;
    }
    serve(&mut machine, &inbox)
}

/// Events of the main thread.
enum Event {
    Command(String),
    EndOfInput,
    Failed(anyhow::Error),
}

fn serve(machine: &mut MicroVm, inbox: &Receiver<Event>) -> anyhow::Result<()> {
    for event in inbox {
        match event {
            Event::Command(line) => {
                let reply = machine.obey(&line);
                say(&reply)?;
                if matches!(reply, Reply::Stopped { .. }) {
                    break;
                }
            }
            Event::EndOfInput => break,
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_commands(events: &Sender<Event>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if events.send(Event::Command(line)).is_err() {
            return;
        }
    }
    // The receiver is gone only if the process is ending.
    let _ = events.send(Event::EndOfInput);
}

fn say(reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    let written = out.write_all(&line).and_then(|()| out.flush());
    written.context("cannot answer on standard output")
}

/// Makes the kernel kill this process when its parent ends.
///
/// Only without `--control`: the kernel means the parent *thread* (PR_SET_PDEATHSIG in prctl(2)),
/// and end of file on the input is more reliable.
fn die_with_parent() -> anyhow::Result<()> {
    let parent = getppid();
    let failed = "cannot end together with the parent process";
    set_parent_process_death_signal(Some(Signal::KILL)).context(failed)?;
    // If the parent ended before the call, another process has adopted this one.
    ensure!(
        getppid() == parent,
        "{failed}: the parent has ended already"
    );
    Ok(())
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.with_context(|| cannot_start(name))?;
    Ok(())
}

fn cannot_start(thread: &str) -> String {
    format!("cannot start the thread {thread:?}")
}

/// The VM and its running vCPUs.
struct MicroVm {
    vm: Vm,
    load: Load,
    vcpus: Vec<Running>,
    events: Sender<Event>,
}

struct Running {
    tid: i32,
    started: Duration,
    tally: Arc<Tally>,
}

/// Counters of a vCPU's thread.
#[derive(Debug, Default)]
struct Tally {
    exits: AtomicU64,
    halts: AtomicU64,
    writes: AtomicU64,
    skipped: AtomicU64,
}

impl MicroVm {
    fn start(args: &MicroVmArgs, events: Sender<Event>) -> anyhow::Result<Self> {
        let mut machine = Self {
            vm: Vm::create(args.load, args.memory * PAGES_PER_MIB)?,
            load: args.load,
            vcpus: Vec::new(),
            events,
        };
        for _ in 0..args.vcpus {
            machine.add_vcpu()?;
        }
        Ok(machine)
    }

    fn add_vcpu(&mut self) -> anyhow::Result<VcpuThread> {
        let index = self.vcpus.len() as u32;
        let vcpu = self.vm.create_vcpu(index)?;
        let (load, tally) = (self.load, Arc::new(Tally::default()));
        let (starting, begun) = mpsc::channel();
        let (counts, events) = (Arc::clone(&tally), self.events.clone());
        // QEMU's name for vCPU threads. It is set before the thread reports that it started.
        let name = format!("CPU {index}/KVM");
        spawn(&name, move || {
            let started = pace::now();
            let _ = starting.send((gettid().as_raw_nonzero().get(), started));
            let due = Schedule::starting(started, WAKE_PERIOD);
            let Err(error) = drive(vcpu, load, &counts, due);
            let stopped = format!("vCPU {index} stopped");
            let _ = events.send(Event::Failed(anyhow::Error::new(error).context(stopped)));
        })?;
        let (tid, started) = begun.recv().with_context(|| cannot_start(&name))?;
        self.vcpus.push(Running {
            tid,
            started,
            tally,
        });
        Ok(VcpuThread { index, tid })
    }

    fn obey(&mut self, line: &str) -> Reply {
        let reply = match Command::parse(line) {
            Ok(Command::AddVcpu) => self
                .add_vcpu()
                .map(|added| Reply::Added { added })
                .map_err(|error| format!("{error:#}")),
            Ok(Command::Pin { index, cpu }) => self.pin(index, cpu),
            Ok(Command::Stats) => Ok(Reply::Stats(self.stats())),
            Ok(Command::Stop) => Ok(Reply::Stopped { stopped: true }),
            Err(error) => Err(error),
        };
        reply.unwrap_or_else(|error| Reply::Error { error })
    }

    fn pin(&self, index: u32, cpu: u32) -> Result<Reply, String> {
        let vcpu = self.vcpus.get(index as usize);
        let vcpu = vcpu.ok_or_else(|| format!("no vCPU {index}"))?;
        if cpu as usize >= CpuSet::MAX_CPU {
            return Err(format!("no CPU {cpu}"));
        }
        let mut only = CpuSet::new();
        only.set(cpu as usize);
        sched_setaffinity(Pid::from_raw(vcpu.tid), &only)
            .map_err(|error| format!("cannot pin vCPU {index} to CPU {cpu}: {error}"))?;
        Ok(Reply::Pinned { pinned: index, cpu })
    }

    fn ready(&self) -> Ready {
        let threads = self.vcpus.iter().zip(0..);
        Ready {
            ready: true,
            pid: std::process::id(),
            vcpus: threads
                .map(|(vcpu, index)| VcpuThread {
                    index,
                    tid: vcpu.tid,
                })
                .collect(),
        }
    }

    fn stats(&self) -> Stats {
        let vcpus = self.vcpus.iter().zip(0..);
        let vcpus = vcpus.map(|(vcpu, index)| vcpu.stats(index, self.vm.turns(index)));
        Stats {
            vcpus: vcpus.collect(),
            monotonic_ns: nanoseconds(pace::now()),
        }
    }
}

impl Running {
    fn stats(&self, index: u32, turns: u32) -> VcpuStats {
        let Tally {
            exits,
            halts,
            writes,
            skipped,
        } = self.tally.as_ref();
        VcpuStats {
            index,
            started_ns: nanoseconds(self.started),
            // The thread ends only with the process.
            cpu_ns: thread_cpu_time(self.tid).map_or(0, nanoseconds),
            turns,
            exits: exits.load(Ordering::Relaxed),
            halts: halts.load(Ordering::Relaxed),
            writes: writes.load(Ordering::Relaxed),
            skipped: skipped.load(Ordering::Relaxed),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs a vCPU forever; waits or works outside the guest as its load requires.
fn drive(
    mut vcpu: Vcpu,
    load: Load,
    tally: &Tally,
    mut due: Schedule,
) -> Result<Infallible, VmError> {
    loop {
        let exit = vcpu.run()?;
        tally.exits.fetch_add(1, Ordering::Relaxed);
        let rests = match exit {
            Exit::Interrupted => false,
            Exit::Halt => {
                tally.halts.fetch_add(1, Ordering::Relaxed);
                true
            }
            Exit::PortWrite => {
                let before = tally.writes.fetch_add(1, Ordering::Relaxed);
                if load == Load::Half {
                    spin();
                }
                load == Load::Io && (before + 1) % WRITES_PER_WAKE == 0
            }
        };
        if rests {
            due.wait();
            tally.skipped.store(due.skipped(), Ordering::Relaxed);
        }
    }
}
