//! Reads one vCPU thread.
//!
//! `schedstat` is read first (1 µs): a thread that neither ran nor waited since the last tick
//! costs no more. The other files take 5-10 µs each, because the kernel formats dozens of fields.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::Ids;
use crate::engine::{ReadError, Reader, Reading};
use crate::host::cpulist;
use crate::host::task::is_gone;
use crate::host::thread::{self, KeptFile, SchedStat, Stat};
use crate::host::topology::{Place, Topology};

/// Affinity is read once in this many active ticks: an operator changes it, not the scheduler.
pub(super) const AFFINITY_EVERY: u32 = 5;

/// An idle tick counts 1/12 of an active one: reading `status` costs ten times reading
/// `schedstat`.
pub(super) const IDLE_SHARE: u32 = 12;

/// The open files of a thread.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) stat: KeptFile,
    pub(super) status: KeptFile,
    /// `None` on a kernel without `CONFIG_SCHED_INFO`.
    pub(super) schedstat: Option<KeptFile>,
    /// `None` on a kernel without `CONFIG_SCHED_DEBUG`; `status` has the context switches too.
    pub(super) sched: Option<KeptFile>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct SwitchCounts {
    voluntary: u64,
    involuntary: u64,
    migrations: Option<u64>,
}

/// Values of the last read.
#[derive(Debug, Default)]
struct Before {
    schedstat: SchedStat,
    stat: Stat,
    switches: SwitchCounts,
    /// Whether the thread was read before.
    is_read: bool,
    /// The last CPU with a known location that the thread ran on.
    place: Option<(u32, Place)>,
}

#[derive(Debug)]
pub(super) struct SchedReader {
    pub(super) files: Files,
    ids: Ids,
    ns_per_clock_tick: u64,
    before: Before,
    /// Idle ticks until affinity is read again.
    affinity_in: u32,
    stagger: u32,
    affinity: Vec<u8>,
    /// The topology at the last read of the affinity.
    topology: Arc<Topology>,
}

impl Reader for SchedReader {
    fn read(&mut self, reading: &mut Reading) -> Result<(), ReadError> {
        let read = self.read_files(reading);
        read.map_err(|error| {
            if is_gone(&error) {
                ReadError::Gone
            } else {
                ReadError::Failed(error.to_string())
            }
        })
    }

    fn descriptors(&self) -> usize {
        let Files {
            schedstat, sched, ..
        } = &self.files;
        2 + usize::from(schedstat.is_some()) + usize::from(sched.is_some())
    }
}

impl Files {
    /// All 0 without the file, as in a kernel that counts nothing.
    fn schedstat(&self, buffer: &mut [u8]) -> io::Result<SchedStat> {
        let Some(file) = &self.schedstat else {
            return Ok(SchedStat::default());
        };
        parse("schedstat", file.read(buffer)?, thread::parse_schedstat)
    }

    fn stat(&self, buffer: &mut [u8]) -> io::Result<Stat> {
        parse("stat", self.stat.read(buffer)?, thread::parse_stat)
    }

    fn switches(&self, buffer: &mut [u8]) -> io::Result<SwitchCounts> {
        if let Some(file) = &self.sched {
            let sched = parse("sched", file.read(buffer)?, thread::parse_sched)?;
            return Ok(SwitchCounts {
                voluntary: sched.voluntary,
                involuntary: sched.involuntary,
                migrations: Some(sched.migrations),
            });
        }
        let text = self.status.read(buffer)?;
        let (voluntary, involuntary) = parse("status", text, thread::switches_of_status)?;
        Ok(SwitchCounts {
            voluntary,
            involuntary,
            migrations: None,
        })
    }
}

impl SchedReader {
    pub(super) fn new(files: Files, ids: Ids, tid: i32) -> Self {
        Self {
            files,
            ids,
            ns_per_clock_tick: thread::ns_per_clock_tick(),
            before: Before::default(),
            affinity_in: 0,
            // Spreads the reads over the ticks, so that not all threads are read in the same one.
            stagger: tid.unsigned_abs() % (AFFINITY_EVERY * IDLE_SHARE),
            affinity: Vec::new(),
            topology: Arc::default(),
        }
    }

    /// Identity and activity of the thread so far. `stat` is read last: it fails once the thread
    /// has exited, even if other files were missing.
    pub(super) fn identity(&self) -> io::Result<(Stat, SchedStat)> {
        let mut buffer = [0; thread::BUFFER];
        let schedstat = self.files.schedstat(&mut buffer)?;
        Ok((self.files.stat(&mut buffer)?, schedstat))
    }

    /// Excludes the thread's activity so far.
    pub(super) fn start_from(&mut self, stat: Stat, schedstat: SchedStat) -> io::Result<()> {
        self.before.switches = self.files.switches(&mut [0; thread::BUFFER])?;
        self.before.stat = stat;
        self.before.schedstat = schedstat;
        Ok(())
    }

    fn read_files(&mut self, reading: &mut Reading) -> io::Result<()> {
        let mut buffer = [0; thread::BUFFER];
        let schedstat = self.files.schedstat(&mut buffer)?;
        if self.is_idle(schedstat) {
            reading.active = false;
            reading.cpu = Some(self.before.stat.cpu);
        } else {
            self.read_activity(schedstat, reading, &mut buffer)?;
        }
        self.read_affinity(reading, &mut buffer)
    }

    /// Whether the thread did not run since the last read. Unknown with 0 timeslices: that kernel
    /// does not count them.
    fn is_idle(&self, now: SchedStat) -> bool {
        self.before.is_read && now.timeslices > 0 && now == self.before.schedstat
    }

    fn read_activity(
        &mut self,
        schedstat: SchedStat,
        reading: &mut Reading,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        // Read all files before adding anything: otherwise a failed read would leave a part that
        // the next read adds again.
        let stat = self.files.stat(buffer)?;
        let switched = schedstat.timeslices != self.before.schedstat.timeslices;
        let switches = if switched || schedstat.timeslices == 0 || !self.before.is_read {
            self.files.switches(buffer)?
        } else {
            self.before.switches
        };
        self.add_differences(&schedstat, &stat, &switches, reading);
        self.note_move(stat.cpu, reading);
        self.before.schedstat = schedstat;
        self.before.stat = stat;
        self.before.switches = switches;
        self.before.is_read = true;
        reading.cpu = Some(stat.cpu);
        Ok(())
    }

    fn add_differences(
        &self,
        schedstat: &SchedStat,
        stat: &Stat,
        switches: &SwitchCounts,
        reading: &mut Reading,
    ) {
        let ids = &self.ids;
        let mut add = |id, now: u64, was: u64| reading.add(id, now.saturating_sub(was));
        let was = &self.before.schedstat;
        if schedstat.timeslices > 0 {
            add(ids.time, schedstat.run, was.run);
            add(ids.delay, schedstat.delay, was.delay);
            add(ids.timeslices, schedstat.timeslices, was.timeslices);
        }
        let was = &self.before.stat;
        let guest = stat.guest_ticks.saturating_sub(was.guest_ticks);
        add(ids.guest, guest.saturating_mul(self.ns_per_clock_tick), 0);
        add(ids.minor_faults, stat.minor_faults, was.minor_faults);
        add(ids.major_faults, stat.major_faults, was.major_faults);
        let was = &self.before.switches;
        add(ids.voluntary, switches.voluntary, was.voluntary);
        add(ids.involuntary, switches.involuntary, was.involuntary);
        if let Some(migrations) = switches.migrations {
            add(ids.migrations, migrations, was.migrations.unwrap_or(0));
        }
    }

    /// Counts a move since the last read under the farthest boundary it crossed. On a CPU that the
    /// topology does not have yet (it lags behind hotplug), the boundary is unknown: the move
    /// counts once the thread runs on a CPU with a known location, from the last such CPU to it.
    fn note_move(&mut self, cpu: u32, reading: &mut Reading) {
        let Some(place) = reading.topology.place(cpu) else {
            return;
        };
        let before = self.before.place.replace((cpu, place));
        let crossed = before.and_then(|before| crossed_between(before, (cpu, place)));
        for (n, id) in self.ids.crossed.into_iter().enumerate() {
            reading.add(id, u64::from(crossed == Some(n)));
        }
    }

    fn read_affinity(&mut self, reading: &mut Reading, buffer: &mut [u8]) -> io::Result<()> {
        let hotplug = !Arc::ptr_eq(&self.topology, &reading.topology);
        if self.affinity_in > 0 && !hotplug {
            let share = if reading.active { IDLE_SHARE } else { 1 };
            self.affinity_in = self.affinity_in.saturating_sub(share);
            return Ok(());
        }
        let first = self.affinity.is_empty();
        let period = (AFFINITY_EVERY - 1) * IDLE_SHARE;
        self.affinity_in = if first { self.stagger } else { period };
        let text = self.files.status.read(buffer)?;
        if text.len() == thread::BUFFER {
            // The text is cut off, and a truncated CPU list may look like a shorter one: unknown.
            return Ok(());
        }
        let list = thread::cpus_allowed(text).unwrap_or_default();
        if list.as_bytes() == self.affinity && !hotplug {
            return Ok(());
        }
        list.as_bytes().clone_into(&mut self.affinity);
        self.topology = reading.topology.clone();
        // A thread that was never bound is allowed all possible CPUs, also those that are offline.
        let online = |id: &u32| self.topology.cpu(*id).is_some_and(|cpu| cpu.online);
        let allowed = cpulist::parse(list).unwrap_or_default().into_iter();
        let allowed: Vec<u32> = allowed.filter(online).collect();
        if allowed.is_empty() {
            // A thread may always run on some CPU: this one the topology does not have yet, or
            // sysfs hides it, as lxcfs does in containers.
            reading.withdraw(self.ids.affinity_cpus);
            reading.withdraw(self.ids.affinity_nodes);
            return Ok(());
        }
        reading.set(self.ids.affinity_cpus, allowed.len() as u64);
        reading.set(
            self.ids.affinity_nodes,
            numa_nodes(&allowed, &self.topology),
        );
        reading.allowed = Some(allowed);
        Ok(())
    }
}

/// Boundaries that a move can cross, from near to far: the values of the `crossed` label.
pub(super) const BOUNDARIES: [&str; 4] = ["cpu", "core", "package", "numa_node"];

/// Index in [`BOUNDARIES`] of the farthest boundary between two CPUs; `None` for the same CPU.
pub(super) fn crossed_between((from, a): (u32, Place), (to, b): (u32, Place)) -> Option<usize> {
    let crossed = [
        from != to,
        a.core != b.core,
        a.package != b.package,
        a.numa_node != b.numa_node,
    ];
    let farthest = crossed.into_iter().rposition(|crossed| crossed);
    farthest.filter(|_| from != to)
}

fn numa_nodes(cpus: &[u32], topology: &Topology) -> u64 {
    let places = cpus.iter().filter_map(|cpu| topology.place(*cpu));
    let nodes: BTreeSet<u32> = places.map(|place| place.numa_node).collect();
    nodes.len() as u64
}

fn parse<'a, T>(
    file: &str,
    text: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> Option<T>,
) -> io::Result<T> {
    parser(text).ok_or_else(|| {
        let start = String::from_utf8_lossy(&text[..text.len().min(60)]);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unexpected format in {file}: {start:?}"),
        )
    })
}
