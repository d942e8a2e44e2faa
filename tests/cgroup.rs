//! Real cgroups around real KVM guests: the exporter's figures equal those in the kernel's files.
//!
//! The groups are created if root may create groups with a CPU quota on this machine: in the v2
//! hierarchy if it has the cpu controller, else in v1; pressure is checked wherever v2 is mounted.
#![cfg(feature = "demo")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use vcpu_exporter::demo::guest::Load;

use crate::support::exporter::{Exporter, Exposition};
use crate::support::micro_vm::{kvm_works, MicroVm};
use crate::support::real_vms::{qemu_works, Libvirt};
use crate::support::run::{allowed_cpus, eventually, Frozen};

const CONFIG: &str = "sources: {cgroup: {period: 1s}}";

/// The file set of a hierarchy with the cpu controller.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

/// A group for a test; dropping it removes it with its child groups once it is empty.
struct Group {
    version: Version,
    dir: PathBuf,
}

/// Removal requires that its processes have exited: drop VMs first.
impl Drop for Group {
    fn drop(&mut self) {
        let gone = || std::fs::remove_dir(&self.dir).ok();
        if eventually(gone).is_none() {
            println!("{} is left behind", self.dir.display());
        }
    }
}

impl Group {
    /// Creates a top-level group in the hierarchy with the cpu controller; prints why if it cannot.
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/cgroup");
        let (version, top) = match std::fs::read_to_string(root.join("cgroup.controllers")) {
            Ok(_) => (Version::V2, root.to_owned()),
            Err(_) => (Version::V1, root.join("cpu")),
        };
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = top.join(format!("vcpu-exporter-test-{}-{n}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&dir) {
            println!("skipped: no cgroup can be made: {}: {error}", dir.display());
            return None;
        }
        let group = Self { version, dir };
        if !group
            .dir
            .join(group.file("cpu.cfs_quota_us", "cpu.max"))
            .exists()
        {
            println!(
                "skipped: no cpu controller in {} (v2: echo +cpu >{}/cgroup.subtree_control)",
                group.dir.display(),
                top.display()
            );
            return None;
        }
        Some(group)
    }

    fn file<'a>(&self, v1: &'a str, v2: &'a str) -> &'a str {
        match self.version {
            Version::V1 => v1,
            Version::V2 => v2,
        }
    }

    fn inside(&self, name: &str) -> Self {
        if self.version == Version::V2 {
            self.write("cgroup.subtree_control", "+cpu");
        }
        let dir = self.dir.join(name);
        std::fs::create_dir(&dir).expect("a group in a group of ours");
        let version = self.version;
        Self { version, dir }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.dir.join(file);
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    fn read(&self, file: &str) -> String {
        let path = self.dir.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Sets the quota: microseconds per 10 milliseconds.
    fn quota(&self, quota: u32) {
        if self.version == Version::V2 {
            return self.write("cpu.max", &format!("{quota} 10000"));
        }
        self.write("cpu.cfs_period_us", "10000");
        self.write("cpu.cfs_quota_us", &quota.to_string());
    }

    fn take(&self, vm: &MicroVm) {
        self.write("cgroup.procs", &vm.pid().to_string());
    }

    /// Periods, throttled periods and throttled seconds, from the kernel.
    fn throttling(&self) -> [f64; 3] {
        let text = self.read("cpu.stat");
        let field = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.expect("it has the field")
                .trim()
                .parse()
                .expect("a number")
        };
        let seconds = match self.version {
            Version::V1 => field("throttled_time ") / 1e9,
            Version::V2 => field("throttled_usec ") / 1e6,
        };
        [field("nr_periods "), field("nr_throttled "), seconds]
    }
}

/// The same three figures from the exporter.
fn told(exposition: &Exposition, vm: &str, level: &str) -> Option<[f64; 3]> {
    let one = |name: &str| exposition.one(name, &[("vm", vm), ("level", level)]);
    Some([
        one("kvm_vm_cpu_periods_total")?,
        one("kvm_vm_cpu_throttled_periods_total")?,
        one("kvm_vm_cpu_throttled_seconds_total")?,
    ])
}

fn quota(exposition: &Exposition, vm: &str) -> Option<(String, f64)> {
    let labels = [("vm", vm)];
    let mut all = exposition.all("kvm_vm_cpu_quota_cores", &labels);
    let first = all.next().map(|s| (s.label("level").to_owned(), s.value));
    assert!(all.next().is_none(), "more than one quota");
    first
}

/// The kernel's figures before and after must enclose a reading that started after `least`.
fn assert_between(group: &Group, exporter: &Exporter, vm: &str, level: &str) {
    let before = group.throttling();
    let reached = |told: [f64; 3]| {
        told.iter()
            .zip(before)
            .all(|(told, before)| *told >= before)
    };
    let seen = exporter.until(|e| told(e, vm, level).is_some_and(reached));
    let seen = told(&seen, vm, level).expect("it was there");
    let after = group.throttling();
    let within = seen.iter().zip(after).all(|(seen, after)| *seen <= after);
    assert!(within, "{before:?} {seen:?} {after:?}");
}

/// Once nothing runs, the figures must be exactly equal.
fn assert_equal_at_rest(group: &Group, exporter: &Exporter, vm: &MicroVm, level: &str) {
    let _frozen = Frozen::new(vm.pid());
    exporter.until(|e| told(e, vm.name(), level) == Some(group.throttling()));
}

#[test]
fn a_quota_around_a_spinning_guest_is_told_as_the_kernel_counts_it() {
    if !kvm_works() {
        return;
    }
    let Some(group) = Group::new() else { return };
    group.quota(2000);
    match group.version {
        Version::V1 => group.write("cpu.shares", "512"),
        Version::V2 => group.write("cpu.weight", "50"),
    }
    let vm = MicroVm::start("quota", Load::Spin, 2);
    let name = vm.name();
    group.take(&vm);
    let exporter = Exporter::with(&[], CONFIG);
    let first = exporter.until(|e| told(e, name, "vm").is_some_and(|[_, n, _]| n > 10.0));
    assert_eq!(quota(&first, name), Some(("vm".to_owned(), 0.2)));
    assert_eq!(first.one("kvm_vm_cpu_weight", &[("vm", name)]), Some(50.0));
    assert_between(&group, &exporter, name, "vm");
    assert_equal_at_rest(&group, &exporter, &vm, "vm");
    group.quota(5000);
    exporter.until(|e| quota(e, name) == Some(("vm".to_owned(), 0.5)));
}

#[test]
fn quotas_above_the_vm_and_on_its_vcpus_are_told_apart() {
    if !kvm_works() {
        return;
    }
    let Some(slice) = Group::new() else { return };
    slice.quota(4000);
    let machine = slice.inside("machine");
    let parts = ["emulator", "vcpu0", "vcpu1"].map(|name| machine.inside(name));
    let [emulator, vcpus @ ..] = &parts;
    let vm = MicroVm::start("machine", Load::Spin, 2);
    let name = vm.name();
    if machine.version == Version::V2 {
        // Threads of one process can be in different groups only below a threaded root.
        parts
            .iter()
            .for_each(|group| group.write("cgroup.type", "threaded"));
        machine.take(&vm);
    }
    emulator.take(&vm);
    for (index, vcpu) in vcpus.iter().enumerate() {
        let file = vcpu.file("tasks", "cgroup.threads");
        vcpu.write(file, &vm.tid(index).to_string());
    }
    let exporter = Exporter::with(&[], CONFIG);
    exporter.until(|e| quota(e, name) == Some(("ancestor".to_owned(), 0.4)));
    assert_between(&slice, &exporter, name, "ancestor");
    vcpus.iter().for_each(|vcpu| vcpu.quota(1000));
    exporter.until(|e| quota(e, name) == Some(("vcpu".to_owned(), 0.2)));
    let throttled = |e: &Exposition| told(e, name, "vcpu").is_some_and(|[_, n, _]| n > 10.0);
    let seen = exporter.until(throttled);
    let seen = told(&seen, name, "vcpu").expect("it was there");
    let after: Vec<[f64; 3]> = vcpus.iter().map(Group::throttling).collect();
    for (n, seen) in seen.iter().enumerate() {
        assert!(*seen <= after[0][n] + after[1][n], "{seen} {after:?}");
    }
}

#[test]
fn totals_go_on_when_the_vm_is_moved_and_when_its_group_is_made_anew() {
    if !kvm_works() {
        return;
    }
    let (Some(first), Some(second)) = (Group::new(), Group::new()) else {
        return;
    };
    // The second group has its own history.
    let other = MicroVm::start("other", Load::Spin, 1);
    let groups = [&first, &second];
    groups.iter().for_each(|group| group.quota(2000));
    second.take(&other);
    let vm = MicroVm::start("moved", Load::Spin, 1);
    first.take(&vm);
    let exporter = Exporter::with(&[], CONFIG);
    let periods = |e: &Exposition| told(e, vm.name(), "vm").map(|[periods, ..]| periods);
    let start = exporter.until(|e| periods(e).is_some_and(|n| n > 0.0));
    let past = eventually(|| Some(second.throttling()[0]).filter(|n| *n > 400.0));
    let past = past.expect("the other guest is throttled");
    drop(other);
    let start = periods(&start).expect("it was there");
    second.take(&vm);
    let before_move = first.throttling()[0];
    let later = exporter.until(|e| periods(e).is_some_and(|n| n > before_move));
    let later = periods(&later).expect("it was there");
    let own = second.throttling()[0] - past;
    assert!(later >= start);
    assert!(
        later <= before_move + own,
        "{later} {before_move} {own} {past}"
    );
}

/// libvirt's names of the levels: `vcpu_quota` is set on each vCPU's group, `global_quota` on the
/// machine's (virsh(1), schedinfo).
#[test]
fn the_quotas_that_libvirt_sets_are_told_at_their_level() {
    if !qemu_works() {
        return;
    }
    let Some(mut libvirt) = Libvirt::start() else {
        return;
    };
    let name = libvirt.domain().to_owned();
    let run = libvirt.run_dir().display().to_string();
    let exporter = Exporter::with(&["--path.runfs", &run], CONFIG);
    libvirt.create("c713b8d7-0c4e-4f6a-9a86-1f6a3f1f7c12");
    let vcpus = |e: &Exposition| e.one("kvm_vm_vcpus", &[("vm", &name)]);
    exporter.until(|e| vcpus(e) == Some(2.0));
    let set = |libvirt: &mut Libvirt, what: &str| {
        let answer = libvirt.ask(&format!("schedinfo {name} --live {what}"));
        let (parameter, value) = what.split_once('=').expect("a parameter and a value");
        let says = |line: &str| {
            let field = line.split_once(':');
            field.is_some_and(|(p, v)| (p.trim(), v.trim()) == (parameter, value))
        };
        let done = answer.lines().any(says);
        if !done {
            println!("skipped: this libvirt sets no {what}: {answer}");
        }
        done
    };
    if !set(&mut libvirt, "cpu_shares=512") {
        return;
    }
    let weight = |e: &Exposition| e.one("kvm_vm_cpu_weight", &[("vm", &name)]);
    // On v2, libvirt uses the shares as the weight.
    exporter.until(|e| weight(e).is_some_and(|w| w == 50.0 || w == 512.0));
    assert!(set(&mut libvirt, "vcpu_quota=20000"));
    exporter.until(|e| quota(e, &name) == Some(("vcpu".to_owned(), 0.4)));
    assert!(set(&mut libvirt, "global_quota=30000"));
    exporter.until(|e| quota(e, &name) == Some(("vm".to_owned(), 0.3)));
    let told = |level| told(&exporter.scrape(), &name, level);
    assert!(told("vcpu").is_some() && told("vm").is_some());
}

#[test]
fn pressure_is_the_kernels() {
    let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let unified = unified
        .into_iter()
        .find(|dir| dir.join("cgroup.controllers").exists());
    let dir = unified.map(|dir| dir.join(format!("vcpu-exporter-test-{}-psi", std::process::id())));
    let made = dir.filter(|dir| std::fs::create_dir(dir).is_ok());
    let Some(dir) = made.filter(|_| kvm_works()) else {
        println!("skipped: no group can be made in a v2 hierarchy");
        return;
    };
    let group = Group {
        version: Version::V2,
        dir,
    };
    if std::fs::read(group.dir.join("cpu.pressure")).is_err() {
        println!("skipped: the kernel keeps no pressure statistics");
        return;
    }
    let total = |kind: &str| -> f64 {
        let text = group.read("cpu.pressure");
        let line = text
            .lines()
            .find(|line| line.starts_with(kind))
            .expect("it has the kind");
        let (_, total) = line.rsplit_once("total=").expect("it has a total");
        total.parse::<f64>().expect("a number") / 1e6
    };
    // Two vCPUs on one CPU: one of them always waits.
    let mut vm = MicroVm::start("pressed", Load::Spin, 2);
    group.take(&vm);
    let exporter = Exporter::with(&[], CONFIG);
    let cpu = allowed_cpus()[0];
    (0..2).for_each(|index| vm.pin(index, cpu));
    let before = eventually(|| Some(total("some")).filter(|t| *t > 0.1)).expect("both want a CPU");
    let labels = [("vm", vm.name()), ("resource", "cpu"), ("kind", "some")];
    let told = |e: &Exposition| e.one("kvm_vm_pressure_seconds_total", &labels);
    let seen = exporter.until(|e| told(e).is_some_and(|told| told >= before));
    let after = total("some");
    let seen = told(&seen).expect("it was there");
    assert!(seen <= after, "{before} {seen} {after}");
}

/// Mount point of cgroup v2, and two sibling groups below a group of the test.
fn two_groups_of_v2() -> Option<[PathBuf; 3]> {
    let root = Path::new("/sys/fs/cgroup");
    let mounts = [root.to_owned(), root.join("unified")];
    let mut v2 = mounts
        .iter()
        .filter(|dir| dir.join("cgroup.controllers").exists());
    let Some(v2) = v2.next() else {
        println!("skipped: cgroup v2 is not mounted below {}", root.display());
        return None;
    };
    let ours = v2.join(format!(
        "vcpu-exporter-test-{}-namespace",
        std::process::id()
    ));
    let groups = [ours.join("vm"), ours.join("exporter"), ours];
    for group in &groups {
        if let Err(error) = std::fs::create_dir_all(group) {
            println!(
                "skipped: no cgroup can be made: {}: {error}",
                group.display()
            );
            return None;
        }
    }
    Some(groups)
}

/// The kernel shows the VM's group as `/../vm` to an exporter in another cgroup namespace, as in a
/// container. The test writes the groups' files, because few machines have v2's memory controller.
#[test]
fn memory_by_cgroup_is_found_from_a_cgroup_namespace_of_the_exporters_own() {
    if !kvm_works() {
        return;
    }
    let unshared = std::process::Command::new("unshare")
        .args(["--cgroup", "true"])
        .status();
    if !unshared.is_ok_and(|status| status.success()) {
        println!("skipped: no cgroup namespace can be made here");
        return;
    }
    let Some([of_vm, of_exporter, ours]) = two_groups_of_v2() else {
        return;
    };
    let remove = [of_vm.clone(), of_exporter.clone(), ours].map(|dir| Group {
        version: Version::V2,
        dir,
    });
    let vm = MicroVm::start("hidden", Load::Halt, 1);
    std::fs::write(of_vm.join("cgroup.procs"), vm.pid().to_string()).expect("it is moved");

    let cgroupfs = tempfile::tempdir().expect("a directory");
    let group = cgroupfs.path().join("kubepods/vm");
    std::fs::create_dir_all(&group).expect("a directory");
    std::fs::write(cgroupfs.path().join("cgroup.controllers"), "memory\n").expect("a file");
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).expect("it runs");
    let resident = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kilobytes.expect("it has the line") << 10
    };
    let (anon, shmem) = (resident("RssAnon:"), resident("RssShmem:"));
    let stat = format!("anon N0={anon}\nfile N0={shmem}\nshmem N0={shmem}\n");
    std::fs::write(group.join("memory.numa_stat"), stat).expect("a file");

    let mut command = std::process::Command::new("sh");
    let enter = r#"echo $$ >"$0/cgroup.procs" && exec unshare --cgroup "$@""#;
    command.args(["-c", enter]);
    command
        .arg(&of_exporter)
        .arg(env!("CARGO_BIN_EXE_vcpu-exporter"));
    let root = cgroupfs.path().display().to_string();
    let exporter = Exporter::spawn(command, &["--path.cgroupfs", &root], "");
    let labels = [("vm", vm.name()), ("method", "cgroup")];
    exporter.until(|e| e.one("kvm_vm_memory_info", &labels).is_some());
    let told = exporter.scrape();
    let told = told.one(
        "kvm_vm_memory_bytes",
        &[("vm", vm.name()), ("numa_node", "0")],
    );
    assert_eq!(told, Some((anon + shmem) as f64));
    drop((exporter, vm));
    drop(remove);
}
