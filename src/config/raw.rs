//! Lists of events: `sources.pmu.events`, `sources.pmu.raw` and `sources.exits.reasons`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use super::values::{flag, text_that};
use super::EventSet;

/// Most user-defined raw events: each takes a counter of every vCPU for each counted mode.
pub(crate) const MAX_RAW_EVENTS: usize = 16;

/// Most separately counted exit reasons: each is an event of every vCPU that filters every exit.
pub(crate) const MAX_EXIT_REASONS: usize = 16;

/// Longest name of a raw event (bytes): a label value of each of its series.
const MAX_NAME: usize = 64;

/// Longest event string (bytes); perf's longest have about 100.
const MAX_EVENT: usize = 256;

/// A user-defined event: `cpu/event=0xd3,umask=0x2/`, `cpu/mem-loads/` or `r1a8`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an event with name, event, guest and host"
)]
pub struct RawEvent {
    /// Value of the `event` label.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The event in perf's syntax; its terms are resolved through sysfs at startup.
    #[serde(deserialize_with = "event")]
    pub event: String,
    /// Count guest mode. Default: true.
    #[serde(default = "yes", deserialize_with = "flag")]
    pub guest: bool,
    /// Count host mode. Default: false, to save counters.
    #[serde(default, deserialize_with = "flag")]
    pub host: bool,
}

/// An exit reason as the kernel names it, in lower case: `hlt`, `msr_write`, `npf`. Whether the
/// kernel has it is not checked here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct ExitReason(#[serde(deserialize_with = "reason")] pub String);

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = "an exit reason such as hlt, io or ept_violation: lower-case letters, digits \
                    and _, but not other, which counts the remaining reasons";
    text_that(deserializer, is_reason, expected)
}

fn is_reason(text: &str) -> bool {
    is_name(text) && text != "other" && !text.contains(|c: char| c.is_ascii_uppercase())
}

fn yes() -> bool {
    true
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected =
        "a name of letters, digits and _ that does not start with a digit, at most 64 bytes";
    text_that(deserializer, is_name, expected)
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn event<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected =
        "a PMU and its terms, such as cpu/event=0xd3,umask=0x2/, or a raw code, such as r1a8";
    text_that(deserializer, is_event, expected)
}

/// Whether the text has the form `pmu/term,term=value/` or `rCODE`. Whether sysfs has the PMU and
/// the terms is not checked here.
fn is_event(text: &str) -> bool {
    if let Some(code) = text.strip_prefix('r').filter(|_| !text.contains('/')) {
        return is_hex(code);
    }
    let body = text.strip_suffix('/').and_then(|t| t.split_once('/'));
    text.len() <= MAX_EVENT
        && body.is_some_and(|(pmu, terms)| is_word(pmu) && terms.split(',').all(is_term))
}

fn is_term(text: &str) -> bool {
    let (name, value) = text.split_once('=').unwrap_or((text, "1"));
    is_word(name) && is_number(value)
}

fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(allowed)
}

fn is_number(text: &str) -> bool {
    match text.strip_prefix("0x") {
        Some(digits) => is_hex(digits),
        None => text.parse::<u64>().is_ok() && !text.starts_with('+'),
    }
}

fn is_hex(digits: &str) -> bool {
    (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A list without duplicates.
pub(super) fn unique<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: UniqueEntry + Deserialize<'de>,
{
    deserializer.deserialize_any(Unique(PhantomData))
}

/// An entry of a list without duplicates.
pub(super) trait UniqueEntry: PartialEq {
    /// Description of the list, after "expected".
    const EXPECTED: &'static str;
    /// Greatest length.
    const MOST: usize;

    /// Whether the two are duplicates.
    fn same(&self, other: &Self) -> bool {
        self == other
    }

    /// Error in the entry as a whole.
    fn fault(&self) -> Option<&'static str> {
        None
    }
}

impl UniqueEntry for EventSet {
    const EXPECTED: &'static str = "a list of branches, dtlb, stalled, dram_loads, topdown";
    const MOST: usize = 5;
}

impl UniqueEntry for RawEvent {
    const EXPECTED: &'static str =
        "a list of events with different names, each with name and event";
    const MOST: usize = MAX_RAW_EVENTS;

    fn same(&self, other: &Self) -> bool {
        self.name == other.name
    }

    fn fault(&self) -> Option<&'static str> {
        (!self.guest && !self.host)
            .then_some("expected guest or host to be true: the event counts nothing")
    }
}

impl UniqueEntry for ExitReason {
    const EXPECTED: &'static str = "a list of different exit reasons";
    const MOST: usize = MAX_EXIT_REASONS;
}

struct Unique<T>(PhantomData<T>);

impl<'de, T: UniqueEntry + Deserialize<'de>> Visitor<'de> for Unique<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at most {}", T::EXPECTED, T::MOST)
    }

    /// A key without a value.
    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut entries: Vec<T> = Vec::new();
        while let Some(entry) = list.next_element::<T>()? {
            let n = entries.len();
            if n == T::MOST {
                return Err(A::Error::invalid_length(n + 1, &self));
            }
            if let Some(first) = entries.iter().position(|e| e.same(&entry)) {
                let text = format!(
                    "entry [{n}] repeats entry [{first}], expected {}",
                    T::EXPECTED
                );
                return Err(A::Error::custom(text));
            }
            if let Some(fault) = entry.fault() {
                return Err(A::Error::custom(format!("entry [{n}]: {fault}")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_a_pmu_and_terms() {
        for text in [
            "cpu/event=0xd3,umask=0x2/",
            "cpu_core/topdown-retiring/",
            "armv8_pmuv3_0/event=17/",
            "r1a8",
        ] {
            assert!(is_event(text), "{text}");
        }
        for text in [
            "",
            "cycles",
            "r",
            "ref-cycles",
            "r11112222333344445",
            "cpu//",
            "cpu/event=/",
            "cpu/event=0x/",
            "cpu/a=1,/",
            "/a=1/",
            "../x/a=1/",
            "cpu/event=0xd3",
            "cpu/a=1/u",
            "cpu/a=0x+1/",
        ] {
            assert!(!is_event(text), "{text}");
        }
    }

    #[test]
    fn names_are_label_values_and_metric_words() {
        assert!(is_name("mem_load_l3_miss_retired"));
        assert!(is_name("_"));
        for text in ["", "1st", "a-b", "é", &"x".repeat(65)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
