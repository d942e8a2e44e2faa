mod cgroup;

use super::*;
use crate::config::Memory as Config;
use crate::discover::Scanner;
use crate::fake_host::{Block, FakeHost, UUID_A, UUID_B};
use crate::host::topology::Topology;
use std::process::Command;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Two nodes with two CPUs each.
fn two_nodes() -> FakeHost {
    let host = FakeHost::new();
    host.cpus(2, 2, 1, 1);
    host
}

fn roots(host: &FakeHost) -> Arc<Roots> {
    Arc::new(Roots::below(host.root()))
}

fn vms(host: &FakeHost) -> Vec<Arc<Vm>> {
    let topology = Arc::new(Topology::default());
    Scanner::new(roots(host)).scan(&topology).vms.clone()
}

fn source(host: &FakeHost) -> Memory {
    Memory::new(&Config::default(), roots(host))
}

/// The facts as text, without the time.
fn reported(facts: &[Fact]) -> Vec<String> {
    let value = |fact: &Fact| match &fact.value {
        FactValue::Int(n) if n % MIB == 0 => format!("{}M", n / MIB),
        FactValue::Int(n) => n.to_string(),
        other => format!("{other:?}"),
    };
    let timeless = facts
        .iter()
        .filter(|f| !f.metric.name.contains("timestamp"));
    let labels = |fact: &Fact| -> String {
        let labels = fact.labels.iter();
        labels.map(|(_, value)| format!(" {value}")).collect()
    };
    let name = |fact: &Fact| fact.metric.name.replace("kvm_vm_memory_", "");
    timeless
        .map(|f| format!("{}{} {}", name(f), labels(f), value(f)))
        .collect()
}

fn code(source: &Memory) -> (&'static str, &'static str) {
    match source.state() {
        SourceState::Up => ("up", ""),
        SourceState::Degraded(reason) => ("degraded", reason.code.label()),
        SourceState::Down(reason) => ("down", reason.code.label()),
    }
}

/// Reads all VMs once, by name.
fn read_all(source: &mut Memory, host: &FakeHost) -> Vec<(String, Vec<String>)> {
    let vms = vms(host);
    let read = vms
        .iter()
        .map(|vm| (vm.name.clone(), reported(&source.read(vm).unwrap())));
    read.collect()
}

fn read_one(source: &mut Memory, host: &FakeHost) -> Vec<String> {
    let all = read_all(source, host);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap().1
}

#[test]
fn guest_ram_is_reported_by_node_and_page_size() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    let half_huge = Block {
        thp: 64 * MIB,
        size: GIB,
        ..Block::ram(&[128 * MIB, 32 * MIB])
    };
    let pool = Block {
        path: "/dev/hugepages/ram (deleted)",
        page_size: 2 * MIB,
        ..Block::ram(&[0, 256 * MIB])
    };
    let gigantic = Block {
        path: "/dev/hugepages1G/ram",
        page_size: GIB,
        ..Block::ram(&[GIB])
    };
    let heap = Block::own(&[64 * MIB]);
    host.memory(1000, &[half_huge, heap, pool, gigantic]);
    let mut source = source(&host);
    let expected = [
        "bytes 0 1152M",
        "bytes 1 288M",
        "backing_bytes 4k 96M",
        "backing_bytes hugetlb_1g 1024M",
        "backing_bytes hugetlb_2m 256M",
        "backing_bytes thp 64M",
        "info numa_maps 1",
    ];
    assert_eq!(read_one(&mut source, &host), expected);
    assert_eq!(source.state(), SourceState::Up);
}

#[test]
fn huge_pages_missing_in_smaps_are_found_in_numa_maps() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    // As on Linux 6.1: two thirds of the huge pages have a NUMA hint at the moment.
    let hinted = Block {
        thp: 96 * MIB,
        hinted: 64 * MIB,
        ..Block::ram(&[64 * MIB, 64 * MIB])
    };
    let pool = Block {
        path: "/dev/hugepages/ram",
        page_size: 2 * MIB,
        ..Block::ram(&[256 * MIB])
    };
    host.memory(1000, &[hinted, pool]);
    let expected = [
        "bytes 0 320M",
        "bytes 1 64M",
        "backing_bytes 4k 32M",
        "backing_bytes hugetlb_2m 256M",
        "backing_bytes thp 96M",
        "info numa_maps 1",
    ];
    assert_eq!(read_one(&mut source(&host), &host), expected);
}

#[test]
fn one_node_with_numa_balancing_is_read_from_both_files() {
    let host = FakeHost::new();
    host.cpus(1, 2, 1, 1);
    host.qemu(1000, "a", UUID_A, 1);
    let hinted = Block {
        thp: 128 * MIB,
        hinted: 128 * MIB,
        ..Block::ram(&[128 * MIB])
    };
    host.memory(1000, &[hinted]);
    let thp = |setting: &str| {
        host.file("proc/sys/kernel/numa_balancing", setting);
        let reported = read_one(&mut source(&host), &host);
        (reported[2].clone(), reported[3].clone())
    };
    let reported = |thp: &str, method: &str| (thp.to_owned(), method.to_owned());
    let seen = thp("1\n");
    assert_eq!(seen, reported("backing_bytes thp 128M", "info numa_maps 1"));
    let unseen = thp("0\n");
    assert_eq!(unseen, reported("backing_bytes thp 0M", "info smaps 1"));
}

#[test]
fn growth_between_the_two_reads_is_not_counted_as_huge_pages() {
    // smaps, numa_maps and the growth of the process in between, in MiB.
    for (smaps, numa_maps, grown, hidden) in [
        (100, 100, 0, 0),
        (100, 164, 0, 64),
        (100, 164, 64, 0),
        (100, 164, 61, 2),
        (100, 101, 0, 0),
        (164, 100, 0, 0),
    ] {
        let more = u64::saturating_sub(numa_maps, smaps);
        assert_eq!(
            walk::hidden(more * MIB, grown * MIB, 2 * MIB),
            hidden * MIB,
            "{smaps} {numa_maps} {grown}"
        );
    }
}

#[test]
fn one_node_needs_only_smaps() {
    let host = FakeHost::new();
    host.firecracker(1000, "fn", 1);
    host.memory(1000, &[Block::own(&[128 * MIB]), Block::own(&[MIB])]);
    host.remove("proc/1000/numa_maps");
    let expected = [
        "bytes 0 128M",
        "backing_bytes 4k 128M",
        "backing_bytes thp 0M",
        "info smaps 1",
    ];
    assert_eq!(read_one(&mut source(&host), &host), expected);
}

#[test]
fn vm_too_large_for_the_budget_is_not_walked() {
    let host = two_nodes();
    host.qemu(1000, "large", UUID_A, 1);
    host.qemu(2000, "small", UUID_B, 1);
    host.memory(1000, &[Block::ram(&[256 * GIB])]);
    host.memory(2000, &[Block::ram(&[GIB])]);
    let mut source = source(&host);
    let all = read_all(&mut source, &host);
    assert_eq!((all[0].1.len(), all[1].1.is_empty()), (0, false), "{all:?}");
    let SourceState::Degraded(reason) = source.state() else {
        panic!("{:?}", source.state());
    };
    assert_eq!(reason.code, "budget");
    let expected = "1 of 2 VMs: walking their page tables would take longer than \
                    sources.memory.budget (200ms)";
    assert_eq!(reason.detail, expected);
}

#[test]
fn walk_beyond_the_budget_is_stopped_and_retried_much_later() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    // No counters to estimate the time from.
    host.set(1000, 1000, |_| ());
    let budget = Duration::from_nanos(1);
    let config = Config {
        budget,
        ..Config::default()
    };
    let mut source = Memory::new(&config, roots(&host));
    let vm = vms(&host).remove(0);
    let now = Instant::now();
    let later = |hours: u32| now + REST * hours + Duration::from_secs(1);
    let look = |source: &mut Memory, at| {
        let opens = source.roots.opens();
        assert_eq!(source.read_at(&vm, at).unwrap(), []);
        source.roots.opens() > opens
    };
    assert!(look(&mut source, now));
    assert_eq!(code(&source), ("degraded", "budget"));
    assert!(!look(&mut source, now + config.period));
    assert!(look(&mut source, later(1)));
    assert!(!look(&mut source, later(2)), "the pause doubles each time");
    assert!(look(&mut source, later(3)));
    source.config.budget = Duration::from_secs(10);
    assert!(!source.read_at(&vm, later(100)).unwrap().is_empty());
    assert_eq!(source.state(), SourceState::Up);
}

#[test]
fn budget_of_0_disables_walks() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    let config = Config {
        budget: Duration::ZERO,
        ..Config::default()
    };
    let mut source = Memory::new(&config, roots(&host));
    assert_eq!(read_one(&mut source, &host), [""; 0]);
    assert_eq!(code(&source), ("down", "walks_off"));
}

#[test]
fn vm_is_read_once_per_period() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB, 0])]);
    let mut source = source(&host);
    let vm = vms(&host).remove(0);
    let now = Instant::now();
    let first = source.read_at(&vm, now).unwrap();
    host.memory(1000, &[Block::ram(&[0, GIB])]);
    let period = Config::default().period;
    assert_eq!(source.read_at(&vm, now + period / 2).unwrap(), first);
    let moved = source.read_at(&vm, now + period).unwrap();
    assert_eq!(reported(&moved)[..2], ["bytes 0 0M", "bytes 1 1024M"]);
    assert!(source.period() < period);
}

#[test]
fn longest_waiting_vm_is_walked_first() {
    let host = two_nodes();
    for (pid, name) in [(1000, "a"), (2000, "b")] {
        host.qemu(pid, name, UUID_A, 1);
        host.memory(pid, &[Block::ram(&[GIB])]);
    }
    let mut source = source(&host);
    let vms = vms(&host);
    let now = Instant::now();
    let walked = |source: &mut Memory, vm: usize, at| {
        let before = source.vms.get(&vms[vm].key).map(|kept| kept.due);
        source.read_at(&vms[vm], at).unwrap();
        source.vms[&vms[vm].key].due > before.unwrap_or(at)
    };
    assert!(walked(&mut source, 0, now));
    source.bucket.take(Duration::from_secs(2));
    assert!(!walked(&mut source, 1, now), "no time left");
    let later = now + Duration::from_secs(600);
    assert!(
        !walked(&mut source, 0, later),
        "the other VM has waited longer"
    );
    assert!(walked(&mut source, 1, later));
    assert!(walked(&mut source, 0, later));
}

#[test]
fn fifo_instead_of_a_file_blocks_nothing() {
    for name in ["smaps", "numa_maps", "status", "stat", "cgroup"] {
        let host = two_nodes();
        host.proxmox(1000, 100, "a", UUID_A, 1);
        host.memory(1000, &[Block::ram(&[GIB])]);
        let vm = vms(&host).remove(0);
        let path = host.path(format!("proc/1000/{name}"));
        std::fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success());
        let mut source = source(&host);
        let facts = source.read(&vm).unwrap();
        match name {
            // Then it is walked.
            "cgroup" => assert!(!facts.is_empty()),
            _ => {
                assert_eq!(facts, [], "{name}");
                assert_eq!(code(&source), ("down", "unreadable"), "{name}");
            }
        }
    }
}

#[test]
fn invalid_size_leaves_the_memory_unknown() {
    for (name, from, to) in [
        ("smaps", "Rss:", "Rss: many"),
        ("numa_maps", "kernelpagesize_kB=", "pagesize="),
    ] {
        let host = two_nodes();
        host.qemu(1000, "a", UUID_A, 1);
        host.memory(1000, &[Block::ram(&[GIB])]);
        let file = format!("proc/1000/{name}");
        let text = std::fs::read_to_string(host.path(&file)).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        host.file(&file, text.replace(from, to));
        let mut source = source(&host);
        assert_eq!(read_one(&mut source, &host), [""; 0], "{name}");
        assert_eq!(code(&source), ("down", "unreadable"), "{name}");
    }
}

#[test]
fn text_of_a_gibibyte_is_not_read() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    let config = Config {
        budget: Duration::from_secs(10),
        ..Config::default()
    };
    for name in ["numa_maps", "smaps"] {
        let sparse = std::fs::OpenOptions::new()
            .write(true)
            .open(host.path(format!("proc/1000/{name}")));
        sparse.unwrap().set_len(GIB).unwrap();
        let mut source = Memory::new(&config, roots(&host));
        assert_eq!(read_one(&mut source, &host), [""; 0]);
        assert_eq!(code(&source), ("down", "unreadable"), "{name}");
    }
}

#[test]
fn missing_kernel_file_is_named() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    host.remove("proc/1000/numa_maps");
    let mut source = source(&host);
    assert_eq!(
        read_one(&mut source, &host).len(),
        3,
        "its page sizes are known"
    );
    assert_eq!(code(&source), ("degraded", "no_file"));
    host.remove("proc/1000/smaps");
    let mut source = Memory::new(&Config::default(), roots(&host));
    assert_eq!(read_one(&mut source, &host).len(), 0);
    assert_eq!(code(&source), ("down", "no_file"));
}

#[test]
fn ended_vm_or_reused_pid_is_gone() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    let vm = vms(&host).remove(0);
    let mut source = source(&host);
    let gone = |source: &mut Memory| {
        let read = source.read(&vm);
        assert!(matches!(read, Err(ReadError::Gone)), "{read:?}");
        assert!(source.vms.is_empty());
    };
    host.file("proc/1000/smaps", "");
    gone(&mut source);
    host.memory(1000, &[Block::ram(&[GIB])]);
    host.set(1000, 1000, |t| t.start_time += 1);
    gone(&mut source);
    host.exit(1000);
    gone(&mut source);
}

#[test]
fn memory_of_vms_in_one_process_is_unknown() {
    let host = two_nodes();
    host.qemu(1000, "a", UUID_A, 1);
    host.memory(1000, &[Block::ram(&[GIB])]);
    let one = vms(&host).remove(0);
    let mut other = (*one).clone();
    other.key.ordinal += 1;
    let mut source = source(&host);
    let now = Instant::now();
    source.read_at(&one, now).unwrap();
    assert_eq!(source.read_at(&other, now).unwrap(), []);
    assert_eq!(
        source
            .read_at(&one, now + Config::default().period)
            .unwrap(),
        []
    );
    assert_eq!(code(&source), ("down", "shared_process"));
    source.forget(other.key);
    assert_eq!(source.vms.len(), 1);
}

#[test]
fn tiny_vm_without_guest_ram_is_no_problem() {
    let host = two_nodes();
    host.micro_vm(1000, "tiny", UUID_A, 1);
    host.memory(1000, &[Block::own(&[8 * MIB])]);
    let mut source = source(&host);
    assert_eq!(read_one(&mut source, &host).len(), 0);
    assert_eq!(source.state(), SourceState::Up);
    let many: Vec<Block<'_>> = vec![Block::own(&[8 * MIB]); 4];
    host.memory(1000, &many);
    let mut source = Memory::new(&Config::default(), roots(&host));
    assert_eq!(read_one(&mut source, &host).len(), 0);
    assert_eq!(code(&source), ("down", "no_guest_ram"));
}
