//! Replaces `avx2` on architectures without it.

#![forbid(unsafe_code)]

use crate::pt::summariser::Run;

/// Cannot be constructed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Avx2 {}

/// Cannot be constructed.
#[derive(Debug)]
pub(super) struct Scanner(Avx2);

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn scanner(self, _: &[u8]) -> Scanner {
        Scanner(self)
    }
}

impl Scanner {
    pub(super) fn scan(&mut self, _: usize, _: &mut Run) -> usize {
        match self.0 {}
    }
}
