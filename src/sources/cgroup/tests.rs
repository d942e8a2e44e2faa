//! The source on fixture hosts of every version and manager.

use super::*;
use crate::discover::Vcpu;
use crate::fake_host::{FakeHost, START};
use crate::metric::FactValue;
use Layout::{Hybrid, V1, V2};

const PID: i32 = 1000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    V1,
    V2,
    Hybrid,
}

impl Layout {
    const ALL: [Self; 3] = [V1, V2, Hybrid];

    /// /proc/PID/cgroup of a thread in one group of every hierarchy.
    fn text(self, group: &str) -> String {
        match self {
            V2 => format!("0::{group}\n"),
            V1 => {
                format!("5:memory:/x\n4:cpu,cpuacct:{group}\n3:cpuset:{group}\n1:name=systemd:/\n")
            }
            Hybrid => V1.text(group) + &V2.text(group),
        }
    }

    fn dir(self, controller: &str, group: &str) -> String {
        let below = match (self, controller) {
            (V2, _) => "",
            (Hybrid, "unified") => "unified",
            _ => controller,
        };
        format!("sys/fs/cgroup/{below}/{}", group.trim_start_matches('/'))
    }
}

struct Host {
    host: FakeHost,
    layout: Layout,
    source: CgroupSource,
    vm: Vm,
}

impl Host {
    /// A VM with its main thread and its vCPUs in these groups.
    fn new(layout: Layout, main: &str, vcpus: &[&str]) -> Self {
        let host = FakeHost::new();
        if layout != V1 {
            host.file(layout.dir("unified", "cgroup.controllers"), "cpu\n");
            host.file("proc/pressure/cpu", "");
        }
        if layout != V2 {
            host.file("sys/fs/cgroup/cpu/cpu.shares", "1024\n");
            host.file("sys/fs/cgroup/cpuset/tasks", "");
        }
        host.vmm(PID, &["qemu"], "", vcpus.len() as u32, |n| {
            format!("CPU {n}/KVM")
        });
        let vcpu = |n: usize| Vcpu {
            index: n as u32,
            tid: PID + 10 + n as i32,
            start_time: START,
        };
        let key = VmKey {
            pid: PID,
            start_time: START,
            ordinal: 0,
        };
        let vm = Vm {
            key,
            name: "vm".into(),
            name_source: "cmdline",
            uuid: None,
            vmm: "qemu",
            manager: None,
            owner: crate::discover::Owner::Host,
            facts: Vec::new(),
            vcpus: (0..vcpus.len()).map(vcpu).collect(),
            threadless: 0,
            names_threads: true,
        };
        let source = source(&host);
        let host = Self {
            host,
            layout,
            source,
            vm,
        };
        host.move_to(main, vcpus);
        host
    }

    fn move_to(&self, main: &str, vcpus: &[&str]) {
        let text = |group: &str| self.layout.text(group);
        self.host.file(format!("proc/{PID}/cgroup"), text(main));
        self.make(main);
        for (vcpu, group) in self.vm.vcpus.iter().zip(vcpus) {
            self.host.thread_cgroup(PID, vcpu.tid, text(group));
            self.make(group);
        }
    }

    fn make(&self, group: &str) {
        for controller in ["cpu", "cpuset", "unified"] {
            if self.layout != V1 || controller != "unified" {
                let file = self.layout.dir(controller, group) + "/cgroup.procs";
                self.host.file(file, "");
            }
        }
    }

    fn file(&self, group: &str, controller: &str, file: &str, text: &str) -> &Self {
        let dir = self.layout.dir(controller, group);
        self.host.file(format!("{dir}/{file}"), text);
        self
    }

    /// Sets a group's quota and statistics: periods, throttled periods, throttled milliseconds.
    fn quota(&self, group: &str, cores: f64, stat: [u64; 3]) -> &Self {
        let (quota, [periods, throttled, ms]) = ((cores * 100_000.0) as u64, stat);
        let stat = format!("usage_usec 1\nnr_periods {periods}\nnr_throttled {throttled}\n");
        if self.layout == V2 {
            self.file(group, "cpu", "cpu.max", &format!("{quota} 100000\n"));
            let ended = format!("{stat}throttled_usec {}\n", ms * 1000);
            return self.file(group, "cpu", "cpu.stat", &ended);
        }
        self.file(group, "cpu", "cpu.cfs_quota_us", &format!("{quota}\n"));
        self.file(group, "cpu", "cpu.cfs_period_us", "100000\n");
        let ended = format!("{stat}throttled_time {}\n", ms * 1_000_000);
        self.file(group, "cpu", "cpu.stat", &ended)
    }

    fn no_quota(&self, group: &str) -> &Self {
        match self.layout {
            V2 => self.file(group, "cpu", "cpu.max", "max 100000\n"),
            _ => self.file(group, "cpu", "cpu.cfs_quota_us", "-1\n"),
        }
    }

    /// The facts, without the common parts of their names.
    fn read(&mut self) -> Vec<String> {
        let facts = self.source.read(&self.vm).unwrap();
        facts.iter().map(line).collect()
    }

    fn code(&self) -> &'static str {
        match self.source.state() {
            SourceState::Up => "up",
            SourceState::Degraded(reason) | SourceState::Down(reason) => reason.code.label(),
        }
    }
}

fn source(host: &FakeHost) -> CgroupSource {
    let roots = Arc::new(Roots::below(host.root()));
    CgroupSource::new(roots)
}

fn line(fact: &Fact) -> String {
    let name = fact
        .metric
        .name
        .trim_start_matches("kvm_vm_")
        .trim_end_matches("_total");
    let labels: String = fact
        .labels
        .iter()
        .map(|(_, value)| format!(" {value}"))
        .collect();
    match &fact.value {
        FactValue::Int(n) => format!("{name}{labels} {n}"),
        FactValue::Nanoseconds(n) => format!("{name}{labels} {}", *n as f64 / 1e9),
        FactValue::Float(x) => format!("{name}{labels} {x}"),
        FactValue::Histogram(_) => panic!("{name} is no histogram"),
    }
}

/// Managers: groups above the VM's, the VM's own, the main thread's and one vCPU's.
const MANAGERS: &[(&str, &str, &str, &str)] = &[
    (
        "/machine",
        "/machine/qemu-1-a.libvirt-qemu",
        "/emulator",
        "/vcpu0",
    ),
    (
        "/machine.slice",
        "/machine.slice/machine-qemu\\x2d1\\x2da.scope",
        "/libvirt/emulator",
        "/libvirt/vcpu0",
    ),
    ("/qemu.slice", "/qemu.slice/100.scope", "", ""),
    ("/kubepods/podx", "/kubepods/podx/container", "", ""),
    (
        "/user.slice/user-0.slice",
        "/user.slice/user-0.slice/session-1.scope",
        "",
        "",
    ),
];

#[test]
fn a_quota_is_found_at_every_level_of_every_manager_and_version() {
    for layout in Layout::ALL {
        for (above, own, main, vcpu) in MANAGERS {
            let mut host = Host::new(layout, &format!("{own}{main}"), &[&format!("{own}{vcpu}")]);
            let context = format!("{layout:?} {own}");
            assert_eq!(host.read(), [""; 0], "{context}");
            host.quota(above, 3.0, [30, 20, 1500]);
            assert_eq!(
                host.read(),
                [
                    "cpu_quota_cores ancestor 3",
                    "cpu_periods ancestor 30",
                    "cpu_throttled_periods ancestor 20",
                    "cpu_throttled_seconds ancestor 1.5"
                ],
                "{context}"
            );
            host.quota(own, 2.0, [10, 5, 250]);
            let reported = host.read();
            assert_eq!(
                reported[..2],
                ["cpu_quota_cores vm 2", "cpu_periods vm 10"],
                "{context}"
            );
            assert_eq!(reported.len(), 7, "{context}");
            if !vcpu.is_empty() {
                host.quota(&format!("{own}{vcpu}"), 0.5, [4, 3, 2]);
                let reported = host.read();
                assert_eq!(
                    reported[..2],
                    ["cpu_quota_cores vcpu 0.5", "cpu_periods vcpu 4"]
                );
                assert_eq!(reported.len(), 10, "{context}");
            }
        }
    }
}

#[test]
fn weight_cpus_and_pressure_are_of_the_vms_own_group() {
    let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=20\n";
    for layout in Layout::ALL {
        let scope = "/machine.slice/q.scope";
        let inner = "/machine.slice/q.scope/libvirt";
        let mut host = Host::new(
            layout,
            &format!("{inner}/emulator"),
            &[&format!("{inner}/vcpu0")],
        );
        host.file(scope, "cpu", "cpu.weight", "50\n")
            .file(inner, "cpu", "cpu.weight", "100\n");
        host.file(scope, "cpu", "cpu.shares", "512\n");
        host.file(scope, "cpuset", "cpuset.cpus.effective", "0-2\n");
        host.file(scope, "cpuset", "cpuset.effective_cpus", "0-2\n");
        let mut expected = vec!["cpu_weight 50", "cpuset_cpus 3"];
        if layout != V1 {
            host.file(scope, "unified", "cpu.pressure", pressure);
            host.file(
                scope,
                "unified",
                "io.pressure",
                &format!("{}\n", pressure.lines().next().unwrap()),
            );
            expected.extend([
                "pressure_seconds cpu some 1.5",
                "pressure_seconds cpu full 0.00002",
                "pressure_seconds io some 1.5",
            ]);
        }
        assert_eq!(host.read(), expected, "{layout:?}");
        let code = if layout == V1 { "no_pressure" } else { "up" };
        assert_eq!(host.code(), code, "{layout:?}");
    }
}

#[test]
fn numa_balancing_is_of_the_vms_own_group() {
    let scope = "/machine.slice/q.scope";
    let vcpu = "/machine.slice/q.scope/libvirt/vcpu0";
    let stat = |migrated: u64| {
        format!(
            "anon 9\nnuma_pages_migrated {migrated}\nnuma_pte_updates 70\nnuma_hint_faults 60\n"
        )
    };
    for layout in Layout::ALL {
        let mut host = Host::new(layout, "/machine.slice/q.scope/libvirt/emulator", &[vcpu]);
        host.file(scope, "unified", "memory.stat", &stat(5));
        host.file("/machine.slice", "unified", "memory.stat", &stat(500));
        let expected = match layout {
            V1 => vec![],
            V2 | Hybrid => vec![
                "numa_balancing pte_updates 70",
                "numa_balancing hint_faults 60",
                "numa_balancing pages_migrated 5",
            ],
        };
        assert_eq!(host.read(), expected, "{layout:?}");
    }
    // The total stays if the memory controller is switched off.
    let mut host = Host::new(V2, scope, &[scope]);
    host.file(scope, "unified", "memory.stat", &stat(5));
    assert_eq!(host.read().len(), 3);
    host.host
        .remove(format!("sys/fs/cgroup{scope}/memory.stat"));
    assert_eq!(host.read()[2], "numa_balancing pages_migrated 5");
    // A kernel before 6.12 is read once.
    let mut host = Host::new(V2, scope, &[scope]);
    host.file(scope, "unified", "memory.stat", "anon 9\n");
    assert_eq!(host.read(), [""; 0]);
    host.file(scope, "unified", "memory.stat", &stat(5));
    assert_eq!(host.read(), [""; 0]);
}

#[test]
fn vm_without_own_group_gets_nothing_of_the_host() {
    for layout in Layout::ALL {
        let mut host = Host::new(layout, "/", &["/"]);
        host.quota("/", 1.0, [1, 1, 1])
            .file("/", "cpu", "cpu.weight", "1\n");
        host.file("/", "unified", "cpu.pressure", "some avg10=0.00 total=9\n");
        assert_eq!(host.read(), [""; 0], "{layout:?}");
    }
}

#[test]
fn quotas_of_vcpus_add_up_and_one_without_may_use_a_core() {
    let mut host = Host::new(V2, "/m/emulator", &["/m/v/0", "/m/v/1", "/m/two", "/m/two"]);
    host.quota("/m/v/0", 0.5, [1, 1, 1])
        .quota("/m/v/1", 0.25, [2, 1, 1]);
    assert_eq!(
        host.read()[..2],
        ["cpu_quota_cores vcpu 2.75", "cpu_periods vcpu 3"]
    );
    // A group around two of them is read once, however many it holds.
    host.quota("/m/v", 0.3, [10, 1, 1]);
    let reported = host.read();
    assert_eq!(reported[0], "cpu_quota_cores vcpu 2.55");
    assert_eq!(
        reported[1], "cpu_periods vcpu 3",
        "it had counted for others before"
    );
    host.quota("/m/v", 0.3, [14, 1, 1]);
    assert_eq!(host.read()[1], "cpu_periods vcpu 7");
}

#[test]
fn totals_survive_a_move_a_recreated_group_and_the_end_of_the_quota() {
    for layout in Layout::ALL {
        let mut host = Host::new(layout, "/a", &["/a"]);
        host.quota("/a", 1.0, [10, 5, 100]);
        assert_eq!(host.read()[3], "cpu_throttled_seconds vm 0.1");
        host.move_to("/b", &["/b"]);
        host.quota("/b", 1.0, [900, 800, 70_000]);
        assert_eq!(host.read()[3], "cpu_throttled_seconds vm 0.1");
        host.quota("/b", 1.0, [901, 801, 70_050]);
        assert_eq!(host.read()[3], "cpu_throttled_seconds vm 0.15");
        // Kept until the new one exists: tmpfs reuses freed inode numbers.
        let dir = host.host.path(layout.dir("cpu", "/b"));
        std::fs::rename(&dir, dir.with_extension("old")).unwrap();
        host.make("/b");
        host.quota("/b", 1.0, [2, 1, 30]);
        assert_eq!(host.read()[3], "cpu_throttled_seconds vm 0.18");
        host.no_quota("/b");
        let reported = host.read();
        assert_eq!(
            reported[..1],
            ["cpu_periods vm 13"],
            "{layout:?}: no quota, no lost total"
        );
        assert_eq!(reported.len(), 3);
    }
}

#[test]
fn ended_vm_or_reused_pid_is_gone() {
    let mut host = Host::new(V2, "/a", &["/a"]);
    host.host.process(PID, START + 1, &["other"], "0::/a\n");
    assert!(matches!(host.source.read(&host.vm), Err(ReadError::Gone)));
    host.host.exit(PID);
    assert!(matches!(host.source.read(&host.vm), Err(ReadError::Gone)));
}

#[test]
fn each_missing_feature_has_its_reason() {
    let empty = FakeHost::new();
    assert!(matches!(source(&empty).state(), SourceState::Down(r) if r.code == "no_cgroupfs"));
    let mut host = Host::new(V2, "/a", &[]);
    assert_eq!(host.code(), "up");
    host.file("/a", "cpu", "cpu.max", "?\n");
    let failed = host.source.read(&host.vm);
    assert!(matches!(failed, Err(ReadError::Failed(why)) if why.contains("a/cpu.max: ")));
    assert_eq!(host.code(), "unreadable");
    host.file("/a", "cpu", "cpu.max", "max 100000\n");
    host.read();
    assert_eq!(host.code(), "up");
    host.host
        .file(format!("proc/{PID}/cgroup"), "0::/../elsewhere\n");
    assert_eq!(host.read(), [""; 0]);
    assert_eq!(host.code(), "no_group");
    host.source.forget(host.vm.key);
    assert_eq!(host.code(), "up");
}

#[test]
fn a_hierarchy_mounted_later_is_found() {
    let mut host = Host::new(V2, "/a", &[]);
    host.source.mounts = Mounts::default();
    host.quota("/a", 1.0, [1, 1, 1]);
    assert_eq!(host.read().len(), 4);
}

#[test]
fn paths_of_another_namespace_are_followed() {
    let mut host = Host::new(V2, "/kubepods.slice/pod1/c", &[]);
    host.quota("/kubepods.slice/pod1", 1.5, [1, 1, 1]);
    host.host
        .file(format!("proc/{PID}/cgroup"), "0::/../../pod1/c\n");
    assert_eq!(host.read()[0], "cpu_quota_cores ancestor 1.5");
}
