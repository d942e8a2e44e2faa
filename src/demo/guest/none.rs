//! No guests: nobody has written any for this architecture.

use kvm_ioctls::{VcpuFd, VmFd};

use super::{Load, Unsupported};

/// What lies where in the guest's memory at its start; all else is 0.
pub fn contents(_: Load) -> Result<Vec<(u64, Vec<u8>)>, Unsupported> {
    Err(Unsupported)
}

/// What the VM needs before its first vCPU.
pub fn prepare_vm(_: &VmFd) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}

/// Makes a vCPU begin at the image of `load` and count at `counter`.
pub fn prepare_vcpu(_: &VmFd, _: &VcpuFd, _: Load, _: u64) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}
