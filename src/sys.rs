//! System-level code that the compiler cannot check. All other modules deny `unsafe_code`.
#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};

pub(crate) mod perf_ring;

/// Takes the descriptor out of a counter. Reading the file directly avoids the counter's own
/// parser, which allocates three times per read; dropping the file closes it.
pub(crate) fn into_file(counter: perf_event::Counter) -> File {
    // SAFETY: into_raw_fd releases the only owner of an open descriptor.
    unsafe { File::from_raw_fd(counter.into_raw_fd()) }
}

/// The descriptor of an open event.
pub(crate) fn borrow(counter: &perf_event::Counter) -> BorrowedFd<'_> {
    // SAFETY: the counter owns the descriptor and keeps it open during the borrow.
    unsafe { BorrowedFd::borrow_raw(counter.as_raw_fd()) }
}

/// `PERF_EVENT_IOC_SET_FILTER` of linux/perf_event.h: `_IOW('$', 6, char *)`, the same number on
/// x86-64 and arm64 (asm-generic/ioctl.h).
const SET_FILTER: libc::Ioctl = 0x4008_2406;

/// Sets a tracepoint event to count only the hits that match `filter`.
pub(crate) fn set_event_filter(counter: &perf_event::Counter, filter: &CStr) -> io::Result<()> {
    // SAFETY: the kernel copies the NUL-terminated text before the call returns
    // (perf_event_set_filter, kernel/events/core.c) and writes nothing; `filter` outlives the call.
    match unsafe { libc::ioctl(counter.as_raw_fd(), SET_FILTER, filter.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Compares two descriptors of a task by their open file. Equal descriptors are duplicates; the
/// order of others is arbitrary but stable (kcmp(2)). `None` if the kernel gives no answer.
pub(crate) fn compare_files(task: i32, a: i32, b: i32) -> Option<Ordering> {
    /// `KCMP_FILE` of linux/kcmp.h.
    const KCMP_FILE: libc::c_int = 0;
    let (a, b) = (
        libc::c_ulong::try_from(a).ok()?,
        libc::c_ulong::try_from(b).ok()?,
    );
    // SAFETY: the call takes only numbers and accesses no memory of this process.
    match unsafe { libc::syscall(libc::SYS_kcmp, task, task, KCMP_FILE, a, b) } {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}
