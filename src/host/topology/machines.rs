//! Machines with repeated, sparse or missing ids, and CPUs that go online and offline.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

mod any;

/// A CPU in sysfs; its list of siblings contains the online ones.
#[derive(Debug, Clone, Default)]
struct Described {
    package: Option<i32>,
    core_id: Option<i32>,
    die: Option<i32>,
    cluster: Option<i32>,
    node: u32,
    /// The real core; CPUs with the same number are siblings.
    core: u32,
    /// Level, id and the real cache.
    cache: Option<(u32, Option<u32>, u32)>,
}

/// A machine of these CPUs, numbered from 0.
struct Machine {
    dir: tempfile::TempDir,
    cpus: Vec<Described>,
    has_core_cpus_list: bool,
}

/// A directory in memory, like sysfs, if /dev/shm is available.
fn in_memory() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.unwrap()
}

impl Machine {
    fn new(cpus: impl IntoIterator<Item = Described>) -> Self {
        Self {
            dir: in_memory(),
            cpus: cpus.into_iter().collect(),
            has_core_cpus_list: true,
        }
    }

    fn write(&self, file: &str, text: impl ToString) {
        let path = self.dir.path().join("sys/devices/system").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text.to_string()).unwrap();
    }

    /// Sets these CPUs online and all others offline.
    fn online(&self, online: impl IntoIterator<Item = u32>) {
        let _ = std::fs::remove_dir_all(self.dir.path().join("sys"));
        let online: BTreeSet<u32> = online.into_iter().collect();
        let alike = |same: &dyn Fn(&Described) -> bool| {
            let cpus = online.iter().filter(|cpu| same(&self.cpus[**cpu as usize]));
            cpus.map(u32::to_string).collect::<Vec<_>>().join(",")
        };
        self.write("cpu/online", alike(&|_| true));
        for &id in &online {
            let cpu = &self.cpus[id as usize];
            let topology = format!("cpu/cpu{id}/topology");
            for (file, value) in [
                ("physical_package_id", cpu.package),
                ("core_id", cpu.core_id),
                ("die_id", cpu.die),
                ("cluster_id", cpu.cluster),
            ] {
                value.inspect(|value| self.write(&format!("{topology}/{file}"), value));
            }
            let siblings = alike(&|other| other.core == cpu.core);
            if cpu.package.is_some() {
                if self.has_core_cpus_list {
                    self.write(&format!("{topology}/core_cpus_list"), &siblings);
                }
                self.write(&format!("{topology}/thread_siblings_list"), siblings);
            }
            if let Some((level, cache_id, cache)) = cpu.cache {
                let index = format!("cpu/cpu{id}/cache/index{level}");
                self.write(&format!("{index}/level"), level);
                cache_id.inspect(|id| self.write(&format!("{index}/id"), id));
                let sharers = alike(&|other| other.cache.is_some_and(|(.., c)| c == cache));
                self.write(&format!("{index}/shared_cpu_list"), sharers);
            }
            let node = cpu.node;
            let of_node = alike(&|other| other.node == node);
            self.write(&format!("node/node{node}/cpulist"), of_node);
        }
    }

    fn all(&self) -> std::ops::Range<u32> {
        0..self.cpus.len() as u32
    }

    fn read(&self, before: &Topology) -> Topology {
        Topology::read(&Roots::below(self.dir.path()), before).unwrap()
    }

    /// The topology after the last of these sets of online CPUs.
    fn after(&self, steps: &[&[u32]]) -> Topology {
        let step = |before: Topology, online: &&[u32]| {
            self.online(online.iter().copied());
            self.read(&before)
        };
        steps.iter().fold(Topology::default(), step)
    }

    /// The topology with all CPUs online.
    fn topology(&self) -> Topology {
        self.online(self.all());
        self.read(&Topology::default())
    }

    fn check(&self, topology: &Topology) {
        check(&self.cpus, topology);
        check_caches(&self.cpus, topology);
    }
}

/// Each core has its own number, and each CPU has the number of its real core.
fn check(machine: &[Described], topology: &Topology) {
    let mut cores = BTreeMap::new();
    for cpu in &topology.cpus {
        let truth = machine[cpu.id as usize].core;
        let key = (cpu.place.package, cpu.place.core);
        assert_eq!(*cores.entry(key).or_insert(truth), truth, "{key:?}");
    }
    let known = topology
        .cpus
        .iter()
        .map(|cpu| machine[cpu.id as usize].core);
    assert_eq!(cores.len(), known.collect::<BTreeSet<_>>().len());
}

/// The same for caches.
fn check_caches(machine: &[Described], topology: &Topology) {
    let mut numbers = BTreeMap::new();
    for cpu in &topology.cpus {
        let truth = machine[cpu.id as usize].cache.map(|(.., cache)| cache);
        assert_eq!(cpu.llc.is_some(), truth.is_some());
        assert_eq!(*numbers.entry(cpu.llc).or_insert(truth), truth);
    }
    let truths = topology
        .cpus
        .iter()
        .map(|cpu| machine[cpu.id as usize].cache.map(|c| c.2));
    assert_eq!(numbers.len(), truths.collect::<BTreeSet<_>>().len());
}

fn cores(topology: &Topology) -> Vec<i32> {
    topology.cpus.iter().map(|cpu| cpu.place.core).collect()
}

fn core_ids(topology: &Topology) -> Vec<i32> {
    let id = |cpu: &Cpu| i32::try_from(cpu.ids.core.unwrap()).unwrap();
    topology.cpus.iter().map(id).collect()
}

/// RK3588 on Linux 6.0 and later: clusters of 4, 2 and 2 cores, core_id counts within a cluster, no
/// socket in the device tree.
fn rk3588() -> Machine {
    let clusters = [0, 0, 0, 0, 1, 1, 2, 2];
    let core_ids = [0, 1, 2, 3, 0, 1, 0, 1];
    Machine::new((0..8).map(|cpu| Described {
        package: Some(0),
        core_id: Some(core_ids[cpu]),
        die: Some(-1),
        cluster: Some(clusters[cpu]),
        core: cpu as u32,
        cache: Some((3, None, 0)),
        ..Described::default()
    }))
}

/// `-smp sockets=1,dies=2,cores=16,threads=2` with core_id counted per die; QEMU numbers the
/// threads of a core consecutively.
fn guest_of_two_dies() -> Machine {
    Machine::new((0..64).map(|cpu| Described {
        package: Some(0),
        core_id: Some(cpu / 2 % 16),
        die: Some(cpu / 32),
        core: cpu as u32 / 2,
        ..Described::default()
    }))
}

/// Two packages of `cores` cores with two threads, numbered as on servers: second threads after all
/// first ones.
fn server(cores: u32, of_core: impl Fn(u32) -> Described) -> Machine {
    let cpu = |cpu| Described {
        package: Some((cpu % (2 * cores) / cores) as i32),
        core: cpu % (2 * cores),
        ..of_core(cpu % (2 * cores))
    };
    Machine::new((0..4 * cores).map(cpu))
}

#[test]
fn cores_whose_ids_repeat_in_a_package_are_named_by_their_lowest_cpu() {
    let machine = rk3588();
    let topology = machine.topology();
    machine.check(&topology);
    assert_eq!(cores(&topology), [0, 1, 2, 3, 4, 5, 6, 7]);
    let clusters: Vec<_> = topology.cpus.iter().map(|cpu| cpu.ids.cluster).collect();
    assert_eq!(clusters, [0, 0, 0, 0, 1, 1, 2, 2].map(Some));
    assert_eq!(topology.cpu(4).unwrap().ids.die, None);

    let machine = guest_of_two_dies();
    let topology = machine.topology();
    machine.check(&topology);
    let lowest: Vec<i32> = (0..64).map(|cpu| cpu / 2 * 2).collect();
    assert_eq!(cores(&topology), lowest);
}

/// A first-generation EPYC whose kernel counts core_id within each of four nodes of a package.
#[test]
fn each_package_with_ids_that_repeat_counts_by_its_own_cpus() {
    let machine = server(16, |core| Described {
        core_id: Some((core % 4) as i32),
        node: core / 4,
        cache: Some((3, Some(core / 2), core / 2)),
        ..Described::default()
    });
    let topology = machine.topology();
    machine.check(&topology);
    assert_eq!(topology.cpu(21).unwrap().place.core, 21);
    assert_eq!(topology.cpu(21 + 32).unwrap().place.core, 21);
    assert_eq!(topology.cpu(21).unwrap().siblings, [21, 53]);
    assert_eq!(topology.cpu(21).unwrap().llc, Some(10));
}

#[test]
fn ids_that_are_unique_in_their_package_stay_with_gaps_and_large_ones() {
    let machines = [
        // EPYC in NPS4: core_id restarts in each package, several caches per package.
        server(16, |core| Described {
            core_id: Some((core % 16) as i32),
            die: Some(0),
            node: core / 4,
            cache: Some((3, Some(core / 2), core / 2)),
            ..Described::default()
        }),
        // Sapphire Rapids in SNC2: ids with gaps for fused-off cores, cluster_id 65535.
        server(14, |core| Described {
            core_id: Some((core % 14 / 7 * 8 + core % 7) as i32),
            die: Some(0),
            cluster: Some(65_535),
            node: core / 7,
            cache: Some((3, Some(core / 14), core / 14)),
            ..Described::default()
        }),
        // Cascade Lake-AP: two dies per package, core_id unique within the package.
        server(12, |core| Described {
            core_id: Some((core % 12 / 6 * 32 + core % 6) as i32),
            die: Some((core % 12 / 6) as i32),
            node: core / 6,
            cache: Some((3, Some(core / 6), core / 6)),
            ..Described::default()
        }),
    ];
    for machine in machines {
        let topology = machine.topology();
        machine.check(&topology);
        assert_eq!(cores(&topology), core_ids(&topology));
        assert_eq!(topology.cpu(0).unwrap().ids.cluster, None);
        let llcs = topology
            .cpus
            .iter()
            .map(|cpu| cpu.ids.cache.map(|(_, id)| id));
        assert!(topology.cpus.iter().map(|cpu| cpu.llc).eq(llcs));
    }
    // Ampere Altra and Kunpeng 920 with ACPI: packages and cores are offsets in the PPTT or UIDs;
    // no SMT.
    let arm = Machine::new((0..32).map(|cpu| Described {
        package: Some([36, 3180][cpu / 16]),
        core_id: Some(4096 + 20 * cpu as i32),
        cluster: Some(10_000 + cpu as i32 / 4),
        node: cpu as u32 / 16,
        core: cpu as u32,
        ..Described::default()
    }));
    let topology = arm.topology();
    arm.check(&topology);
    assert_eq!(cores(&topology), core_ids(&topology));
    assert_eq!(topology.cpu(17).unwrap().ids.cluster, Some(10_004));
}

/// A Meteor Lake client: P-cores with two threads, E-cores, and two low-power E-cores that do not
/// share the others' cache and whose L2 has the same id as that cache.
#[test]
fn caches_of_different_levels_with_one_id_stay_separate() {
    let core = |cpu: u32| if cpu < 4 { cpu / 2 } else { cpu - 2 };
    let machine = Machine::new((0..10).map(|cpu| Described {
        package: Some(0),
        core_id: Some(core(cpu) as i32 * 4),
        core: core(cpu),
        cache: Some(if cpu < 8 {
            (3, Some(0), 0)
        } else {
            (2, Some(0), 1)
        }),
        ..Described::default()
    }));
    let topology = machine.topology();
    machine.check(&topology);
    assert_eq!(cores(&topology), core_ids(&topology));
    assert_eq!(topology.cpu(7).unwrap().llc, Some(0));
    assert_eq!(topology.cpu(9).unwrap().llc, Some(8));
}

#[test]
fn a_cache_without_an_id_keeps_its_number_when_its_first_cpu_goes_offline() {
    let machine = rk3588();
    let topology = machine.after(&[&[0, 1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5, 6, 7]]);
    assert!(topology.cpus.iter().all(|cpu| cpu.llc == Some(0)));
}

/// A virtual machine without topology, and POWER with eight threads per core and package -1.
#[test]
fn without_ids_each_list_of_siblings_is_a_core_and_without_lists_each_cpu() {
    let vm = Machine::new((0..4).map(|core| Described {
        core,
        ..Described::default()
    }));
    let topology = vm.topology();
    vm.check(&topology);
    assert_eq!(cores(&topology), [0, 1, 2, 3]);
    let power = Machine::new((0..32).map(|cpu| Described {
        package: Some(-1),
        core_id: Some(-1),
        core: cpu / 8,
        ..Described::default()
    }));
    let topology = power.topology();
    power.check(&topology);
    assert_eq!(topology.cpu(31).unwrap().place.core, 24);
    assert_eq!(
        topology.cpu(31).unwrap().siblings,
        [24, 25, 26, 27, 28, 29, 30, 31]
    );
}

#[test]
fn a_kernel_without_core_cpus_list_has_thread_siblings_list() {
    let mut machine = guest_of_two_dies();
    machine.has_core_cpus_list = false;
    machine.check(&machine.topology());
}

#[test]
fn a_sibling_that_comes_online_joins_its_core_whichever_came_first() {
    let machine = guest_of_two_dies();
    // CPUs 0 and 1 are siblings, and so are 32 and 33 of the other die.
    for steps in [
        &[&[1, 32][..], &[0, 1, 32]][..],
        &[&[1, 32], &[32], &[0, 32], &[0, 1, 32, 33]],
        &[&[0, 1, 32], &[0, 33], &[1, 32]],
    ] {
        let first = machine.after(&steps[..1]);
        let last = machine.after(steps);
        machine.check(&last);
        for cpu in &first.cpus {
            assert_eq!(last.place(cpu.id), Some(cpu.place), "{steps:?}");
        }
        assert_eq!(last.place(0), last.place(1));
    }
}

/// CPUs of one cluster appear after CPUs of another took their ids as numbers.
#[test]
fn a_cluster_that_was_offline_at_start_takes_no_number_of_others() {
    let machine = rk3588();
    let topology = machine.after(&[&[4, 5], &[0, 1, 2, 3, 4, 5, 6, 7]]);
    machine.check(&topology);
    assert_eq!((cores(&topology)[4], cores(&topology)[5]), (0, 1));
}

#[test]
fn another_cpu_of_a_reused_number_starts_from_0() {
    let mut machine = guest_of_two_dies();
    machine.online(0..4);
    let before = machine.read(&Topology::default());
    machine.cpus[3] = Described {
        package: Some(0),
        core_id: Some(9),
        die: Some(0),
        core: 99,
        ..Described::default()
    };
    machine.online(0..4);
    let after = machine.read(&before);
    machine.check(&after);
    assert_eq!(after.place(2), before.place(2));
    assert_eq!(after.place(3).unwrap().core, 9);
}

#[test]
fn caches_that_appear_after_their_cpu_is_online_are_read_at_the_next_look() {
    let machine = rk3588();
    machine.online(0..4);
    let mut watch = Watch::new(Arc::new(Roots::below(machine.dir.path()))).unwrap();
    // The watch keeps the file open, so it is written in place.
    machine.write("cpu/online", "0-4\n");
    machine.write("cpu/cpu4/topology/physical_package_id", 0);
    machine.write("cpu/cpu4/topology/core_id", 0);
    machine.write("cpu/cpu4/topology/core_cpus_list", 4);
    assert_eq!(watch.refresh().cpu(4).unwrap().llc, None);
    machine.write("cpu/cpu4/cache/index3/level", 3);
    machine.write("cpu/cpu4/cache/index3/shared_cpu_list", "0-4");
    assert_eq!(watch.refresh().cpu(4).unwrap().llc, Some(0));
}
