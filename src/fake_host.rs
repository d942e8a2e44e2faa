//! A directory that replaces a host: /proc, /sys, cgroups, debugfs and /run for tests.
//!
//! Unit tests, test programs and benches share it; the synthetic host is made of the same [`files`].
//! Files have the format of Linux 6.x (proc(5), Documentation/filesystems/proc.rst). They are
//! rewritten in place, so that descriptors kept open by the code under test see the new contents.
//!
//! ```text
//! let host = FakeHost::new();
//! host.cpus(2, 4, 2, 1);
//! let vm = host.qemu(1000, "db1", "0f0e...", 2);
//! host.set(vm.pid, vm.vcpus[0], |t| t.cpu = 3);
//! let roots = Arc::new(Roots::below(host.root()));
//! ```
// Only tests call it: a host that cannot be written fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

mod devices;
pub mod files;
mod machine;
mod memory;
pub mod perf_image;
mod vms;

pub use files::devices::Pci;
pub use files::domain::domstatus;
pub use files::machine::NodeMemory;
pub use files::thread::Thread;
pub use memory::Block;
pub use vms::{FakeVm, START, UUID_A, UUID_B};

/// As on Linux 6.18 on x86-64.
const KVM_EXIT_FORMAT: &str = include_str!("sources/exits/format/kvm_exit-x86-6.18.txt");

/// A host in a temporary directory, removed on drop.
#[derive(Debug)]
pub struct FakeHost {
    dir: TempDir,
    threads: Mutex<BTreeMap<(i32, i32), Thread>>,
    changes: AtomicU64,
}

impl FakeHost {
    /// A host with four CPUs and no process.
    pub fn new() -> Self {
        Self::below(tempfile::tempdir().unwrap())
    }

    /// The same in memory, like /proc and /sys, if /dev/shm is available.
    pub fn in_memory() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::below(dir.unwrap())
    }

    fn below(dir: TempDir) -> Self {
        let host = Self {
            dir,
            threads: Mutex::default(),
            changes: AtomicU64::new(0),
        };
        for name in ["proc", "sys/fs/cgroup", "sys/kernel/debug", "run"] {
            fs::create_dir_all(host.path(name)).unwrap();
        }
        host.cpus(1, 4, 1, 1);
        host
    }

    /// The directory for `Roots::below`.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the root.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root().join(below)
    }

    /// Writes a file below the root; an existing file keeps its inode and is never empty in
    /// between.
    pub fn file(&self, below: impl AsRef<Path>, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.write_all(text.as_ref()).unwrap();
        file.set_len(text.as_ref().len() as u64).unwrap();
        self
    }

    /// Writes several files.
    fn files(&self, files: Vec<(String, String)>) -> &Self {
        for (path, text) in files {
            self.file(path, text);
        }
        self
    }

    /// Removes a file or a directory tree below the root, if it exists.
    pub fn remove(&self, below: impl AsRef<Path>) -> &Self {
        let path = self.path(below);
        match fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
        self
    }

    /// Sets a modification time that no file had before: distinguishes two changes within one tick
    /// of the file system's clock, and reused inode numbers.
    fn stamp(&self, below: String) -> &Self {
        let n = self.changes.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + n);
        let file = fs::File::open(self.path(below)).unwrap();
        file.set_modified(time).unwrap();
        self
    }

    // --- processes ---

    /// A process with its main thread, named like the executable; replaces a process with the same
    /// PID.
    pub fn process(&self, pid: i32, start_time: u64, cmdline: &[&str], cgroup: &str) -> &Self {
        self.exit(pid);
        let exe = cmdline.first().copied().unwrap_or("");
        let comm = exe.rsplit('/').next().unwrap_or(exe);
        fs::create_dir_all(self.path(format!("proc/{pid}/fd"))).unwrap();
        self.stamp(format!("proc/{pid}/fd"));
        let args: Vec<u8> = cmdline
            .iter()
            .flat_map(|arg| arg.bytes().chain([0]))
            .collect();
        self.file(format!("proc/{pid}/cmdline"), args);
        self.file(format!("proc/{pid}/cgroup"), cgroup);
        self.link(format!("proc/{pid}/exe"), exe);
        self.thread(pid, pid, comm, start_time)
    }

    /// The process exits: its directory is removed.
    pub fn exit(&self, pid: i32) -> &Self {
        self.threads.lock().unwrap().retain(|(p, _), _| *p != pid);
        self.remove(format!("proc/{pid}"))
    }

    /// Another thread of a process, in the process's cgroups; replaces a thread with the same TID.
    pub fn thread(&self, pid: i32, tid: i32, comm: &str, start_time: u64) -> &Self {
        self.remove(format!("proc/{pid}/task/{tid}"));
        let cgroup = fs::read(self.path(format!("proc/{pid}/cgroup"))).unwrap_or_default();
        self.thread_cgroup(pid, tid, &cgroup);
        let thread = Thread::new(comm, start_time);
        self.threads.lock().unwrap().insert((pid, tid), thread);
        self.set(pid, tid, |_| ());
        self.stamp(format!("proc/{pid}/task/{tid}"))
    }

    /// Moves a thread to its own cgroups.
    pub fn thread_cgroup(&self, pid: i32, tid: i32, text: impl AsRef<[u8]>) -> &Self {
        self.file(format!("proc/{pid}/task/{tid}/cgroup"), text)
    }

    pub fn exit_thread(&self, pid: i32, tid: i32) -> &Self {
        self.threads.lock().unwrap().remove(&(pid, tid));
        self.remove(format!("proc/{pid}/task/{tid}"))
    }

    /// Changes facts about a thread in /proc: `host.set(pid, tid, |t| t.cpu = 3)`.
    pub fn set(&self, pid: i32, tid: i32, change: impl FnOnce(&mut Thread)) -> &Self {
        let thread = {
            let mut threads = self.threads.lock().unwrap();
            let thread = threads.get_mut(&(pid, tid)).expect("no such thread");
            change(thread);
            thread.clone()
        };
        self.write_thread(pid, tid, &thread, &format!("proc/{pid}/task/{tid}"));
        if pid == tid {
            self.write_thread(pid, tid, &thread, &format!("proc/{pid}"));
        }
        self
    }

    fn write_thread(&self, pid: i32, tid: i32, thread: &Thread, dir: &str) {
        self.file(format!("{dir}/comm"), format!("{}\n", thread.comm));
        self.file(format!("{dir}/stat"), thread.stat(tid));
        self.file(format!("{dir}/schedstat"), thread.schedstat());
        self.file(format!("{dir}/sched"), thread.sched(tid));
        self.file(format!("{dir}/status"), thread.status(pid, tid));
        self.file(format!("{dir}/syscall"), format!("{}\n", thread.syscall));
    }

    /// An open descriptor: a link such as `anon_inode:kvm-vm`.
    pub fn fd(&self, pid: i32, fd: i32, target: &str) -> &Self {
        self.link(format!("proc/{pid}/fd/{fd}"), target);
        self.stamp(format!("proc/{pid}/fd"))
    }

    /// Closes a descriptor.
    pub fn close(&self, pid: i32, fd: i32) -> &Self {
        self.remove(format!("proc/{pid}/fd/{fd}"));
        self.stamp(format!("proc/{pid}/fd"))
    }

    /// A symbolic link below the root to any target.
    pub fn link(&self, below: impl AsRef<Path>, target: &str) -> &Self {
        let below = below.as_ref();
        self.remove(below);
        fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        // A link with an empty target cannot be created; an empty name means a kernel thread.
        if !target.is_empty() {
            std::os::unix::fs::symlink(target, self.path(below)).unwrap();
        }
        self
    }

    // --- facts about VMs ---

    /// libvirt's run-time state of a domain, replaced by rename as libvirt does.
    pub fn libvirt_xml(&self, name: &str, xml: &str) -> &Self {
        let file = format!("run/libvirt/qemu/{name}.xml");
        self.file(format!("{file}.new"), xml);
        fs::rename(self.path(format!("{file}.new")), self.path(&file)).unwrap();
        self.stamp(file).stamp("run/libvirt/qemu".into())
    }

    /// The thread of a vCPU in KVM debugfs; `creator` is the TID that created the VM.
    pub fn debugfs_vcpu(&self, creator: i32, vm_fd: i32, vcpu: u32, tid: i32) -> &Self {
        let dir = format!("sys/kernel/debug/kvm/{creator}-{vm_fd}/vcpu{vcpu}");
        self.file(format!("{dir}/pid"), format!("{tid}\n"))
    }

    /// KVM's tracepoints in tracefs for a vendor's module (`kvm_intel`, `kvm_amd`).
    pub fn tracepoints(&self, module: &str) -> &Self {
        self.files(files::machine::tracepoints(KVM_EXIT_FORMAT));
        self.file(format!("sys/module/{module}/refcnt"), "0\n")
    }

    /// A counter in KVM debugfs, for one VM and in total.
    pub fn kvm_stat(&self, creator: i32, vm_fd: i32, stat: &str, value: u64) -> &Self {
        let dir = "sys/kernel/debug/kvm";
        self.file(format!("{dir}/{stat}"), format!("{value}\n"));
        self.file(
            format!("{dir}/{creator}-{vm_fd}/{stat}"),
            format!("{value}\n"),
        )
    }

    // --- topology ---

    /// Identical cores, numbered as on a Linux server: first threads of all cores, then second
    /// threads. Each package is split evenly into its nodes and has one last-level cache.
    pub fn cpus(&self, packages: u32, cores: u32, threads: u32, nodes: u32) -> &Self {
        self.remove("sys/devices/system/cpu");
        self.remove("sys/devices/system/node");
        self.remove("sys/bus/event_source/devices");
        self.files(files::machine::cpus(packages, cores, threads, nodes))
    }

    /// A client with `p` performance cores of two threads and `e` efficiency cores of one.
    pub fn hybrid(&self, p: u32, e: u32) -> &Self {
        self.remove("sys/devices/system/cpu");
        self.remove("sys/devices/system/node");
        for cpu in 0..2 * p {
            let first = cpu / 2 * 2;
            self.cpu(cpu, 0, cpu / 2 * 4, &[first, first + 1], 0);
        }
        for n in 0..e {
            self.cpu(2 * p + n, 0, p * 4 + n, &[2 * p + n], 0);
        }
        let all = 2 * p + e;
        self.online(&format!("0-{}", all - 1));
        self.node(0, &(0..all).collect::<Vec<_>>());
        let pmu = "sys/bus/event_source/devices";
        self.file(
            format!("{pmu}/cpu_core/cpus"),
            files::machine::list(&(0..2 * p).collect::<Vec<_>>()),
        );
        self.file(format!("{pmu}/cpu_core/type"), "4\n");
        self.file(
            format!("{pmu}/cpu_atom/cpus"),
            files::machine::list(&(2 * p..all).collect::<Vec<_>>()),
        );
        self.file(format!("{pmu}/cpu_atom/type"), "10\n")
    }

    /// Sets the online CPUs, as a CPU list.
    pub fn online(&self, cpus: &str) -> &Self {
        self.file("sys/devices/system/cpu/online", format!("{cpus}\n"))
    }

    fn cpu(&self, id: u32, package: u32, core: u32, siblings: &[u32], llc: u32) {
        self.files(files::machine::cpu(id, package, core, siblings, llc));
    }

    fn node(&self, node: u32, cpus: &[u32]) {
        self.file(
            format!("sys/devices/system/node/node{node}/cpulist"),
            files::machine::list(cpus),
        );
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}
