//! Names of VMs: unique on the host, and kept by those that have them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::label::{cut, MAX_LENGTH};
use super::{Owner, VmKey};

mod ended;

use ended::Ended;

/// A VM to be named.
#[derive(Debug, Clone)]
pub(super) struct Unnamed<'a> {
    pub(super) key: VmKey,
    /// The name it has by itself, clean.
    pub(super) base: &'a str,
    pub(super) uuid: Option<&'a str>,
    pub(super) owner: Owner,
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

/// The names given so far.
///
/// A running VM keeps its name, whatever others are called, come or go. It loses the name to a VM
/// more to be trusted alone: a squatter's series end where the real VM starts. A VM that finds
/// its name taken gets a suffix and keeps that. A name outlives its VM: only a VM of the same
/// owner, or one more to be trusted, goes on with the series of one that ended.
#[derive(Debug, Default)]
pub(super) struct Names {
    held: HashMap<VmKey, Held>,
    ended: Ended,
}

/// The name of a running VM.
#[derive(Debug)]
struct Held {
    base: String,
    name: String,
    owner: Owner,
    /// The most it was ever trusted: what names it does not change when libvirt's state cannot
    /// be read for a moment.
    trust: Trust,
}

impl Names {
    /// A name for each of the running VMs that no other has. Those most to be trusted choose
    /// first, among equals those that keep the name they have, then the older.
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

    /// Keeps for their owners the names of VMs that ended or are called otherwise now.
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

    /// The first of its possible names that it may take. Ends, because each name that is taken or
    /// kept is but one of infinitely many.
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
    /// Its possible names: its own, then that with the first 8 digits of the uuid, the pid, the pid
    /// and the ordinal, and a number.
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
