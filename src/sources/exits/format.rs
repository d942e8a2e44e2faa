//! Parses the `format` file of the tracepoint `kvm:kvm_exit`: names and numbers of exit reasons.
//!
//! Its last line is the C expression that prints a hit. The reasons are its tables, written as
//! `__print_symbolic(REC->exit_reason, { 0x078, "hlt" }, …)` (include/trace/stages/). x86 has two,
//! VMX before SVM, selected by the field `isa` (arch/x86/kvm/trace.h); arm64 has one of return
//! codes and one of exception classes (arch/arm64/kvm/trace_arm.h).

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::pmu::counters::{Filter, Test};

/// The numbering of exits by this machine's KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isa {
    /// Intel: `KVM_ISA_VMX`.
    Vmx,
    /// AMD: `KVM_ISA_SVM`.
    Svm,
    Arm,
}

/// The exit reasons that can be counted separately.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reasons {
    /// Reasons of this machine by name, with the filter for each.
    pub(super) known: BTreeMap<String, Filter>,
    /// Names that only the other vendor has.
    pub(super) elsewhere: BTreeSet<String>,
}

/// Maximum number of entries read (x86 has about 200 in all).
const MOST: usize = 1024;

/// One table: the expression it looks up, and its numbers and names.
#[derive(Debug, PartialEq, Eq)]
struct Table<'a> {
    of: &'a str,
    entries: Vec<(u32, String)>,
}

/// Parses all reasons of a format file; empty for any other text.
pub(super) fn reasons(text: &str, isa: Isa) -> Reasons {
    let tables: Vec<Table<'_>> = tables(text).collect();
    match isa {
        Isa::Vmx => x86(&tables, 0, 1),
        Isa::Svm => x86(&tables, 1, 2),
        Isa::Arm => arm(&tables),
    }
}

/// The VMX reasons of a format file by number; only the basic ones, which have 16 bits.
pub(super) fn vmx_names(text: &str) -> BTreeMap<u16, String> {
    let of_reason = |table: &Table<'_>| table.of.starts_with("REC->exit_reason");
    let vmx = tables(text).find(of_reason).filter(|_| !is_arm(text));
    let entries = vmx.into_iter().flat_map(|table| table.entries);
    let basic = |(number, name)| Some((u16::try_from(number).ok()?, name));
    entries.filter_map(basic).collect()
}

/// Whether the tracepoint is that of arm64.
pub(super) fn is_arm(text: &str) -> bool {
    text.contains(" esr_ec;")
}

/// The table of this machine is number `own`; its hits have `isa` in the field of that name.
fn x86(tables: &[Table<'_>], own: usize, isa: u32) -> Reasons {
    let of_reason = |table: &&Table<'_>| table.of.starts_with("REC->exit_reason");
    let mut reasons = Reasons::default();
    for (n, table) in tables.iter().filter(of_reason).enumerate() {
        for (number, name) in &table.entries {
            if n == own {
                let filter = both(Test::Is("exit_reason", *number), Test::Is("isa", isa));
                reasons.known.insert(name.clone(), filter);
            } else {
                reasons.elsewhere.insert(name.clone());
            }
        }
    }
    let known = &reasons.known;
    reasons.elsewhere.retain(|name| !known.contains_key(name));
    reasons
}

/// An exit is an interrupt, an error, or a trap with an exception class.
fn arm(tables: &[Table<'_>]) -> Reasons {
    let entries = |of: &'static str| {
        let tables = tables.iter().filter(move |table| table.of == of);
        tables.flat_map(|table| &table.entries)
    };
    let mut known = BTreeMap::new();
    let trap = entries("REC->ret").find(|(_, name)| name == "trap");
    if let Some((trap, _)) = trap {
        for (class, name) in entries("REC->esr_ec") {
            let filter = both(Test::Is("esr_ec", *class), Test::Is("ret", *trap));
            known.insert(name.clone(), filter);
        }
    }
    // After the classes, because both tables have the name serror.
    for (number, name) in entries("REC->ret").filter(|entry| Some(*entry) != trap) {
        let filter = Filter {
            first: Test::Is("ret", *number),
            second: None,
        };
        known.insert(name.clone(), filter);
    }
    Reasons {
        known,
        elsewhere: BTreeSet::new(),
    }
}

fn both(first: Test, second: Test) -> Filter {
    Filter {
        first,
        second: Some(second),
    }
}

fn tables(text: &str) -> impl Iterator<Item = Table<'_>> {
    // With the 64-bit exit code of SVM, the table is looked up by __print_symbolic_u64.
    let calls = text.split("__print_symbolic").skip(1);
    calls.filter_map(|call| {
        let call = call
            .strip_prefix("_u64")
            .unwrap_or(call)
            .strip_prefix('(')?;
        let (of, rest) = call.split_once(',')?;
        Some(Table {
            of: of.trim(),
            entries: entries(rest),
        })
    })
}

/// Parses `{ 0x078, "hlt" }, { 0x07b, "io" })…` up to the first text that is no entry.
fn entries(mut text: &str) -> Vec<(u32, String)> {
    let mut entries = Vec::new();
    while let Some((value, name, rest)) = entry(text).filter(|_| entries.len() < MOST) {
        entries.extend(number(value).map(|number| (number, word(&name))));
        text = rest;
    }
    entries
}

/// Returns the number's text, the name, and the rest.
fn entry(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start().trim_start_matches(',').trim_start();
    let (number, mut rest) = text.strip_prefix('{')?.split_once('"')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        let after = after.trim_start();
        // C joins adjacent string literals.
        match after.strip_prefix('"') {
            Some(more) => rest = more,
            None => return Some((number, name, after.strip_prefix('}')?)),
        }
    }
}

/// Parses `0x040 + 14`, `-1`, `((0x16UL))`: constants as the headers spell them.
fn number(text: &str) -> Option<u32> {
    let text = text.trim().trim_end_matches(',');
    let sum: i64 = text.split('+').map(term).sum::<Option<i64>>()?;
    // The field is unsigned: -1 is all ones.
    i32::try_from(sum)
        .map(|n| n as u32)
        .or(u32::try_from(sum))
        .ok()
}

fn term(text: &str) -> Option<i64> {
    let parentheses = |c: char| c.is_whitespace() || c == '(' || c == ')';
    let text = text.trim_matches(parentheses);
    let text = text.trim_end_matches(['u', 'U', 'l', 'L']);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    Some(sign * i64::from(value.ok()?))
}

/// A name as a label value: lower case, words joined by `_` ("PF excp" becomes `pf_excp`).
fn word(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.trim().chars().map(plain).collect()
}

#[cfg(test)]
mod tests;
