//! Location of guest memory on a host with two NUMA nodes, while the VM and then its memory move.

use crate::exposition::Exposition;
use crate::machine::{Console, Machine};

const MIB: f64 = 1048576.0;
/// Memory of each VM, also in the script. Its process also has pages of the program, which are
/// shared memory here because programs are in a tmpfs, and which are not charged to its cgroup.
/// These must be less than the sixteenth by which a cgroup may differ from its process.
const RAM: f64 = 160.0 * MIB;
/// Most private memory of a micro-VM's process.
const OWN: f64 = 8.0 * MIB;

/// CPUs 2 and 3 are node 1. Three VMs with one vCPU each. The first one always runs, so that NUMA
/// balancing scans its memory: after a full scan, its pages have hints, except the few that the
/// guest touches. One VM has its own cgroup, another one is in the root. Memory is touched on node
/// 1, then the vCPUs move to node 0, and then the memory follows: the kernel moves it when the
/// nodes of a cpuset change (cgroup-v2.rst, "cpuset.mems").
const SCRIPT: &str = r#"
cd /sys/fs/cgroup
echo +memory +cpuset >cgroup.subtree_control
mkdir own node0
echo 0 >node0/cpuset.mems
read -r me _ </proc/self/stat
start_with_memory() {
    mkfifo "/tmp/$1.in" "/tmp/$1.out"
    vcpu-exporter micro-vm --control --name "$1" --load "$2" --vcpus 1 --memory 160 \
        0<>"/tmp/$1.in" 1<>"/tmp/$1.out" &
    eval "$1=$!"
    read -r ready <"/tmp/$1.out"
}
taskset -p c "$me" >/dev/null
start_with_memory hinted spin
passes() { sed -n 's/.*numa_scan_seq *: *//p' "/proc/$hinted/task/$1/sched"; }
vcpu=$(echo "$ready" | sed 's/.*"tid":\([0-9]*\).*/\1/')
until [ "$(passes "$vcpu")" -ge 1 ]; do usleep 100000; done
start_with_memory walked halt
# A thread loses its affinity when it moves to another cpuset.
echo "$me" >own/cgroup.procs
taskset -p c "$me" >/dev/null
start_with_memory accounted halt
echo "$me" >cgroup.procs
taskset -p f "$me" >/dev/null
# pages PROCESS: the pages of its mappings above 16 MiB on each node.
pages() {
    awk '{ for (n = 3; n <= NF; n++) if (split($n, p, "=") == 2 && p[1] ~ /^N[0-9]+$/ && p[2] > 4096) sum[p[1]] += p[2] }
         END { print sum["N0"] + 0, sum["N1"] + 0 }' "/proc/$1/numa_maps"
}
start_exporter 'sampling: {tick: 100ms, inventory: 1s}
sources: {memory: {period: 10s, budget: 10s}}'
scrape_until '^kvm_vm_memory_bytes.vm="walked"' >/dev/null
scrape_until '^kvm_vm_memory_bytes.vm="accounted"' >/dev/null
section hinted scrape_until '^kvm_vm_memory_bytes.vm="hinted"'
section hinted.pages pages "$hinted"
section hinted.smaps awk '/^AnonHugePages:/ { sum += $2 } END { print sum * 1024 }' "/proc/$hinted/smaps"
kill "$hinted"
for vm in walked accounted; do ask $vm pin 0 0 >/dev/null; done
scrape_until '^kvm_vcpu_placement_info.vm="accounted".*cpu="0"' >/dev/null
section far scrape_until '^kvm_vcpu_placement_info.vm="walked".*cpu="0"'
section far.walked pages "$walked"
section far.accounted grep -E '^(anon|shmem) ' own/memory.numa_stat
echo 0 >own/cpuset.mems
echo "$walked" >node0/cgroup.procs
scrape_until '^kvm_vm_memory_bytes.vm="accounted",numa_node="1". [0-9]{1,6}$' >/dev/null
section near scrape_until '^kvm_vm_memory_bytes.vm="walked",numa_node="1". [0-9]{1,6}$'
section near.walked pages "$walked"
section near.accounted grep -E '^(anon|shmem) ' own/memory.numa_stat
section limits cat own/cgroup.procs
"#;

fn bytes(scrape: &Exposition, vm: &str) -> [f64; 2] {
    ["0", "1"].map(|node| {
        let labels = [("vm", vm), ("numa_node", node)];
        scrape
            .one("kvm_vm_memory_bytes", &labels)
            .expect("it is known")
    })
}

fn method(scrape: &Exposition, vm: &str) -> String {
    let labels = [("vm", vm)];
    let mut all = scrape.all("kvm_vm_memory_info", &labels);
    all.next().expect("it is known").label("method").to_owned()
}

/// `0 16384`: pages on each node.
fn pages(text: &str) -> [f64; 2] {
    let counts: Vec<f64> = text
        .split_whitespace()
        .map(|n| n.parse().expect("a count"))
        .collect();
    [counts[0] * 4096.0, counts[1] * 4096.0]
}

/// `anon N0=1 N1=2` and `shmem …`, summed by node.
fn accounted(text: &str) -> [f64; 2] {
    ["N0=", "N1="].map(|node| {
        let words = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(node));
        words
            .map(|bytes| bytes.parse::<f64>().expect("bytes"))
            .sum()
    })
}

#[track_caller]
fn assert_near(found: [f64; 2], truth: [f64; 2], slack: f64) {
    println!("found {found:?}, the kernel {truth:?}");
    for (found, truth) in found.iter().zip(truth) {
        assert!((found - truth).abs() <= slack, "{found} is not {truth}");
    }
}

/// Requires all memory to be reported by backing too, and in huge pages; returns the huge pages in
/// smaps.
fn check_backing(console: &Console) -> f64 {
    let scrape = console.scrape("hinted");
    let nodes: f64 = bytes(&scrape, "hinted").iter().sum();
    let of = |backing| {
        let labels = [("vm", "hinted"), ("backing", backing)];
        scrape.one("kvm_vm_memory_backing_bytes", &labels)
    };
    let backing = ["4k", "thp"].map(|backing| of(backing).expect("it is known"));
    let told: f64 = console
        .section("hinted.smaps")
        .trim()
        .parse()
        .expect("a number");
    println!("by node {nodes}, by backing {backing:?}, huge pages in smaps {told}");
    assert_near(
        bytes(&scrape, "hinted"),
        pages(console.section("hinted.pages")),
        0.0,
    );
    assert_eq!(
        backing[0] + backing[1],
        nodes,
        "both report the same memory"
    );
    assert!(backing[1] > RAM / 2.0, "it is in huge pages");
    told
}

#[test]
fn memory_is_all_there_although_linux_6_1_leaves_out_pages_with_a_numa_hint() {
    let console = Machine::amd64().run(SCRIPT);
    let huge = check_backing(&console);
    assert!(huge < RAM / 4.0, "this kernel leaves them out of smaps");
    check_moves(&console);
}

#[test]
fn memory_is_all_there_on_linux_6_12() {
    let console = Machine::amd64_6_12().run(SCRIPT);
    let huge = check_backing(&console);
    assert!(huge > RAM / 2.0, "this kernel has them in smaps");
    check_moves(&console);
}

/// Requires memory to be where it was touched and moved to.
fn check_moves(console: &Console) {
    for (step, home) in [("far", 1), ("near", 0)] {
        let scrape = console.scrape(step);
        let truth = |vm: &str| format!("{step}.{vm}");
        assert_eq!(method(&scrape, "walked"), "numa_maps");
        assert_eq!(method(&scrape, "accounted"), "cgroup");
        let walked = bytes(&scrape, "walked");
        // The same file, read for the same mappings.
        assert_near(walked, pages(console.section(&truth("walked"))), 0.0);
        assert!(
            walked[home] >= RAM && walked[home] < RAM + OWN,
            "{walked:?}"
        );
        let found = bytes(&scrape, "accounted");
        assert_near(found, accounted(console.section(&truth("accounted"))), MIB);
        assert!(found[home] >= RAM && found[home] < RAM + OWN, "{found:?}");
        // Remote memory of a vCPU on node 0: all, then nothing.
        let remote = walked[1] / (walked[0] + walked[1]);
        assert!((remote - home as f64).abs() < 0.01, "{remote}");
        let labels = [("vm", "walked"), ("backing", "thp")];
        let huge = scrape.one("kvm_vm_memory_backing_bytes", &labels);
        println!("huge pages: {huge:?}");
    }
}
