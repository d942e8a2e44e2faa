//! A sentence with the positions of VM names, so that a page can link them.

use serde::{Deserialize, Serialize};

use super::VmView;

/// A VM's name in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mention {
    /// Byte offset of the name.
    pub(crate) start: usize,
    /// Byte offset of the name's end.
    pub(crate) end: usize,
    /// Index of the VM in [`super::View::vms`].
    pub(crate) vm: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) text: String,
    pub(super) mentions: Vec<Mention>,
}

impl Words {
    pub(super) fn push(mut self, text: &str) -> Self {
        self.text += text;
        self
    }

    /// Appends a VM's name.
    pub(super) fn vm(mut self, vms: &[VmView], n: usize) -> Self {
        let start = self.text.len();
        self.text += vms.get(n).map_or("", |vm| &vm.name);
        let end = self.text.len();
        self.mentions.push(Mention { start, end, vm: n });
        self
    }

    /// Appends names: "a", "a and b", "a, b and c", "a, b and 7 more VMs".
    pub(super) fn vms(self, vms: &[VmView], named: &[usize]) -> Self {
        let shown = if named.len() <= MOST {
            named.len()
        } else {
            MOST - 1
        };
        let more = named.len() - shown;
        let parts = shown + usize::from(more > 0);
        let mut words = self;
        for (n, vm) in named.iter().take(shown).enumerate() {
            words = words.push(between(n, parts)).vm(vms, *vm);
        }
        match more {
            0 => words,
            _ => words
                .push(between(shown, parts))
                .push(&format!("{more} more VMs")),
        }
    }

    pub(super) fn append(mut self, other: Self) -> Self {
        let at = self.text.len();
        self.text += &other.text;
        let moved = other.mentions.into_iter().map(|mention| Mention {
            start: mention.start + at,
            end: mention.end + at,
            ..mention
        });
        self.mentions.extend(moved);
        self
    }

    /// Capitalizes the first letter; "vCPU" and names stay as they are.
    pub(super) fn capital(mut self) -> Self {
        let begins_with_name = self.mentions.iter().any(|mention| mention.start == 0);
        if !begins_with_name && !self.text.starts_with("vCPU") {
            if let Some(first) = self.text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
        }
        self
    }
}

impl From<String> for Words {
    fn from(text: String) -> Self {
        Self {
            text,
            mentions: Vec::new(),
        }
    }
}

/// Most VMs named in a list.
const MOST: usize = 3;

/// The separator before part `n` of `parts`.
fn between(n: usize, parts: usize) -> &'static str {
    match n {
        0 => "",
        n if n + 1 == parts => " and ",
        _ => ", ",
    }
}
