//! The memory of real QEMU guests against the sums of the kernel's smaps and numa_maps.
//!
//! QEMU itself identifies the mapping of guest RAM (`gpa2hva` of its monitor), not the rules of the
//! source. Tests print what the machine lacks and are skipped.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vcpu_exporter::config;
use vcpu_exporter::discover::{Scanner, Vm};
use vcpu_exporter::engine::{Fact, SourceState, VmSource};
use vcpu_exporter::host::roots::Roots;
use vcpu_exporter::host::topology::Topology;
use vcpu_exporter::metric::FactValue;
use vcpu_exporter::sources::memory::Memory;

use crate::support::run::{eventually, unique};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const MIB: u64 = 1 << 20;
/// Guest RAM, of a size that no other mapping of QEMU has.
const RAM: u64 = 72 * MIB;
/// Further guest memory in QEMU: firmware and its tables (`info ramblock`: 2.4 MiB).
const FIRMWARE: u64 = 3 * MIB;
/// The huge page setting of a process is inherited, so guests are started one at a time.
static START: Mutex<()> = Mutex::new(());

/// A stopped guest with all its memory resident.
struct Guest {
    child: Child,
    /// QEMU exits when its monitor's input is closed.
    _monitor: ChildStdin,
    vm: Arc<Vm>,
    /// Address of its RAM in QEMU.
    address: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lacks_qemu() -> bool {
    let kvm = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    let lacks = match kvm {
        Err(error) => format!("/dev/kvm: {error}"),
        Ok(_) if !Path::new(QEMU).exists() => {
            format!("{QEMU} is not installed (apt-get install qemu-system-x86)")
        }
        Ok(_) => return false,
    };
    println!("skipped: {lacks}");
    true
}

impl Guest {
    /// `backend` is QEMU's memory backend with its properties.
    fn start(name: &str, backend: &str, huge_pages: bool) -> Self {
        let _one = START.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::thread::disable_transparent_huge_pages(!huge_pages).unwrap();
        let name = unique(name);
        let child = Command::new(QEMU)
            // Some hosts refuse the MSR of arch-capabilities to nested guests.
            .args([
                "-accel",
                "kvm",
                "-cpu",
                "host,-arch-capabilities",
                "-m",
                "72",
                "-S",
            ])
            .args([
                "-display",
                "none",
                "-nodefaults",
                "-no-user-config",
                "-monitor",
                "stdio",
            ])
            .args(["-object", &format!("{backend},id=ram,size=72M,prealloc=on")])
            .args(["-machine", "pc,memory-backend=ram", "-name", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        rustix::thread::disable_transparent_huge_pages(false).unwrap();
        let mut child = child.unwrap();
        let (monitor, address) = ask_for_ram(&mut child);
        Self {
            vm: find(&name),
            child,
            _monitor: monitor,
            address,
        }
    }

    /// The kernel's figures of the RAM mapping: kilobytes by name, pages by node.
    fn kernel(&self) -> (BTreeMap<String, u64>, BTreeMap<u32, u64>) {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.child.id());
            std::fs::read_to_string(path).unwrap()
        };
        let start = format!("{:x}", self.address);
        let smaps = read("smaps");
        let lines = smaps
            .lines()
            .skip_while(|line| !line.starts_with(&format!("{start}-")));
        let fields = lines
            .skip(1)
            .take_while(|line| !line.starts_with("VmFlags"));
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((
                name.to_owned(),
                value.trim().strip_suffix(" kB")?.parse().ok()?,
            ))
        };
        let maps = read("numa_maps");
        let mut lines = maps.lines();
        let line = lines.find(|line| line.starts_with(&format!("{start} ")));
        let words = line.expect("RAM has a line").split(' ');
        let node = |word: &str| {
            let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
            Some((node.parse().ok()?, pages.parse().ok()?))
        };
        (
            fields.filter_map(field).collect(),
            words.filter_map(node).collect(),
        )
    }
}

/// Asks QEMU's monitor for the address of the guest's first page.
fn ask_for_ram(child: &mut Child) -> (ChildStdin, u64) {
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "gpa2hva 0").unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answers = lines.map_while(Result::ok);
    let address = answers
        .filter_map(|line| Some(line.split_once(" is 0x")?.1.trim().to_owned()))
        .next();
    let address = address.expect("QEMU reports the address of guest memory");
    (stdin, u64::from_str_radix(&address, 16).unwrap())
}

fn find(name: &str) -> Arc<Vm> {
    let mut scanner = Scanner::new(Arc::new(Roots::default()));
    let topology = Arc::new(Topology::default());
    let found = eventually(|| {
        let vms = &scanner.scan(&topology).vms;
        vms.iter().find(|vm| vm.name == name).cloned()
    });
    found.unwrap_or_else(|| panic!("no {name} in {:#?}", scanner.scan(&topology)))
}

/// This machine with a second, empty node, so that numa_maps is read.
fn with_another_node() -> (tempfile::TempDir, Roots) {
    let dir = tempfile::tempdir().unwrap();
    for node in ["node0", "node1"] {
        std::fs::create_dir_all(dir.path().join("devices/system/node").join(node)).unwrap();
    }
    let mut roots = Roots::default();
    roots.sys = dir.path().to_owned();
    (dir, roots)
}

fn look(roots: Roots, vm: &Vm) -> Vec<Fact> {
    let config = config::Memory {
        budget: Duration::from_secs(10),
        ..config::Memory::default()
    };
    let mut source = Memory::new(&config, Arc::new(roots));
    let facts = source.read(vm).unwrap();
    assert_eq!(source.state(), SourceState::Up);
    facts
}

fn value(facts: &[Fact], metric: &str, label: &str) -> u64 {
    let same = |fact: &&Fact| fact.metric == metric && fact.labels[0].1.to_string() == label;
    match facts.iter().find(same).map(|fact| fact.value.clone()) {
        Some(FactValue::Int(value)) => value,
        None => 0,
        other => panic!("{metric} {label}: {other:?}"),
    }
}

/// Requires the kernel's figure of RAM, plus at most QEMU's firmware.
#[track_caller]
fn assert_near(found: u64, kernel: u64, what: &str) {
    let range = kernel..=kernel + FIRMWARE;
    assert!(
        range.contains(&found),
        "{what}: {found}, the kernel: {kernel}"
    );
}

/// Reads the guest's memory in both ways, and returns it by backing.
fn equals_the_kernels(guest: &Guest) -> BTreeMap<&'static str, u64> {
    // The kernel can collapse, split or move pages during the reads: then everything is read again.
    let still = eventually(|| {
        let before = guest.kernel();
        let (_dir, two_nodes) = with_another_node();
        let ways = [("smaps", Roots::default()), ("numa_maps", two_nodes)];
        let facts = ways.map(|(method, roots)| (method, look(roots, &guest.vm)));
        (guest.kernel() == before).then_some((before, facts))
    });
    let ((fields, nodes), ways) = still.expect("nothing moves for a moment");
    let of = |name: &str| fields.get(name).map_or(0, |kb| kb << 10);
    let resident = of("Rss") + of("Private_Hugetlb") + of("Shared_Hugetlb");
    assert_eq!(resident, RAM, "all of it is resident");
    let mut backings = BTreeMap::new();
    for (method, facts) in ways {
        let nodes_here = std::fs::read_dir("/sys/devices/system/node").map_or(0, |dir| {
            let names = dir
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok());
            names.filter(|name| name.starts_with("node")).count()
        });
        if nodes_here == 1 || method == "numa_maps" {
            assert_eq!(value(&facts, "kvm_vm_memory_info", method), 1, "{facts:?}");
        }
        for (node, pages) in &nodes {
            let bytes = value(&facts, "kvm_vm_memory_bytes", &node.to_string());
            assert_near(bytes, pages * of("KernelPageSize"), method);
        }
        let backing = |name| value(&facts, "kvm_vm_memory_backing_bytes", name);
        let thp = of("AnonHugePages") + of("ShmemPmdMapped");
        assert_near(backing("thp"), thp, "thp");
        assert_near(backing("4k"), of("Rss") - thp, "4k");
        let pools = of("Private_Hugetlb") + of("Shared_Hugetlb");
        assert_eq!(backing("hugetlb_2m"), pools, "huge pages of a pool");
        backings = ["4k", "thp", "hugetlb_2m"]
            .map(|name| (name, backing(name)))
            .into();
    }
    backings
}

#[test]
fn anonymous_memory_in_transparent_huge_pages() {
    if lacks_qemu() {
        return;
    }
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if enabled.map_or(true, |text| text.contains("[never]")) {
        println!("skipped: transparent huge pages are switched off here");
        return;
    }
    let guest = Guest::start("thp", "memory-backend-ram", true);
    let backing = equals_the_kernels(&guest);
    if backing["thp"] == 0 {
        println!("skipped: the kernel had no huge page to give");
    }
}

#[test]
fn anonymous_memory_without_huge_pages() {
    if lacks_qemu() {
        return;
    }
    let guest = Guest::start("base", "memory-backend-ram", false);
    let backing = equals_the_kernels(&guest);
    assert_eq!(backing["thp"], 0);
    assert!(backing["4k"] >= RAM);
}

#[test]
fn shared_memory_of_a_memfd() {
    if lacks_qemu() {
        return;
    }
    let guest = Guest::start("memfd", "memory-backend-memfd,share=on", true);
    let backing = equals_the_kernels(&guest);
    assert!(backing["4k"] + backing["thp"] >= RAM);
}

/// Free huge pages in the machine's pool; tests must not change the pool size, which is a sysctl.
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

#[test]
fn huge_pages_of_a_pool() {
    if lacks_qemu() {
        return;
    }
    let free = std::fs::read_to_string(FREE).ok();
    let free: u64 = free.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let needed = RAM / (2 * MIB);
    if free < needed {
        println!(
            "skipped: {free} of {needed} huge pages are free (sysctl vm.nr_hugepages={needed})"
        );
        return;
    }
    let backend = "memory-backend-memfd,hugetlb=on,hugetlbsize=2M";
    let guest = Guest::start("pool", backend, true);
    let backing = equals_the_kernels(&guest);
    assert_eq!(backing["hugetlb_2m"], RAM);
}
