//! Descriptors of a process from the links in /proc/PID/fd, and directories of numbers.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::path::Path;

use rustix::fs::{readlinkat_raw, seek, RawDir, SeekFrom};
use rustix::io::Errno;

use super::roots::Roots;

/// Most descriptors read per process, lowest first: a VM has at most 4,096 vCPUs, QEMU has one
/// descriptor per device queue, and 65,536 links take about 0.1 s.
pub(crate) const MAX_DESCRIPTORS: usize = 1 << 16;

/// Bytes read of a link target. Targets of KVM and VFIO are shorter.
const MAX_TARGET: usize = 128;

/// The descriptors of one process.
#[derive(Debug)]
pub(crate) struct Descriptors {
    dir: File,
    numbers: Vec<i32>,
    more: bool,
}

impl Descriptors {
    /// Lists the descriptors of the process with this directory in /proc.
    ///
    /// # Errors
    /// `PermissionDenied` if the caller may not read the process's files (proc(5)); any other error
    /// means that the process exited.
    pub(crate) fn list(roots: &Roots, process: &Path) -> io::Result<Self> {
        // Lists one more to detect that there are more.
        let (dir, mut numbers) = list(roots, &process.join("fd"), MAX_DESCRIPTORS + 1)?;
        let more = numbers.len() > MAX_DESCRIPTORS;
        numbers.truncate(MAX_DESCRIPTORS);
        Ok(Self { dir, numbers, more })
    }

    /// Number of descriptors that [`Self::targets`] visits.
    pub(crate) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Whether the process has more than [`MAX_DESCRIPTORS`]; the rest is not visited.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Calls `visit` with each descriptor, ascending, and the first 128 bytes of its target, until
    /// `visit` breaks. Listing requires the rights to read the process's files; reading a link
    /// requires the rights of a debugger (`proc_fd_access_allowed`, fs/proc/base.c).
    ///
    /// # Errors
    /// `PermissionDenied` if the caller may list the links but not read them.
    pub(crate) fn targets(
        &self,
        mut visit: impl FnMut(i32, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let mut buffer = [0u8; MAX_TARGET];
        for fd in &self.numbers {
            let length = match readlinkat_raw(&self.dir, fd.to_string(), &mut buffer) {
                Ok(length) => length,
                Err(denied @ (Errno::ACCESS | Errno::PERM)) => return Err(denied.into()),
                Err(_) => continue, // closed since it was listed
            };
            if visit(*fd, buffer.get(..length).unwrap_or_default()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Opens a directory and lists at most the first `most` of its numbers, ascending. procfs lists
/// descriptors by number and threads by age.
///
/// # Errors
/// Those of opening and reading the directory.
pub(crate) fn list(roots: &Roots, dir: &Path, most: usize) -> io::Result<(File, Vec<i32>)> {
    let dir = roots.open(dir)?;
    let mut found = Vec::new();
    numbers(&dir, &mut [MaybeUninit::uninit(); 4096], &mut found, most)?;
    found.sort_unstable();
    Ok((dir, found))
}

/// Adds the entries of a directory that are numbers to `found`, until it holds `most`. Rewinds the
/// directory first.
///
/// # Errors
/// Those of reading the directory.
pub(crate) fn numbers(
    dir: &File,
    buffer: &mut [MaybeUninit<u8>],
    found: &mut Vec<i32>,
    most: usize,
) -> io::Result<()> {
    seek(dir, SeekFrom::Start(0))?;
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next().filter(|_| found.len() < most) {
        let number = entry?
            .file_name()
            .to_str()
            .unwrap_or_default()
            .parse::<i32>();
        found.extend(number.ok().filter(|n| *n >= 0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn directory_is_listed_up_to_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        for n in 0..10 {
            std::fs::create_dir(dir.path().join(n.to_string())).unwrap();
        }
        let listed = |most| list(&roots, dir.path(), most).unwrap().1.len();
        assert_eq!([listed(3), listed(10), listed(11)], [3, 10, 10]);
    }

    #[test]
    fn targets_are_visited_in_order_until_the_visitor_breaks() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("fd")).unwrap();
        let long = "x".repeat(200);
        for (fd, target) in [
            ("10", long.as_str()),
            ("2", "anon_inode:kvm-vm"),
            ("3", "/a"),
        ] {
            symlink(target, dir.path().join("fd").join(fd)).unwrap();
        }
        let fds = Descriptors::list(&Roots::below(dir.path()), dir.path()).unwrap();
        assert_eq!((fds.count(), fds.has_more()), (3, false));
        let mut seen = Vec::new();
        let mut visit = |fd, target: &[u8]| {
            seen.push((fd, target.len()));
            ControlFlow::Continue(())
        };
        fds.targets(&mut visit).unwrap();
        assert_eq!(seen, [(2, 17), (3, 2), (10, MAX_TARGET)]);
        let mut visited = 0;
        let first = |_, _: &[u8]| {
            visited += 1;
            ControlFlow::Break(())
        };
        fds.targets(first).unwrap();
        assert_eq!(visited, 1);
    }
}
