//! What the descriptors of a process lead to, by the links in /proc/PID/fd.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::Path;

use super::roots::Roots;

/// Descriptors of one process that are looked at. QEMU has some for each queue of each device:
/// thousands for the largest guests.
pub const MAX_DESCRIPTORS: usize = 1 << 16;

/// Calls `each` with the target of every link until it breaks. Returns whether the process has
/// more than [`MAX_DESCRIPTORS`], of which the rest was not looked at.
///
/// # Errors
/// `PermissionDenied` where the links may not be listed or followed (proc(5)); any other means
/// that the process is gone.
pub fn targets(
    roots: &Roots,
    pid: i32,
    mut each: impl FnMut(&Path) -> ControlFlow<()>,
) -> io::Result<bool> {
    roots.count_open();
    for (n, entry) in std::fs::read_dir(roots.proc.join(format!("{pid}/fd")))?.enumerate() {
        if n == MAX_DESCRIPTORS {
            return Ok(true);
        }
        match entry.and_then(|entry| std::fs::read_link(entry.path())) {
            Ok(target) if each(&target).is_break() => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {} // closed meanwhile
        }
    }
    Ok(false)
}
