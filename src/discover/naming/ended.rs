//! Names of ended VMs and their owners.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::Trust;
use crate::discover::Owner;

/// Names kept of root and managers, and as many of all users; about 1 MiB each.
const MAX: usize = 4096;

/// Names that a VM of another owner must not continue, until the exporter restarts.
#[derive(Debug, Default)]
pub(super) struct EndedNames {
    names: HashMap<String, EndedName>,
    /// Number of additions: a larger one is newer.
    added: u64,
}

#[derive(Debug)]
struct EndedName {
    owner: Owner,
    trust: Trust,
    added: u64,
}

impl EndedNames {
    /// Reserves a name for its owner.
    pub(super) fn add(&mut self, name: String, owner: Owner, trust: Trust) {
        self.added += 1;
        let added = self.added;
        let kept = EndedName {
            owner,
            trust,
            added,
        };
        self.names.insert(name, kept);
        if self.names.len() > MAX {
            self.trim(owner == Owner::Host);
        }
    }

    /// Whether a VM may have this name.
    pub(super) fn may_take(&self, name: &str, owner: Owner, trust: Trust) -> bool {
        let kept = self.names.get(name);
        kept.is_none_or(|kept| kept.owner == owner || kept.trust < trust)
    }

    /// Drops the oldest names of the owners with the most names, so that starting very many VMs
    /// does not free the names of other owners. Root and managers are counted separately.
    fn trim(&mut self, of_host: bool) {
        let names = self.names.iter();
        let of_class = names.filter(|(_, kept)| (kept.owner == Owner::Host) == of_host);
        let mut of_class: Vec<_> = of_class
            .map(|(n, k)| (k.added, k.owner, n.clone()))
            .collect();
        if of_class.len() <= MAX {
            return;
        }
        of_class.sort_unstable_by_key(|(added, ..)| Reverse(*added));
        let mut rank: HashMap<Owner, usize> = HashMap::new();
        let mut ranked: Vec<_> = of_class
            .into_iter()
            .map(|(_, owner, name)| {
                let rank = rank.entry(owner).or_default();
                *rank += 1;
                (*rank, name)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        // Drops a quarter at once, so that not every addition sorts.
        for (_, name) in ranked.drain(MAX / 4 * 3..) {
            self.names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Owner = Owner::User(Some(1000));

    #[test]
    fn flood_of_names_by_one_user_frees_no_other_name() {
        let mut ended = EndedNames::default();
        let (low, other) = (Trust::default(), Owner::User(Some(7)));
        ended.add("db".into(), Owner::Host, low);
        ended.add("web".into(), other, low);
        for n in 0..3 * MAX {
            ended.add(format!("x{n}"), USER, low);
        }
        assert!(ended.names.len() <= MAX + 2);
        assert!(!ended.may_take("db", USER, low) && !ended.may_take("web", USER, low));
        assert!(ended.may_take("x0", other, low), "forgotten");
        assert!(!ended.may_take(&format!("x{}", 3 * MAX - 1), other, low));
    }

    #[test]
    fn a_host_of_many_vms_is_bounded_too() {
        let mut ended = EndedNames::default();
        for n in 0..2 * MAX {
            ended.add(format!("x{n}"), Owner::Host, Trust::default());
        }
        assert!(ended.names.len() <= MAX);
    }
}
