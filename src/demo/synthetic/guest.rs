//! Files of a VM: QEMU's process, libvirt's domain, cgroups and devices.

use std::io;

use super::counters::nanoseconds;
use super::scenario::{VmSpec, NODES};
use super::state::{ThreadTotals, VmTotals};
use super::tree::Tree;
use crate::fake_host::files::devices::Pci;
use crate::fake_host::files::domain;
use crate::fake_host::files::thread::Thread;

mod slow;

/// First PID of a VM, and distance of PIDs: a VM has one thread for each vCPU, at most 288.
const FIRST_PID: i32 = 10_000;
const PIDS: i32 = 400;

/// Start time, in clock ticks since boot, of VMs that exist from the beginning, and of the
/// exporter.
const BOOT: u64 = 5_000;
pub(super) const EXPORTER: u64 = 1_000_000;

/// Descriptors of the process: the VM, its first vCPU, and its device.
const VM_FD: i32 = 10;
const VCPU_FD: i32 = 11;
const DEVICE_FD: i32 = 9;

/// A running VM.
#[derive(Debug)]
pub(super) struct SyntheticGuest {
    /// Index in the scenario.
    number: usize,
    spec: VmSpec,
    pid: i32,
    vcpus: Vec<Thread>,
    /// Emulator, vhost worker and I/O thread.
    others: Vec<(i32, Thread)>,
    scope: String,
    device_far: bool,
    /// Number of NUMA nodes of the host.
    nodes: usize,
}

impl SyntheticGuest {
    pub(super) fn new(number: usize, spec: &VmSpec, nodes: usize, totals: &VmTotals) -> Self {
        let pid = FIRST_PID + number as i32 * PIDS;
        let start = match totals.born {
            0 => BOOT + number as u64,
            born => EXPORTER + 100 * born,
        };
        let mut others = vec![
            (pid, Thread::new("qemu-system-x86_64", start)),
            (pid + 1, vhost(pid, start + 1)),
        ];
        if spec.iothread {
            others.push((pid + 2, Thread::new("IO iothread1", start + 1)));
        }
        let vcpu = |n| Thread::new(&format!("CPU {n}/KVM"), start + 2 + u64::from(n));
        Self {
            number,
            vcpus: (0..spec.vcpus).map(vcpu).collect(),
            others,
            scope: domain::scope(number as u32 + 1, &spec.domain),
            spec: spec.clone(),
            pid,
            device_far: totals.rates.device_far,
            nodes,
        }
    }

    pub(super) fn tid(&self, vcpu: usize) -> i32 {
        self.pid + 10 + vcpu as i32
    }

    /// Creates the files of a QEMU that starts.
    pub(super) fn make(&mut self, tree: &Tree, totals: &VmTotals) -> io::Result<()> {
        self.make_process(tree)?;
        self.make_groups(tree)?;
        self.update_memory(tree, totals.rates.memory_far)?;
        self.make_device(tree)?;
        for n in 0..self.vcpus.len() {
            let dir = format!("{}/vcpu{n}/pid", self.debugfs());
            tree.line(&dir, self.tid(n))?;
        }
        tree.file(&self.libvirt(), &self.domstatus())
    }

    fn make_process(&mut self, tree: &Tree) -> io::Result<()> {
        let pid = self.pid;
        let name = self.spec.domain.replace(',', ",,");
        let args = [
            "/usr/bin/qemu-system-x86_64",
            "-name",
            &format!("guest={name},debug-threads=on"),
            "-uuid",
            &self.uuid(),
            "-accel",
            "kvm",
            "-smp",
            &self.spec.vcpus.to_string(),
        ];
        let cmdline: String = args.iter().flat_map(|arg| [arg, "\0"]).collect();
        tree.file(&format!("proc/{pid}/cmdline"), &cmdline)?;
        tree.link(&format!("proc/{pid}/exe"), args[0])?;
        let fd = |n: i32, target: &str| tree.link(&format!("proc/{pid}/fd/{n}"), target);
        fd(0, "/dev/null")?;
        fd(8, "/dev/kvm")?;
        fd(VM_FD, "anon_inode:kvm-vm")?;
        for n in 0..self.spec.vcpus {
            fd(VCPU_FD + n as i32, &format!("anon_inode:kvm-vcpu:{n}"))?;
        }
        let emulator = format!("0::/{}/libvirt/emulator", self.scope);
        tree.line(&format!("proc/{pid}/cgroup"), &emulator)?;
        tree.line(&format!("proc/{pid}/comm"), "qemu-system-x86")?;
        for (tid, thread) in &mut self.others {
            thread.cpus_allowed = list(&self.spec.cpus);
            still(tree, pid, *tid, thread, &emulator)?;
        }
        for (n, thread) in self.vcpus.iter().enumerate() {
            let group = format!("0::/{}/libvirt/vcpu{n}", self.scope);
            still(tree, pid, pid + 10 + n as i32, thread, &group)?;
        }
        Ok(())
    }

    fn make_groups(&self, tree: &Tree) -> io::Result<()> {
        let own = self.group();
        for n in 0..self.vcpus.len() {
            tree.line(&format!("{own}/vcpu{n}/cpu.max"), "max 100000")?;
        }
        tree.line(&format!("{own}/emulator/cpu.max"), "max 100000")?;
        let max = self.spec.quota.map_or("max".to_owned(), |cores| {
            ((cores * 100_000.0) as u64).to_string()
        });
        tree.line(&format!("{own}/cpu.max"), format!("{max} 100000"))?;
        tree.line(&format!("{own}/cpu.weight"), 100)?;
        let cpus = list(&self.spec.cpus);
        tree.line(&format!("{own}/cpuset.cpus.effective"), cpus)?;
        let tids: String = (0..self.vcpus.len())
            .map(|n| format!("{}\n", self.tid(n)))
            .collect();
        tree.file(&format!("{}/tasks", self.resctrl()), &tids)
    }

    /// Creates two GPUs, one on the VM's node and one on the other. The VM has one of them open.
    fn make_device(&self, tree: &Tree) -> io::Result<()> {
        if !self.spec.device {
            return Ok(());
        }
        for far in [false, true] {
            let (address, group, node) = self.device(far);
            let gpu = Pci {
                id: (0x10de, 0x20b5),
                numa_node: node as i32,
                ..Pci::new(&address, 0x03_0200, group)
            };
            tree.sysfs(gpu.sysfs())?;
        }
        self.hold_device(tree)
    }

    fn hold_device(&self, tree: &Tree) -> io::Result<()> {
        let (_, group, _) = self.device(self.device_far);
        let fd = format!("proc/{}/fd/{DEVICE_FD}", self.pid);
        tree.link(&fd, &format!("/dev/vfio/{group}"))
    }

    /// Address, group and node of the GPU on the VM's node or on the other.
    fn device(&self, far: bool) -> (String, u32, u32) {
        let node = if far {
            1 - self.spec.node()
        } else {
            self.spec.node()
        };
        let bus = if node == 0 { 0x17 } else { 0xb1 };
        let number = self.number as u32;
        let address = format!("0000:{bus:02x}:{:02x}.{}", number / 8 % 32, number % 8);
        (address, 40 + 2 * number + node, node)
    }

    /// Removes the files of a QEMU that ends.
    pub(super) fn remove(&self, tree: &Tree) -> io::Result<()> {
        tree.remove(&format!("proc/{}", self.pid))?;
        tree.remove(&self.libvirt())?;
        tree.remove(&format!("sys/fs/cgroup/{}", self.scope))?;
        tree.remove(&self.debugfs())?;
        tree.remove(&self.resctrl())
    }

    /// Updates the counters of its threads.
    pub(super) fn update(&mut self, tree: &Tree, totals: &VmTotals) -> io::Result<()> {
        let pid = self.pid;
        let mut ticks = [0; 2];
        for (n, (thread, done)) in self.vcpus.iter_mut().zip(&totals.vcpus).enumerate() {
            let tid = pid + 10 + n as i32;
            let allowed = list(&totals.rates.allowed[n]);
            if thread.cpus_allowed != allowed {
                thread.cpus_allowed = allowed;
                let path = format!("proc/{pid}/task/{tid}/status");
                tree.file(&path, &thread.status(pid, tid))?;
            }
            follow(thread, &done.thread, done.guest);
            moving(tree, &format!("proc/{pid}/task/{tid}"), tid, thread)?;
            ticks = [ticks[0] + thread.user_ticks, ticks[1] + thread.system_ticks];
        }
        for ((tid, thread), done) in self.others.iter_mut().zip(&totals.threads) {
            follow(thread, done, 0.0);
            moving(tree, &format!("proc/{pid}/task/{tid}"), *tid, thread)?;
            ticks = [ticks[0] + thread.user_ticks, ticks[1] + thread.system_ticks];
        }
        // Times of the whole process, in the files of its first thread.
        let process = Thread {
            user_ticks: ticks[0],
            system_ticks: ticks[1],
            ..self.others[0].1.clone()
        };
        tree.file(&format!("proc/{pid}/stat"), &process.stat(pid))
    }

    /// Bytes on each node; a small part is not touched yet.
    pub(super) fn memory(&self, is_far: bool) -> [u64; NODES] {
        let shares = self.spec.memory_shares(is_far);
        let bytes = (self.spec.memory / 100 * 96) as f64;
        shares.map(|share| (bytes * share) as u64 & !0xfff)
    }

    fn group(&self) -> String {
        format!("sys/fs/cgroup/{}/libvirt", self.scope)
    }

    fn debugfs(&self) -> String {
        format!("sys/kernel/debug/kvm/{}-{VM_FD}", self.pid)
    }

    fn resctrl(&self) -> String {
        format!("sys/fs/resctrl/mon_groups/qemu-{}", self.number + 1)
    }

    /// libvirt names the file after the domain. A number is used here, because names may contain a
    /// slash.
    fn libvirt(&self) -> String {
        format!("run/libvirt/qemu/{}.xml", self.number + 1)
    }

    fn uuid(&self) -> String {
        format!("5e7c1f00-0000-4000-8000-{:012}", self.number + 1)
    }

    fn domstatus(&self) -> String {
        let tids: Vec<i32> = (0..self.vcpus.len()).map(|n| self.tid(n)).collect();
        let escape = domain::escape;
        let (display, flavor) = (escape(&self.spec.name), escape(&self.spec.flavor));
        let nova = domain::nova_metadata(&display, &flavor, self.spec.vcpus);
        let name = escape(&self.spec.domain);
        domain::domstatus(self.pid, &name, &self.uuid(), &tids, &nova)
    }
}

/// A vhost worker, created by the kernel in the process (Linux 6.4 and later).
fn vhost(pid: i32, start: u64) -> Thread {
    const PF_USER_WORKER: u64 = 0x4000;
    Thread {
        flags: PF_USER_WORKER,
        ..Thread::new(&format!("vhost-{pid}"), start)
    }
}

/// Files of a thread that do not change while it runs.
fn still(tree: &Tree, pid: i32, tid: i32, thread: &Thread, group: &str) -> io::Result<()> {
    let dir = format!("proc/{pid}/task/{tid}");
    tree.line(&format!("{dir}/comm"), &thread.comm)?;
    tree.line(&format!("{dir}/cgroup"), group)?;
    tree.line(&format!("{dir}/syscall"), "running")?;
    tree.file(&format!("{dir}/status"), &thread.status(pid, tid))
}

fn moving(tree: &Tree, dir: &str, tid: i32, thread: &Thread) -> io::Result<()> {
    tree.file(&format!("{dir}/stat"), &thread.stat(tid))?;
    tree.file(&format!("{dir}/schedstat"), &thread.schedstat())?;
    tree.file(&format!("{dir}/sched"), &thread.sched(tid))
}

/// Sets the counters of a thread that used `guest` seconds in a guest.
fn follow(thread: &mut Thread, done: &ThreadTotals, guest: f64) {
    let ticks = |seconds: f64| (seconds * 100.0) as u64;
    thread.cpu = done.cpu;
    thread.run = nanoseconds(done.time);
    thread.delay = nanoseconds(done.delay);
    thread.guest_ticks = ticks(guest);
    // Guest time is included in user time.
    thread.user_ticks = thread.guest_ticks;
    thread.system_ticks = ticks((done.time - guest).max(0.0));
    thread.voluntary = done.voluntary as u64;
    thread.involuntary = done.involuntary as u64;
    thread.timeslices = 1 + thread.voluntary + thread.involuntary;
    thread.migrations = done.migrations;
    thread.minor_faults = done.minor_faults as u64;
}

/// A list of CPUs, without ranges.
fn list(cpus: &[u32]) -> String {
    let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
    cpus.join(",")
}
