//! Formats and ranges of single values.
//!
//! Each check runs in a serde visitor, because only there does serde_yaml know line, column and
//! key.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Expected, Unexpected, Visitor};

/// Range of `sources.pt.window`: below 1 ms the setup costs more than the recording contains.
pub(crate) const PT_WINDOW: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(1);

/// Range of `sources.pt.max_bytes`: from the data of a millisecond to that of a busy second.
const PT_BYTES: RangeInclusive<usize> = 64 << 10..=256 << 20;

/// Expected form of a listen address.
pub(crate) const LISTEN_ADDRESS: &str =
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
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let total = number.parse::<u64>().ok()?.checked_mul(*milliseconds)?;
    Some(Duration::from_millis(total))
}

/// Formats a duration for [`duration`].
pub(crate) fn show_duration(duration: Duration) -> String {
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

/// Declares functions that read a value of this type within a range.
macro_rules! within {
    ($type:ty, $read:ident: $($(#[$doc:meta])* $key:ident = $range:expr;)+) => {$(
        $(#[$doc])*
        pub(super) fn $key<'de, D, T: From<$type>>(deserializer: D) -> Result<T, D::Error>
        where
            D: Deserializer<'de>,
        {
            deserializer.$read(Within($range)).map(T::from)
        }
    )+};
}

within! {
    Duration, deserialize_str:
    /// Below 100 ms reading costs more than the data is worth, above 1 min a move between cores is
    /// attributed too coarsely.
    tick = Duration::from_millis(100)..=Duration::from_secs(60);
    inventory = Duration::from_secs(1)..=Duration::from_secs(300);
    /// Periods of background collectors.
    slow_period = Duration::from_secs(1)..=Duration::from_secs(600);
    cell_ttl = Duration::from_secs(1)..=Duration::from_secs(86_400);
    memory_period = Duration::from_secs(10)..=Duration::from_secs(3600);
    /// A walk can block a VM for this long.
    memory_budget = Duration::ZERO..=Duration::from_secs(10);
    pt_window = PT_WINDOW;
    pt_period = Duration::from_secs(1)..=Duration::from_secs(86_400);
    otlp_interval = Duration::from_secs(1)..=Duration::from_secs(3600);
    otlp_timeout = Duration::from_millis(100)..=Duration::from_secs(300);
}

within! {
    f64, deserialize_f64:
    /// A share of a core's time.
    pt_duty = 0.0001..=0.5;
}

within! {
    usize, deserialize_u64:
    max_series = 1..=10_000_000;
}

pub(super) fn pt_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let expected = "a power of two from 64KiB to 256MiB, such as 512KiB or 4MiB";
    text(deserializer, expected, |text| {
        let bytes = bytes(text).filter(|bytes| PT_BYTES.contains(bytes));
        bytes.filter(|bytes| bytes.is_power_of_two())
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

pub(super) fn listen_address<'de, D>(deserializer: D) -> Result<SocketAddr, D::Error>
where
    D: Deserializer<'de>,
{
    text(deserializer, LISTEN_ADDRESS, |text| text.parse().ok())
}

pub(super) fn absolute_path<'de, D, T: From<PathBuf>>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    text(deserializer, "an absolute path", |text| {
        (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text).into())
    })
}

pub(super) fn flag<'de, D, T: From<bool>>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_bool(Flag).map(T::from)
}

/// Reads text for which `is` holds.
pub(super) fn text_that<'de, D: Deserializer<'de>>(
    deserializer: D,
    is: fn(&str) -> bool,
    expected: &'static str,
) -> Result<String, D::Error> {
    text(deserializer, expected, |text| {
        is(text).then(|| text.to_owned())
    })
}

/// Parses a value written as text; `None` of `read` refuses it. `expected` comes after "expected"
/// in the error.
fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text { expected, read })
}

struct Text<F> {
    expected: &'static str,
    read: F,
}

impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// A value within a range.
struct Within<T>(RangeInclusive<T>);

impl<T: PartialOrd> Within<T> {
    fn check<E: Error>(self, value: Option<T>, found: Unexpected<'_>) -> Result<T, E>
    where
        Self: Expected,
    {
        value
            .filter(|value| self.0.contains(value))
            .ok_or_else(|| E::invalid_value(found, &self))
    }
}

impl Visitor<'_> for Within<Duration> {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (show_duration(*self.0.start()), show_duration(*self.0.end()));
        write!(f, "a duration from {least} to {most}, such as 5s or 1m")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        self.check(duration(text), Unexpected::Str(text))
    }
}

impl Visitor<'_> for Within<f64> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0.start(), self.0.end());
        write!(f, "a number from {least} to {most}, such as 0.01 for 1 %")
    }

    fn visit_f64<E: Error>(self, part: f64) -> Result<f64, E> {
        self.check(Some(part), Unexpected::Float(part))
    }
}

impl Visitor<'_> for Within<usize> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0.start(), self.0.end());
        write!(f, "a whole number from {least} to {most}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<usize, E> {
        self.check(number.try_into().ok(), Unexpected::Unsigned(number))
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
