//! Mount points of the host's file systems; in tests a directory replaces the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::readers::Readers;

/// Largest file to read whole (bytes). A longer file is cut and reported as an error, so that a
/// hostile or broken file cannot exhaust memory.
pub const MAX_FILE: u64 = 4 << 20;

/// The mount points below which everything is read.
#[derive(Debug)]
pub struct Roots {
    /// procfs, by default `/proc`.
    pub proc: PathBuf,
    /// sysfs, by default `/sys`.
    pub sys: PathBuf,
    /// cgroup hierarchy, by default `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
    /// debugfs, by default `/sys/kernel/debug`.
    pub debug: PathBuf,
    /// tracefs, by default `/sys/kernel/tracing`.
    pub tracing: PathBuf,
    /// Run-time state of daemons, by default `/run`.
    pub run: PathBuf,
    /// Device nodes, by default `/dev`.
    pub dev: PathBuf,
    /// Threads for files below `proc` that a process can block.
    pub(crate) readers: Readers,
    held: Mutex<Option<(PathBuf, File)>>,
    opens: AtomicU64,
}

impl Default for Roots {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Roots {
    /// All roots below one directory, with the layout of a real machine: a fixture host.
    pub fn below(dir: &Path) -> Self {
        Self {
            proc: dir.join("proc"),
            sys: dir.join("sys"),
            cgroup: dir.join("sys/fs/cgroup"),
            debug: dir.join("sys/kernel/debug"),
            tracing: dir.join("sys/kernel/tracing"),
            run: dir.join("run"),
            dev: dir.join("dev"),
            readers: Readers::default(),
            held: Mutex::default(),
            opens: AtomicU64::new(0),
        }
    }

    /// Opens a file for reading without blocking (a FIFO reads as empty) and counts the open. Files
    /// that a process below `proc` can block are read by `Roots::readers`.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.count_open();
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path)
    }

    /// Opens a device for reading without blocking, or returns it if it is held.
    ///
    /// # Errors
    /// If the open fails.
    pub(crate) fn open_device(&self, path: &Path) -> io::Result<File> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.take_if(|(held, _)| held == path) {
            Some((_, file)) => Ok(file),
            None => self.open(path),
        }
    }

    /// Opens a device while this process still has the privilege and holds it for
    /// [`Roots::open_device`], which retries if this open fails.
    pub(crate) fn hold_device(&self, path: &Path) {
        let file = self.open(path).ok();
        let held = file.map(|file| (path.to_owned(), file));
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Lists the entry names of a directory that are valid UTF-8, unsorted, and counts one open.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.count_open();
        let entries = std::fs::read_dir(path)?;
        Ok(entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect())
    }

    /// Reads a whole file of at most [`MAX_FILE`] bytes.
    ///
    /// # Errors
    /// If the file cannot be read; `InvalidData` if it is longer.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_up_to(MAX_FILE, "longer than 4 MiB", self.open(path)?)
    }

    /// Reads a file as text without trailing white space; invalid UTF-8 is replaced.
    pub(crate) fn read_text(&self, path: &Path) -> io::Result<String> {
        let bytes = self.read(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// The number in a file; `None` if there is no such file, or its text is not a number.
    pub fn number<T: FromStr>(&self, path: &Path) -> Option<T> {
        self.read_text(path).ok()?.parse().ok()
    }

    /// Counts an open that did not use [`Roots::open`].
    pub(crate) fn count_open(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of files and directories opened below these roots.
    pub fn opens(&self) -> u64 {
        self.opens.load(Ordering::Relaxed)
    }
}

/// Reads a whole file; `InvalidData` with the text `longer` if it is longer than `max` bytes.
pub(super) fn read_up_to(max: u64, longer: &'static str, file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= max {
        Ok(bytes)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, longer))
    }
}
