//! Reads a file named in a VMM's arguments, as the VMM sees it.
//!
//! The user who starts a VMM chooses the path. Therefore a read must not block, must have no side
//! effect, and must not reveal what the VMM itself could not read:
//!
//! - The path is resolved below the VMM's root (`RESOLVE_IN_ROOT`), from the kernel's cache
//!   (`RESOLVE_CACHED`, Linux 5.12) or, on older kernels, within the root's file system.
//! - Only file systems in [`LOCAL`] are entered: a FUSE server might never answer.
//! - The file is checked before it is opened (`O_PATH`); only a regular file is opened.
//! - The file must belong to the VMM's user or be readable by all.
//! - At most [`MAX`] bytes are read.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{openat2, statx, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// Bytes read of a file.
const MAX: u64 = 64 << 10;

/// File system types in /proc/PID/mountinfo that need no server.
const LOCAL: &[&str] = &[
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "squashfs",
    "tmpfs", "xfs", "zfs",
];

/// Reads a file by its path in the process with this directory of /proc, which runs as `user`.
///
/// # Errors
/// If the file cannot be read, or must not be.
pub(super) fn read(process: &Path, user: Option<u32>, path: &str) -> io::Result<String> {
    let base = if path.starts_with('/') { "root" } else { "cwd" };
    let mounts = mounts(process)?;
    let root = File::open(process.join(base))?;
    is_local(&root, mounts.as_deref())?;
    let file = look_up(&root, path.trim_start_matches('/'))?;
    is_local(&file, mounts.as_deref())?;
    is_readable(user, &file)?;
    // Reopens the same file, whatever has its name by now.
    let reopened = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut text = Vec::new();
    reopened.take(MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn look_up(root: &File, path: &str) -> io::Result<File> {
    let open = |how: ResolveFlags| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | how;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(root, path, flags, Mode::empty(), resolve)
    };
    let file: OwnedFd = match open(ResolveFlags::CACHED) {
        Err(Errno::INVAL | Errno::AGAIN) => open(ResolveFlags::NO_XDEV)?,
        cached => cached?,
    };
    Ok(file.into())
}

/// The mounts of the process; `None` if a directory replaces procfs.
fn mounts(process: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(process.join("mountinfo")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

/// Refuses a file on a file system that may block. `STATX_MNT_ID` exists since Linux 5.8;
/// `AT_STATX_DONT_SYNC` does not contact a server.
fn is_local(file: &File, mounts: Option<&str>) -> io::Result<()> {
    let Some(mounts) = mounts else {
        return Ok(());
    };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let id = statx(file, "", flags, StatxFlags::MNT_ID)?.stx_mnt_id;
    if filesystem(mounts, id).is_some_and(|kind| LOCAL.contains(&kind)) {
        Ok(())
    } else {
        Err(ErrorKind::Unsupported.into())
    }
}

/// The type of a mount: `36 35 98:0 / /mnt rw master:1 - ext4 /dev/sda1 rw`
/// (proc_pid_mountinfo(5)).
fn filesystem(mounts: &str, id: u64) -> Option<&str> {
    let line = mounts.lines().find(|line| {
        let first = line.split(' ').next();
        first.and_then(|n| n.parse().ok()) == Some(id)
    })?;
    let (_, behind) = line.split_once(" - ")?;
    behind.split(' ').next()
}

/// Refuses other than regular files, and files that the user may not read although the exporter
/// may. The owner of /proc/PID is not used: it is root while the process is not dumpable.
fn is_readable(user: Option<u32>, file: &File) -> io::Result<()> {
    let data = file.metadata()?;
    let may = user == Some(0) || user == Some(data.uid()) || data.mode() & 0o004 != 0;
    if data.is_file() && may {
        Ok(())
    } else {
        Err(ErrorKind::PermissionDenied.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{symlink, PermissionsExt};

    /// A directory that replaces /proc/PID of a VMM with its own root.
    fn process(file: impl Fn(&Path)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rootfs");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink(&root, dir.path().join("root")).unwrap();
        symlink(root.join("etc"), dir.path().join("cwd")).unwrap();
        file(&root.join("etc/vm.cfg"));
        dir
    }

    #[test]
    fn file_is_read_below_the_root_of_its_process() {
        let dir = process(|file| std::fs::write(file, "[name]\n").unwrap());
        for path in ["/etc/vm.cfg", "vm.cfg", "./vm.cfg", "/../etc/vm.cfg"] {
            assert_eq!(
                read(dir.path(), Some(0), path).ok().as_deref(),
                Some("[name]\n"),
                "{path}"
            );
        }
        let link = process(|file| symlink("/etc/hostname", file).unwrap());
        assert!(
            read(link.path(), Some(0), "/etc/vm.cfg").is_err(),
            "outside of the root"
        );
    }

    #[test]
    fn what_may_wait_or_is_too_long_is_not_read_whole() {
        let fifo = process(|file| {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        });
        let error = read(fifo.path(), Some(0), "/etc/vm.cfg").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let long = process(|file| std::fs::write(file, vec![b'#'; 1 << 20]).unwrap());
        assert_eq!(
            read(long.path(), Some(0), "vm.cfg").unwrap().len() as u64,
            MAX
        );
        assert!(read(long.path(), Some(0), "gone.cfg").is_err());
        assert!(read(long.path(), Some(0), "/etc").is_err());
    }

    #[test]
    fn file_that_the_user_may_not_read_is_not_read_for_them() {
        let dir = process(|file| {
            std::fs::write(file, "[name]\n").unwrap();
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
        });
        let owner = std::fs::metadata(dir.path()).unwrap().uid();
        assert!(read(dir.path(), Some(owner), "vm.cfg").is_ok());
        for user in [Some(owner + 1), None] {
            let error = read(dir.path(), user, "vm.cfg").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn file_system_of_a_mount_is_found() {
        let mounts = "36 35 98:0 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                      136 36 0:41 / /home/u/x rw - fuse.sshfs x rw\n";
        assert_eq!(filesystem(mounts, 36), Some("ext4"));
        assert_eq!(filesystem(mounts, 136), Some("fuse.sshfs"));
        assert_eq!(filesystem(mounts, 6), None);
        let dir = process(|file| std::fs::write(file, "").unwrap());
        std::fs::write(dir.path().join("mountinfo"), mounts).unwrap();
        let error = read(dir.path(), Some(0), "vm.cfg").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn configuration_of_this_process_is_read_by_the_real_procfs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vm.cfg");
        std::fs::write(&file, "[name]\n").unwrap();
        match read(Path::new("/proc/self"), None, file.to_str().unwrap()) {
            Ok(text) => assert_eq!(text, "[name]\n"),
            Err(error) => println!("skipped: {}: {error}", file.display()),
        }
    }
}
