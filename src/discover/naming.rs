//! Assigns VM names: unique on the host and stable.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::label::{cut, MAX_LENGTH};
use super::{Owner, VmKey};

mod ended;

use ended::EndedNames;

/// A VM that needs a name.
#[derive(Debug, Clone)]
pub(super) struct Unnamed<'a> {
    pub(super) key: VmKey,
    /// Its own name, clean, before names are made unique.
    pub(super) base: &'a str,
    pub(super) uuid: Option<&'a str>,
    pub(super) owner: Owner,
    pub(super) trust: Trust,
}

/// Trust in a VM's name: how hard it was to get, since any user can write any name on a command
/// line. The order of the fields makes a more trusted VM compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Trust {
    /// Its process holds KVM descriptors, which cannot be forged.
    pub(super) seen: bool,
    /// libvirt's state, which only root can write, contains it.
    pub(super) known: bool,
    /// Who runs it.
    pub(super) runner: Runner,
}

/// Who runs a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Runner {
    /// A user in a login session.
    Session,
    /// Any other user.
    #[default]
    Service,
    /// Root or a manager of VMs.
    Host,
}

/// A UUID in lower case with dashes. `None` for any other text and for the zero UUID, which means
/// none.
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

/// The assigned names.
///
/// A running VM keeps its name whichever VMs start or end, and loses it only to a more trusted VM:
/// a squatter's series end when the real VM starts. A VM whose name is taken gets a suffix and
/// keeps it. A name outlives its VM: only a VM of the same owner, or a more trusted one, continues
/// the series of an ended VM.
#[derive(Debug, Default)]
pub(super) struct Names {
    held: HashMap<VmKey, Held>,
    ended: EndedNames,
}

/// The name of a running VM.
#[derive(Debug)]
struct Held {
    base: String,
    name: String,
    owner: Owner,
    /// The highest trust so far: a failure to read libvirt's state for a moment does not rename the
    /// VM.
    trust: Trust,
}

impl Names {
    /// A unique name for each running VM. The most trusted choose first; at equal trust, VMs that
    /// have a name keep it, then the older VM chooses.
    pub(super) fn give(&mut self, vms: &[Unnamed<'_>]) -> Vec<String> {
        let trust: Vec<Trust> = vms.iter().map(|vm| self.trust(vm)).collect();
        self.let_go(vms);
        let mut order: Vec<usize> = (0..vms.len()).collect();
        order.sort_by_key(|n| (Reverse(trust[*n]), vms[*n].key.start_time, vms[*n].key));
        let mut names = vec![String::new(); vms.len()];
        let mut taken = HashSet::new();
        for equals in order.chunk_by(|a, b| trust[*a] == trust[*b]) {
            let mut unnamed = Vec::new();
            for n in equals {
                let held = self.held.get(&vms[*n].key).map(|held| &held.name);
                match held.filter(|name| !taken.contains(*name)) {
                    Some(name) => names[*n].clone_from(name),
                    None => unnamed.push(*n),
                }
                taken.extend(held.cloned());
            }
            for n in unnamed {
                names[n] = self.first_free(&vms[n], trust[n], &taken);
                taken.insert(names[n].clone());
            }
        }
        self.hold(vms, &names, &trust);
        names
    }

    fn hold(&mut self, vms: &[Unnamed<'_>], names: &[String], trust: &[Trust]) {
        for ((vm, name), trust) in vms.iter().zip(names).zip(trust) {
            let held = Held {
                base: vm.base.to_owned(),
                name: name.clone(),
                owner: vm.owner,
                trust: *trust,
            };
            self.held.insert(vm.key, held);
        }
    }

    fn trust(&self, vm: &Unnamed<'_>) -> Trust {
        let before = self.held.get(&vm.key).map(|held| held.trust);
        before.map_or(vm.trust, |before| before.max(vm.trust))
    }

    /// Releases the names of VMs that ended or have another base name now, but reserves them for
    /// their owners.
    fn let_go(&mut self, vms: &[Unnamed<'_>]) {
        let running: HashMap<VmKey, &str> = vms.iter().map(|vm| (vm.key, vm.base)).collect();
        let ended = &mut self.ended;
        self.held.retain(|key, held| {
            let keeps = running.get(key).is_some_and(|base| *base == held.base);
            if !keeps {
                ended.add(std::mem::take(&mut held.name), held.owner, held.trust);
            }
            keeps
        });
    }

    /// The first candidate name that is free. Terminates because candidates are unlimited and taken
    /// or reserved names are not.
    fn first_free(&self, vm: &Unnamed<'_>, trust: Trust, taken: &HashSet<String>) -> String {
        let mut level = 0;
        loop {
            let name = vm.name(level);
            if !taken.contains(&name) && self.ended.may_take(&name, vm.owner, trust) {
                return name;
            }
            level += 1;
        }
    }
}

impl Unnamed<'_> {
    /// Candidate names: the base name, then with a suffix of the first 8 digits of the uuid, the
    /// PID, the PID and ordinal, or these and a number.
    fn name(&self, level: u32) -> String {
        let VmKey { pid, ordinal, .. } = self.key;
        let suffix = match (level, self.uuid) {
            (0, _) => return self.base.to_owned(),
            (1, Some(uuid)) => format!("-{}", uuid.get(..8).unwrap_or(uuid)),
            (1 | 2, _) => format!("-{pid}"),
            (3, _) => format!("-{pid}-{ordinal}"),
            _ => format!("-{pid}-{ordinal}-{level}"),
        };
        format!("{}{suffix}", cut(self.base, MAX_LENGTH - suffix.len()))
    }
}

#[cfg(test)]
mod tests;
