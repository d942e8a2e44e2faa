use super::*;

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join("sys/devices/system").join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Two packages with one node and one core of two threads each.
fn host() -> (tempfile::TempDir, Arc<Roots>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "cpu/online", "0-3\n");
    for cpu in 0..4 {
        let package = cpu % 2;
        let topology = format!("cpu/cpu{cpu}/topology");
        write(
            dir.path(),
            &format!("{topology}/physical_package_id"),
            &package.to_string(),
        );
        write(dir.path(), &format!("{topology}/core_id"), "7");
        let siblings = format!("{package},{}", package + 2);
        write(
            dir.path(),
            &format!("{topology}/thread_siblings_list"),
            &siblings,
        );
        for (index, level) in [(0, 1), (3, 3)] {
            let cache = format!("cpu/cpu{cpu}/cache/index{index}");
            write(dir.path(), &format!("{cache}/level"), &level.to_string());
            write(
                dir.path(),
                &format!("{cache}/id"),
                &(package + 10 * level).to_string(),
            );
        }
    }
    write(dir.path(), "node/node0/cpulist", "0,2");
    write(dir.path(), "node/node1/cpulist", "1,3");
    let roots = Arc::new(Roots::below(dir.path()));
    (dir, roots)
}

#[test]
fn every_fact_of_a_cpu_is_read() {
    let (_dir, roots) = host();
    let topology = Topology::read(&roots, &Topology::default()).unwrap();
    assert_eq!(topology.cpus.len(), 4);
    assert_eq!(
        topology.cpu(3),
        Some(&Cpu {
            id: 3,
            place: Place {
                package: 1,
                core: 7,
                numa_node: 1
            },
            siblings: vec![1, 3],
            ids: Ids {
                core: Some(7),
                cache: Some((3, 31)),
                ..Ids::default()
            },
            core_type: CoreType::Uniform,
            llc: Some(31),
            online: true,
        })
    );
    assert_eq!(topology.cpu(4), None);
}

#[test]
fn a_cpu_that_goes_offline_keeps_its_place() {
    let (dir, roots) = host();
    let mut watch = Watch::new(roots).unwrap();
    let before = watch.refresh().clone();
    assert!(Arc::ptr_eq(&before, watch.refresh()));
    std::fs::remove_dir_all(dir.path().join("sys/devices/system/cpu/cpu3")).unwrap();
    write(dir.path(), "cpu/online", "0-2\n");
    let after = watch.refresh().clone();
    assert!(!after.cpu(3).unwrap().online);
    assert_eq!(after.place(3), before.place(3));
}

#[test]
fn a_cpu_that_comes_online_has_its_place_at_the_next_look_and_others_keep_theirs() {
    let (dir, roots) = host();
    write(dir.path(), "cpu/online", "0-2\n");
    let mut watch = Watch::new(roots).unwrap();
    assert_eq!(watch.refresh().cpu(3), None, "never seen online");
    write(dir.path(), "cpu/online", "0,2-3\n");
    write(dir.path(), "node/node1/cpulist", "3");
    let after = watch.refresh().clone();
    assert!(after.cpu(3).unwrap().online);
    assert_eq!(after.place(3).unwrap().numa_node, 1);
    assert!(!after.cpu(1).unwrap().online);
    assert_eq!(
        after.place(1).unwrap().numa_node,
        1,
        "as when it was online"
    );
    assert!(Arc::ptr_eq(&after, watch.refresh()));
}

#[test]
fn a_list_of_cpus_that_is_none_keeps_the_topology_as_it_was() {
    let (dir, roots) = host();
    let mut watch = Watch::new(roots).unwrap();
    let before = watch.refresh().clone();
    for text in ["0-\n", "9999999\n"] {
        write(dir.path(), "cpu/online", text);
        assert!(Arc::ptr_eq(&before, watch.refresh()));
    }
    write(dir.path(), "cpu/online", "0-1\n");
    assert!(!watch.refresh().cpu(2).unwrap().online);
}

/// arm64 firmware without topology tables; CPU numbers with gaps, as on POWER with SMT off; memory
/// without CPUs (CXL) and CPUs without memory.
#[test]
fn what_firmware_does_not_tell_is_made_the_least_of() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "cpu/online", "0,8,16");
    for cpu in [0, 8, 16] {
        write(
            dir.path(),
            &format!("cpu/cpu{cpu}/topology/physical_package_id"),
            "-1",
        );
        write(dir.path(), &format!("cpu/cpu{cpu}/topology/core_id"), "-1");
        for (index, level, shared) in [(0, 1, cpu.to_string()), (2, 2, "0,8,16".into())] {
            let cache = format!("cpu/cpu{cpu}/cache/index{index}");
            write(dir.path(), &format!("{cache}/level"), &level.to_string());
            write(dir.path(), &format!("{cache}/shared_cpu_list"), &shared);
        }
    }
    write(dir.path(), "node/node0/cpulist", "0,8");
    write(dir.path(), "node/node1/cpulist", "\n");
    write(dir.path(), "node/node4/cpulist", "16");
    let topology = Topology::read(&Roots::below(dir.path()), &Topology::default()).unwrap();
    let seen: Vec<_> = topology
        .cpus
        .iter()
        .map(|cpu| (cpu.id, cpu.place, cpu.llc))
        .collect();
    let place = |core, numa_node| Place {
        package: -1,
        core,
        numa_node,
    };
    let expected = [
        (0, place(0, 0), Some(0)),
        (8, place(8, 0), Some(0)),
        (16, place(16, 4), Some(0)),
    ];
    assert_eq!(seen, expected);
    assert_eq!(topology.cpu(8).unwrap().siblings, [8]);
    assert_eq!(topology.cpu(1), None);
}

#[test]
fn a_pass_over_an_unchanged_machine_opens_nothing() {
    let (_dir, roots) = host();
    let mut watch = Watch::new(roots.clone()).unwrap();
    let opens = roots.opens();
    watch.refresh();
    assert_eq!(roots.opens(), opens);
}

#[test]
fn hybrid_cores_have_different_types() {
    let (dir, roots) = host();
    for (pmu, cpus) in [
        ("cpu_core", "0,2"),
        ("cpu_atom", "1"),
        ("cpu_lowpower", "3"),
    ] {
        let path = dir.path().join("sys/bus/event_source/devices").join(pmu);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("cpus"), cpus).unwrap();
    }
    let topology = Topology::read(&roots, &Topology::default()).unwrap();
    assert_eq!(topology.cpu(2).unwrap().core_type, CoreType::Performance);
    assert_eq!(topology.cpu(1).unwrap().core_type, CoreType::Efficiency);
    assert_eq!(topology.cpu(3).unwrap().core_type, CoreType::Efficiency);
}

#[test]
fn no_sysfs_is_an_error_that_names_the_file_and_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let error = Topology::read(&Roots::below(dir.path()), &Topology::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("devices/system/cpu/online"), "{text}");
    assert!(text.contains("--path.sysfs"), "{text}");
}

#[test]
fn this_machine_has_a_place_for_every_online_cpu() {
    let topology = Topology::read(&Roots::default(), &Topology::default()).unwrap();
    assert!(!topology.cpus.is_empty());
    assert!(topology
        .cpus
        .iter()
        .all(|cpu| cpu.siblings.contains(&cpu.id)));
}

#[test]
fn empty_list_of_online_cpus_is_an_error_and_keeps_the_topology() {
    let (dir, roots) = host();
    let mut watch = Watch::new(roots.clone()).unwrap();
    let before = watch.refresh().clone();
    write(dir.path(), "cpu/online", "\n");
    assert!(Arc::ptr_eq(watch.refresh(), &before));
    let error = Topology::read(&roots, &before).unwrap_err().to_string();
    assert!(error.contains("cpu/online lists no CPU"), "{error}");
    write(dir.path(), "cpu/online", "0-2\n");
    assert!(!watch.refresh().cpu(3).unwrap().online);
}
