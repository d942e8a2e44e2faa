//! File descriptors: what is held for vCPUs grows with the host, and leaves some to the rest of
//! the exporter. An exporter that cannot list /proc or accept a connection shows nothing at all.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::Reason;
use crate::host::privileges::DescriptorLimit;

mod shares;

pub(super) use shares::{Kind, Shares};

/// The code of the reason of whoever gets no descriptor.
pub(super) const NONE_LEFT: &str = "no_descriptors";

/// Who holds descriptors for vCPUs, and how many each leaves free for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Counters: the dearest, and the first to do without.
    Counters = 256,
    /// Kept files of /proc: leave enough for connections and the inventory's own reading.
    Files = 128,
}

/// Refuses a descriptor that was just opened and leaves too few free.
///
/// # Errors
/// `EMFILE`, as the kernel gives it where none is left.
pub(super) fn leaves_room(fd: impl AsFd, holder: Holder) -> io::Result<()> {
    let fd = u64::try_from(fd.as_fd().as_raw_fd()).unwrap_or_default();
    match is_within(fd, DescriptorLimit::now().soft, holder) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EMFILE)),
    }
}

/// The kernel gives out the lowest number that is free (open(2)), so that all below `fd` are
/// taken. A small limit is shared three to one.
fn is_within(fd: u64, limit: u64, holder: Holder) -> bool {
    fd < limit - (holder as u64).min(limit / 4)
}

/// What may be held for vCPUs in all.
fn most() -> usize {
    let limit = DescriptorLimit::now().soft;
    let free = (Holder::Counters as u64).min(limit / 4);
    usize::try_from(limit - free).unwrap_or(usize::MAX)
}

/// Whether the kernel, or [`leaves_room`], had no descriptor left.
pub(super) fn are_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The reason where [`are_out`] says so.
pub(super) fn none_left(detail: String) -> Reason {
    let DescriptorLimit { soft, hard } = DescriptorLimit::now();
    Reason {
        code: NONE_LEFT,
        detail,
        fix: Some(format!(
            "raise LimitNOFILE= in the unit (ulimit -Hn), now {}; and sysctl fs.file-max, if that \
             is less",
            soft.max(hard)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_leave_descriptors_to_files_and_files_to_the_rest() {
        let most = |limit, holder| {
            (0..limit)
                .filter(|fd| is_within(*fd, limit, holder))
                .count()
        };
        assert_eq!(most(1024, Holder::Counters), 768);
        assert_eq!(most(1024, Holder::Files), 896);
        assert_eq!(most(256, Holder::Counters), 192);
        assert!(is_within(1 << 30, u64::MAX, Holder::Files), "no limit");
    }

    #[test]
    fn a_first_file_is_let_through() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        leaves_room(&file, Holder::Counters).unwrap();
    }
}
