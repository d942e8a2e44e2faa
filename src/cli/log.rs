//! Logs go to standard error: text for people, JSON for collectors. Every line has a time, because
//! container runtimes, unlike systemd, do not add one.
//!
//! Logging never stops the exporter: if the disk is full, the reader is gone or the pipe is full, a
//! line is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Installs the subscriber of this process; further calls have no effect.
pub(super) fn init(log: Log) {
    let builder = tracing_subscriber::fmt()
        .with_writer(|| Lines(io::stderr()))
        .log_internal_errors(false)
        .with_max_level(filter(log.level))
        .with_target(false);
    let installed = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logging was already set up");
    }
}

/// Bytes written to a pipe at once: `poll` reports a pipe as writable if it has room for this many
/// (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// Lines dropped since the last line that was written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes a line if that does not block, else counts it as dropped.
struct Lines<W>(W);

impl<W: Write + AsFd> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note = format!("vcpu-exporter: log lines dropped before this one: {lost}\n");
            if self.put(note.as_bytes()).is_err() {
                LOST.fetch_add(lost + 1, Ordering::Relaxed);
                return Ok(line.len());
            }
        }
        if self.put(line).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + AsFd> Lines<W> {
    fn put(&mut self, text: &[u8]) -> io::Result<()> {
        for chunk in text.chunks(CHUNK) {
            self.is_writable()?;
            self.0.write_all(chunk)?;
        }
        Ok(())
    }

    fn is_writable(&self) -> io::Result<()> {
        let mut stderr = [PollFd::new(&self.0, PollFlags::OUT)];
        match poll(&mut stderr, Some(&Timespec::default())) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            // Also set for an error of the file; the write then returns the error.
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_nothing_waits() {
        // As with journald: once the buffer is full, a write would block forever.
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut lines = Lines(writer);
        while lines.is_writable().is_ok() {
            lines.write_all(&[b'x'; CHUNK]).unwrap();
        }
        lines.write_all(b"lost\n").unwrap();
        while lines.is_writable().is_err() {
            reader.read_exact(&mut [0; CHUNK]).unwrap();
        }
        lines.write_all(b"again\n").unwrap();
        drop(lines);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let reported = rest.trim_start_matches('x');
        let expected = "vcpu-exporter: log lines dropped before this one: 1\nagain\n";
        assert_eq!(reported, expected);
    }

    #[test]
    fn full_disk_and_closed_pipe_are_ignored() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        assert!(Lines(full.unwrap()).put(b"lost\n").is_err());
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        assert!(Lines(writer).put(b"lost\n").is_err());
    }
}
