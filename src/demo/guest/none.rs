//! Stubs for architectures without guests.

use kvm_ioctls::{VcpuFd, VmFd};

use super::{Load, Unsupported};

/// Initial contents of the guest's memory.
pub fn contents(_: Load) -> Result<Vec<(u64, Vec<u8>)>, Unsupported> {
    Err(Unsupported)
}

/// Prepares the VM before its first vCPU.
pub(crate) fn prepare_vm(_: &VmFd) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}

/// Sets a vCPU to start at the image of `load` and to count at `counter`.
pub(crate) fn prepare_vcpu(_: &VmFd, _: &VcpuFd, _: Load, _: u64) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}
