//! Names of VMs: clean, and unique on the host.

use std::collections::{HashMap, HashSet};

/// Longest label value (bytes).
pub(super) const MAX_NAME: usize = 128;

/// A VM to be named.
#[derive(Debug, Clone)]
pub(super) struct Unnamed<'a> {
    /// The name it has by itself, clean.
    pub(super) base: &'a str,
    pub(super) uuid: Option<&'a str>,
    pub(super) pid: i32,
    pub(super) ordinal: u32,
    pub(super) trust: Trust,
}

/// How hard it was for whoever named a VM to come by that: anybody may write any name on a command
/// line. In order of the fields, so that a VM more to be trusted compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Trust {
    /// Its process holds descriptors of KVM, which cannot be feigned.
    pub(super) seen: bool,
    /// libvirt's state, which only root writes, tells of it.
    pub(super) known: bool,
    /// Who runs it.
    pub(super) runner: Runner,
}

/// Who runs a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Runner {
    /// A user who logged in.
    Session,
    /// Any other.
    #[default]
    Service,
    /// Root, or a manager of VMs.
    Host,
}

/// A value for a label: control characters are replaced, the length is bounded.
/// `None` when nothing is left.
pub(super) fn clean(text: &str) -> Option<String> {
    let replaced = |c: char| {
        if c.is_control() || is_unseen(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    let clean: String = text.trim().chars().map(replaced).collect();
    let clean = cut(&clean, MAX_NAME);
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Characters of no width and those that turn the direction of writing: with them a name looks
/// like another (Unicode TR #36, "Bidirectional Text Spoofing").
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A UUID in lower case with dashes. `None` for any other text, and for the UUID of zeros that
/// stands for none.
pub(super) fn uuid(text: &str) -> Option<String> {
    let text = text.trim();
    let dashes = [8, 13, 18, 23]
        .iter()
        .all(|n| text.as_bytes().get(*n) == Some(&b'-'));
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let is_hex = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let length = if dashes { 36 } else { 32 };
    if !is_hex || text.len() != length || hex.bytes().all(|b| b == b'0') {
        return None;
    }
    let hex = hex.to_ascii_lowercase();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Some(parts.join("-"))
}

/// A name for each VM that no other has: its own, and where several are alike the one after
/// the other of `-` and the first 8 digits of the uuid, the pid, and the pid and the ordinal.
///
/// VMs give way to those more to be trusted: whatever one is called, it takes no name from them
/// and has none of them renamed. The names depend on nothing but the VMs given: they are stable
/// while those are the same.
pub(super) fn unique(vms: &[Unnamed<'_>]) -> Vec<String> {
    let mut order: Vec<usize> = (0..vms.len()).collect();
    order.sort_by_key(|n| std::cmp::Reverse(vms[*n].trust));
    let mut names = vec![String::new(); vms.len()];
    let mut taken = HashSet::new();
    for equals in order.chunk_by(|a, b| vms[*a].trust == vms[*b].trust) {
        let among = equals.iter().map(|n| &vms[*n]).collect::<Vec<_>>();
        for (n, name) in equals.iter().zip(tell_apart(&among, &taken)) {
            taken.insert(name.clone());
            names[*n] = name;
        }
    }
    names
}

/// Different names that are not taken. Ends, because names of the level [`EXACT`] differ, and of
/// those above ever more are not taken.
fn tell_apart(vms: &[&Unnamed<'_>], taken: &HashSet<String>) -> Vec<String> {
    let mut names: Vec<(u32, String)> = vms.iter().map(|vm| (0, vm.name(0))).collect();
    loop {
        let mut count: HashMap<String, usize> = HashMap::new();
        for (_, name) in &names {
            *count.entry(name.clone()).or_default() += 1;
        }
        let mut changed = false;
        for (vm, (level, name)) in vms.iter().zip(&mut names) {
            if count.get(name).is_some_and(|n| *n > 1) || taken.contains(name) {
                *level += 1;
                *name = vm.name(*level);
                changed = true;
            }
        }
        if !changed {
            return names.into_iter().map(|(_, name)| name).collect();
        }
    }
}

/// The level at which a suffix is that of one VM alone.
const EXACT: u32 = 3;

impl Unnamed<'_> {
    fn name(&self, level: u32) -> String {
        let suffix = match (level, self.uuid) {
            (0, _) => return self.base.to_owned(),
            (1, Some(uuid)) => format!("-{}", uuid.get(..8).unwrap_or(uuid)),
            (1 | 2, _) => format!("-{}", self.pid),
            (EXACT, _) => format!("-{}-{}", self.pid, self.ordinal),
            _ => format!("-{}-{}-{level}", self.pid, self.ordinal),
        };
        format!("{}{suffix}", cut(self.base, MAX_NAME - suffix.len()))
    }
}

/// At most this many bytes of the text, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const B: &str = "bbbbbbbb-0000-4000-8000-000000000001";

    fn vm<'a>(base: &'a str, uuid: Option<&'a str>, pid: i32) -> Unnamed<'a> {
        Unnamed {
            base,
            uuid,
            pid,
            ordinal: 0,
            trust: Trust::default(),
        }
    }

    fn trusted<'a>(base: &'a str, uuid: Option<&'a str>, pid: i32) -> Unnamed<'a> {
        let runner = Runner::Host;
        Unnamed {
            trust: Trust {
                runner,
                ..Trust::default()
            },
            ..vm(base, uuid, pid)
        }
    }

    #[test]
    fn no_name_takes_another_from_a_vm_more_to_be_trusted() {
        let real = trusted("web", Some(A), 1);
        assert_eq!(
            unique(&[vm("web", Some(A), 2), real.clone()]),
            ["web-aaaaaaaa", "web"]
        );
        // Nor does one that looks like the name another would get.
        let twin = trusted("web", Some(B), 3);
        let names = unique(&[vm("web-aaaaaaaa", None, 2), real.clone(), twin]);
        assert_eq!(names, ["web-aaaaaaaa-2", "web-aaaaaaaa", "web-bbbbbbbb"]);
        // Every suffix a VM could get may be another's name.
        let all = ["web-2", "web-2-0", "web-2-0-4"].map(|name| trusted(name, None, 9));
        let [a, b, c] = all;
        let names = unique(&[vm("web", None, 2), real, a, b, c]);
        assert_eq!(names, ["web-2-0-5", "web", "web-2", "web-2-0", "web-2-0-4"]);
    }

    #[test]
    fn a_name_nobody_else_has_stays() {
        assert_eq!(unique(&[vm("a", Some(A), 1), vm("b", None, 2)]), ["a", "b"]);
    }

    #[test]
    fn two_of_one_name_both_get_their_uuid() {
        let names = unique(&[vm("a", Some(A), 1), vm("a", Some(B), 2)]);
        assert_eq!(names, ["a-aaaaaaaa", "a-bbbbbbbb"]);
    }

    #[test]
    fn without_a_uuid_or_with_the_same_one_the_pid_tells() {
        assert_eq!(
            unique(&[vm("a", Some(A), 1), vm("a", None, 2)]),
            ["a-aaaaaaaa", "a-2"]
        );
        assert_eq!(
            unique(&[vm("a", Some(A), 1), vm("a", Some(A), 2)]),
            ["a-1", "a-2"]
        );
    }

    #[test]
    fn several_vms_of_a_process_are_told_by_ordinal() {
        let second = Unnamed {
            ordinal: 20,
            ..vm("a", None, 1)
        };
        assert_eq!(unique(&[vm("a", None, 1), second]), ["a-1-0", "a-1-20"]);
    }

    #[test]
    fn a_name_that_looks_like_a_suffixed_one_is_told_apart() {
        let names = unique(&[
            vm("a", Some(A), 1),
            vm("a", Some(B), 2),
            vm("a-aaaaaaaa", None, 3),
        ]);
        assert_eq!(names, ["a-1", "a-bbbbbbbb", "a-aaaaaaaa-3"]);
    }

    #[test]
    fn values_are_cleaned() {
        assert_eq!(clean(" web\n1 ").as_deref(), Some("web\u{fffd}1"));
        assert_eq!(clean(" \n"), None);
        assert_eq!(
            clean("web\u{200b}\u{202e}").as_deref(),
            Some("web\u{fffd}\u{fffd}")
        );
        assert_eq!(clean(&"é".repeat(100)).unwrap().len(), 128);
    }

    #[test]
    fn uuids_have_one_form() {
        assert_eq!(
            uuid("AAAAAAAA-0000-4000-8000-000000000001").as_deref(),
            Some(A)
        );
        assert_eq!(uuid("aaaaaaaa000040008000000000000001").as_deref(), Some(A));
        for text in [
            "",
            "web",
            "00000000-0000-0000-0000-000000000000",
            "aaaaaaaa-0000-4000-8000-00000000000g",
            "aaaaaaaa0-000-4000-8000-000000000001",
        ] {
            assert_eq!(uuid(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn names_are_unique_clean_and_bounded(
            vms in prop::collection::vec(("(a|b|a-1|a-1-0|a-2|\\PC{0,200})", prop::option::of(Just(A)), any::<bool>()), 1..12)
        ) {
            let bases: Vec<String> = vms.iter().map(|(name, ..)| clean(name).unwrap_or("x".into())).collect();
            let vms: Vec<Unnamed<'_>> = bases.iter().zip(&vms).enumerate().map(|(n, (base, (_, uuid, host)))| {
                let make = if *host { trusted } else { vm };
                make(base, *uuid, n as i32 + 1)
            }).collect();
            let names = unique(&vms);
            let real: Vec<_> = vms.iter().filter(|vm| vm.trust > Trust::default()).cloned().collect();
            let of_real: Vec<String> = names.iter().zip(&vms).filter(|(_, vm)| vm.trust > Trust::default()).map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(unique(&real), of_real, "as if the others were not there");
            let different: std::collections::HashSet<&String> = names.iter().collect();
            prop_assert_eq!(different.len(), vms.len());
            prop_assert!(names.iter().all(|n| n.len() <= MAX_NAME && !n.chars().any(char::is_control)));
        }

        #[test]
        fn any_text_is_a_uuid_or_not(text in "\\PC{0,40}") {
            prop_assert!(uuid(&text).is_none_or(|u| u.len() == 36));
        }
    }
}
