//! One run of the tests on a machine that also does other things: how long it waits, and which names and addresses no
//! other process uses.
//!
//! Tests wait for conditions, never for a time. The deadline only ends a test whose condition does not come.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};
use rustix::thread::{sched_getaffinity, CpuSet};
use vcpu_exporter::host::thread::is_of_kernel;

/// How long a test waits for a condition before it fails. The slowest one is the boot of a firmware where KVM is nested
/// and emulates real mode: 30 s beside other load.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to return; `None` if nothing comes within [`DEADLINE`].
pub fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() > DEADLINE {
            return found;
        }
        thread::sleep(PAUSE);
    }
}

/// The CPUs that this process may run on: a container or an affinity may leave out any of them.
pub fn allowed_cpus() -> Vec<u32> {
    let set = sched_getaffinity(None).expect("own affinity");
    let all = 0..u32::try_from(CpuSet::MAX_CPU).expect("a number of a CPU");
    all.filter(|cpu| set.is_set(*cpu as usize)).collect()
}

/// CPU seconds that a hypervisor below this host took from it so far (proc_stat(5)): a thread is charged neither time
/// nor delay for them.
pub fn stolen() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("procfs");
    let ticks = stat.split_whitespace().nth(8).and_then(|n| n.parse().ok());
    let ticks: f64 = ticks.expect("the first line has all CPUs' ticks");
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A process that is stopped (SIGSTOP) with all its threads; dropping this continues it.
pub struct Frozen(Pid);

impl Frozen {
    /// Returns when no thread of the process runs any more: on a busy machine that takes a while after the signal.
    pub fn new(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let frozen = Self(pid.expect("a process"));
        kill_process(frozen.0, Signal::STOP).expect("it can be stopped");
        let tasks = format!("/proc/{}/task", frozen.0.as_raw_nonzero());
        let all = || {
            let stats = fs::read_dir(&tasks)
                .ok()?
                .map(|task| fs::read(task.ok()?.path().join("stat")).ok());
            // KVM's own thread of a VM (kvm-nx-lpage-recovery) takes no signals.
            let still = |stat: Option<Vec<u8>>| {
                stat.is_some_and(|stat| is_of_kernel(&stat) || is_stopped(&stat))
            };
            stats.into_iter().all(still).then_some(())
        };
        eventually(all).expect("it stops");
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Whether the state of a thread, the third field of its stat (proc_pid_stat(5)), is `T`.
fn is_stopped(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    name_end.and_then(|end| stat.get(end + 2)) == Some(&b'T')
}

/// A name that no other run of the tests on this machine uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// An address of this process: the loopback network has one for each PID (at most 2^22, `PID_MAX_LIMIT` in
/// include/linux/threads.h). Its ports stay free for this process, because other programs listen and connect at 127.0.0.1.
pub fn loopback() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high, middle, low).into()
}

/// An address where nothing listens. Nothing else will until this process does, and it is returned once.
pub fn free_address() -> SocketAddr {
    static RETURNED: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    let mut returned = RETURNED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind((loopback(), 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        if returned.insert(address) {
            return address;
        }
    }
}
