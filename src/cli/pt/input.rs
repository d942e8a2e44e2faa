//! Files with traces in them: raw ones, and what `perf record` wrote.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{bail, Context};

use super::progress::Progress;
use crate::cli::out;
use crate::pt::perf_data::{self, Losses, PerfData};
use crate::pt::{stream, Clocks};

/// One trace of a file.
#[derive(Debug)]
pub(super) struct Trace<'a> {
    /// Which one: `raw`, `cpu 0` or `tid 123`.
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
    /// Name of the one trace of a file that is nothing else.
    pub(super) const RAW: &'static str = "raw";

    /// All traces in the bytes of a file, at least one.
    ///
    /// # Errors
    /// When there is none, or a perf.data file is wrong.
    pub(super) fn all(file: &'a [u8]) -> anyhow::Result<Vec<Self>> {
        if !perf_data::is_perf_data(file) {
            return Ok(vec![Self::raw(file)?]);
        }
        let data = PerfData::parse(file)?;
        if data.streams.is_empty() {
            bail!("perf recorded no trace into it: nothing ran, or nothing it was allowed to see");
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
            bail!("it is empty");
        }
        if stream::find_psb(file).is_none() {
            bail!(
                "it is neither a perf.data file nor an Intel PT trace, \
                 which has a PSB packet every few KiB"
            );
        }
        Ok(Self {
            name: Self::RAW.to_owned(),
            clocks: Clocks::default(),
            content: Content::Raw(file),
        })
    }

    /// How many bytes it has.
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

    /// Where tracing began anew, as [`crate::pt::summarise`] takes it.
    pub(super) fn cuts(&self) -> &[usize] {
        match &self.content {
            Content::Raw(_) => &[],
            Content::Perf(stream) => &stream.cuts,
        }
    }

    /// What the kernel said is missing; none where it was not asked.
    pub(super) fn losses(&self) -> Option<Losses> {
        match &self.content {
            Content::Raw(_) => None,
            Content::Perf(stream) => Some(stream.losses),
        }
    }
}

/// The file's name, as it may be shown.
pub(super) fn name(path: &Path) -> String {
    out::printable(&path.to_string_lossy()).into_owned()
}

/// Read at once.
const BLOCK: u64 = 4 << 20;

/// All bytes of a file. They are held in memory, because a mapping of a file that somebody cuts
/// short while we read it kills the process (mmap(2), SIGBUS).
///
/// # Errors
/// When it cannot be read, or is larger than the memory there is.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    let whole = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.try_reserve_exact(length).ok());
    whole.with_context(|| format!("{length} bytes do not fit into memory"))?;
    let progress = Progress::of(length);
    while file.by_ref().take(BLOCK).read_to_end(&mut bytes)? > 0 {
        let percent = (bytes.len() as u64).saturating_mul(100) / length.max(1);
        progress.say(format_args!("reading {}: {percent} %", name(path)));
    }
    Ok(bytes)
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
            (&b""[..], "it is empty"),
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
    fn a_file_is_read_whole_whatever_its_length_says() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = vec![7; (BLOCK + 1) as usize];
        std::io::Write::write_all(&mut file, &content).unwrap();
        assert_eq!(read(file.path()).unwrap(), content);
        // Files of procfs say that they are empty.
        assert!(!read(Path::new("/proc/self/status")).unwrap().is_empty());
    }
}
