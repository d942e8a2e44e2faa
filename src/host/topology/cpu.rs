//! One CPU in sysfs, and the numbering of cores and caches.

use std::collections::HashMap;
use std::path::Path;

use super::shared::{self, Member};
use super::{read_list, CoreType, Cpu, Ids, Place, Topology};
use crate::host::roots::Roots;

/// A CPU before its core and cache are numbered, with the CPUs that share them.
pub(super) struct FoundCpu {
    cpu: Cpu,
    /// Online SMT siblings; `None` if sysfs has no list.
    siblings: Option<Vec<u32>>,
    /// Online CPUs that share its last-level cache; `None` if sysfs has no list.
    sharers: Option<Vec<u32>>,
}

impl FoundCpu {
    /// Reads an online CPU.
    pub(super) fn read(roots: &Roots, dir: &Path, id: u32, before: Option<&Cpu>) -> Self {
        let topology = dir.join("topology");
        let number = |file: &str| roots.number::<i32>(&topology.join(file));
        let list = |file: &str| read_list(roots, &topology.join(file));
        // The first name exists since Linux 5.3; the second is still there
        // (drivers/base/topology.c).
        let siblings = list("core_cpus_list").or_else(|| list("thread_siblings_list"));
        let (cache, sharers) = last_level_cache(roots, &dir.join("cache"));
        let package = number("physical_package_id");
        let mut place = Place {
            package: package.unwrap_or(0),
            core: 0,
            numa_node: before.map_or(0, |cpu| cpu.place.numa_node),
        };
        let mut ids = Ids {
            die: number("die_id").and_then(known),
            cluster: number("cluster_id").and_then(known),
            core: number("core_id").and_then(|id| id.try_into().ok()),
            cache,
        };
        if let Some(before) = before {
            // A CPU that goes offline loses its files before it leaves the online list.
            if package.is_none() {
                (place, ids) = (before.place, before.ids);
            }
            ids.cache = ids.cache.or(before.ids.cache);
        }
        let cpu = Cpu {
            id,
            place,
            siblings: Vec::new(),
            ids,
            core_type: CoreType::default(),
            llc: None,
            online: true,
        };
        Self {
            cpu,
            siblings,
            sharers,
        }
    }

    /// A CPU with these lists from sysfs.
    #[cfg(test)]
    pub(super) fn new(cpu: Cpu, siblings: Vec<u32>, sharers: Vec<u32>) -> Self {
        Self {
            cpu,
            siblings: Some(siblings),
            sharers: Some(sharers),
        }
    }

    /// A CPU that was online before.
    pub(super) fn offline(before: Cpu) -> Self {
        Self {
            cpu: Cpu {
                online: false,
                ..before
            },
            siblings: None,
            sharers: None,
        }
    }

    /// Adds facts from other files.
    pub(super) fn with(mut self, node: Option<u32>, core_type: Option<CoreType>) -> Self {
        let Place { numa_node, .. } = &mut self.cpu.place;
        *numa_node = node.unwrap_or(*numa_node);
        self.cpu.core_type = core_type.unwrap_or_default();
        self
    }

    fn core(&self, before: Option<&Cpu>) -> Member {
        let Cpu { id, place, ids, .. } = self.cpu;
        Member {
            cpu: id,
            scope: place.package,
            list: self.siblings.clone(),
            id: ids.core,
            location: [Some(place.numa_node), ids.die, ids.cluster],
            before: before.and_then(|cpu| cpu.place.core.try_into().ok()),
        }
    }

    /// `None` if its cache is unknown now and before.
    fn cache(&self, before: Option<&Cpu>) -> Option<Member> {
        let before = before.and_then(|cpu| cpu.llc);
        let (level, id) = self.cpu.ids.cache.unzip();
        let is_known = before.is_some() || self.sharers.is_some() || id.is_some();
        is_known.then(|| Member {
            cpu: self.cpu.id,
            scope: 0,
            list: self.sharers.clone(),
            id,
            location: [level, None, None],
            before,
        })
    }
}

/// Numbers cores and caches and sorts the CPUs; cores and caches keep their previous numbers.
pub(super) fn number(mut found: Vec<FoundCpu>, before: &Topology) -> Vec<Cpu> {
    found.sort_by_key(|found| found.cpu.id);
    let known = |found: &FoundCpu| {
        before
            .cpu(found.cpu.id)
            .filter(|cpu| is_same(cpu, &found.cpu))
    };
    let cores: Vec<Member> = found.iter().map(|cpu| cpu.core(known(cpu))).collect();
    let caches: Vec<Member> = found
        .iter()
        .filter_map(|cpu| cpu.cache(known(cpu)))
        .collect();
    let llcs = caches.iter().map(|member| member.cpu);
    let llcs: HashMap<u32, u32> = llcs.zip(shared::numbers(&caches)).collect();
    let numbers = shared::numbers(&cores);
    let mut siblings: HashMap<(i32, u32), Vec<u32>> = HashMap::new();
    for (member, core) in cores.iter().zip(&numbers) {
        let of_core = siblings.entry((member.scope, *core)).or_default();
        of_core.push(member.cpu);
    }
    let numbered = |(FoundCpu { mut cpu, .. }, core): (FoundCpu, u32)| {
        let key = (cpu.place.package, core);
        cpu.place.core = i32::try_from(core).unwrap_or(i32::MAX);
        cpu.siblings = siblings.get(&key).cloned().unwrap_or_default();
        cpu.llc = llcs.get(&cpu.id).copied();
        cpu
    };
    found.into_iter().zip(numbers).map(numbered).collect()
}

/// Whether it is the same CPU: a virtual machine can get another CPU with the same number.
fn is_same(before: &Cpu, now: &Cpu) -> bool {
    let ids = |cpu: &Cpu| {
        (
            cpu.place.package,
            cpu.ids.die,
            cpu.ids.cluster,
            cpu.ids.core,
        )
    };
    ids(before) == ids(now)
}

/// An id, if the kernel knows it.
fn known(id: i32) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| *id != 65_535)
}

/// Level and id of the highest-level cache, and the CPUs that share it.
fn last_level_cache(roots: &Roots, dir: &Path) -> (Option<(u32, u32)>, Option<Vec<u32>>) {
    let number = |name: &str, file: &str| {
        let number: i32 = roots.number(&dir.join(name).join(file))?;
        u32::try_from(number).ok()
    };
    let caches = roots.list(dir).unwrap_or_default();
    let caches = caches.iter().filter(|name| name.starts_with("index"));
    let highest = caches
        .filter_map(|name| Some((number(name, "level")?, name)))
        .max();
    let Some((level, index)) = highest else {
        return (None, None);
    };
    let id = number(index, "id").map(|id| (level, id));
    (
        id,
        read_list(roots, &dir.join(index).join("shared_cpu_list")),
    )
}
