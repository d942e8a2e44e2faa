//! Sources and what the series limit took away.

use serde::{Deserialize, Serialize};

use super::owned;
use crate::sample::{Reason, SourceState};
use crate::snapshot::{DroppedRow, SourceRow};

/// A source and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// The `source` label.
    pub name: String,
    /// `up`, `degraded`, `down`, or `off` as somebody wanted it.
    pub state: String,
    /// Why it is not up, in a short fixed word.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub detail: Option<String>,
    /// What would mend it.
    pub fix: Option<String>,
    /// What it needs.
    pub needs: String,
    /// What it costs.
    pub cost: String,
}

impl SourceView {
    pub(super) fn new(row: &SourceRow) -> Self {
        let reason = row.reason();
        Self {
            name: row.info.name.to_owned(),
            state: word(&row.state).to_owned(),
            reason: reason.map(|reason| reason.code.to_owned()),
            detail: reason.map(|reason| reason.detail.clone()),
            fix: reason.and_then(|reason| reason.fix.clone()),
            needs: row.info.needs.to_owned(),
            cost: row.info.cost.to_owned(),
        }
    }
}

/// A source's state in a word.
fn word(state: &SourceState) -> &'static str {
    match state {
        SourceState::Up => "up",
        SourceState::Degraded(_) => "degraded",
        // As somebody wanted it: no reason to be alarmed.
        SourceState::Down(reason) if reason.code == Reason::DISABLED => "off",
        SourceState::Down(_) => "down",
    }
}

/// One thing the series limit took away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// What: `user_events`, `host_mode`, `core`, `numa_node`.
    pub what: String,
    /// Series that are missing for it.
    pub series: u64,
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
    fn what_is_switched_off_is_not_down() {
        let down = |code| {
            SourceState::Down(Reason {
                code,
                detail: String::new(),
                fix: None,
            })
        };
        let states = [SourceState::Up, down("disabled"), down("no_pt")];
        assert_eq!(states.map(|state| word(&state)), ["up", "off", "down"]);
    }
}
