//! Limits the file descriptors held for vCPUs, so that the rest of the exporter has some left.
//! Without a free descriptor the exporter can neither list /proc nor accept a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::engine::{Reason, ReasonCode};
use crate::host::privileges::DescriptorLimit;

mod shares;

pub(super) use shares::{DescriptorKind, Shares};

/// Holders of descriptors for vCPUs; the value is the number that each leaves free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Counters: the most expensive, and the first to be refused.
    Counters = 256,
    /// Open files of /proc: leave enough for connections and for discovery.
    Files = 128,
}

/// Refuses a descriptor that was just opened if too few remain free.
///
/// # Errors
/// `EMFILE`, the kernel's own error when none is left.
pub(crate) fn leaves_room(fd: impl AsFd, holder: Holder) -> io::Result<()> {
    let fd = u64::try_from(fd.as_fd().as_raw_fd()).unwrap_or_default();
    if is_within(fd, DescriptorLimit::now().soft, holder) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }
}

/// The kernel assigns the lowest free number (open(2)), so all numbers below `fd` are taken. Of a
/// small limit, at most a quarter is kept free.
fn is_within(fd: u64, limit: u64, holder: Holder) -> bool {
    fd < limit - (holder as u64).min(limit / 4)
}

/// Maximum number of descriptors held for all vCPUs.
fn most() -> usize {
    let limit = DescriptorLimit::now().soft;
    let free = (Holder::Counters as u64).min(limit / 4);
    usize::try_from(limit - free).unwrap_or(usize::MAX)
}

/// Whether the kernel, or [`leaves_room`], had no descriptor left.
pub(crate) fn are_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The reason for an error that [`are_out`] recognizes.
pub(crate) fn none_left(detail: String) -> Reason {
    let DescriptorLimit { soft, hard } = DescriptorLimit::now();
    ReasonCode::NoDescriptors.reason(detail).with_fix(format!(
        "raise LimitNOFILE= in the unit (ulimit -Hn), now {}; also sysctl fs.file-max, if that \
             is lower",
        soft.max(hard)
    ))
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
    fn first_file_is_allowed() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        leaves_room(&file, Holder::Counters).unwrap();
    }
}
