//! Divides each CPU's time among its threads, and accounts it as the kernel does.

use super::rates::VmRates;
use super::scenario::{PerCpu, CPUS};

/// What the kernel and services use of each CPU: some daemons, timers, network and disk interrupts.
const HOST_WORK: CpuTime = CpuTime {
    user: 0.003,
    guest: 0.0,
    system: 0.004,
    irq: 0.001,
    softirq: 0.002,
    iowait: 0.0,
    idle: 0.0,
};

/// Share of a host process' time that it spends in the kernel.
const SYSTEM_OF_PROCESS: f64 = 0.15;

/// Share of idle time that is iowait.
const IOWAIT_OF_IDLE: f64 = 0.002;

/// Seconds of a CPU by mode, as in /proc/stat, or seconds per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CpuTime {
    /// Without guest time.
    pub(super) user: f64,
    pub(super) guest: f64,
    pub(super) system: f64,
    pub(super) irq: f64,
    pub(super) softirq: f64,
    pub(super) iowait: f64,
    pub(super) idle: f64,
}

impl CpuTime {
    /// Adds these rates over `span` seconds.
    pub(super) fn add(&mut self, rates: &Self, span: f64) {
        self.user += rates.user * span;
        self.guest += rates.guest * span;
        self.system += rates.system * span;
        self.irq += rates.irq * span;
        self.softirq += rates.softirq * span;
        self.iowait += rates.iowait * span;
        self.idle += rates.idle * span;
    }

    /// All modes but iowait and idle.
    pub(super) fn busy(&self) -> f64 {
        self.user + self.guest + self.system + self.irq + self.softirq
    }

    /// Clock ticks in the order of /proc/stat, which includes guest time in user time.
    pub(super) fn ticks(&self) -> [u64; 10] {
        let ticks = |seconds: f64| (seconds * 100.0) as u64;
        [
            ticks(self.user + self.guest),
            0,
            ticks(self.system),
            ticks(self.idle),
            ticks(self.iowait),
            ticks(self.irq),
            ticks(self.softirq),
            0,
            ticks(self.guest),
            0,
        ]
    }
}

/// Divides each CPU's time among its threads, and returns its use. The kernel's work comes first,
/// then threads other than vCPUs, which mostly sleep, then host processes (`processes`, the share
/// of each CPU that they want). The vCPUs divide the rest in proportion to their demand.
pub(super) fn share(vms: &mut [Option<VmRates>], processes: &PerCpu) -> Vec<CpuTime> {
    let mut cpus = vec![HOST_WORK; CPUS as usize];
    let threads = vms.iter_mut().flatten().flat_map(|vm| &mut vm.threads);
    let threads = threads.map(|thread| Wants {
        cpu: thread.cpu as usize,
        time: &mut thread.time,
        delay: &mut thread.delay,
        guest: 0.0,
    });
    give(threads.collect(), &mut cpus);
    for (cpu, wanted) in cpus.iter_mut().zip(processes) {
        let given = wanted.min(1.0 - cpu.busy()).max(0.0);
        cpu.system += given * SYSTEM_OF_PROCESS;
        cpu.user += given * (1.0 - SYSTEM_OF_PROCESS);
    }
    let vcpus = vms.iter_mut().flatten().flat_map(|vm| &mut vm.vcpus);
    let vcpus = vcpus.map(|vcpu| Wants {
        cpu: vcpu.cpu as usize,
        time: &mut vcpu.time,
        delay: &mut vcpu.delay,
        guest: 1.0 - vcpu.host,
    });
    give(vcpus.collect(), &mut cpus);
    for cpu in &mut cpus {
        let idle = (1.0 - cpu.busy()).max(0.0);
        cpu.iowait = idle * IOWAIT_OF_IDLE;
        cpu.idle = idle - cpu.iowait;
    }
    cpus
}

/// A thread that demands time on a CPU.
struct Wants<'a> {
    cpu: usize,
    /// Seconds per second, as `delay`.
    time: &'a mut f64,
    delay: &'a mut f64,
    /// Share of its time that is guest time.
    guest: f64,
}

/// Divides what is left of each CPU among these threads in proportion to their demand.
fn give(threads: Vec<Wants<'_>>, cpus: &mut [CpuTime]) {
    let mut wanted = vec![0.0; cpus.len()];
    for thread in &threads {
        wanted[thread.cpu] += *thread.time;
    }
    let left = |cpu: &CpuTime| (1.0 - cpu.busy()).max(0.0);
    let left: Vec<f64> = cpus.iter().map(left).collect();
    for thread in threads {
        let n = thread.cpu;
        let given = *thread.time * (left[n] / wanted[n]).min(1.0);
        // It waits for the rest of its demand.
        *thread.delay = (*thread.delay + *thread.time - given).min(1.0 - given);
        *thread.time = given;
        cpus[n].guest += given * thread.guest;
        cpus[n].system += given * (1.0 - thread.guest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rates::VcpuRates;
    use super::*;

    fn vm(vcpus: &[(u32, f64)], threads: &[(u32, f64)]) -> Option<VmRates> {
        let vcpu = |(cpu, time): &(u32, f64)| VcpuRates {
            cpu: *cpu,
            time: *time,
            host: 0.1,
            ..VcpuRates::default()
        };
        let mut vm = VmRates {
            vcpus: vcpus.iter().map(vcpu).collect(),
            ..VmRates::default()
        };
        for (thread, (cpu, time)) in vm.threads.iter_mut().zip(threads) {
            (thread.cpu, thread.time) = (*cpu, *time);
        }
        Some(vm)
    }

    /// Every CPU has one second per second, whatever the demand.
    #[test]
    fn cpu_has_one_second_a_second() {
        let mut processes = [0.0; CPUS as usize];
        (processes[1], processes[2]) = (0.5, 1.0);
        let mut vms = [
            vm(&[(0, 0.9), (1, 0.9), (3, 0.4)], &[(0, 0.2), (4, 0.9)]),
            None,
            vm(&[(0, 0.9), (2, 0.5)], &[(4, 0.9)]),
        ];
        let cpus = share(&mut vms, &processes);
        for cpu in &cpus {
            let all = cpu.busy() + cpu.iowait + cpu.idle;
            assert!((all - 1.0).abs() < 1e-9, "{cpu:?}");
        }
        let [Some(a), None, Some(b)] = &vms else {
            panic!("{vms:?}");
        };
        let near = |x: f64, y: f64| assert!((x - y).abs() < 1e-9, "{x} is not {y}");
        // Two equal vCPUs divide what the thread and the host leave.
        near(a.vcpus[0].time, (1.0 - 0.01 - 0.2) / 2.0);
        near(a.vcpus[0].time, b.vcpus[0].time);
        near(a.vcpus[0].delay, 0.9 - a.vcpus[0].time);
        // A host process takes half of the CPU; the VM sees only its own wait.
        near(a.vcpus[1].time, 0.49);
        near(a.vcpus[1].delay, 0.41);
        near(cpus[1].user, 0.003 + 0.5 * 0.85);
        near(cpus[1].system, 0.004 + 0.5 * 0.15 + 0.049);
        near(cpus[1].guest, 0.441);
        near(cpus[3].idle + cpus[3].iowait, 0.59);
        near(b.vcpus[1].time, 0.0);
        near(a.threads[1].time + b.threads[0].time, 0.99);
    }
}
