//! Reads all threads of a VM in one pass.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::kthreads::Kthreads;
use super::totals::{Seen, ThreadTotals};
use crate::config::Placement;
use crate::discover::{io_uring_of, Role, Vm};
use crate::engine::ledger::SeriesKey;
use crate::engine::ReadError;
use crate::host::roots::Roots;
use crate::host::task::{is_gone, Task, TaskError};
use crate::host::thread::{
    comm, is_of_kernel, parse_schedstat, parse_stat, process_ticks, KeptFile, SchedStat, BUFFER,
};
use crate::host::topology::Topology;

/// CPU time of the VM's process, in clock ticks.
pub(super) fn process_time(roots: &Roots, vm: &Vm) -> Result<u64, ReadError> {
    let process = vm.key.process();
    ticks(roots, process, &process.stat(roots)?)
}

fn ticks(roots: &Roots, process: Task, stat: &[u8]) -> Result<u64, ReadError> {
    process_ticks(stat).ok_or_else(|| odd(process.dir(roots).join("stat")))
}

/// One pass over all threads of a VM.
pub(super) struct Pass<'a> {
    pub(super) roots: &'a Roots,
    pub(super) vm: &'a Vm,
    pub(super) topology: Option<&'a Topology>,
    pub(super) placement: Placement,
    pub(super) max_others: usize,
    /// Set if this kernel has no schedstat.
    pub(super) lacks_schedstat: &'a mut bool,
}

impl Pass<'_> {
    /// Charges the activity of all threads since the last pass; returns the process's CPU time
    /// before it, in clock ticks. If several VMs share the process, only the vCPUs can be
    /// attributed to this VM.
    pub(super) fn all(
        mut self,
        totals: &mut ThreadTotals,
        kthreads: &Kthreads,
        shared: bool,
        born_after: u64,
        now: Instant,
    ) -> Result<u64, ReadError> {
        let process = self.vm.key.process();
        let before = ticks(self.roots, process, &process.read(self.roots, "stat")?)?;
        let pid = process.pid;
        let (tids, complete) = self.tids(shared)?;
        totals.begin(born_after, complete);
        for tid in &tids {
            self.one(totals, pid, *tid, now)?;
        }
        let vhost = kthreads.serving(|tid| !shared && (tid == pid || tids.contains(&tid)));
        for kthread in vhost {
            self.one(totals, kthread, kthread, now)?;
        }
        process.check(self.roots)?;
        totals.end();
        Ok(before)
    }

    /// The threads to read, vCPUs first, and whether these are all threads.
    fn tids(&self, shared: bool) -> Result<(Vec<i32>, bool), ReadError> {
        let mut tids: Vec<i32> = self.vm.vcpus.iter().map(|vcpu| vcpu.tid).collect();
        if shared {
            return Ok((tids, false));
        }
        let path = self.vm.key.process().dir(self.roots).join("task");
        let listed = self.roots.list(&path);
        let listed = listed.map_err(|error| failed(path, error))?;
        let numbers = listed.iter().filter_map(|name| name.parse().ok());
        let mut others: Vec<i32> = numbers.filter(|tid| !tids.contains(tid)).collect();
        others.sort_unstable();
        let complete = others.len() <= self.max_others;
        others.truncate(self.max_others);
        tids.append(&mut others);
        Ok((tids, complete))
    }

    /// Reads one thread; skips it if it exited meanwhile.
    fn one(
        &mut self,
        totals: &mut ThreadTotals,
        pid: i32,
        tid: i32,
        now: Instant,
    ) -> Result<(), ReadError> {
        let dir = self.roots.proc.join(format!("{pid}/task/{tid}"));
        let open = |name| KeptFile::open(self.roots, pid, tid, name);
        let mut buffer = [0; BUFFER];
        let sched = match open("schedstat").and_then(|file| file.read(&mut buffer)) {
            Ok(text) => parse_schedstat(text).ok_or_else(|| odd(dir.join("schedstat")))?,
            Err(error) if is_gone(&error) => {
                // The thread is alive but has no schedstat: no thread has one.
                *self.lacks_schedstat |= dir.join("stat").exists();
                return Ok(());
            }
            Err(error) => return Err(failed(dir.join("schedstat"), error)),
        };
        *self.lacks_schedstat &= sched == SchedStat::default();
        if totals.is_idle(tid, sched) {
            return Ok(());
        }
        match open("stat").and_then(|file| file.read(&mut buffer)) {
            // All zeros: the kernel does not keep these times.
            Ok(stat) if sched == SchedStat::default() && process_ticks(stat) > Some(0) => {
                *self.lacks_schedstat = true;
                Ok(())
            }
            Ok(stat) => {
                let seen = self.seen(totals, pid, tid, stat, sched);
                totals.charge(seen.ok_or_else(|| odd(dir.join("stat")))?, now);
                Ok(())
            }
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(failed(dir.join("stat"), error)),
        }
    }

    fn seen(
        &self,
        totals: &ThreadTotals,
        pid: i32,
        tid: i32,
        stat: &[u8],
        sched: SchedStat,
    ) -> Option<Seen> {
        let parsed = parse_stat(stat)?;
        let place = self.topology.and_then(|t| t.place(parsed.cpu));
        Some(Seen {
            tid,
            start_time: parsed.start_time,
            role: self.role(totals, tid, stat)?,
            of_process: pid == self.vm.key.pid,
            series: SeriesKey::new(place, self.placement),
            sched,
        })
    }

    fn role(&self, totals: &ThreadTotals, tid: i32, stat: &[u8]) -> Option<Role> {
        if self.vm.vcpus.iter().any(|vcpu| vcpu.tid == tid) {
            return Some(Role::Vcpu);
        }
        let name = comm(stat)?;
        let of_kernel = is_of_kernel(stat);
        // An io_uring worker is named after the thread it works for.
        let asker = io_uring_of(&name).filter(|_| of_kernel);
        let asker = asker.and_then(|tid| totals.role(tid));
        let asker = asker.filter(|role| *role == Role::Iothread);
        Some(asker.unwrap_or_else(|| Role::recognise(self.vm.vmm, &name, of_kernel)))
    }
}

fn failed(path: PathBuf, error: io::Error) -> ReadError {
    TaskError::new(path, error).into()
}

fn odd(path: PathBuf) -> ReadError {
    TaskError::Malformed(path).into()
}
