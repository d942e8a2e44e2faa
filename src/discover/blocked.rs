//! Reads files of a process that the process can block ([`crate::host::readers`]), so that a
//! blocked read affects the discovery of that process only.
//!
//! Each read starts on its own thread, and the pass waits briefly for the answer. Without an answer
//! the process counts as blocked: the pass continues, and a later pass takes the answer once it
//! arrives.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::readers::{Blocked, LateAnswers, Payer, Ticket};
use crate::host::roots::Roots;
use crate::host::task::Task;

/// Longest wait of a pass for one answer. An answer takes about 10 µs unless the read is blocked or
/// the host is starved of CPU.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest wait of a pass for all answers together. After that the pass only starts reads, and the
/// next pass takes their answers.
const PATIENCE_OF_PASS: Duration = Duration::from_secs(2);

/// Bytes read of a file. A command line can be megabytes long (execve(2)).
pub(super) const MAX: u64 = 128 << 10;

#[derive(Debug)]
pub(super) struct Reads {
    roots: Arc<Roots>,
    /// By process and file.
    late: LateAnswers<(Task, PathBuf), Text>,
    /// Remaining wait of this pass.
    left: Duration,
}

type Text = io::Result<Vec<u8>>;

impl Reads {
    pub(super) fn new(roots: Arc<Roots>) -> Self {
        Self {
            roots,
            // A late answer is for the next pass only.
            late: LateAnswers::new(PATIENCE, Duration::ZERO),
            left: PATIENCE_OF_PASS,
        }
    }

    /// Starts a pass and takes the answers that arrived since the last one.
    pub(super) fn begin_pass(&mut self) {
        self.left = PATIENCE_OF_PASS;
        self.late.sweep();
    }

    /// Whether a read of this process is pending.
    pub(super) fn is_pending(&self, pid: i32) -> bool {
        let mut pending = self.late.pending();
        pending.any(|((process, _), _)| process.pid == pid)
    }

    /// Whether any read is pending.
    pub(super) fn any_pending(&self) -> bool {
        self.late.pending().next().is_some()
    }

    /// Whether a read of this process has been pending for [`PATIENCE`].
    pub(super) fn hangs(&self, pid: i32) -> bool {
        let mut pending = self.late.pending();
        pending.any(|((process, _), for_long)| process.pid == pid && for_long)
    }

    /// Drops the reads of a process that exited or runs another program.
    pub(super) fn forget(&mut self, pid: i32) {
        self.late.forget(|(process, _)| process.pid == pid);
    }

    /// Reads the first [`MAX`] bytes of a file of a process.
    ///
    /// # Errors
    /// [`Blocked`] if there is no answer; the inner error is that of the file.
    pub(super) fn read(
        &mut self,
        process: Task,
        payer: Payer,
        file: PathBuf,
    ) -> Result<Text, Blocked> {
        let begun = Instant::now();
        let path = file.clone();
        let begin = || begin(&self.roots, payer, path);
        let answer = self.late.ask((process, file), self.left, begin);
        self.left = self.left.saturating_sub(begun.elapsed());
        answer
    }
}

fn begin(roots: &Roots, payer: Payer, path: PathBuf) -> Option<Ticket<Text>> {
    roots.count_open();
    let file = path.clone();
    let read = move || {
        let mut text = Vec::new();
        File::open(file)?.take(MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    let begun = roots.readers.begin(payer, read);
    let refused = |why: &_| tracing::debug!(path = %path.display(), %why, "read not started");
    begun.inspect_err(refused).ok()
}
