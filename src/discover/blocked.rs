//! Files of a process that the process can hold up ([`crate::host::readers`]), read so that it
//! holds up its own discovery alone.
//!
//! A read is begun on a thread of its own and waited for a moment. Where no answer comes, the
//! process is blocked: the pass goes on, and later passes take the answer when it is there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::readers::{Owner, Ticket};
use crate::host::roots::Roots;

/// How long a pass waits for one answer, which takes some 10 µs where nobody holds it up and the
/// host is not starved.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a pass waits for all answers together; then it asks, and the next pass listens.
const PATIENCE_OF_PASS: Duration = Duration::from_secs(2);

/// So much of a file is read (bytes). A command line may be megabytes long (execve(2)).
pub(super) const MAX: u64 = 128 << 10;

/// Reads for the inventory.
#[derive(Debug)]
pub(super) struct Reads {
    roots: Arc<Roots>,
    under_way: HashMap<PathBuf, (Asked, Ticket<Text>)>,
    /// Answers that came after their pass.
    late: HashMap<PathBuf, (Asked, Text)>,
    /// How long this pass still waits.
    left: Duration,
}

type Text = io::Result<Vec<u8>>;

/// The process that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    pub(super) owner: Owner,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

/// A read that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocked {
    /// Whether it has had time enough, or cannot have any; else the pass had none left for it.
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

    /// A pass begins: takes the answers that came since the last.
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

    /// Whether an answer about this process is still awaited.
    pub(super) fn is_pending(&self, pid: i32) -> bool {
        let mut asked = self.under_way.values();
        asked.any(|(asked, _)| asked.owner.pid == pid)
    }

    /// Whether any answer is still awaited.
    pub(super) fn any_pending(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether an answer about this process has been awaited for long.
    pub(super) fn hangs(&self, pid: i32) -> bool {
        let of_process = |(asked, ticket): &&(Asked, Ticket<Text>)| {
            asked.owner.pid == pid && ticket.age() >= PATIENCE
        };
        self.under_way.values().any(|one| of_process(&one))
    }

    /// Forgets what was asked about a process that is gone, or is another program now.
    pub(super) fn forget(&mut self, pid: i32) {
        let stays = |asked: &Asked| asked.owner.pid != pid;
        self.under_way.retain(|_, (asked, _)| stays(asked));
        self.late.retain(|_, (asked, _)| stays(asked));
    }

    /// Reads the file, at most its first [`MAX`] bytes.
    ///
    /// # Errors
    /// That it is blocked, else the file's own.
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
            tracing::debug!(path = %path.display(), %why, "a read was not begun");
            Blocked { for_long: true }
        })
    }
}
