//! Follows the kernel log in /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
//!
//! A record is `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;TEXT` and continuation lines that start with a
//! space. The text can contain input from guests and users; the kernel escapes control characters.
//! A priority below 8 means that the kernel wrote the record, which no process can forge.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use super::roots::Roots;

mod kinds;

pub(crate) use kinds::{kind, LineKind};

/// Buffer for one record, which has at most 2 KiB (`PRINTK_MESSAGE_MAX`, kernel/printk/internal.h);
/// a read into a smaller buffer fails.
const RECORD: usize = 8 << 10;

/// The log from the time of opening.
#[derive(Debug)]
pub(crate) struct KernelLog {
    file: File,
    /// Sequence number after the last record read.
    next: Option<u64>,
}

/// A record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Whether the kernel wrote it.
    pub(crate) of_kernel: bool,
    /// Sequence number, from 0 at boot.
    pub sequence: u64,
    /// Text of the first line.
    pub text: &'a [u8],
}

/// Path of /dev/kmsg.
pub(crate) fn path(roots: &Roots) -> PathBuf {
    roots.dev.join("kmsg")
}

impl KernelLog {
    /// Opens the log at its present end.
    ///
    /// # Errors
    /// EPERM without `CAP_SYSLOG` if `kernel.dmesg_restrict` is 1; other errors of the open.
    pub(crate) fn open(roots: &Roots) -> io::Result<Self> {
        let mut file = roots.open_device(&path(roots))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, next: None })
    }

    /// Calls `each` with at most `most` new records, without blocking, and returns the number of
    /// records that were overwritten before they were read.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(
        &mut self,
        most: usize,
        mut each: impl FnMut(Record<'_>),
    ) -> io::Result<u64> {
        let mut buffer = [0; RECORD];
        let mut lost = 0u64;
        for _ in 0..most {
            let read = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Records were overwritten: the next read returns the oldest record.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // One record, unless a plain file replaces the device.
            for record in buffer[..read].split(|b| *b == b'\n').filter_map(parse) {
                let next = self.next.unwrap_or(record.sequence);
                let skipped = record.sequence.saturating_sub(next);
                lost = skipped.saturating_add(lost);
                self.next = Some(record.sequence.saturating_add(1));
                each(record);
            }
        }
        Ok(lost)
    }
}

/// Parses the first line of a record; `None` for any other line.
pub(crate) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let end = line.iter().position(|b| *b == b';')?;
    let head = std::str::from_utf8(&line[..end]).ok()?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    fields.next()?.parse::<u64>().ok()?;
    Some(Record {
        of_kernel: priority < 8,
        sequence,
        text: &line[end + 1..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn record_is_separated_from_its_further_lines() {
        let record = parse(b"4,17,59,-;mce: [Hardware Error]: CPU 0; bank 5").unwrap();
        assert_eq!((record.of_kernel, record.sequence), (true, 17));
        assert_eq!(record.text, b"mce: [Hardware Error]: CPU 0; bank 5");
        assert!(!parse(b"12,18,60,-;kvm: by a user").unwrap().of_kernel);
        for other in [&b" SUBSYSTEM=cpu"[..], b"", b";", b"a,b,c;d", b"4,17;x"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn it_begins_at_the_end_and_counts_what_was_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        std::fs::create_dir(&roots.dev).unwrap();
        std::fs::write(path(&roots), "6,0,1,-;old\n").unwrap();
        let mut log = KernelLog::open(&roots).unwrap();
        let mut end = std::fs::File::options()
            .append(true)
            .open(path(&roots))
            .unwrap();
        let mut read = |text: &str| {
            end.write_all(text.as_bytes()).unwrap();
            let mut seen = Vec::new();
            let lost = log.read(100, |record| seen.push(record.sequence)).unwrap();
            (seen, lost)
        };
        assert_eq!(read(""), (vec![], 0));
        assert_eq!(read("6,7,1,-;a\n X=Y\n6,8,1,-;b\n"), (vec![7, 8], 0));
        assert_eq!(read("6,12,1,-;c\n"), (vec![12], 3));
    }

    #[test]
    fn a_device_that_is_held_is_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::below(dir.path());
        std::fs::create_dir(&roots.dev).unwrap();
        std::fs::write(path(&roots), "").unwrap();
        roots.hold_device(&path(&roots));
        std::fs::remove_file(path(&roots)).unwrap();
        assert!(KernelLog::open(&roots).is_ok());
        assert!(KernelLog::open(&roots).is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&line);
        }
    }
}
