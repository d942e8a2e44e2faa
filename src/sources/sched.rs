//! The `sched` source: scheduling of each vCPU thread.
//!
//! Feeds time, guest time, delay, timeslices, context switches, page faults, migrations, moves and
//! affinity from four /proc files per thread, which stay open (`reader`).

use std::io;
use std::sync::Arc;

use crate::engine::descriptors::{self, Holder};
use crate::engine::reading::{Column, ColumnId, Columns, Scope, Unit};
use crate::engine::{
    OpenError, Reader, Reason, ReasonCode, Source, SourceInfo, SourceState, Target, VcpuSource,
};
use crate::host::roots::Roots;
use crate::host::task::is_gone;
use crate::host::thread::{KeptFile, SchedStat, Stat};
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

mod reader;

use reader::{Files, SchedReader};

metrics! { METRICS of "sched":
    AFFINITY_CPUS = Metric::gauge("kvm_vcpu_affinity_cpus", Keys::Vcpu, &[],
        "Logical CPUs the vCPU thread may run on");
    AFFINITY_NUMA_NODES = Metric::gauge("kvm_vcpu_affinity_numa_nodes", Keys::Vcpu, &[],
        "NUMA nodes of the CPUs the vCPU thread may run on");
    TIME = Metric::counter("kvm_vcpu_time_seconds_total", Keys::Placed, &[],
        "Time the vCPU thread ran on a CPU, in the guest or on the guest's behalf");
    GUEST = Metric::counter("kvm_vcpu_guest_seconds_total", Keys::Placed, &[],
        "Time the vCPU thread ran inside the guest, as accounted by the kernel: in steps of 10 ms, sampled at the timer tick except on nohz_full CPUs");
    DELAY = Metric::counter("kvm_vcpu_delay_seconds_total", Keys::Placed, &[],
        "Time the vCPU thread was runnable but waited for a CPU (the guest sees it as steal); a wait counts when it ends");
    TIMESLICES = Metric::counter("kvm_vcpu_timeslices_total", Keys::Placed, &[],
        "Times the scheduler started to run the vCPU thread on a CPU");
    CONTEXT_SWITCHES = Metric::counter("kvm_vcpu_context_switches_total", Keys::Placed, &["type"],
        "Context switches of the vCPU thread: voluntary (it waits) and involuntary (it was preempted)");
    PAGE_FAULTS = Metric::counter("kvm_vcpu_page_faults_total", Keys::Placed, &["type"],
        "Page faults of the vCPU thread on the host, including guest memory faulted in by KVM: minor, and major (from disk or swap)");
    MIGRATIONS = Metric::counter("kvm_vcpu_migrations_total", Keys::Vcpu, &[],
        "Moves of the vCPU thread to another CPU; the kernel's exact count");
    MOVES = Metric::counter("kvm_vcpu_moves_total", Keys::Vcpu, &["crossed"],
        "Moves seen between two ticks, each counted under the farthest boundary it crossed: cpu, core, package, numa_node");
}

#[derive(Debug)]
struct SchedSource {
    roots: Arc<Roots>,
    ids: Ids,
    born_after: u64,
    lacks: Lacks,
}

/// Files or counts that this kernel lacks, as seen with the last opened thread that shows it.
#[derive(Debug, Default)]
struct Lacks {
    schedstat: bool,
    sched: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ids {
    time: ColumnId,
    guest: ColumnId,
    delay: ColumnId,
    timeslices: ColumnId,
    voluntary: ColumnId,
    involuntary: ColumnId,
    minor_faults: ColumnId,
    major_faults: ColumnId,
    migrations: ColumnId,
    crossed: [ColumnId; 4],
    affinity_cpus: ColumnId,
    affinity_nodes: ColumnId,
}

impl Ids {
    fn declare(columns: &mut Columns) -> Self {
        let mut add = |metric, labels: &[(&'static str, &str)], unit, scope| {
            let labels = labels.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            columns.add(Column {
                metric,
                labels,
                unit,
                scope,
            })
        };
        use Scope::{Placed, Vcpu};
        use Unit::{Count, Nanoseconds};
        let switches = &CONTEXT_SWITCHES;
        let faults = &PAGE_FAULTS;
        let mut moves = |boundary| add(&MOVES, &[("crossed", boundary)], Count, Vcpu);
        let crossed = reader::BOUNDARIES.map(&mut moves);
        let ids = Self {
            time: add(&TIME, &[], Nanoseconds, Placed),
            guest: add(&GUEST, &[], Nanoseconds, Placed),
            delay: add(&DELAY, &[], Nanoseconds, Placed),
            timeslices: add(&TIMESLICES, &[], Count, Placed),
            voluntary: add(switches, &[("type", "voluntary")], Count, Placed),
            involuntary: add(switches, &[("type", "involuntary")], Count, Placed),
            minor_faults: add(faults, &[("type", "minor")], Count, Placed),
            major_faults: add(faults, &[("type", "major")], Count, Placed),
            migrations: add(&MIGRATIONS, &[], Count, Vcpu),
            crossed,
            affinity_cpus: add(&AFFINITY_CPUS, &[], Count, Vcpu),
            affinity_nodes: add(&AFFINITY_NUMA_NODES, &[], Count, Vcpu),
        };
        columns.demand = Some([ids.time, ids.delay]);
        ids
    }
}

impl SchedSource {
    /// A thread that started at or after `born_after` (clock ticks since boot) is charged with its
    /// whole life, so no activity of a new VM is lost. An older thread is charged from its opening,
    /// so a restart of the exporter adds no increase.
    fn new(roots: Arc<Roots>, born_after: u64, columns: &mut Columns) -> Self {
        Self {
            roots,
            ids: Ids::declare(columns),
            born_after,
            lacks: Lacks::default(),
        }
    }

    fn open_files(&self, target: &Target<'_>) -> io::Result<Files> {
        let (pid, tid) = (target.vm.key.pid, target.vcpu.tid);
        let file = |name| KeptFile::open(&self.roots, pid, tid, name);
        let files = Files {
            stat: file("stat")?,
            schedstat: unless_missing(file("schedstat"))?,
            sched: unless_missing(file("sched"))?,
            status: file("status")?,
        };
        descriptors::leaves_room(&files.status, Holder::Files)?;
        Ok(files)
    }

    fn open_reader(&mut self, target: &Target<'_>) -> io::Result<SchedReader> {
        let files = self.open_files(target)?;
        let mut reader = SchedReader::new(files, self.ids, target.vcpu.tid);
        let (stat, schedstat) = reader.identity()?;
        if stat.start_time != target.vcpu.start_time {
            // The TID belongs to another thread now.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // The thread was alive at this read, so a missing file is missing for all threads.
        self.lacks.learn(&reader.files, &stat, schedstat);
        if stat.start_time < self.born_after {
            reader.start_from(stat, schedstat)?;
        }
        Ok(reader)
    }
}

impl Lacks {
    /// Without `CONFIG_SCHED_INFO` there is no `schedstat`. With it, but with neither
    /// `CONFIG_SCHEDSTATS` nor delay accounting, the file is all zeros (`sched_info_on`,
    /// include/linux/sched/stat.h), also for a thread that has run guest code.
    fn learn(&mut self, files: &Files, stat: &Stat, schedstat: SchedStat) {
        self.sched = files.sched.is_none();
        if files.schedstat.is_none() || schedstat.timeslices > 0 || stat.guest_ticks > 0 {
            self.schedstat = schedstat.timeslices == 0;
        }
    }
}

impl VcpuSource for SchedSource {
    fn info(&self) -> SourceInfo {
        ENTRY.info
    }

    fn state(&self) -> SourceState {
        let lacks = |code: ReasonCode, detail: &str, fix: &str| {
            SourceState::Degraded(code.reason(detail).with_fix(fix))
        };
        match self.lacks {
            Lacks {
                schedstat: true, ..
            } => lacks(
                ReasonCode::NoSchedstat,
                "the kernel keeps no scheduling statistics: time and delay are unknown",
                "use a kernel with CONFIG_SCHEDSTATS=y, or boot one with CONFIG_TASK_DELAY_ACCT=y \
                 with the parameter delayacct",
            ),
            Lacks { sched: true, .. } => lacks(
                ReasonCode::NoSchedFile,
                "the kernel has no /proc/PID/sched: migrations are not counted",
                "use a kernel with CONFIG_SCHED_DEBUG=y",
            ),
            Lacks { .. } => SourceState::Up,
        }
    }

    fn open(&mut self, target: &Target<'_>) -> Result<Box<dyn Reader>, OpenError> {
        match self.open_reader(target) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(error) if is_gone(&error) => Err(OpenError::Gone),
            Err(error) => Err(OpenError::Refused(refusal(target, &error))),
        }
    }

    fn descriptors(&self) -> usize {
        4 // stat, schedstat, sched, status
    }
}

fn unless_missing(file: io::Result<KeptFile>) -> io::Result<Option<KeptFile>> {
    match file {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn refusal(target: &Target<'_>, error: &io::Error) -> Reason {
    let (pid, tid) = (target.vm.key.pid, target.vcpu.tid);
    let detail = format!("cannot read /proc/{pid}/task/{tid}: {error}");
    if descriptors::are_out(error) {
        return descriptors::none_left(detail);
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => ReasonCode::NoPermission
            .reason(detail)
            .with_fix("mount /proc without hidepid, or give the exporter CAP_SYS_PTRACE"),
        _ => ReasonCode::Refused.reason(detail),
    }
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "sched",
        needs: "read access to /proc/PID/task/TID/{stat,schedstat,sched,status}",
        cost: "1 µs per idle vCPU and tick, about 20 µs per active one",
    },
    about: "Scheduling of each vCPU thread: /proc/PID/task/TID/{stat,schedstat,sched,status}. Needs no privilege.",
    metrics: &[METRICS],
    make: |with| {
        let (roots, born_after) = (with.roots(), with.setup.born_after);
        let source = SchedSource::new(roots, born_after, &mut with.columns);
        Source::of_vcpus(source)
    },
};

#[cfg(test)]
mod tests;
