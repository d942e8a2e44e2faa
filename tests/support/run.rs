//! Support for test runs on a shared machine: deadlines, and names and addresses that no other
//! process uses.
//!
//! Tests wait for conditions, never for a fixed time. The deadline ends only a test whose condition
//! does not occur.
#![allow(dead_code, unreachable_pub, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};
use rustix::thread::{sched_getaffinity, CpuSet};
use vcpu_exporter::host::thread::is_of_kernel;

/// Longest wait of a test for a condition. The slowest one is a firmware boot where KVM is nested
/// and emulates real mode: 30 s beside other load.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Pause between two checks of a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Held by tests that load the CPUs, count everything that an exporter of this machine sees, or change
/// what it sees: they run one after the other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `look` until it returns something; `None` after [`DEADLINE`].
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

/// The CPUs that this process may run on: a container or an affinity can exclude some.
pub fn allowed_cpus() -> Vec<u32> {
    let set = sched_getaffinity(None).expect("own affinity");
    let all = 0..u32::try_from(CpuSet::MAX_CPU).expect("a number of a CPU");
    all.filter(|cpu| set.is_set(*cpu as usize)).collect()
}

/// CPU seconds that a hypervisor below this host has taken from it so far (proc_stat(5)): a thread
/// is charged neither time nor delay for them.
pub fn stolen() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("procfs");
    let ticks = stat.split_whitespace().nth(8).and_then(|n| n.parse().ok());
    let ticks: f64 = ticks.expect("the first line has all CPUs' ticks");
    ticks / rustix::param::clock_ticks_per_second() as f64
}

/// A process stopped (SIGSTOP) with all its threads; dropping this continues it.
pub struct Frozen(Pid);

impl Frozen {
    /// Returns when no thread of the process runs any more, which takes a while after the signal on
    /// a busy machine.
    pub fn new(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let frozen = Self(pid.expect("a process"));
        kill_process(frozen.0, Signal::STOP).expect("it can be stopped");
        let tasks = format!("/proc/{}/task", frozen.0.as_raw_nonzero());
        let all = || {
            let stats = fs::read_dir(&tasks)
                .ok()?
                .map(|task| fs::read(task.ok()?.path().join("stat")).ok());
            // KVM's own thread of a VM (kvm-nx-lpage-recovery) ignores signals.
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

/// A name that no other test run on this machine uses.
pub fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// An address of this process: the loopback network has one per PID (at most 2^22, `PID_MAX_LIMIT`
/// in include/linux/threads.h). Its ports stay free because other programs use 127.0.0.1.
pub fn loopback() -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high, middle, low).into()
}

/// An address without a listener. Only this process will listen there, and each address is returned
/// once.
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
