//! CPU time, which other work on the machine does not affect.
#![allow(dead_code)]

use std::time::Duration;

use rustix::time::{clock_gettime, ClockId};

/// CPU time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of some work, and its result.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = cpu_time();
    let result = work();
    (cpu_time() - begun, result)
}

/// Lowest CPU time of several runs.
pub(crate) fn least(runs: usize, mut work: impl FnMut()) -> Duration {
    let times = (0..runs).map(|_| measure(&mut work).0);
    times.min().unwrap_or_default()
}
