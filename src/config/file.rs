//! Reads files that the program's caller names: configuration, secrets, certificates, traces.
//!
//! Reads do not block, are bounded, and use the caller's privileges only. A program file with
//! capabilities (capabilities(7), "File capabilities") has more privileges than its caller, and a
//! caller must not use them to read root's files.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{geteuid, getuid};

/// Time to wait at startup for a configuration from a pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the program has more privileges than its caller.
static EXCEEDS_CALLER: OnceLock<bool> = OnceLock::new();

/// Records the caller's privileges, which cannot be determined after capabilities are dropped. Call
/// it first.
///
/// # Errors
/// If the program is setuid: the privileges of its caller are then unclear.
pub(crate) fn remember_caller() -> io::Result<()> {
    if getuid() != geteuid() {
        let text =
            "the program is setuid: chmod u-s it, and run `check` for the privileges it needs";
        return Err(io::Error::new(ErrorKind::Unsupported, text));
    }
    exceeds_caller();
    Ok(())
}

/// Whether the program has capabilities that its caller does not have. Root's capabilities are its
/// own, and those of the ambient set come from the caller (systemd's `AmbientCapabilities=`); a
/// non-root program can get others only from its file.
pub(crate) fn exceeds_caller() -> bool {
    *EXCEEDS_CALLER.get_or_init(|| {
        let set = |set| caps::read(None, set).unwrap_or_default();
        exceeds(
            getuid().is_root(),
            set(CapSet::Permitted),
            &set(CapSet::Ambient),
        )
    })
}

fn exceeds(
    root: bool,
    permitted: impl IntoIterator<Item = Capability>,
    handed_on: &caps::CapsHashSet,
) -> bool {
    !root && permitted.into_iter().any(|held| !handed_on.contains(&held))
}

/// Runs `work` with the caller's privileges: without capabilities if the program has more than its
/// caller. Capabilities belong to the calling thread.
///
/// # Errors
/// If the kernel refuses to drop the capabilities; `work` did not run then.
pub(crate) fn as_caller<T>(work: impl FnOnce() -> T) -> io::Result<T> {
    if !exceeds_caller() {
        return Ok(work());
    }
    let refused = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let held = caps::read(None, CapSet::Effective).map_err(refused)?;
    caps::clear(None, CapSet::Effective).map_err(refused)?;
    let done = work();
    caps::set(None, CapSet::Effective, &held).map_err(refused)?;
    Ok(done)
}

/// Opens a file with the caller's privileges, without waiting for the writer of a FIFO or for a
/// device.
///
/// # Errors
/// If the open fails.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    as_caller(|| options.open(path))?
}

/// Reads at most `max + 1` bytes of a regular file; other files can block or be endless.
///
/// # Errors
/// If the file cannot be read; `InvalidInput` if it is not a regular file.
pub(crate) fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        let text = "not a regular file";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads at most `max + 1` bytes of a file or pipe (`--config <(...)`).
///
/// # Errors
/// If the file cannot be read; `TimedOut` if the pipe's writer does not close it in time.
pub(crate) fn read_or_pipe(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return read_pipe(&file, max, PATIENCE);
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_pipe(mut pipe: &File, max: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() as u64 <= max {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        let mut events = [PollFd::new(&pipe, PollFlags::IN)];
        if poll(&mut events, Some(&left))? == 0 {
            let text = "timed out waiting for the writer of the pipe";
            return Err(io::Error::new(ErrorKind::TimedOut, text));
        }
        match pipe.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(usize::try_from(max + 1).unwrap_or(usize::MAX));
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caps::CapsHashSet;
    use std::io::Write;

    fn fifo(dir: &tempfile::TempDir) -> std::path::PathBuf {
        let path = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        path
    }

    #[test]
    fn secrets_are_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        for path in [&fifo(&dir), Path::new("/dev/zero"), dir.path()] {
            let error = read_regular(path, 10).unwrap_err();
            assert_eq!(
                error.to_string(),
                "not a regular file",
                "{}",
                path.display()
            );
        }
        let file = dir.path().join("secret");
        std::fs::write(&file, "0123456789").unwrap();
        assert_eq!(read_regular(&file, 3).unwrap(), b"0123");
        // Mounted secrets are links.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_regular(&link, 99).unwrap(), b"0123456789");
    }

    #[test]
    fn a_configuration_may_come_through_a_pipe_that_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        let held = open(&path).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let text = "x".repeat(9000);
        writer.write_all(text.as_bytes()).unwrap();
        let (result, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || result.send(read_pipe(&held, 10_000, PATIENCE)));
        drop(writer);
        assert_eq!(read.recv().unwrap().unwrap(), text.as_bytes());
    }

    #[test]
    fn a_pipe_that_goes_on_is_left_after_a_while_or_at_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(&dir);
        let pipe = open(&path).unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let error = read_pipe(&pipe, 10, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        writer.write_all(&[b'x'; 100]).unwrap();
        assert_eq!(read_pipe(&pipe, 10, PATIENCE).unwrap(), [b'x'; 11]);
    }

    #[test]
    fn capabilities_of_the_program_file_exceed_the_caller() {
        let caps = |all: &[Capability]| all.iter().copied().collect::<CapsHashSet>();
        let (none, ptrace) = (caps(&[]), caps(&[Capability::CAP_SYS_PTRACE]));
        assert!(exceeds(false, ptrace.clone(), &none), "setcap");
        assert!(!exceeds(false, ptrace.clone(), &ptrace), "a systemd unit");
        assert!(!exceeds(true, ptrace, &none), "root");
        assert!(!exceeds(false, none.clone(), &none), "a plain user");
    }
}
