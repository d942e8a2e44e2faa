//! Formats and ranges of single values.
//!
//! Each check runs in a serde visitor, because only there does serde_yaml know line, column and
//! key.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Range of `sampling.tick`: below 100 ms reading costs more than the data is worth, above 1 min a
/// move between cores is attributed too coarsely.
pub const TICK: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Range of `sampling.inventory`.
pub const INVENTORY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Range of the periods of background collectors.
pub const SLOW_PERIOD: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// Range of `labels.cell_ttl`.
pub const CELL_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Range of `sources.memory.period`.
pub const MEMORY_PERIOD: RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(3600);

/// Range of `sources.memory.budget`: a walk can block a VM for this long.
pub const MEMORY_BUDGET: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);

/// Range of `sources.pt.window`: below 1 ms the setup costs more than the recording contains.
pub const PT_WINDOW: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);

/// Range of `sources.pt.period`.
pub const PT_PERIOD: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Range of `sources.pt.max_duty`: a share of a core's time.
pub const PT_DUTY: RangeInclusive<f64> = 0.0001..=0.5;

/// Range of `sources.pt.max_bytes`: from the data of a millisecond to that of a busy second.
pub const PT_BYTES: RangeInclusive<usize> = 64 << 10..=256 << 20;

/// Range of `limits.max_series`.
pub const MAX_SERIES: RangeInclusive<u64> = 1..=10_000_000;

/// Range of `otlp.endpoints[].interval`.
pub const OTLP_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Range of `otlp.endpoints[].timeout`.
pub const OTLP_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);

/// Expected form of a listen address.
pub const LISTEN_ADDRESS: &str =
    "an IP address and a port, such as 127.0.0.1:9752, 0.0.0.0:9752 or [::]:9752";

/// Units of a duration in milliseconds, longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses `500ms`, `1s`, `5m`, `2h` or `1d`: digits and one unit.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let total = number.parse::<u64>().ok()?.checked_mul(*milliseconds)?;
    Some(Duration::from_millis(total))
}

/// Formats a duration for [`duration`].
pub fn show_duration(duration: Duration) -> String {
    let total = duration.as_millis() as u64;
    let fits = |(_, size): &&(&str, u64)| total >= *size && total % *size == 0;
    let (unit, size) = UNITS.iter().find(fits).unwrap_or(&("ms", 1));
    format!("{}{unit}", total / size)
}

/// A section may be empty (`web:` without keys).
pub(super) fn section<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(super) fn tick<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Span(TICK))
}

pub(super) fn inventory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Span(INVENTORY))
}

pub(super) fn slow_period<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Span(SLOW_PERIOD))
}

pub(super) fn cell_ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Span(CELL_TTL))
}

pub(super) fn memory_period<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Span(MEMORY_PERIOD))
}

pub(super) fn memory_budget<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Span(MEMORY_BUDGET))
}

pub(super) fn pt_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Span(PT_WINDOW))
}

pub(super) fn pt_period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Span(PT_PERIOD))
}

pub(super) fn pt_duty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_f64(Part(PT_DUTY))
}

pub(super) fn pt_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_str(Text {
        expected: "a power of two from 64KiB to 256MiB, such as 512KiB or 4MiB",
        read: |text| {
            let bytes = bytes(text).filter(|bytes| PT_BYTES.contains(bytes));
            bytes.filter(|bytes| bytes.is_power_of_two())
        },
    })
}

/// Parses `512KiB` or `4MiB`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

pub(super) fn otlp_interval<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Span(OTLP_INTERVAL))
}

pub(super) fn otlp_timeout<'de, D>(deserializer: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Span(OTLP_TIMEOUT))
}

pub(super) fn max_series<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    deserializer.deserialize_u64(Number(MAX_SERIES))
}

pub(super) fn listen_address<'de, D>(deserializer: D) -> Result<SocketAddr, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Text {
        expected: LISTEN_ADDRESS,
        read: |text| text.parse().ok(),
    })
}

pub(super) fn absolute_path<'de, D>(deserializer: D) -> Result<PathBuf, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Text {
        expected: "an absolute path",
        read: |text| (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text)),
    })
}

pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_bool(Flag)
}

/// A value written as text.
pub(super) struct Text<T> {
    /// Expected value, after "expected".
    pub(super) expected: &'static str,
    /// Parses the text; `None` refuses it.
    pub(super) read: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct Span(RangeInclusive<Duration>);

impl Visitor<'_> for Span {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (show_duration(*self.0.start()), show_duration(*self.0.end()));
        write!(f, "a duration from {least} to {most}, such as 5s or 1m")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        duration(text)
            .filter(|duration| self.0.contains(duration))
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

struct Part(RangeInclusive<f64>);

impl Visitor<'_> for Part {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0.start(), self.0.end());
        write!(f, "a number from {least} to {most}, such as 0.01 for 1 %")
    }

    fn visit_f64<E: Error>(self, part: f64) -> Result<f64, E> {
        Some(part)
            .filter(|part| self.0.contains(part))
            .ok_or_else(|| E::invalid_value(Unexpected::Float(part), &self))
    }
}

struct Flag;

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<bool, E> {
        Ok(flag)
    }
}

struct Number(RangeInclusive<u64>);

impl Visitor<'_> for Number {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a whole number from {} to {}",
            self.0.start(),
            self.0.end()
        )
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
        Some(number)
            .filter(|number| self.0.contains(number))
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_one_unit() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("1s", 1000),
            ("5m", 300_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "1h30m",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("4MiB"), Some(4 << 20));
        for text in [
            "",
            "4",
            "MiB",
            "4MB",
            "4 MiB",
            "-4MiB",
            "99999999999999999999MiB",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read(milliseconds in 0u64..100_000_000) {
            let span = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&show_duration(span)), Some(span));
        }

        #[test]
        fn any_text_is_a_duration_or_refused(text in "\\PC{0,30}") {
            let _ = duration(&text);
        }
    }
}
