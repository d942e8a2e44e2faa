//! The start time of each series, as OTLP defines it.
//!
//! A series that the exporter counts starts with the exporter or the vCPU thread, whichever is
//! later. A series that the kernel counts starts with the VM, or with boot if it is about the host.
//! Each source declares which applies ([`Origin`]). So a VM that restarts under its name has a new
//! start time, and no backend takes its lower totals for a decreasing counter.

use std::time::SystemTime;

use rustix::time::{clock_gettime, ClockId};

use crate::engine::Origin;
use crate::host::thread::ns_per_clock_tick;
use crate::snapshot::visit::unix_ns;
use crate::snapshot::Subject;

/// Converts clock ticks since boot to nanoseconds since the Unix epoch with a fixed offset: a start
/// time that moved with each clock adjustment would look like a restart.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: u64,
    ns_per_tick: u64,
    process: u64,
}

impl Clock {
    /// The machine's clock. The exporter started at `born` clock ticks since boot; 0 means now.
    pub fn new(born: u64) -> Self {
        let now = unix_ns(SystemTime::now());
        let up = clock_gettime(ClockId::Boottime);
        let up = up.tv_sec as u64 * 1_000_000_000 + up.tv_nsec as u64;
        let clock = Self {
            boot: now.saturating_sub(up),
            ns_per_tick: ns_per_clock_tick(),
            process: now,
        };
        let process = if born == 0 { now } else { clock.at(born) };
        Self { process, ..clock }
    }

    /// Start time of the exporter.
    pub(super) fn process(&self) -> u64 {
        self.process
    }

    /// Start of a total about `subject`.
    #[inline]
    pub(super) fn start(&self, subject: Subject, origin: Origin) -> u64 {
        let begun = subject
            .start_time()
            .map_or(self.process, |ticks| self.at(ticks));
        match origin {
            Origin::Exporter => begun.max(self.process),
            Origin::Vm => begun,
            Origin::Boot => self.boot,
        }
    }

    fn at(&self, ticks: u64) -> u64 {
        self.boot
            .saturating_add(ticks.saturating_mul(self.ns_per_tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::{Vcpu, VmKey};

    #[test]
    fn ticks_become_nanoseconds_and_the_exporters_start_is_one_of_them() {
        let born = Clock::new(1000);
        let now = unix_ns(SystemTime::now());
        assert_eq!(born.process, born.at(1000));
        assert!(born.at(0) < now && born.process < now);
        assert!(Clock::new(0).process >= now);
    }

    #[test]
    fn series_start_where_their_count_started() {
        let clock = Clock {
            boot: 10,
            ns_per_tick: 1,
            process: 100,
        };
        let vm = |start_time| VmKey {
            pid: 1,
            start_time,
            ordinal: 0,
        };
        let vcpu = |start_time| Vcpu {
            index: 0,
            tid: 2,
            start_time,
        };
        let (old, young) = (Subject::Vm(vm(10)), Subject::Vm(vm(190)));
        let thread = Subject::Vcpu(vm(10), vcpu(200));
        for (subject, from_exporter, from_vm) in [
            (Subject::Host, 100, 100),
            (old, 100, 20),
            (young, 200, 200),
            (thread, 210, 210),
            (Subject::Vcpu(vm(10), vcpu(20)), 100, 30),
        ] {
            assert_eq!(clock.start(subject, Origin::Exporter), from_exporter);
            assert_eq!(clock.start(subject, Origin::Vm), from_vm);
            assert_eq!(clock.start(subject, Origin::Boot), 10);
        }
    }
}
