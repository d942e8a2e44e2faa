//! PMUs and their event formats from sysfs: encodes `cpu/event=0xd3,umask=0x2/`, as written for
//! `perf`, into the words of perf_event_attr.
//!
//! Files: Documentation/ABI/testing/sysfs-bus-event_source-devices, -format and -events. The syntax
//! is that of perf-list(1), "ARBITRARY EVENTS" and "RAW HARDWARE EVENT DESCRIPTOR".

use std::path::PathBuf;

use super::cpulist;
use super::number::hexadecimal;
use super::roots::Roots;

mod format;

pub(crate) use format::Field;
pub(crate) use format::Words;

/// `PERF_TYPE_RAW` (linux/perf_event.h), the type of `r1a8`.
const PERF_TYPE_RAW: u32 = 4;

/// Longest event of a user, bytes; perf's own events have at most about 60.
const MAX_EVENT: usize = 512;

/// Most files read per directory: the largest core PMU has about 60 events.
const MAX_FILES: usize = 512;

/// One PMU of sysfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pmu {
    /// Name of its directory: `cpu`, `cpu_core`, `armv8_pmuv3_0`.
    pub name: String,
    /// `type` of its events in perf_event_attr.
    pub kind: u32,
    /// CPUs that it counts on (`cpus`); `None` for all.
    pub cpus: Option<Vec<u32>>,
    /// Its terms by name.
    formats: Vec<(String, Field)>,
    /// Its named events and their terms.
    events: Vec<(String, String)>,
}

/// An event encoded for perf_event_attr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// `type`
    pub kind: u32,
    /// `config` to `config3`
    pub words: Words,
}

/// Why an event could not be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs)] // the messages describe the variants
pub(crate) enum EventError {
    #[error(
        "event {event:?}: unknown syntax; use PMU/TERM=VALUE,…/ as in cpu/event=0xd3,umask=0x2/, or r1a8"
    )]
    Syntax { event: String },
    #[error("event {event:?}: this machine has no PMU {pmu:?}; it has: {known}")]
    NoPmu {
        event: String,
        pmu: String,
        known: String,
    },
    #[error("PMU {pmu} has no term or event {term:?}; terms: {terms}; events: {events}")]
    Term {
        pmu: String,
        term: String,
        terms: String,
        events: String,
    },
    #[error("PMU {pmu}, term {term:?}: expected a number of at most {bits} bits")]
    Value {
        pmu: String,
        term: String,
        bits: u32,
    },
}

/// A PMU could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read PMU file {path}: {detail}")]
pub(crate) struct PmuError {
    path: PathBuf,
    detail: String,
}

impl Pmu {
    /// Reads one PMU of this machine. `name` must be one of [`names`].
    ///
    /// # Errors
    /// If its `type` cannot be read. Malformed format and event files are skipped.
    pub(crate) fn read(roots: &Roots, name: &str) -> Result<Self, PmuError> {
        let dir = devices(roots).join(name);
        let path = dir.join("type");
        let kind = match roots.read_text(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| format!("{text:.20} is not a number")),
            Err(error) => Err(error.to_string()),
        };
        let kind = kind.map_err(|detail| PmuError { path, detail })?;
        let formats = texts(roots, dir.join("format"));
        let cpus = roots.read_text(&dir.join("cpus")).ok();
        Ok(Self {
            name: name.to_owned(),
            kind,
            cpus: cpus.and_then(|text| cpulist::parse(&text)),
            formats: formats
                .into_iter()
                .filter_map(|(term, text)| Some((term, Field::parse(&text)?)))
                .collect(),
            events: texts(roots, dir.join("events")),
        })
    }

    /// Whether the PMU has this named event.
    pub(crate) fn has_event(&self, name: &str) -> bool {
        self.events.iter().any(|(event, _)| event == name)
    }

    /// Whether the PMU has this term.
    pub(crate) fn has_term(&self, name: &str) -> bool {
        self.formats.iter().any(|(format, _)| format == name)
    }

    /// A number from its `caps` directory, hexadecimal
    /// (Documentation/ABI/testing/sysfs-bus-event_source-devices-caps and, for Intel PT,
    /// `pt_cap_show` of arch/x86/events/intel/pt.c); `None` if there is no such file.
    pub(crate) fn cap(&self, roots: &Roots, name: &str) -> Option<u64> {
        let path = devices(roots).join(&self.name).join("caps").join(name);
        let text = roots.read_text(&path).ok()?;
        u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    }

    /// Encodes terms: `event=0xd3,umask=0x2,edge`, or a named event with optional further terms.
    ///
    /// # Errors
    /// Names the PMU, the bad term, and the terms of the PMU.
    pub(crate) fn encode(&self, terms: &str) -> Result<Encoding, EventError> {
        let mut words = [0; 4];
        for term in terms.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match self.events.iter().find(|(event, _)| event == term) {
                Some((_, stands_for)) => {
                    for term in stands_for.split(',') {
                        self.put(term.trim(), &mut words)?;
                    }
                }
                None => self.put(term, &mut words)?,
            }
        }
        Ok(Encoding {
            kind: self.kind,
            words,
        })
    }

    fn put(&self, term: &str, words: &mut Words) -> Result<(), EventError> {
        let (name, value) = match term.split_once('=') {
            Some((name, value)) => (name.trim(), number(value.trim())),
            None => (term, Some(1)),
        };
        let bad_value = |bits| EventError::Value {
            pmu: self.name.clone(),
            term: term.to_owned(),
            bits,
        };
        if let Some(word) = format::word_number(name) {
            words[word] |= value.ok_or_else(|| bad_value(64))?;
            return Ok(());
        }
        let field = self.formats.iter().find(|(format, _)| format == name);
        let (_, field) = field.ok_or_else(|| self.unknown(name))?;
        value
            .and_then(|value| field.put(value, words))
            .ok_or_else(|| bad_value(field.width()))
    }

    fn unknown(&self, term: &str) -> EventError {
        EventError::Term {
            pmu: self.name.clone(),
            term: term.to_owned(),
            terms: listed(self.formats.iter().map(|(name, _)| name)),
            events: listed(self.events.iter().map(|(name, _)| name)),
        }
    }
}

/// Joins names for a message. A large server has about 200 PMUs besides its cores.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    const MOST: usize = 50;
    let all = names.len();
    let mut names: Vec<&str> = names.take(MOST).map(String::as_str).collect();
    let more = format!("and {} more", all.saturating_sub(MOST));
    match all {
        0 => names.push("none"),
        1..=MOST => {}
        _ => names.push(&more),
    }
    names.join(" ")
}

/// Names of all PMUs, sorted; empty if sysfs has no such directory.
pub(crate) fn names(roots: &Roots) -> Vec<String> {
    let mut names = roots.list(&devices(roots)).unwrap_or_default();
    names.sort();
    names
}

/// The PMUs of the CPU cores, sorted by name: `cpu`, or one per kind of core. Core PMUs have a
/// `cpus` file, others have `cpumask` (as in tools/perf/util/pmus.c).
pub(crate) fn core_pmus(roots: &Roots) -> Vec<Pmu> {
    names(roots)
        .iter()
        .filter(|name| *name == "cpu" || devices(roots).join(name).join("cpus").is_file())
        .filter_map(|name| Pmu::read(roots, name).ok())
        .collect()
}

/// Encodes a user's event: `cpu/event=0xd3,umask=0x2/`, `cpu/mem-loads/`, `r1a8`.
///
/// # Errors
/// Names the expected syntax, or the available PMUs and terms.
pub(crate) fn resolve(roots: &Roots, event: &str) -> Result<Encoding, EventError> {
    if let Some(config) = event.strip_prefix('r').and_then(hexadecimal) {
        return Ok(Encoding {
            kind: PERF_TYPE_RAW,
            words: [config, 0, 0, 0],
        });
    }
    let (name, terms) = split(event).ok_or_else(|| EventError::Syntax {
        event: event.chars().take(80).collect(),
    })?;
    let known = names(roots);
    // Only a listed name is used as a path.
    let pmu = known
        .iter()
        .find(|known| *known == name)
        .and_then(|name| Pmu::read(roots, name).ok());
    match pmu {
        Some(pmu) => pmu.encode(terms),
        None => Err(EventError::NoPmu {
            event: event.to_owned(),
            pmu: name.to_owned(),
            known: listed(known.iter()),
        }),
    }
}

/// PMU name and terms. perf's modifiers after the last slash are refused: guest and host are keys
/// of the configuration.
fn split(event: &str) -> Option<(&str, &str)> {
    let (name, rest) = event.split_once('/')?;
    let terms = rest.strip_suffix('/')?;
    let fits = event.len() <= MAX_EVENT && !name.is_empty() && !terms.contains('/');
    (fits && !terms.trim().is_empty()).then_some((name, terms))
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => hexadecimal(hex),
        None => text.parse().ok(),
    }
}

fn devices(roots: &Roots) -> PathBuf {
    roots.sys.join("bus/event_source/devices")
}

/// Names and contents of a directory's files, sorted, without the files for an event's unit.
fn texts(roots: &Roots, dir: PathBuf) -> Vec<(String, String)> {
    let mut names = roots.list(&dir).unwrap_or_default();
    names.retain(|name| !name.contains('.'));
    names.sort();
    names.truncate(MAX_FILES);
    names
        .into_iter()
        .filter_map(|name| {
            let text = roots.read_text(&dir.join(&name)).ok()?;
            (text.len() <= MAX_EVENT).then_some((name, text))
        })
        .collect()
}

#[cfg(test)]
mod tests;
