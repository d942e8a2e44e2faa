//! Machines of any shape; their CPUs go online and offline in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{check, check_caches, core_ids, cores, Described};
use crate::host::topology::cpu::{self, FoundCpu};
use crate::host::topology::{CoreType, Cpu, Ids, Place, Topology};

/// Up to 3 packages, 2 dies, 2 clusters and 3 cores of up to 2 threads; ids unique in the machine,
/// the package or the cluster; CPUs numbered in any order.
fn any_machine() -> impl Strategy<Value = Vec<Described>> {
    let shape = (1..=3i32, 1..=2i32, 1..=2i32, 1..=3i32, 1..=2usize);
    let machine = |((packages, dies, clusters, cores, threads), kind): ((_, _, _, _, _), i32)| {
        let of_package: i32 = dies * clusters * cores;
        let core = move |core: i32| Described {
            package: Some(core / of_package),
            core_id: Some([core, core % of_package, core % cores][kind as usize]),
            die: Some(core % of_package / (clusters * cores)),
            cluster: Some(core % of_package / cores % clusters),
            node: (core / of_package) as u32,
            core: core as u32,
            cache: Some((3, Some((core / cores * kind) as u32), (core / cores) as u32)),
        };
        let cores = (0..packages * of_package).map(core);
        let cpus: Vec<_> = cores
            .flat_map(|cpu| std::iter::repeat_n(cpu, threads))
            .collect();
        Just(cpus).prop_shuffle()
    };
    (shape, 0..3).prop_flat_map(machine)
}

/// The topology with these CPUs online.
fn topology(machine: &[Described], online: &BTreeSet<u32>, before: &Topology) -> Topology {
    let alike = |same: &dyn Fn(&Described) -> bool| {
        let cpus = online.iter().filter(|cpu| same(&machine[**cpu as usize]));
        cpus.copied().collect::<Vec<_>>()
    };
    let known = |id: Option<i32>| id.map(|id| id as u32);
    let found = |id: &u32| {
        let cpu = &machine[*id as usize];
        let (level, cache_id, cache) = cpu.cache.unwrap();
        let read = Cpu {
            id: *id,
            place: Place {
                package: cpu.package.unwrap(),
                core: 0,
                numa_node: cpu.node,
            },
            siblings: Vec::new(),
            ids: Ids {
                die: known(cpu.die),
                cluster: known(cpu.cluster),
                core: known(cpu.core_id),
                cache: cache_id.map(|id| (level, id)),
            },
            core_type: CoreType::Uniform,
            llc: None,
            online: true,
        };
        let siblings = alike(&|other| other.core == cpu.core);
        FoundCpu::new(
            read,
            siblings,
            alike(&|other| other.cache.unwrap().2 == cache),
        )
    };
    let offline = before.cpus.iter().filter(|cpu| !online.contains(&cpu.id));
    let found = online
        .iter()
        .map(found)
        .chain(offline.cloned().map(FoundCpu::offline));
    Topology {
        cpus: cpu::number(found.collect(), before),
    }
}

proptest! {
    /// For any sequence of online CPUs: cores are distinct, siblings have one number, and it never
    /// changes.
    #[test]
    fn numbers_stay_while_cpus_come_and_go(
        machine in any_machine(),
        steps in prop::collection::vec(any::<u128>(), 1..8),
    ) {
        let mut before = Topology::default();
        for step in steps {
            let all = 0..machine.len() as u32;
            let online = all.filter(|cpu| step >> cpu & 1 == 1).collect();
            let now = topology(&machine, &online, &before);
            check(&machine, &now);
            for cpu in &before.cpus {
                prop_assert_eq!(now.place(cpu.id), Some(cpu.place));
            }
            before = now;
        }
    }

    /// With all CPUs online, caches are distinct too, and an id is the number if it is unique.
    #[test]
    fn ids_that_are_unique_are_the_numbers(machine in any_machine()) {
        let online = (0..machine.len() as u32).collect();
        let topology = topology(&machine, &online, &Topology::default());
        check(&machine, &topology);
        check_caches(&machine, &topology);
        let unique: BTreeSet<_> = topology.cpus.iter().map(|cpu| (cpu.place.package, cpu.ids.core)).collect();
        let all: BTreeSet<_> = topology.cpus.iter().map(|cpu| &cpu.siblings).collect();
        prop_assert_eq!(cores(&topology) == core_ids(&topology), unique.len() == all.len());
    }
}
