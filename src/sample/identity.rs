//! Whether a PID or TID still is the process or thread it was: the kernel gives numbers out again.
//!
//! The start time tells (field 22 of /proc/PID/stat). A source that reads checks it after reading:
//! a process that is still the same then was the same all the while. A source that writes a number
//! to the kernel checks it right before and after.

use std::io;
use std::path::Path;

use super::ReadError;
use crate::discover::{Vcpu, VmKey};
use crate::host::roots::Roots;
use crate::host::thread::parse_stat;

/// Fails unless the VM's process still is the one that was discovered.
///
/// # Errors
/// [`ReadError::Gone`] where it is not.
pub(super) fn check(roots: &Roots, vm: VmKey) -> Result<(), ReadError> {
    let path = roots.proc.join(format!("{}/stat", vm.pid));
    match start_time(roots, &path) {
        Ok(start_time) if start_time == Some(vm.start_time) => Ok(()),
        Ok(_) => Err(ReadError::Gone),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Err(ReadError::Gone),
            _ => Err(ReadError::Failed(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        },
    }
}

/// Whether a vCPU's TID still is its thread, and one of the process `pid`.
pub(super) fn is_vcpu(roots: &Roots, pid: i32, vcpu: Vcpu) -> bool {
    let path = roots.proc.join(format!("{pid}/task/{}/stat", vcpu.tid));
    start_time(roots, &path).is_ok_and(|start_time| start_time == Some(vcpu.start_time))
}

fn start_time(roots: &Roots, stat: &Path) -> io::Result<Option<u64>> {
    let text = roots.read(stat)?;
    Ok(parse_stat(&text).map(|stat| stat.start_time))
}
