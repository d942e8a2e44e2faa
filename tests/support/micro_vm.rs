//! Real KVM guests for tests: the program's `micro-vm` command, controlled through its pipes.

// Clippy recognizes tests by their attribute, not their helpers; each test program uses a part of
// this module.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::process::{kill_process, Pid, Signal};
use vcpu_exporter::demo::guest::Load;
use vcpu_exporter::demo::protocol::{Reply, Stats, VcpuStats, VcpuThread};
use vcpu_exporter::demo::vm;

use super::run::{eventually, unique, DEADLINE};

/// Whether micro-VMs can run here; prints why not.
pub(crate) fn kvm_works() -> bool {
    let works = vm::probe();
    if let Err(why) = &works {
        println!("skipped: {why}");
    }
    works.is_ok()
}

/// A running guest. Dropping it kills and reaps it.
pub(crate) struct MicroVm {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<String>,
    vcpus: Vec<VcpuThread>,
}

impl MicroVm {
    /// Starts a guest and waits until its vCPUs run. `name` is the prefix of its name.
    pub(crate) fn start(name: &str, load: Load, vcpus: u32) -> Self {
        let name = unique(name);
        let mut child = Command::new(env!("CARGO_BIN_EXE_vcpu-exporter"))
            .args(["micro-vm", "--control", "--name", &name])
            .args(["--load", load.name(), "--vcpus", &vcpus.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the micro-VM starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (sender, replies) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut vm = Self {
            name,
            child,
            stdin,
            replies,
            vcpus: Vec::new(),
        };
        match vm.reply() {
            Reply::Ready(ready) => {
                assert_eq!(ready.pid, vm.pid());
                vm.vcpus = ready.vcpus;
                vm
            }
            other => panic!("the micro-VM {} is not ready: {other:?}", vm.name),
        }
    }

    /// The `vm` label of its series.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// TID of a vCPU.
    pub(crate) fn tid(&self, index: usize) -> i32 {
        self.vcpus[index].tid
    }

    /// Work of its vCPUs, by their own count.
    pub(crate) fn stats(&mut self) -> Stats {
        match self.tell("stats") {
            Reply::Stats(stats) => stats,
            other => panic!("no answer to stats: {other:?}"),
        }
    }

    /// Work of one vCPU, and the time of the count on the monotonic clock in nanoseconds.
    pub(crate) fn vcpu_stats(&mut self, index: usize) -> (u64, VcpuStats) {
        let stats = self.stats();
        (stats.monotonic_ns, stats.vcpus[index])
    }

    /// Starts another vCPU and returns its index.
    pub(crate) fn add_vcpu(&mut self) -> usize {
        match self.tell("add-vcpu") {
            Reply::Added { added } => {
                self.vcpus.push(added);
                self.vcpus.len() - 1
            }
            other => panic!("no answer to add-vcpu: {other:?}"),
        }
    }

    /// Restricts a vCPU's thread to one CPU.
    pub(crate) fn pin(&mut self, index: usize, cpu: u32) {
        let reply = self.tell(&format!("pin {index} {cpu}"));
        assert!(matches!(reply, Reply::Pinned { .. }), "{reply:?}");
    }

    /// Asks the guest to exit and returns its exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        assert_eq!(self.tell("stop"), Reply::Stopped { stopped: true });
        self.wait()
    }

    /// Closes its standard input, as if its parent exited, and returns its exit status.
    pub(crate) fn hang_up(mut self) -> Option<i32> {
        self.stdin = None;
        self.wait()
    }

    /// Sends SIGTERM and returns its exit status: `None` if the signal ended it.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it can be signalled");
        self.wait()
    }

    /// Sends a line and returns the reply.
    pub(crate) fn tell(&mut self, line: &str) -> Reply {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        writeln!(stdin, "{line}").expect("the micro-VM listens");
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let line = self.replies.recv_timeout(DEADLINE);
        let line = line.expect("the micro-VM answers");
        serde_json::from_str(&line).expect("the answer is a reply")
    }

    fn wait(&mut self) -> Option<i32> {
        let status = eventually(|| self.child.try_wait().expect("it can be waited for"));
        status.expect("the micro-VM ends").code()
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel's name of a thread.
pub(crate) fn comm(pid: u32, tid: i32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Link targets of a process's descriptors.
pub(crate) fn descriptors(pid: u32) -> Vec<String> {
    let dir = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors are listed");
    let links = dir.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    File::open(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let line = BufReader::new(stat).lines().next();
        let line = line.and_then(Result::ok).unwrap_or_default();
        let state = line.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
    })
}

/// Whether a process exits by itself; otherwise it is killed.
pub(crate) fn ends(pid: u32) -> bool {
    let ended = eventually(|| (!is_alive(pid)).then_some(())).is_some();
    if let (false, Some(pid)) = (ended, i32::try_from(pid).ok().and_then(Pid::from_raw)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    ended
}
