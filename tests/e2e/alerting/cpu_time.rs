//! Who uses this machine: the test with all it starts, or others.

use std::fs;

/// CPU time since boot, in clock ticks.
pub(super) struct CpuTime {
    /// Of all CPUs, idle or not.
    all: u64,
    /// Of these, what anybody used, a hypervisor below included.
    used: u64,
    /// Of these, what this process used, and its children that have ended.
    own: u64,
}

impl CpuTime {
    pub(super) fn now() -> Self {
        let machine = fs::read_to_string("/proc/stat").expect("procfs");
        let process = fs::read_to_string("/proc/self/stat").expect("procfs");
        Self::parse(&machine, &process)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq and steal; guests' time is in user.
    /// proc_pid_stat(5): utime, stime, cutime and cstime are fields 14 to 17.
    fn parse(machine: &str, process: &str) -> Self {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let cpus = machine.lines().next().expect("a line of all CPUs");
        let cpus = cpus.split_whitespace().skip(1).take(8).map(number);
        let cpus: Vec<u64> = cpus.collect();
        let (_, fields) = process.rsplit_once(')').expect("a name in parentheses");
        let own = fields.split_whitespace().skip(14 - 3).take(4).map(number);
        let all = cpus.iter().sum();
        Self {
            all,
            used: all - cpus[3] - cpus[4],
            own: own.sum(),
        }
    }

    /// The share of all CPU time since then that others used.
    pub(super) fn of_others_since(&self, before: &Self) -> f64 {
        let own = self.own - before.own;
        let others = (self.used - before.used).saturating_sub(own);
        others as f64 / (self.all - before.all).max(1) as f64
    }
}

#[test]
fn what_others_use_is_neither_idle_nor_our_own() {
    let process = |utime| format!("1 (a b) c) S 0 0 0 0 0 0 0 0 0 0 {utime} 2 3 4 20 0");
    let before = CpuTime::parse("cpu  10 0 10 100 20 0 0 0 5 0\ncpu0 1\n", &process(1));
    let after = CpuTime::parse("cpu  40 0 20 140 30 0 0 10 9 0\ncpu0 1\n", &process(21));
    // 100 ticks, of which 50 idle and 20 ours.
    assert_eq!(after.of_others_since(&before), 0.3);
}
