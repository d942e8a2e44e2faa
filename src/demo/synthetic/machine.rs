//! Files of the machine: a server with two Xeon Gold 6338 and Linux 6.12.

use std::io;

use super::scenario::{MemoryNode, CORES, CPUS, NODES};
use super::state::State;
use super::tree::Tree;
use crate::fake_host::files::machine::{self as files, NodeMemory, CPU, NODE};

/// The format on Linux 6.18, x86-64.
const KVM_EXIT_FORMAT: &str = include_str!("../../sources/exits/format/kvm_exit-x86-6.18.txt");

/// /proc/cpuinfo of the first CPU.
const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\n\
    model name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\nstepping\t: 6\nmicrocode\t: 0xd0003f6\n\
    flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse \
    sse2 ht syscall nx pdpe1gb rdtscp lm constant_tsc arch_perfmon aperfmperf pni vmx smx est ssse3 fma \
    sse4_1 sse4_2 x2apic avx f16c rdrand ept vpid smep smap avx2 avx512f intel_pt cqm_llc cqm_occup_llc \
    cqm_mbm_total cqm_mbm_local md_clear flush_l1d arch_capabilities\n\
    vmx flags\t: vnmi preemption_timer posted_intr invvpid ept_x_only ept_ad ept_1gb flexpriority apicv \
    tsc_offset vtpr mtf vapic ept vpid unrestricted_guest vapic_reg vid ple shadow_vmcs pml\n\n";

/// Files with one constant line.
const LINES: &[(&str, &str)] = &[
    ("proc/sys/kernel/hostname", "synthetic-1"),
    ("proc/sys/kernel/osrelease", "6.12.43+deb13-amd64"),
    ("proc/sys/kernel/perf_event_paranoid", "2"),
    ("proc/sys/kernel/nmi_watchdog", "1"),
    (
        "proc/pressure/cpu",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0",
    ),
    ("sys/devices/system/cpu/smt/active", "1"),
    ("sys/devices/system/cpu/isolated", ""),
    (
        "sys/fs/cgroup/cgroup.controllers",
        "cpuset cpu io memory hugetlb pids",
    ),
    ("sys/module/kvm/parameters/enable_pmu", "Y"),
    ("sys/module/kvm/parameters/halt_poll_ns", "200000"),
    ("sys/module/kvm/parameters/nx_huge_pages", "N"),
    ("sys/module/kvm_intel/parameters/enable_mediated_pmu", "N"),
    ("sys/module/kvm_intel/parameters/ept", "Y"),
    ("sys/module/kvm_intel/parameters/nested", "Y"),
    ("sys/module/kvm_intel/parameters/pt_mode", "0"),
    ("sys/kernel/mm/ksm/full_scans", "0"),
    ("sys/kernel/mm/ksm/pages_shared", "0"),
    ("sys/kernel/mm/ksm/pages_sharing", "0"),
    ("sys/kernel/mm/ksm/pages_unshared", "0"),
    ("sys/kernel/mm/ksm/pages_volatile", "0"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never",
    ),
    ("sys/kernel/debug/kvm/exits", "0"),
    ("sys/fs/resctrl/info/L3_MON/num_rmids", "224"),
    ("sys/class/vfio/vfio/uevent", ""),
    ("dev/kmsg", "6,1,1,-;Linux version 6.12.43+deb13-amd64"),
];

/// Vulnerabilities and mitigations.
const VULNERABILITIES: &[(&str, &str)] = &[
    ("itlb_multihit", "Not affected"),
    ("l1tf", "Not affected"),
    ("mds", "Not affected"),
    ("meltdown", "Not affected"),
    (
        "mmio_stale_data",
        "Mitigation: Clear CPU buffers; SMT vulnerable",
    ),
    ("retbleed", "Not affected"),
    (
        "spec_store_bypass",
        "Mitigation: Speculative Store Bypass disabled via prctl",
    ),
    (
        "spectre_v1",
        "Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
    ),
    (
        "spectre_v2",
        "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence",
    ),
    ("tsx_async_abort", "Not affected"),
];

/// PMUs: directory, name and content. No event trace and no power events, as on this CPU.
const PMUS: &[(&str, &str, &str)] = &[
    ("cpu", "type", "4"),
    ("cpu/format", "event", "config:0-7"),
    ("cpu/format", "umask", "config:8-15"),
    ("cpu/format", "edge", "config:18"),
    ("cpu/format", "inv", "config:23"),
    ("cpu/format", "cmask", "config:24-31"),
    ("cpu/events", "cpu-cycles", "event=0x3c"),
    ("cpu/events", "instructions", "event=0xc0"),
    ("intel_pt", "type", "8"),
    ("intel_pt/caps", "psb_cyc", "1"),
    ("intel_pt/caps", "ip_filtering", "1"),
    ("intel_pt/caps", "mtc", "1"),
    ("intel_pt/caps", "topa_output", "1"),
    ("intel_pt/format", "pt", "config:0"),
    ("intel_pt/format", "cyc", "config:1"),
    ("intel_pt/format", "mtc", "config:9"),
    ("intel_pt/format", "tsc", "config:10"),
    ("intel_pt/format", "noretcomp", "config:11"),
    ("intel_pt/format", "branch", "config:13"),
    ("intel_pt/format", "psb_period", "config:24-27"),
];

/// Writes the constant files, except for memory.
pub(super) fn make(tree: &Tree, memory_node: Option<MemoryNode>) -> io::Result<()> {
    tree.files(files::cpus(2, CORES, 2, 1))?;
    tree.files(files::tracepoints(KVM_EXIT_FORMAT))?;
    tree.file("proc/cpuinfo", CPUINFO)?;
    LINES
        .iter()
        .try_for_each(|(path, text)| tree.line(path, text))?;
    for (name, text) in VULNERABILITIES {
        tree.line(&format!("{CPU}/vulnerabilities/{name}"), text)?;
    }
    for (dir, name, text) in PMUS {
        tree.line(&format!("sys/bus/event_source/devices/{dir}/{name}"), text)?;
    }
    for (node, distance) in (0..).zip(distances(memory_node)) {
        tree.line(&format!("{NODE}/node{node}/distance"), distance)?;
        tree.files(files::pool(node, 1 << 20, 0, 0))?;
    }
    if let Some(node) = memory_node {
        tree.line(&format!("{NODE}/node2/cpulist"), "")?;
        // All pages of the node were allocated to tasks on other nodes.
        let pages = node.bytes >> 12;
        tree.files(files::numastat(2, [pages, 0, 0, 0, 0, pages]))?;
    }
    for cpu in 0..CPUS {
        tree.files(files::frequency(cpu, 2_600_000, 800_000, 3_200_000))?;
        tree.line(&format!("{CPU}/cpu{cpu}/cpufreq/base_frequency"), "2000000")?;
        tree.files(files::throttles(cpu, [0; 2], [0; 2]))?;
    }
    Ok(())
}

/// Updates CPU times, frequencies, throttling and temperatures.
pub(super) fn update(tree: &Tree, state: &State) -> io::Result<()> {
    for cpu in 0..CPUS {
        let package = super::scenario::node_of(cpu) as usize;
        // Cores differ slightly, constantly over time.
        let part = 1.0 + f64::from(cpu % CORES % 7) * 0.002;
        let khz = (state.now.hertz[package] * part / 1e7).round() as u64 * 10_000;
        let path = format!("{CPU}/cpu{cpu}/cpufreq/scaling_cur_freq");
        tree.line(&path, khz)?;
        let seconds = state.throttled[package];
        if seconds > 0.0 {
            // About ten events per second of throttling.
            let counts = [(seconds * 10.0) as u64, (seconds * 1000.0) as u64];
            tree.files(files::throttles(cpu, [0; 2], counts))?;
        }
    }
    let ticks = state.cpus.iter().map(|cpu| cpu.ticks());
    let ticks: Vec<_> = (0..).zip(ticks).collect();
    tree.files(files::stat(&ticks))?;
    for node in 0..2 {
        tree.files(files::numastat(node, allocations(state, node)))?;
    }
    (0..2).try_for_each(|package| sensor(tree, state, package))
}

/// Allocations: some thousand pages per second of work, almost none for another node.
fn allocations(state: &State, node: u32) -> [u64; 6] {
    const PAGES: f64 = 3000.0;
    let cpus = (0..).zip(&state.cpus);
    let own = cpus.filter(|(cpu, _)| super::scenario::node_of(*cpu) == node);
    let busy: f64 = own.map(|(_, cpu)| cpu.busy()).sum();
    let (local, other) = ((PAGES * busy) as u64, (PAGES * busy / 50.0) as u64);
    [local + other, 0, 0, 1134, local, other]
}

fn sensor(tree: &Tree, state: &State, package: usize) -> io::Result<()> {
    let hot = state.now.throttled[package] > 0.0;
    let drift = (state.now.hertz[package] / 1e6) as i64 % 40 * 100;
    let millidegrees = if hot { 97_000 } else { 62_000 } + drift;
    let label = format!("Package id {package}");
    let temperatures = [(&*label, millidegrees), ("Core 0", millidegrees - 2000)];
    tree.files(files::sensor(package as u32, "coretemp", &temperatures))?;
    let link = format!("sys/class/hwmon/hwmon{package}/device");
    tree.link(&link, &format!("../../../coretemp.{package}"))
}

/// Distances between nodes (ACPI SLIT): a memory-only node is farther than the package's own node,
/// but nearer to the package it is attached to than the other package is.
fn distances(memory_node: Option<MemoryNode>) -> &'static [&'static str] {
    match memory_node.map(|node| node.package) {
        None => &["10 20", "20 10"],
        Some(0) => &["10 20 14", "20 10 24", "14 24 10"],
        Some(_) => &["10 20 24", "20 10 14", "24 14 10"],
    }
}

/// Writes the memory of the nodes, including `bytes` of VMs.
pub(super) fn memory(
    tree: &Tree,
    used: [u64; NODES],
    memory_node: Option<MemoryNode>,
) -> io::Result<()> {
    const PACKAGE: u64 = 512 << 20;
    // Memory of the kernel and its page cache is on nodes with CPUs.
    let others = [12 << 20, 3 << 20, 2 << 20];
    let alone = memory_node.map(|node| (node.bytes >> 10, [0, 1 << 10, 0]));
    let nodes = [Some((PACKAGE, others)), Some((PACKAGE, others)), alone];
    for ((node, known), used) in (0..).zip(nodes).zip(used) {
        let Some((total, [file, slab, other])) = known else {
            continue;
        };
        let left = total - total.min(file + slab + other);
        let anon = (used >> 10).min(left);
        let memory = NodeMemory {
            total,
            free: left - anon,
            anon,
            file,
            shmem: 0,
            slab,
        };
        tree.files(files::node_memory(node, memory))?;
    }
    Ok(())
}
