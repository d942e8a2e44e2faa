//! Progress of a long operation, on one line of the terminal that is erased afterwards.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Shorter input (bytes) is processed before progress would matter.
const LONG: u64 = 64 << 20;

/// Erases the line when dropped.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
}

impl Progress {
    /// Progress for work on `bytes`; silent if they are few or standard error is not a terminal.
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            is_shown: bytes > LONG && io::stderr().is_terminal(),
        }
    }

    /// Replaces the line. Ignores write errors.
    pub(super) fn say(&self, text: impl Display) {
        if self.is_shown {
            // Return to the first column and erase the line (ECMA-48: CR, EL).
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
