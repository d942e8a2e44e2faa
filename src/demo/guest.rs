//! What the guests run: images of a few bytes, and the state a vCPU starts in.
//!
//! Each instruction set has a file of its own below.

/// What a micro-VM's vCPUs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Load {
    /// Never leave the guest; one turn is 65,536 rounds of an empty loop.
    Spin,
    /// Halt, be woken 100 times a second, halt again; one turn is one halt.
    Halt,
    /// Write to an I/O port, or where there are none to a device's register, 1,000 times a second
    /// in bursts of 10; one turn is one write.
    Io,
    /// Spin in the guest, leave it by a write as `io` does, and spin as long in the VMM; one turn is
    /// both, 65,536 rounds each.
    Half,
}

impl Load {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Load::Spin => "spin",
            Load::Halt => "halt",
            Load::Io => "io",
            Load::Half => "half",
        }
    }
}

/// Rounds of the empty loop in one turn of `spin`, and of `half` on each side.
pub const ROUNDS: u32 = 65_536;

/// Guest-physical address of the memory.
pub const MEMORY: u64 = 0;

/// Bytes of memory.
pub const MEMORY_SIZE: usize = 5 * 0x1000;

/// Guest-physical address of the image, where the guest begins.
pub const CODE: u64 = 0;

/// Guest-physical address of the counters: one for each vCPU, [`COUNTER_STRIDE`] bytes apart.
pub const COUNTERS: u64 = 0x1000;

/// Bytes from one vCPU's counter to the next: a cache line, so that vCPUs do not slow each other.
pub const COUNTER_STRIDE: u64 = 64;

/// Most vCPUs of one micro-VM: what fits in the page of counters.
pub const MAX_VCPUS: u32 = (0x1000 / COUNTER_STRIDE) as u32;

/// Address outside the memory: a guest that cannot halt by itself asks its VMM to be halted by
/// writing here.
pub const HALT_REGISTER: u64 = 0x4000_0000;

/// Address outside the memory where `io` and `half` write if there are no I/O ports.
pub const IO_REGISTER: u64 = 0x4000_0008;

/// There are no images for this machine's architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the embedded guests are written for x86-64 and arm64, and this machine is {arch}", arch = std::env::consts::ARCH)]
pub struct Unsupported;

pub use arch::{contents, prepare_vcpu, prepare_vm};

#[cfg_attr(target_arch = "x86_64", path = "guest/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "guest/aarch64.rs")]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "guest/none.rs"
)]
mod arch;
