//! Reads files of a process that the process can block ([`crate::host::readers`]), so that a
//! blocked read affects the discovery of that process only.
//!
//! Each read starts on its own thread, and the pass waits briefly for the answer. Without an answer
//! the process counts as blocked: the pass continues, and a later pass takes the answer once it
//! arrives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::readers::{Owner, Ticket};
use crate::host::roots::Roots;

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
    under_way: HashMap<PathBuf, (Asked, Ticket<Text>)>,
    /// Answers that arrived after the pass that asked.
    late: HashMap<PathBuf, (Asked, Text)>,
    /// Remaining wait of this pass.
    left: Duration,
}

type Text = io::Result<Vec<u8>>;

/// The process to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    pub(super) owner: Owner,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

/// A read without an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocked {
    /// Whether the read had its full time or could not start; `false` if the pass had no time left.
    pub(super) for_long: bool,
}

impl Reads {
    pub(super) fn new(roots: Arc<Roots>) -> Self {
        Self {
            roots,
            under_way: HashMap::new(),
            late: HashMap::new(),
            left: PATIENCE_OF_PASS,
        }
    }

    /// Starts a pass and takes the answers that arrived since the last one.
    pub(super) fn begin_pass(&mut self) {
        self.left = PATIENCE_OF_PASS;
        self.late.clear();
        let late = &mut self.late;
        self.under_way.retain(|path, (asked, ticket)| {
            let answer = ticket.wait(Duration::ZERO);
            let pending = answer.is_none();
            late.extend(answer.map(|text| (path.clone(), (*asked, text))));
            pending
        });
    }

    /// Whether a read of this process is pending.
    pub(super) fn is_pending(&self, pid: i32) -> bool {
        let mut asked = self.under_way.values();
        asked.any(|(asked, _)| asked.owner.pid == pid)
    }

    /// Whether any read is pending.
    pub(super) fn any_pending(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether a read of this process has been pending for [`PATIENCE`].
    pub(super) fn hangs(&self, pid: i32) -> bool {
        let of_process = |(asked, ticket): &&(Asked, Ticket<Text>)| {
            asked.owner.pid == pid && ticket.age() >= PATIENCE
        };
        self.under_way.values().any(|one| of_process(&one))
    }

    /// Drops the reads of a process that exited or runs another program.
    pub(super) fn forget(&mut self, pid: i32) {
        let stays = |asked: &Asked| asked.owner.pid != pid;
        self.under_way.retain(|_, (asked, _)| stays(asked));
        self.late.retain(|_, (asked, _)| stays(asked));
    }

    /// Reads the first [`MAX`] bytes of a file.
    ///
    /// # Errors
    /// [`Blocked`] if there is no answer; the inner error is that of the file.
    pub(super) fn read(&mut self, path: &Path, asked: Asked) -> Result<Text, Blocked> {
        if let Some((_, text)) = self.late.remove(path).filter(|(of, _)| *of == asked) {
            return Ok(text);
        }
        let ticket = match self.under_way.remove(path) {
            Some((of, ticket)) if of == asked => ticket,
            _ => self.begin(path, asked.owner)?,
        };
        let begun = Instant::now();
        let answer = ticket.wait(PATIENCE.saturating_sub(ticket.age()).min(self.left));
        self.left = self.left.saturating_sub(begun.elapsed());
        answer.ok_or_else(|| {
            let for_long = ticket.age() >= PATIENCE;
            self.under_way.insert(path.to_owned(), (asked, ticket));
            Blocked { for_long }
        })
    }

    fn begin(&self, path: &Path, owner: Owner) -> Result<Ticket<Text>, Blocked> {
        self.roots.count_open();
        let file = path.to_owned();
        let read = move || {
            let mut text = Vec::new();
            File::open(file)?.take(MAX).read_to_end(&mut text)?;
            Ok(text)
        };
        self.roots.readers.begin(owner, read).map_err(|why| {
            tracing::debug!(path = %path.display(), %why, "read not started");
            Blocked { for_long: true }
        })
    }
}
