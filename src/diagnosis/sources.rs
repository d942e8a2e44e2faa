//! States of the sources, and dropped series.

use serde::{Deserialize, Serialize};

use super::owned;
use crate::engine::{ReasonCode, SourceState};
use crate::snapshot::{DroppedRow, SourceRow};

/// A source and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceView {
    /// The `source` label.
    pub(crate) name: String,
    /// `up`, `degraded`, `down`, `off` (by configuration), or `absent` (not available on this
    /// machine).
    pub(crate) state: String,
    /// Reason code if it is not up.
    pub(crate) reason: Option<String>,
    /// The reason as a sentence.
    pub(crate) detail: Option<String>,
    pub(crate) fix: Option<String>,
    pub(crate) needs: String,
    pub(crate) cost: String,
}

impl SourceView {
    pub(super) fn new(row: &SourceRow) -> Self {
        let reason = row.state.reason();
        Self {
            name: row.info.name.to_owned(),
            state: word(&row.state).to_owned(),
            reason: reason.map(|reason| reason.code.label().to_owned()),
            detail: reason.map(|reason| reason.detail.clone()),
            fix: reason.and_then(|reason| reason.fix.clone()),
            needs: row.info.needs.to_owned(),
            cost: row.info.cost.to_owned(),
        }
    }
}

/// The state as a word.
fn word(state: &SourceState) -> &'static str {
    match state {
        SourceState::Up => "up",
        SourceState::Degraded(reason) if reason.code.is_absent() => "absent",
        SourceState::Degraded(_) => "degraded",
        SourceState::Down(reason) if reason.code == ReasonCode::Disabled => "off",
        SourceState::Down(reason) if reason.code.is_absent() => "absent",
        SourceState::Down(_) => "down",
    }
}

/// Detail dropped by the series limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    /// The detail: `user_events`, `host_mode`, `core`, `numa_node`.
    pub(crate) what: String,
    pub(crate) series: u64,
}

impl Dropped {
    pub(super) fn new(row: &DroppedRow) -> Self {
        Self {
            what: owned(&row.labels, "what").unwrap_or_default(),
            series: row.series,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switched_off_and_absent_are_not_down() {
        let down = |code: ReasonCode| SourceState::Down(code.reason(String::new()));
        let codes = [
            ReasonCode::Disabled,
            ReasonCode::NoPt,
            ReasonCode::NoPermission,
        ];
        let states = codes.map(|code| word(&down(code)));
        assert_eq!(states, ["off", "absent", "down"]);
        assert_eq!(word(&SourceState::Up), "up");
    }
}
