//! Sources about the host, which all have a switch and a period, and resctrl.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::values;

/// A source that is read every so often: by default it is, every `SECONDS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periodic<const SECONDS: u64> {
    /// Whether it is read.
    pub enabled: bool,
    /// How often, 1 s to 10 min.
    pub period: Duration,
}

impl<const SECONDS: u64> Default for Periodic<SECONDS> {
    fn default() -> Self {
        Self {
            enabled: true,
            period: Duration::from_secs(SECONDS),
        }
    }
}

// By hand, because serde derives nothing for constants.
impl<'de, const SECONDS: u64> Deserialize<'de> for Periodic<SECONDS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Keys::deserialize(deserializer)?;
        let default = Self::default();
        Ok(Self {
            enabled: keys.enabled.unwrap_or(default.enabled),
            period: keys.period.unwrap_or(default.period),
        })
    }
}

/// Those of [`Periodic`], where they are set.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
struct Keys {
    #[serde(deserialize_with = "flag")]
    enabled: Option<bool>,
    #[serde(deserialize_with = "period")]
    period: Option<Duration>,
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    values::flag(deserializer).map(Some)
}

fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    values::slow_period(deserializer).map(Some)
}

/// `sources.resctrl`: cache occupancy and memory bandwidth of each VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a mapping of keys")]
pub struct Resctrl {
    /// Whether it is read.
    #[serde(deserialize_with = "values::flag")]
    pub enabled: bool,
    /// How often, 1 s to 10 min.
    #[serde(deserialize_with = "values::slow_period")]
    pub period: Duration,
    /// Whether a monitoring group is made for a VM that has none.
    #[serde(deserialize_with = "values::flag")]
    pub create_groups: bool,
}

impl Default for Resctrl {
    fn default() -> Self {
        Self {
            enabled: true,
            period: Duration::from_secs(15),
            create_groups: false,
        }
    }
}
