//! The guests' images of a few bytes, and the initial state of a vCPU.
//!
//! Each instruction set has its own file below.

/// The activity of a micro-VM's vCPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Load {
    /// Never leaves the guest. A turn is 65,536 iterations of an empty loop.
    Spin,
    /// Halts and is woken up, 100 times a second. A turn is one halt.
    Halt,
    /// Writes to an I/O port, or to a device register if there are no ports, 1,000 times a second
    /// in bursts of 10. A turn is one write.
    Io,
    /// Spins in the guest, exits by a write as `io` does, and spins as long in the VMM. A turn is
    /// both, 65,536 iterations each.
    Half,
}

impl Load {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Load::Spin => "spin",
            Load::Halt => "halt",
            Load::Io => "io",
            Load::Half => "half",
        }
    }
}

/// Iterations of the empty loop in a turn of `spin`, and of `half` in guest and VMM each.
pub const ROUNDS: u32 = 65_536;

/// Guest-physical address of the memory.
pub(crate) const MEMORY: u64 = 0;

/// Bytes of memory.
pub(crate) const MEMORY_SIZE: usize = 5 * 0x1000;

/// Guest-physical address of the image, and entry point.
pub(crate) const CODE: u64 = 0;

/// Guest-physical address of the counters: one per vCPU, [`COUNTER_STRIDE`] bytes apart.
pub(crate) const COUNTERS: u64 = 0x1000;

/// Bytes between two counters: a cache line, so that vCPUs do not slow each other down.
pub(crate) const COUNTER_STRIDE: u64 = 64;

/// Most vCPUs of one micro-VM: the counters that fit into a page.
pub(crate) const MAX_VCPUS: u32 = (0x1000 / COUNTER_STRIDE) as u32;

/// Address outside the memory: a guest that cannot halt by itself writes here, and the VMM halts
/// it.
pub(crate) const HALT_REGISTER: u64 = 0x4000_0000;

/// Address outside the memory that `io` and `half` write to if there are no I/O ports.
pub(crate) const IO_REGISTER: u64 = 0x4000_0008;

/// There are no images for this architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the embedded guests support x86-64 and arm64, but this machine is {arch}", arch = std::env::consts::ARCH)]
pub struct Unsupported;

pub(crate) use arch::{contents, prepare_vcpu, prepare_vm};

#[cfg_attr(target_arch = "x86_64", path = "guest/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "guest/aarch64.rs")]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "guest/none.rs"
)]
mod arch;
