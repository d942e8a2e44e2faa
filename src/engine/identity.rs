//! Checks that a PID or TID still identifies the same process or thread: the kernel reuses IDs.
//!
//! The start time (field 22 of /proc/PID/stat) identifies it. A source that reads checks after
//! reading: if the process is the same then, it was the same throughout. A source that writes an
//! ID to the kernel checks right before and right after.

use std::io;
use std::path::Path;

use crate::discover::{Vcpu, VmKey};
use crate::engine::ReadError;
use crate::host::roots::Roots;
use crate::host::thread::parse_stat;

/// Checks that the VM's process is still the one that was discovered.
///
/// # Errors
/// [`ReadError::Gone`] if it is not.
pub(crate) fn check(roots: &Roots, vm: VmKey) -> Result<(), ReadError> {
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

/// Whether a vCPU's TID is still the same thread, and a thread of process `pid`.
pub(crate) fn is_vcpu(roots: &Roots, pid: i32, vcpu: Vcpu) -> bool {
    let path = roots.proc.join(format!("{pid}/task/{}/stat", vcpu.tid));
    start_time(roots, &path).is_ok_and(|start_time| start_time == Some(vcpu.start_time))
}

fn start_time(roots: &Roots, stat: &Path) -> io::Result<Option<u64>> {
    let text = roots.read(stat)?;
    Ok(parse_stat(&text).map(|stat| stat.start_time))
}
