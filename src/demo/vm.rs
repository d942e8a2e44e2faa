//! A KVM virtual machine: a few pages of memory, vCPUs, and their exits.
//!
//! ioctls and structures: Documentation/virt/kvm/api.rst.

#![allow(unsafe_code)]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::arch::asm;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{kvm_userspace_memory_region, KVM_API_VERSION};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::guest::{self, Load, COUNTERS, COUNTER_STRIDE, MAX_VCPUS, MEMORY, MEMORY_SIZE};

/// Why KVM cannot run a VM here.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// `/dev/kvm` does not exist, or has no driver.
    #[error(
        "cannot open /dev/kvm: {0}. Load KVM's module (modprobe kvm_intel, or \
         modprobe kvm_amd); inside a VM, enable nested virtualization on its host; inside a \
         container, pass the device through (docker run --device /dev/kvm)"
    )]
    Missing(io::Error),
    /// `/dev/kvm` exists, but this user may not open it.
    #[error(
        "cannot open /dev/kvm: {0}. Run as root, or join the group that owns it (usermod \
         -aG kvm NAME, then log in again); inside a container, pass the device through (docker run \
         --device /dev/kvm)"
    )]
    Denied(io::Error),
    /// `/dev/kvm` has another API version.
    #[error("/dev/kvm has API version {0}; only {KVM_API_VERSION} is supported")]
    Version(i32),
    /// This ioctl failed.
    #[error(
        "/dev/kvm can be opened, but {0} failed: {1}. Another hypervisor may use the CPU's \
         virtualization, or this is a VM with incomplete nested virtualization"
    )]
    Ioctl(&'static str, io::Error),
    /// There is no guest for this architecture.
    #[error(transparent)]
    Unsupported(#[from] guest::Unsupported),
    /// There are fewer counters than vCPUs.
    #[error("vCPU {0} is too many: a micro-VM has at most {MAX_VCPUS}")]
    TooManyVcpus(u32),
    /// The guest exited in a way that no image does.
    #[error("unexpected exit of the guest: {0}")]
    UnexpectedExit(String),
}

impl VmError {
    fn open(error: io::Error) -> Self {
        match error.raw_os_error() {
            // The device node may exist without the module, because kmod creates it in advance.
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR) => Self::Missing(error),
            // A container's device cgroup returns EPERM.
            Some(libc::EACCES | libc::EPERM) => Self::Denied(error),
            _ => Self::Ioctl("open", error),
        }
    }

    fn ioctl(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Ioctl(call, os_error(error))
    }
}

fn os_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

/// Creates a VM and drops it, to test whether micro-VMs can run.
///
/// # Errors
/// What is missing, and how to fix it.
pub fn probe() -> Result<(), VmError> {
    Vm::create(Load::Halt, 0).map(drop)
}

/// Number of words of a guest's memory.
const WORDS: usize = MEMORY_SIZE / size_of::<AtomicU32>();

/// All memory of a guest. The guest writes to it while the host reads it, so all accesses are
/// atomic.
#[repr(C, align(4096))]
struct Memory {
    words: [AtomicU32; WORDS],
}

impl Memory {
    /// Memory with these bytes at word-aligned addresses, and 0 elsewhere.
    fn with_contents(contents: &[(u64, Vec<u8>)]) -> Arc<Self> {
        let memory = Arc::new(Self {
            words: std::array::from_fn(|_| AtomicU32::new(0)),
        });
        for (at, bytes) in contents {
            let words = memory.words.iter().skip(word(*at));
            for (word, bytes) in words.zip(bytes.chunks(4)) {
                let mut whole = [0; 4];
                whole[..bytes.len()].copy_from_slice(bytes);
                word.store(u32::from_le_bytes(whole), Ordering::Relaxed);
            }
        }
        memory
    }
}

/// A page of memory that the guest does not use.
#[repr(C, align(4096))]
struct SparePage([AtomicU32; 1024]);

/// Guest-physical address of the spare memory, above all other addresses that guests use.
const SPARE: u64 = 0x1_0000_0000;

/// `memory` as the guest's memory at `guest_phys_addr`.
fn region<T: ?Sized>(slot: u32, guest_phys_addr: u64, memory: &T) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr,
        memory_size: size_of_val(memory) as u64,
        userspace_addr: std::ptr::from_ref(memory).cast::<()>() as u64,
    }
}

/// Index of the word at a guest-physical address.
fn word(address: u64) -> usize {
    (address - MEMORY) as usize / size_of::<AtomicU32>()
}

/// Guest-physical address of a vCPU's counter.
fn counter(index: u32) -> u64 {
    COUNTERS + u64::from(index) * COUNTER_STRIDE
}

/// `KVM_GET_STATS_FD` of linux/kvm.h: `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::Ioctl = 0xaece;

/// A descriptor of the statistics of a VM or a vCPU, which the process holds for others to read, as
/// QEMU does. `None` before Linux 5.14.
fn statistics(of: &impl AsRawFd) -> Option<OwnedFd> {
    // SAFETY: the call takes no argument and accesses no memory of this process.
    let fd = unsafe { libc::ioctl(of.as_raw_fd(), KVM_GET_STATS_FD) };
    // SAFETY: the kernel has just opened it for this process, and nothing else owns it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A virtual machine with its memory.
pub struct Vm {
    _statistics: Option<OwnedFd>,
    fd: VmFd,
    load: Load,
    memory: Arc<Memory>,
    spare: Arc<Vec<SparePage>>,
}

impl Vm {
    /// Creates a VM with the image of `load` and no vCPU. Its `spare` additional pages (4 KiB) are
    /// allocated when this returns, on the node of the calling thread.
    ///
    /// # Errors
    /// If KVM is missing or an ioctl fails.
    pub fn create(load: Load, spare: usize) -> Result<Self, VmError> {
        let memory = Memory::with_contents(&guest::contents(load)?);
        let kvm = Kvm::new().map_err(|error| VmError::open(os_error(error)))?;
        let found = kvm.get_api_version();
        if u32::try_from(found) != Ok(KVM_API_VERSION) {
            return Err(VmError::Version(found));
        }
        let fd = kvm.create_vm().map_err(VmError::ioctl("KVM_CREATE_VM"))?;
        guest::prepare_vm(&fd).map_err(VmError::ioctl("KVM_SET_TSS_ADDR"))?;
        // SAFETY: the region is exactly `memory`, page-aligned by its type. It outlives every use
        // by the guest: a guest only runs in `Vcpu::run`, and each `Vcpu` holds `memory` too. All
        // accesses from here are atomic.
        unsafe { fd.set_user_memory_region(region(0, MEMORY, &*memory)) }
            .map_err(VmError::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        let page = |_| SparePage(std::array::from_fn(|_| AtomicU32::new(0)));
        let spare: Arc<Vec<SparePage>> = Arc::new((0..spare).map(page).collect());
        if !spare.is_empty() {
            // SAFETY: as above; nothing here reads or writes it any more.
            unsafe { fd.set_user_memory_region(region(1, SPARE, &spare[..])) }
                .map_err(VmError::ioctl("KVM_SET_USER_MEMORY_REGION"))?;
        }
        Ok(Self {
            _statistics: statistics(&fd),
            fd,
            load,
            memory,
            spare,
        })
    }

    /// Creates a vCPU.
    ///
    /// # Errors
    /// If KVM refuses, or `index` is not below `MAX_VCPUS`.
    pub fn create_vcpu(&self, index: u32) -> Result<Vcpu, VmError> {
        if index >= MAX_VCPUS {
            return Err(VmError::TooManyVcpus(index));
        }
        let fd = self
            .fd
            .create_vcpu(u64::from(index))
            .map_err(VmError::ioctl("KVM_CREATE_VCPU"))?;
        guest::prepare_vcpu(&self.fd, &fd, self.load, counter(index))
            .map_err(VmError::ioctl("KVM_SET_REGS"))?;
        Ok(Vcpu {
            _statistics: statistics(&fd),
            fd,
            _memory: Arc::clone(&self.memory),
            _spare: Arc::clone(&self.spare),
        })
    }

    /// Turns of a vCPU, counted by the guest; wraps at 2^32. 0 for a vCPU that was not created.
    pub fn turns(&self, index: u32) -> u32 {
        if index >= MAX_VCPUS {
            return 0;
        }
        let counter = self.memory.words.get(word(counter(index)));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// Why a vCPU exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It halted.
    Halt,
    /// It wrote to an I/O port, or to a register in place of one.
    PortWrite,
    /// A signal for the thread, or no reason: enter the guest again.
    Interrupted,
}

/// One vCPU, to be run by one thread.
pub struct Vcpu {
    _statistics: Option<OwnedFd>,
    fd: VcpuFd,
    /// Keeps the guest's memory mapped.
    _memory: Arc<Memory>,
    _spare: Arc<Vec<SparePage>>,
}

impl Vcpu {
    /// Runs the guest until it exits.
    ///
    /// # Errors
    /// If KVM cannot run it, or it exits in a way that no image does.
    pub fn run(&mut self) -> Result<Exit, VmError> {
        match self.fd.run() {
            Ok(VcpuExit::Hlt) => Ok(Exit::Halt),
            Ok(VcpuExit::MmioWrite(guest::HALT_REGISTER, _)) => Ok(Exit::Halt),
            Ok(VcpuExit::IoOut(..) | VcpuExit::MmioWrite(guest::IO_REGISTER, _)) => {
                Ok(Exit::PortWrite)
            }
            Ok(VcpuExit::Intr) => Ok(Exit::Interrupted),
            Ok(other) => Err(VmError::UnexpectedExit(format!("{other:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                Ok(Exit::Interrupted)
            }
            Err(error) => Err(VmError::ioctl("KVM_RUN")(error)),
        }
    }
}

/// Does the work of a turn of `spin` outside the guest: the same two instructions and the same
/// number of iterations, at every optimization level.
pub fn spin() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: counts a register down to 0, and touches nothing else.
    unsafe {
        asm!("2: dec {0:e}", "jnz 2b", inout(reg) guest::ROUNDS => _, options(nomem, nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: counts a register down to 0, and touches nothing else.
    unsafe {
        asm!("2: subs {0:w}, {0:w}, #1", "b.ne 2b", inout(reg) guest::ROUNDS => _, options(nomem, nostack));
    }
}

/// CPU time of a thread of this process: the clock of pthread_getcpuclockid(3).
///
/// # Errors
/// `EINVAL` if there is no such thread.
pub(crate) fn thread_cpu_time(tid: i32) -> io::Result<Duration> {
    // The id of a thread's scheduler clock (include/linux/posix-timers_types.h): the inverted TID,
    // then CPUCLOCK_PERTHREAD_MASK (4) and CPUCLOCK_SCHED (2).
    let clock: libc::clockid_t = (!tid << 3) | 6;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing one timespec; an unknown clock is an error, not a fault.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_error_decides_the_advice() {
        let advice = |errno| VmError::open(io::Error::from_raw_os_error(errno)).to_string();
        assert!(advice(libc::ENOENT).contains("modprobe kvm_intel"));
        assert!(advice(libc::ENODEV).contains("nested virtualization"));
        assert!(advice(libc::EACCES).contains("usermod -aG kvm"));
        assert!(advice(libc::EPERM).contains("docker run --device /dev/kvm"));
        assert!(advice(libc::EMFILE).contains("open failed"));
    }

    #[test]
    fn contents_lie_where_they_should() {
        let memory = Memory::with_contents(&[(0, vec![1, 2, 3, 4, 5]), (0x1004, vec![6])]);
        let at = |address| memory.words[word(address)].load(Ordering::Relaxed);
        assert_eq!([at(0), at(4), at(8)], [0x0403_0201, 5, 0]);
        assert_eq!([at(0x1000), at(0x1004)], [0, 6]);
        let region = region(0, MEMORY, &*memory);
        assert_eq!(region.userspace_addr % 4096, 0);
        assert_eq!(region.memory_size, MEMORY_SIZE as u64);
    }

    /// Thread ids are below this (include/linux/threads.h).
    const PID_MAX_LIMIT: i32 = 4 << 20;

    #[test]
    fn a_threads_clock_grows_with_its_work() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        let before = thread_cpu_time(tid).unwrap();
        while thread_cpu_time(tid).unwrap() == before {}
        assert!(thread_cpu_time(PID_MAX_LIMIT + 1).is_err());
    }

    #[test]
    fn a_guest_counts_its_own_exits() {
        let mut cases = vec![
            (Load::Halt, Exit::Halt),
            (Load::Io, Exit::PortWrite),
            (Load::Half, Exit::PortWrite),
        ];
        for (load, expected) in cases.drain(..) {
            let vm = match Vm::create(load, 1) {
                Ok(vm) => vm,
                Err(why) => return println!("skipped: {why}"),
            };
            let mut vcpu = vm.create_vcpu(3).unwrap();
            let mut exits = 0;
            while exits < 5 {
                match vcpu.run().unwrap() {
                    Exit::Interrupted => continue,
                    exit => assert_eq!(exit, expected),
                }
                exits += 1;
                assert_eq!(vm.turns(3), exits);
            }
            assert_eq!(vm.turns(0), 0);
            assert!(vm.create_vcpu(MAX_VCPUS).is_err());
        }
    }
}
