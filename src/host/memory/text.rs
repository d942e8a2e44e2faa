//! Reads files that can be slow, endless, or not regular files.
//!
//! A file of /proc that walks page tables does so in pieces: each read(2) handles the mappings that
//! fit its buffer and holds the process's mmap_lock meanwhile (fs/seq_file.c, `seq_read_iter`;
//! fs/proc/task_mmu.c, `m_start` and `m_stop`). Therefore buffers are small, and the reader can
//! stop between two reads.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::host::roots::{read_up_to, Roots};

/// Bytes per read: a record of smaps has about 700, a line of numa_maps 100.
const PIECE: usize = 1024;

/// Longest accepted line (bytes): a path has at most 4,096 bytes (`PATH_MAX`), each written as at
/// most 4.
const MAX_LINE: usize = 32 << 10;

/// Longest accepted text (bytes): 65,530 mappings (`vm.max_map_count`) of 1 kB.
pub(crate) const MAX_TEXT: u64 = 64 << 20;

/// Why a text was not read to its end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the variants
pub(crate) enum TextError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("time limit reached before the end of the file")]
    Spent,
    #[error("file or line above the size limit")]
    TooLong,
}

/// Opens a regular file without blocking; refuses any other file, for example a FIFO.
///
/// # Errors
/// If the open fails; `InvalidInput` if it is not a regular file.
pub(crate) fn open(roots: &Roots, path: &Path) -> io::Result<File> {
    let file = roots.open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

/// Reads a small file of counters.
///
/// # Errors
/// As [`open`]; `InvalidData` if it is longer than 64 KiB.
pub(crate) fn small(roots: &Roots, path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(64 << 10, "longer than 64 KiB", open(roots, path)?)
}

/// Calls `each` with each line, without its newline. Before every read, `spent` decides whether to
/// stop.
///
/// # Errors
/// If the text cannot be read or was not read to its end.
pub(crate) fn lines(
    mut text: impl Read,
    mut spent: impl FnMut() -> bool,
    mut each: impl FnMut(&[u8]),
) -> Result<(), TextError> {
    let mut piece = [0u8; PIECE];
    let mut line = Vec::new();
    let mut total = 0;
    loop {
        if spent() {
            return Err(TextError::Spent);
        }
        let read = match text.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        total += read as u64;
        for part in piece[..read].split_inclusive(|b| *b == b'\n') {
            line.extend_from_slice(part);
            if let Some(whole) = line.strip_suffix(b"\n") {
                each(whole);
                line.clear();
            }
        }
        if total > MAX_TEXT || line.len() > MAX_LINE {
            return Err(TextError::TooLong);
        }
    }
    if !line.is_empty() {
        each(&line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn collect(text: impl Read, spent: impl FnMut() -> bool) -> (Vec<Vec<u8>>, Option<TextError>) {
        let mut found = Vec::new();
        let end = lines(text, spent, |line| found.push(line.to_vec()));
        (found, end.err())
    }

    #[test]
    fn a_fifo_in_place_of_the_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("numa_maps");
        assert!(Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success());
        let error = open(&Roots::default(), &fifo).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }

    #[test]
    fn a_text_of_a_gibibyte_is_given_up() {
        let (_, error) = collect(io::repeat(b'x').take(1 << 30), || false);
        assert!(matches!(error, Some(TextError::TooLong)), "one long line");
        let mut read = 0;
        let error = lines(Lines(&mut read), || false, |_| ());
        assert!(matches!(error, Err(TextError::TooLong)), "many lines");
        assert!(read <= MAX_TEXT + PIECE as u64, "{read}");
    }

    /// Lines without end.
    struct Lines<'a>(&'a mut u64);

    impl Read for Lines<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'x');
            if let Some(last) = buffer.last_mut() {
                *last = b'\n';
            }
            *self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }

    #[test]
    fn it_stops_between_two_reads_when_the_time_is_up() {
        let text = "0123456789\n".repeat(1000);
        let mut asked = 0;
        let (found, error) = collect(text.as_bytes(), || {
            asked += 1;
            asked > 3
        });
        assert!(matches!(error, Some(TextError::Spent)));
        assert_eq!(found.len(), 3 * PIECE / 11);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_text(text in "([a-z]{0,1500}\n?){0,8}") {
            let (found, error) = collect(text.as_bytes(), || false);
            prop_assert!(error.is_none());
            let expected: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
