//! The directory tree of the host, and functions to write it.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::fake_host::files::{devices, machine};

/// A temporary directory, in memory if possible; removed on drop.
#[derive(Debug)]
pub(super) struct Tree {
    dir: TempDir,
}

impl Tree {
    pub(super) fn new() -> io::Result<Self> {
        let builder = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix("vcpu-exporter-synthetic-");
            builder
        };
        let in_memory = builder().tempdir_in("/dev/shm");
        let dir = in_memory.or_else(|_| builder().tempdir())?;
        Ok(Self { dir })
    }

    pub(super) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Overwrites a file in place, so that open descriptors see the new text. No read can see a
    /// partial write, because one thread does both.
    pub(super) fn file(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.root().join(path);
        let mut file = match open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_parent(&path)?;
                open(&path)?
            }
            file => file?,
        };
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }

    /// Overwrites a file with one line.
    pub(super) fn line(&self, path: &str, text: impl Display) -> io::Result<()> {
        self.file(path, &format!("{text}\n"))
    }

    pub(super) fn files(&self, files: machine::Files) -> io::Result<()> {
        files
            .iter()
            .try_for_each(|(path, text)| self.file(path, text))
    }

    /// Replaces a symbolic link; an empty target removes it.
    pub(super) fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let path: PathBuf = self.root().join(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => make_parent(&path)?,
            removed => removed?,
        }
        match target {
            "" => Ok(()),
            target => symlink(target, path),
        }
    }

    pub(super) fn sysfs(&self, (files, links): (devices::Files, devices::Links)) -> io::Result<()> {
        self.files(files)?;
        links
            .iter()
            .try_for_each(|(path, target)| self.link(path, target))
    }

    /// Removes a directory or a file if it exists.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.root().join(path);
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}
