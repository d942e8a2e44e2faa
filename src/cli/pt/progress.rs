//! How far a long piece of work is, on one line of the terminal that goes away again.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Work on fewer bytes than this is over before anybody asks.
const LONG: u64 = 64 << 20;

/// The line. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
}

impl Progress {
    /// For work on so many bytes: silent where they are few, or nobody watches.
    pub(super) fn of(bytes: u64) -> Self {
        Self {
            is_shown: bytes > LONG && io::stderr().is_terminal(),
        }
    }

    /// Replaces what it says; where that fails, nobody reads it.
    pub(super) fn say(&self, text: impl Display) {
        if self.is_shown {
            // Back to the first column, and away with what stands there (ECMA-48: CR, EL).
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
