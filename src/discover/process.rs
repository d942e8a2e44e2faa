//! Examines one process: its KVM descriptors, its threads, and its identity.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::blocked::{self, Reads};
use super::cgroup::Cgroup;
use super::cmdline::Cmdline;
use super::open_files::OpenFiles;
use super::program::Program;
use super::vmm::{self, Identity, Invocation, Vmm};
use super::vmm_file;
use crate::host::fds::{self, list};
use crate::host::readers::{Blocked, Payer};
use crate::host::roots::Roots;
use crate::host::task::{is_gone, Task};
use crate::host::thread::{comm, is_of_kernel, parse_stat, user, Stat, BUFFER};

/// Threads of a process that are examined, oldest first: a VM has at most 4,096 vCPUs.
pub(super) const MAX_THREADS: usize = 1 << 13;

/// Enough threads to find one that still runs after the first has exited.
const SOME: usize = 64;

/// Cost of a thread's files, in descriptor links: opening, reading and closing a file takes 10 µs,
/// reading a link 3 µs.
pub(super) const THREAD: u64 = 4;

/// Cost of the files of a process except its descriptors and threads, in descriptor links.
pub(super) const PROCESS: u64 = 8;

/// Most VMs of a process with readable descriptors: each thread is compared with each VM, and a
/// process may hold as many VMs as descriptors.
pub(super) const MAX_VMS_OF_FDS: usize = 256;

/// KVM descriptors of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KvmFds {
    /// Descriptors of VMs, ascending.
    pub(super) vms: Vec<i32>,
    /// vCPUs, ascending by their first descriptor.
    pub(super) vcpus: Vec<VcpuFds>,
    /// Whether each entry is a distinct object; otherwise some may be duplicates.
    pub(super) distinct: bool,
}

/// Descriptors of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VcpuFds {
    /// KVM's vcpu id.
    pub(super) id: u32,
    /// Ascending.
    pub(super) fds: Vec<i32>,
}

impl KvmFds {
    /// Merges duplicates as far as `grouped` can identify them.
    fn distinct(mut self, grouped: impl Fn(&[i32]) -> Option<Vec<Vec<i32>>>) -> Self {
        self.distinct = self.merge(grouped).is_some();
        self
    }

    fn merge(&mut self, grouped: impl Fn(&[i32]) -> Option<Vec<Vec<i32>>>) -> Option<()> {
        let mut by_id: BTreeMap<u32, Vec<i32>> = BTreeMap::new();
        for vcpu in &self.vcpus {
            by_id.entry(vcpu.id).or_default().extend(&vcpu.fds);
        }
        let mut vcpus = Vec::new();
        for (id, fds) in by_id {
            let files = match fds.len() {
                1 => vec![fds],
                _ => grouped(&fds)?,
            };
            vcpus.extend(files.into_iter().map(|fds| VcpuFds { id, fds }));
        }
        vcpus.sort_unstable_by_key(|vcpu| vcpu.fds.first().copied());
        if self.vms.len() > 1 {
            let files = grouped(&self.vms)?;
            self.vms = files
                .iter()
                .filter_map(|fds| fds.first().copied())
                .collect();
        }
        self.vcpus = vcpus;
        Some(())
    }
}

/// One thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) tid: i32,
    pub(super) comm: String,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
    /// Clock ticks.
    pub(super) guest_ticks: u64,
}

/// A process that runs VMs.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) start_time: u64,
    /// Its user; `None` if /proc does not say.
    pub(super) uid: Option<u32>,
    pub(super) cmdline: Cmdline,
    pub(super) cgroup: Cgroup,
    pub(super) vmm: Option<&'static Vmm>,
    /// VM name and uuid from its arguments.
    pub(super) identity: Identity,
    /// `None` if they cannot be read.
    pub(super) fds: Option<KvmFds>,
    /// Ascending by start time.
    pub(super) threads: Vec<Thread>,
    /// For reads that the process can block.
    pub(super) payer: Payer,
    /// Set if its command line cannot be read now; `cmdline` is then the previous one.
    pub(super) blocked: Option<Blocked>,
}

/// Result of an examination.
#[derive(Debug)]
pub(super) enum Examined {
    /// The process runs VMs.
    Vmm(Box<Process>),
    /// The process runs no VM.
    Other,
    /// The process may run VMs: it has several threads with inconclusive names, and its descriptors
    /// cannot be read.
    Hidden,
    /// The process may run VMs, but reading its memory blocks.
    Blocked(Blocked),
}

/// Examines a process; uses `reads` for files that the process can block. `before` is its previous
/// command line, used if a read blocks. Adds the cost of all reads to `cost`, in descriptor links.
///
/// # Errors
/// If a file cannot be read; usually because the process exited.
pub(super) fn examine(
    roots: &Roots,
    open_files: &OpenFiles,
    reads: &mut Reads,
    pid: i32,
    before: Option<&Cmdline>,
    cost: &mut u64,
) -> io::Result<Examined> {
    *cost += PROCESS;
    let leader = roots.proc.join(pid.to_string());
    let mut task = pid;
    let mut dir = leader.clone();
    let mut descriptors = descriptors(roots, &dir, cost)?;
    if descriptors == Descriptors::None {
        // A leader that exited before its other threads has no descriptors and no memory.
        if let Some(tid) = tids(roots, pid, SOME)?.into_iter().find(|tid| *tid != pid) {
            task = tid;
            dir = leader.join(format!("task/{tid}"));
            descriptors = self::descriptors(roots, &dir, cost)?;
        }
    }
    let fds = match descriptors {
        Descriptors::Closed => None,
        Descriptors::Kvm(fds) => Some(fds),
        Descriptors::None | Descriptors::Other => return Ok(Examined::Other),
    };
    let main = roots.read(&leader.join("stat"))?;
    let start_time = parse_stat(&main).ok_or(ErrorKind::InvalidData)?.start_time;
    let status = roots.read(&dir.join("status")).unwrap_or_default();
    let cgroup = roots.read(&dir.join("cgroup")).unwrap_or_default();
    let payer = Payer::identify(pid, &status, &cgroup);
    let process = Task::process(pid, start_time);
    let (cmdline, blocked) = match reads.read(process, payer, dir.join("cmdline")) {
        Ok(text) => (
            Cmdline::parse_beginning(&text?, blocked::MAX as usize),
            None,
        ),
        Err(blocked) => match before {
            Some(before) => (before.clone(), Some(blocked)),
            None => return Ok(Examined::Blocked(blocked)),
        },
    };
    // kcmp(2) takes exec_update_lock, which cmdline waits for too.
    let grouped = |fds: &[i32]| match blocked {
        None => open_files.grouped(task, fds),
        Some(_) => None,
    };
    let fds = fds.map(|fds| fds.distinct(grouped));
    let threads = threads(roots, pid, cost)?;
    let vmm = vmm(&dir, pid, &cmdline, &threads);
    if fds.is_none() && !has_vcpu(vmm, &threads) {
        // A VMM has at least one thread for vCPUs besides its main thread.
        return Ok(match threads.len() {
            0 | 1 => Examined::Other,
            _ => Examined::Hidden,
        });
    }
    let uid = user(&status);
    let identity = |vmm| identity(vmm, &dir, uid, &cmdline);
    Ok(Examined::Vmm(Box::new(Process {
        pid,
        start_time,
        uid,
        cgroup: Cgroup::parse(&cgroup),
        identity: vmm.map_or_else(Identity::default, identity),
        cmdline,
        vmm,
        fds,
        threads,
        payer,
        blocked,
    })))
}

fn vmm(dir: &Path, pid: i32, cmdline: &Cmdline, threads: &[Thread]) -> Option<&'static Vmm> {
    let leader = threads.iter().find(|thread| thread.tid == pid);
    let comm = leader.map_or("", |thread| &thread.comm);
    let program = Program::new(link(dir, "exe").as_deref(), cmdline, comm);
    vmm::identify(&program, cmdline, threads.iter().map(|t| t.comm.as_str()))
}

fn identity(vmm: &Vmm, dir: &Path, uid: Option<u32>, cmdline: &Cmdline) -> Identity {
    (vmm.identity)(&Invocation {
        cmdline,
        cwd: link(dir, "cwd").as_deref(),
        file: &|path| vmm_file::read(dir, uid, path).ok(),
    })
}

/// The target of a link of the process; requires the rights of a debugger.
fn link(dir: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(dir.join(name)).ok()?;
    Some(target.to_string_lossy().into_owned())
}

fn has_vcpu(vmm: Option<&Vmm>, threads: &[Thread]) -> bool {
    let is_vcpu = |thread: &Thread| match vmm {
        Some(vmm) => vmm.vcpu_index(&thread.comm).is_some(),
        None => vmm::is_vcpu_beyond_doubt(&thread.comm),
    };
    threads.iter().any(is_vcpu)
}

/// What the descriptors of a process are.
#[derive(Debug, PartialEq, Eq)]
enum Descriptors {
    /// They cannot be read.
    Closed,
    /// The process has no descriptors.
    None,
    /// No descriptor is a KVM file.
    Other,
    Kvm(KvmFds),
}

/// Reads the link of each descriptor. Root in a container can list them but not read their links.
fn descriptors(roots: &Roots, dir: &Path, cost: &mut u64) -> io::Result<Descriptors> {
    let closed = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
    let links = match fds::Descriptors::list(roots, dir) {
        Err(error) if closed(&error) => return Ok(Descriptors::Closed),
        listed => listed?,
    };
    *cost += links.count() as u64;
    let mut fds = KvmFds::default();
    let followed = links.targets(|fd, target| {
        match kvm_file(target) {
            Some(KvmFile::Vm) => fds.vms.push(fd),
            Some(KvmFile::Vcpu(id)) => fds.vcpus.push(VcpuFds { id, fds: vec![fd] }),
            None => {}
        }
        ControlFlow::Continue(())
    });
    match followed {
        Err(error) if closed(&error) => return Ok(Descriptors::Closed),
        followed => followed?,
    }
    Ok(if !fds.vms.is_empty() || !fds.vcpus.is_empty() {
        Descriptors::Kvm(fds)
    } else if links.count() == 0 {
        Descriptors::None
    } else {
        Descriptors::Other
    })
}

#[derive(Debug, PartialEq, Eq)]
enum KvmFile {
    Vm,
    Vcpu(u32),
}

/// The kind of a KVM descriptor from its link (virt/kvm/kvm_main.c, `anon_inode_getfile`).
fn kvm_file(link: &[u8]) -> Option<KvmFile> {
    let name = std::str::from_utf8(link.strip_prefix(b"anon_inode:")?).ok()?;
    match name.strip_prefix("kvm-vcpu:") {
        Some(id) => id.parse().ok().map(KvmFile::Vcpu),
        None => (name == "kvm-vm").then_some(KvmFile::Vm),
    }
}

fn tids(roots: &Roots, pid: i32, most: usize) -> io::Result<Vec<i32>> {
    let (_, tids) = list(roots, &roots.proc.join(format!("{pid}/task")), most)?;
    Ok(tids)
}

/// The threads, ascending by start time, without those that exited meanwhile and without kernel
/// threads. A kernel thread never returned from the system call of the thread that created it, so
/// /proc shows it in the KVM_RUN of vCPU 0 forever.
fn threads(roots: &Roots, pid: i32, cost: &mut u64) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for tid in tids(roots, pid, MAX_THREADS)? {
        *cost += THREAD;
        threads.extend(thread(roots, pid, tid)?);
    }
    threads.sort_by_key(|t| (t.start_time, t.tid));
    Ok(threads)
}

fn thread(roots: &Roots, pid: i32, tid: i32) -> io::Result<Option<Thread>> {
    let path = roots.proc.join(format!("{pid}/task/{tid}/stat"));
    match roots.read(&path) {
        Ok(text) if text.len() <= BUFFER => Ok(parse_thread(tid, &text)),
        Ok(_) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_thread(tid: i32, stat: &[u8]) -> Option<Thread> {
    let Stat {
        start_time,
        guest_ticks,
        ..
    } = parse_stat(stat).filter(|_| !is_of_kernel(stat))?;
    Some(Thread {
        tid,
        comm: comm(stat)?,
        start_time,
        guest_ticks,
    })
}

/// The descriptor of the vCPU that a thread runs, if it is in that system call now.
pub(super) fn running_vcpu(
    roots: &Roots,
    reads: &mut Reads,
    process: &Process,
    tid: i32,
) -> Option<i32> {
    let path = roots
        .proc
        .join(format!("{}/task/{tid}/syscall", process.pid));
    let task = Task::process(process.pid, process.start_time);
    let text = reads.read(task, process.payer, path).ok()?.ok()?;
    kvm_run(&String::from_utf8_lossy(&text))
}

/// The descriptor of an `ioctl(fd, KVM_RUN)` in /proc/TID/syscall (proc(5)): `16 0x1a 0xae80 0x0
/// …`. The call number differs between architectures; the request (include/uapi/linux/kvm.h) does
/// not, so only the request is compared. In guest mode the text is `running`.
fn kvm_run(text: &str) -> Option<i32> {
    const KVM_RUN: &str = "0xae80";
    let mut fields = text.split_ascii_whitespace().skip(1);
    let fd = fields.next()?.strip_prefix("0x")?;
    let request = fields.next()?;
    (request == KVM_RUN).then(|| i32::from_str_radix(fd, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn links_of_kvm_differ_from_similar_links() {
        assert_eq!(kvm_file(b"anon_inode:kvm-vm"), Some(KvmFile::Vm));
        assert_eq!(kvm_file(b"anon_inode:kvm-vcpu:12"), Some(KvmFile::Vcpu(12)));
        let others = [
            "anon_inode:kvm-vm-stats",
            "anon_inode:kvm-vcpu-stats:0",
            "anon_inode:kvm-vcpu:",
            "anon_inode:kvm-vcpu:-1",
            "/dev/kvm",
            "/tmp/anon_inode:kvm-vm",
        ];
        for other in others {
            assert_eq!(kvm_file(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn duplicates_are_put_together_where_the_kernel_tells() {
        let one = |fd: i32, id| VcpuFds { id, fds: vec![fd] };
        let fds = KvmFds {
            vms: vec![3, 4, 9],
            vcpus: vec![one(5, 0), one(6, 1), one(7, 0), one(8, 1), one(10, 0)],
            distinct: false,
        };
        // 4 is a duplicate of 3, 7 of 5, and 8 of 6.
        let grouped = |fds: &[i32]| match fds {
            [3, 4, 9] => Some(vec![vec![3, 4], vec![9]]),
            [5, 7, 10] => Some(vec![vec![5, 7], vec![10]]),
            [6, 8] => Some(vec![vec![6, 8]]),
            _ => None,
        };
        let merged = fds.clone().distinct(grouped);
        let both = |a: i32, b: i32, id| VcpuFds {
            id,
            fds: vec![a, b],
        };
        let expected = KvmFds {
            vms: vec![3, 9],
            vcpus: vec![both(5, 7, 0), both(6, 8, 1), one(10, 0)],
            distinct: true,
        };
        assert_eq!(merged, expected);
        assert_eq!(fds.clone().distinct(|_| None), fds);
    }

    #[test]
    fn kvm_run_is_recognized_by_its_request() {
        let x86 = "16 0x1a 0xae80 0x0 0x0 0x0 0x0 0x7ffd 0x7f00";
        let arm = "29 0x1a 0xae80 0x0 0x0 0x0 0x0 0x7ffd 0x7f00";
        assert_eq!(kvm_run(x86), Some(26));
        assert_eq!(kvm_run(arm), Some(26));
        for text in [
            "running",
            "-1 0x7ffd 0x7f00",
            "16 0x1a 0xae81 0x0",
            "16 1a 0xae80",
            "",
        ] {
            assert_eq!(kvm_run(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (kvm_file(&text), kvm_run(&String::from_utf8_lossy(&text)));
        }
    }
}
