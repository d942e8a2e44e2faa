//! What a source says of itself: what it is, and whether it delivers data.

use crate::engine::Reason;

/// Description of a source, for `check` and the status page.
#[derive(Debug, Clone, Copy)]
pub struct SourceInfo {
    /// The `source` label.
    pub name: &'static str,
    /// Required kernel support and privileges, in one line.
    pub needs: &'static str,
    /// Cost, in one line.
    pub cost: &'static str,
}

/// Whether a source delivers data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Complete data.
    Up,
    /// Partial data; the reason names what is missing and why.
    Degraded(Reason),
    /// No data.
    Down(Reason),
}

impl SourceState {
    /// The reason, unless the source is [`SourceState::Up`].
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Up => None,
            Self::Degraded(reason) | Self::Down(reason) => Some(reason),
        }
    }

    /// Value of the `reason` label; empty while the source is up.
    pub fn code(&self) -> &'static str {
        self.reason().map_or("", |reason| reason.code.label())
    }

    /// Whether both have the same cause.
    pub(crate) fn has_code_of(&self, other: &Self) -> bool {
        let code = |state: &Self| state.reason().map(|reason| reason.code);
        code(self) == code(other)
    }
}

/// The inventory, described as a source.
pub(crate) const INVENTORY: SourceInfo = SourceInfo {
    name: "inventory",
    needs:
        "CAP_SYS_PTRACE (or the VMM's own user) to see descriptors; CAP_DAC_READ_SEARCH for KVM \
            debugfs and libvirt's files",
    cost: "a few system calls per process and scan; no file is opened on an unchanged host",
};
