//! Logs go to standard error: text for people or JSON for collectors. systemd adds the time itself,
//! but a container runtime does not, so every line carries it.
//!
//! Nothing that becomes of a line may become of the exporter: a full disk and a reader that has
//! gone lose it, and one that does not read must not stop the thread that logs.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Installs the subscriber of this process; a second call changes nothing.
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
        tracing::debug!("logs were set up before");
    }
}

/// The most that goes into a pipe at once: `poll` calls a pipe writable while it has room for this
/// (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// Lines that were lost since the last that was written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes each line if that can be done at once, and counts those that it cannot.
struct Lines<W>(W);

impl<W: Write + AsFd> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let note =
                format!("vcpu-exporter: {lost} lines of the log were lost before this one\n");
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
            // Also an error of the file: the write tells which.
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
        // As journald has it; a write would wait for ever once the buffer is full.
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
        let told = rest.trim_start_matches('x');
        let expected = "vcpu-exporter: 1 lines of the log were lost before this one\nagain\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn a_full_disk_and_a_reader_that_has_gone_are_no_error() {
        let full = std::fs::File::options().write(true).open("/dev/full");
        assert!(Lines(full.unwrap()).put(b"lost\n").is_err());
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        assert!(Lines(writer).put(b"lost\n").is_err());
    }
}
