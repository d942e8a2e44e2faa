//! Files with traces: raw AUX data, and output of `perf record`.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::bail;

use super::progress::Progress;
use crate::cli::out;
use crate::config::file;
use crate::pt::perf_data::{self, Losses, PerfData};
use crate::pt::{stream, Clocks};

/// One trace of a file.
#[derive(Debug)]
pub(super) struct Trace<'a> {
    /// `raw`, `cpu 0` or `tid 123`.
    pub(super) name: String,
    pub(super) clocks: Clocks,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Raw(&'a [u8]),
    Perf(perf_data::Stream<'a>),
}

impl<'a> Trace<'a> {
    /// Name of the trace in a raw file.
    pub(super) const RAW: &'static str = "raw";

    /// All traces in a file's bytes, at least one.
    ///
    /// # Errors
    /// If there is no trace, or a perf.data file is invalid.
    pub(super) fn all(file: &'a [u8]) -> anyhow::Result<Vec<Self>> {
        if !perf_data::is_perf_data(file) {
            return Ok(vec![Self::raw(file)?]);
        }
        let data = PerfData::parse(file)?;
        if data.streams.is_empty() {
            bail!("the file contains no trace: nothing ran, or perf was not permitted to trace it");
        }
        let trace = |stream: perf_data::Stream<'a>| Self {
            name: stream.owner.to_string(),
            clocks: data.clocks,
            content: Content::Perf(stream),
        };
        Ok(data.streams.into_iter().map(trace).collect())
    }

    fn raw(file: &'a [u8]) -> anyhow::Result<Self> {
        if file.is_empty() {
            bail!("the file is empty");
        }
        if stream::find_psb(file).is_none() {
            bail!(NO_TRACE);
        }
        Ok(Self {
            name: Self::RAW.to_owned(),
            clocks: Clocks::default(),
            content: Content::Raw(file),
        })
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        match &self.content {
            Content::Raw(bytes) => bytes.len(),
            Content::Perf(stream) => stream.len(),
        }
    }

    pub(super) fn bytes(&self) -> Cow<'a, [u8]> {
        match &self.content {
            Content::Raw(bytes) => Cow::Borrowed(bytes),
            Content::Perf(stream) => stream.bytes(),
        }
    }

    /// Offsets at which tracing restarted, as [`crate::pt::summarise`] takes them.
    pub(super) fn cuts(&self) -> &[usize] {
        match &self.content {
            Content::Raw(_) => &[],
            Content::Perf(stream) => &stream.cuts,
        }
    }

    /// Losses that the kernel reported; `None` for a raw file.
    pub(super) fn losses(&self) -> Option<Losses> {
        match &self.content {
            Content::Raw(_) => None,
            Content::Perf(stream) => Some(stream.losses),
        }
    }
}

/// The path, escaped.
pub(super) fn name(path: &Path) -> String {
    out::printable(&path.to_string_lossy()).into_owned()
}

const NO_TRACE: &str = "neither a perf.data file nor an Intel PT trace, which has a PSB \
                        packet every few KiB";

/// Bytes per read.
const BLOCK: u64 = 4 << 20;

/// Largest distance of PSB packets, in bytes: `PSBFreq` of `IA32_RTIT_CTL` is at most 15, which
/// means 2^(15 + 11) (Intel SDM, volume 3, 33.2.7.2).
const MOST_BETWEEN_PSBS: usize = 64 << 20;

/// Reads a whole file into memory. It is not mapped, because the process would get SIGBUS if
/// another process truncated the file (mmap(2)).
///
/// # Errors
/// If the file cannot be read, contains no trace, or does not fit into available memory.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let spare = <procfs::Meminfo as procfs::Current>::current().ok();
    let spare = spare.and_then(|memory| memory.mem_available);
    // Half: assembling the streams of a perf.data file takes the same amount again.
    read_within(path, spare.map_or(UNKNOWN_MEMORY, |spare| spare / 2))
}

/// Limit if available memory is unknown, in bytes.
const UNKNOWN_MEMORY: u64 = 1 << 30;

fn read_within(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let file = file::open(path)?;
    let data = file.metadata()?;
    if data.file_type().is_fifo() {
        wait_for_writer(&file)?;
    }
    let too_long = |bytes: u64| {
        format!(
            "{bytes} bytes are more than the {most} that fit into memory; split the file, or use a \
             machine with more memory"
        )
    };
    let length = data.len();
    anyhow::ensure!(length <= most, too_long(length));
    let mut bytes = Vec::new();
    bytes.try_reserve(usize::try_from(length)?)?;
    let progress = Progress::new(length);
    let mut checked = false;
    while (&file).take(BLOCK).read_to_end(&mut bytes)? > 0 {
        anyhow::ensure!(bytes.len() as u64 <= most, too_long(bytes.len() as u64));
        if bytes.len() > MOST_BETWEEN_PSBS && !std::mem::replace(&mut checked, true) {
            let is_trace = perf_data::is_perf_data(&bytes) || stream::find_psb(&bytes).is_some();
            anyhow::ensure!(is_trace, NO_TRACE);
        }
        let percent = (bytes.len() as u64).saturating_mul(100) / length.max(1);
        progress.say(format_args!("reading {}: {percent} %", name(path)));
    }
    Ok(bytes)
}

/// Opening a pipe does not wait for its writer; this does.
fn wait_for_writer(pipe: &std::fs::File) -> std::io::Result<()> {
    let mut events = [rustix::event::PollFd::new(
        pipe,
        rustix::event::PollFlags::IN,
    )];
    while let Err(error) = rustix::event::poll(&mut events, None) {
        if std::io::Error::from(error).kind() != ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    Ok(rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_has_a_psb() {
        let trace = [&[0xff; 3][..], &[0x02, 0x82].repeat(8)].concat();
        let traces = Trace::all(&trace).unwrap();
        assert_eq!(traces.len(), 1);
        assert_eq!(traces[0].name, "raw");
        assert_eq!(traces[0].bytes(), trace);
        for (bytes, expected) in [
            (&b""[..], "the file is empty"),
            (b"vcpu", "neither a perf.data file nor an Intel PT trace"),
            (
                b"PERFILE2",
                "at offset 0x8: the file ends within its header",
            ),
        ] {
            let error = Trace::all(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn endless_and_too_long_files_are_refused() {
        let endless = read_within(Path::new("/dev/zero"), 1 << 40).unwrap_err();
        assert!(endless.to_string().contains("neither"), "{endless}");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        for path in [file.path(), Path::new("/dev/zero")] {
            let error = read_within(path, 9 << 20).unwrap_err().to_string();
            assert!(error.contains("more than the 9437184"), "{error}");
        }
    }

    #[test]
    fn a_trace_may_come_through_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || std::fs::write(path, [7; 200_000])
        });
        assert_eq!(read(&path).unwrap(), [7; 200_000]);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_file_is_read_whole_whatever_its_length_says() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; (BLOCK + 1) as usize];
        std::io::Write::write_all(&mut file, &content).unwrap();
        assert_eq!(read(file.path()).unwrap(), content);
        // Files in procfs report length 0.
        assert!(!read(Path::new("/proc/self/status")).unwrap().is_empty());
    }
}
