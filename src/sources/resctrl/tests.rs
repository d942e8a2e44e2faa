use super::*;
use crate::fake_host::{FakeHost, FakeVm, UUID_A, UUID_B};
use crate::metric::FactValue;

const ROOT: &str = "sys/fs/resctrl";

/// A host with two VMs and resctrl.
struct Fixture {
    host: FakeHost,
    vms: [(FakeVm, Arc<Vm>); 2],
}

impl Fixture {
    fn new() -> Self {
        let host = FakeHost::new();
        host.file(format!("{ROOT}/info/L3_MON/num_rmids"), "4\n");
        let fakes = [
            host.qemu(1000, "a", UUID_A, 2),
            host.qemu(2000, "b", UUID_B, 1),
        ];
        std::fs::create_dir_all(host.path(format!("{ROOT}/mon_groups"))).unwrap();
        let roots = Arc::new(Roots::below(host.root()));
        let mut scanner = crate::discover::Scanner::new(roots);
        let inventory = scanner.scan(&Arc::default());
        let vms = fakes.map(|fake| {
            let vm = inventory.vms.iter().find(|vm| vm.key.pid == fake.pid);
            (fake, vm.unwrap().clone())
        });
        Self { host, vms }
    }

    fn source(&self, create_groups: bool) -> Resctrl {
        Resctrl::new(create_groups, Arc::new(Roots::below(self.host.root())))
    }

    fn tasks(&self, group: &str, tids: &[i32]) {
        let tids: String = tids.iter().map(|tid| format!("{tid}\n")).collect();
        self.host.file(format!("{ROOT}/{group}/tasks"), tids);
    }

    fn counts(&self, group: &str, llc: u32, counts: [&str; 3]) {
        for (event, count) in resctrl::EVENTS.iter().zip(counts) {
            let file = format!("{ROOT}/{group}/mon_data/mon_L3_{llc:02}/{event}");
            self.host.file(file, format!("{count}\n"));
        }
    }

    /// One read of VM `n`, with the current groups.
    fn read(&self, source: &mut Resctrl, n: usize) -> Vec<String> {
        source.groups = None;
        let facts = source.read(&self.vms[n].1).unwrap();
        facts.iter().map(line).collect()
    }

    fn exists(&self, group: &str) -> bool {
        self.host.path(format!("{ROOT}/{group}")).exists()
    }
}

fn line(fact: &Fact) -> String {
    assert_eq!(fact.metric.labels().collect::<Vec<_>>(), ["vm", "llc"]);
    let FactValue::Int(n) = fact.value else {
        panic!("{fact:?}")
    };
    let name = fact.metric.name.strip_prefix("kvm_vm_").unwrap();
    format!("{name} {} {n}", fact.labels[0].1)
}

#[test]
fn own_groups_add_up_and_shared_groups_are_skipped() {
    let f = Fixture::new();
    let (a, b) = (&f.vms[0].0, &f.vms[1].0);
    // libvirt's monitors of single vCPUs, in the root control group.
    f.tasks("mon_groups/a-vcpu0", &a.vcpus[..1]);
    f.counts("mon_groups/a-vcpu0", 0, ["100", "1000", "600"]);
    f.tasks("mon_groups/a-vcpu1", &a.vcpus[1..]);
    f.counts("mon_groups/a-vcpu1", 0, ["10", "100", "Unavailable"]);
    f.counts("mon_groups/a-vcpu1", 1, ["5", "Error", "7"]);
    // A group with VM b and an unrelated process.
    f.tasks("shared", &[b.pid, b.vcpus[0], 77]);
    f.counts("shared", 0, ["1", "2", "3"]);
    let mut source = f.source(false);
    let expected = [
        "llc_occupancy_bytes 0 110",
        "llc_occupancy_bytes 1 5",
        "memory_bandwidth_bytes_total 0 1100",
        "memory_bandwidth_local_bytes_total 0 600",
        "memory_bandwidth_local_bytes_total 1 7",
    ];
    assert_eq!(f.read(&mut source, 0), expected);
    assert_eq!(f.read(&mut source, 1), [""; 0]);
    assert_eq!(source.state().code(), "no_group");
    assert!(matches!(source.state(), SourceState::Degraded(_)));
}

#[test]
fn control_group_includes_its_monitors() {
    let f = Fixture::new();
    let a = &f.vms[0].0;
    f.tasks("vm-a", &[a.pid, a.vcpus[0], a.vcpus[1]]);
    f.counts("vm-a", 0, ["50", "500", "5"]);
    f.tasks("vm-a/mon_groups/vcpus", &a.vcpus);
    f.counts("vm-a/mon_groups/vcpus", 0, ["40", "400", "4"]);
    let lines = f.read(&mut f.source(false), 0);
    assert_eq!(lines[0], "llc_occupancy_bytes 0 50");
    assert_eq!(lines[1], "memory_bandwidth_bytes_total 0 500");
}

#[test]
fn vm_with_a_vcpu_outside_is_unknown() {
    let f = Fixture::new();
    f.tasks("mon_groups/a", &f.vms[0].0.vcpus[..1]);
    f.counts("mon_groups/a", 0, ["100", "1000", "600"]);
    for create in [false, true] {
        let mut source = f.source(create);
        assert_eq!(
            f.read(&mut source, 0),
            [""; 0],
            "other groups are not changed"
        );
        assert_eq!(source.state().code(), "no_group");
    }
}

#[test]
fn totals_survive_a_recreated_group() {
    let f = Fixture::new();
    let mut source = f.source(false);
    let traffic = |source: &mut Resctrl| f.read(source, 0)[1].clone();
    f.tasks("mon_groups/a", &f.vms[0].0.vcpus);
    f.counts("mon_groups/a", 0, ["1", "1000", "1"]);
    assert_eq!(traffic(&mut source), "memory_bandwidth_bytes_total 0 1000");
    f.counts("mon_groups/a", 0, ["1", "40", "1"]);
    assert_eq!(traffic(&mut source), "memory_bandwidth_bytes_total 0 1040");
    f.host.remove(format!("{ROOT}/mon_groups/a"));
    f.tasks("mon_groups/a2", &f.vms[0].0.vcpus);
    f.counts("mon_groups/a2", 0, ["1", "3", "1"]);
    assert_eq!(traffic(&mut source), "memory_bandwidth_bytes_total 0 1043");
}

#[test]
fn own_leftover_group_counts_from_now_and_others_from_the_vms_start() {
    let f = Fixture::new();
    let (fake, vm) = &f.vms[0];
    let origin = |source: &mut Resctrl| {
        source.groups = None;
        let facts = source.read(vm).unwrap();
        let traffic = facts.iter().find(|fact| fact.metric == TRAFFIC[0]).unwrap();
        (traffic.value.clone(), traffic.origin)
    };
    f.tasks("mon_groups/libvirt", &fake.vcpus);
    f.counts("mon_groups/libvirt", 0, ["1", "1000", "1"]);
    let reported = origin(&mut f.source(false));
    assert_eq!(reported, (FactValue::Int(1000), Origin::Vm));
    f.host.remove(format!("{ROOT}/mon_groups/libvirt"));
    let left = format!("mon_groups/{}", name(vm.key));
    f.tasks(&left, &fake.vcpus);
    f.counts(&left, 0, ["1", "1000", "1"]);
    let mut source = f.source(true);
    assert_eq!(origin(&mut source), (FactValue::Int(0), Origin::Exporter));
    f.counts(&left, 0, ["1", "1007", "1"]);
    assert_eq!(origin(&mut source), (FactValue::Int(7), Origin::Exporter));
}

#[test]
fn reused_tid_is_never_written() {
    let f = Fixture::new();
    let (fake, vm) = &f.vms[0];
    let group = format!("mon_groups/{}", name(vm.key));
    f.tasks(&group, &[]);
    f.host
        .set(fake.pid, fake.vcpus[1], |thread| thread.start_time += 1);
    f.read(&mut f.source(true), 0);
    let tasks = std::fs::read_to_string(f.host.path(format!("{ROOT}/{group}/tasks"))).unwrap();
    assert_eq!(tasks.trim(), fake.vcpus[0].to_string());
    // The whole process is another one.
    f.host
        .set(fake.pid, fake.pid, |thread| thread.start_time += 1);
    let mut source = f.source(true);
    assert!(matches!(source.read(vm), Err(ReadError::Gone)));
    assert!(source.made.is_empty());
}

#[test]
fn own_pid_namespace_writes_no_tid() {
    let f = Fixture::new();
    std::os::unix::fs::symlink("999999999", f.host.path("proc/self")).unwrap();
    let mut source = f.source(true);
    assert_eq!(f.read(&mut source, 0), [""; 0]);
    assert_eq!(source.state().code(), "pid_namespace");
    assert!(!f.exists(&format!("mon_groups/{}", name(f.vms[0].1.key))));
}

/// The kernel creates and removes the files of a group with its directory; this simulates it.
#[test]
fn groups_are_created_on_request_and_removed_at_the_end() {
    let f = Fixture::new();
    let (fake, vm) = &f.vms[0];
    let group = format!("mon_groups/{}", name(vm.key));
    // The VM is in a control group with another process: its own group must be below that.
    f.tasks("gold", &[fake.vcpus[0], fake.vcpus[1], 77]);
    std::fs::create_dir_all(f.host.path(format!("{ROOT}/gold/mon_groups"))).unwrap();
    let group = format!("gold/{group}");
    let orphan = format!("mon_groups/{PREFIX}999-1-0");
    f.tasks(&orphan, &[]);
    let mut source = f.source(true);
    assert_eq!(
        f.read(&mut source, 0),
        [""; 0],
        "the fixture's group has no tasks file"
    );
    assert!(f.exists(&group));
    assert!(f.exists(&orphan), "it is not empty here");
    f.tasks(&group, &[]);
    f.host.remove(format!("{ROOT}/{orphan}/tasks"));
    f.counts(&group, 0, ["9", "90", "900"]);
    assert_eq!(f.read(&mut source, 0)[0], "llc_occupancy_bytes 0 9");
    let tasks = std::fs::read_to_string(f.host.path(format!("{ROOT}/{group}/tasks"))).unwrap();
    let mut tids: Vec<i32> = tasks.lines().map(|tid| tid.parse().unwrap()).collect();
    tids.sort_unstable();
    assert_eq!(tids, fake.vcpus);
    assert_eq!(f.read(&mut source, 0)[0], "llc_occupancy_bytes 0 9");
    let empty = |group: &str| {
        f.host.remove(format!("{ROOT}/{group}/tasks"));
        f.host.remove(format!("{ROOT}/{group}/mon_data"));
    };
    empty(&group);
    source.forget(vm.key);
    assert!(!f.exists(&group), "it is removed with the VM");
    f.read(&mut source, 1);
    let other = format!("mon_groups/{}", name(f.vms[1].1.key));
    assert!(f.exists(&other));
    drop(source);
    assert!(!f.exists(&other), "it is removed with the exporter");
}

#[test]
fn orphans_are_removed_and_other_groups_stay() {
    let f = Fixture::new();
    let key = f.vms[0].1.key;
    let of_another_start = format!("mon_groups/{PREFIX}{}-{}-0", key.pid, key.start_time + 1);
    let alive = format!("mon_groups/{}", name(key));
    for group in [&*of_another_start, &alive, "mon_groups/mine"] {
        std::fs::create_dir_all(f.host.path(format!("{ROOT}/{group}"))).unwrap();
    }
    let roots = Roots::below(f.host.root());
    let group = |name: &str| ResctrlGroup {
        path: f.host.path(format!("{ROOT}/{name}")),
        tasks: HashSet::new(),
    };
    let control = Control {
        own: group("."),
        monitors: vec![
            group(&of_another_start),
            group(&alive),
            group("mon_groups/mine"),
        ],
    };
    remove_orphans(&roots, &[control]);
    assert!(!f.exists(&of_another_start));
    assert!(f.exists(&alive) && f.exists("mon_groups/mine"));
}

#[test]
fn refusals_have_a_fix() {
    let of = |number| refused(Path::new("/x"), &io::Error::from_raw_os_error(number)).code;
    let codes = [libc::ENOSPC, libc::EACCES, libc::EROFS, libc::EINVAL].map(of);
    assert_eq!(
        codes,
        ["no_rmid", "no_permission", "no_permission", "unreadable"]
    );
    let f = Fixture::new();
    f.host.remove(ROOT);
    let mut source = f.source(true);
    assert_eq!(f.read(&mut source, 0), [""; 0]);
    assert_eq!(source.state().code(), "no_resctrl");
}
