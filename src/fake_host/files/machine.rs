//! Files about the machine: topology, frequencies, throttling, sensors and NUMA memory.

/// Paths below the host's root, and the contents of these files.
pub type Files = Vec<(String, String)>;

/// Directory of the CPUs.
pub const CPU: &str = "sys/devices/system/cpu";
/// Directory of the NUMA nodes.
pub const NODE: &str = "sys/devices/system/node";

/// Memory of a node, kB.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the kernel's words
pub struct NodeMemory {
    pub total: u64,
    pub free: u64,
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub slab: u64,
}

/// Topology of a CPU and the ids of its first-level and last-level caches.
pub fn cpu(id: u32, package: u32, core: u32, siblings: &[u32], llc: u32) -> Files {
    let dir = format!("{CPU}/cpu{id}");
    let file = |name: &str, text: String| (format!("{dir}/{name}"), text);
    vec![
        file("topology/physical_package_id", format!("{package}\n")),
        file("topology/core_id", format!("{core}\n")),
        file("topology/thread_siblings_list", list(siblings)),
        file("cache/index0/level", "1\n".into()),
        file("cache/index0/id", format!("{core}\n")),
        file("cache/index3/level", "3\n".into()),
        file("cache/index3/id", format!("{llc}\n")),
    ]
}

/// Die and cluster of a CPU, as the kernel numbers them.
pub fn parts(cpu: u32, die: i32, cluster: i32) -> Files {
    let file = |name, id| (format!("{CPU}/cpu{cpu}/topology/{name}"), format!("{id}\n"));
    vec![file("die_id", die), file("cluster_id", cluster)]
}

/// Identical cores, numbered as Linux numbers a server: first threads of all cores, then second
/// threads. Each package is split evenly into nodes and has one last-level cache.
pub fn cpus(packages: u32, cores: u32, threads: u32, nodes: u32) -> Files {
    let firsts = packages * cores;
    let mut files = Files::new();
    let mut of_node = vec![Vec::new(); (packages * nodes) as usize];
    for id in 0..firsts * threads {
        let (package, core) = (id % firsts / cores, id % cores);
        let siblings: Vec<u32> = (0..threads).map(|t| id % firsts + t * firsts).collect();
        files.extend(cpu(id, package, core, &siblings, package));
        let node = package * nodes + core * nodes / cores;
        of_node[node as usize].push(id);
    }
    files.push((
        format!("{CPU}/online"),
        format!("0-{}\n", firsts * threads - 1),
    ));
    let nodes = of_node.iter().enumerate();
    files.extend(nodes.map(|(node, cpus)| (format!("{NODE}/node{node}/cpulist"), list(cpus))));
    files
}

/// A list of numbers, without ranges.
pub fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!("{}\n", numbers.join(","))
}

/// Frequencies of a CPU in kHz: current, lowest, highest.
pub fn frequency(cpu: u32, now: u64, min: u64, max: u64) -> Files {
    let files = [
        ("scaling_cur_freq", now),
        ("cpuinfo_min_freq", min),
        ("cpuinfo_max_freq", max),
    ];
    let file = |(name, khz)| (format!("{CPU}/cpu{cpu}/cpufreq/{name}"), format!("{khz}\n"));
    files.map(file).into()
}

/// CPU time in clock ticks, in the order of a line of /proc/stat: user and nice include the guest
/// times.
pub type Ticks = [u64; 10];

/// /proc/stat: the online CPUs with their times, and the lines after them.
pub fn stat(cpus: &[(u32, Ticks)]) -> Files {
    let line = |name: &str, ticks: &Ticks| {
        let ticks: Vec<String> = ticks.iter().map(u64::to_string).collect();
        format!("cpu{name} {}\n", ticks.join(" "))
    };
    let mut all = [0; 10];
    for (_, ticks) in cpus {
        all.iter_mut().zip(ticks).for_each(|(all, n)| *all += n);
    }
    let lines = cpus
        .iter()
        .map(|(cpu, ticks)| line(&cpu.to_string(), ticks));
    let lines: String = lines.collect();
    let rest = "intr 1000 0 9 0\nctxt 5000\nbtime 1764500000\nprocesses 4000\nprocs_running 3\n\
        procs_blocked 0\nsoftirq 700 0 300 100 300\n";
    vec![("proc/stat".into(), line(" ", &all) + &lines + rest)]
}

/// Throttle counters of a CPU, as on Intel: count and milliseconds of core and package.
pub fn throttles(cpu: u32, core: [u64; 2], package: [u64; 2]) -> Files {
    let dir = format!("{CPU}/cpu{cpu}/thermal_throttle");
    let file = |what: &str, n: u64| (format!("{dir}/{what}"), format!("{n}\n"));
    vec![
        file("core_throttle_count", core[0]),
        file("core_throttle_total_time_ms", core[1]),
        file("package_throttle_count", package[0]),
        file("package_throttle_total_time_ms", package[1]),
    ]
}

/// A hwmon chip with label and temperature (thousandths of a degree) of each sensor. The link to
/// its device is not included.
pub fn sensor(n: u32, name: &str, temperatures: &[(&str, i64)]) -> Files {
    let dir = format!("sys/class/hwmon/hwmon{n}");
    let mut files = vec![(format!("{dir}/name"), format!("{name}\n"))];
    for (n, (label, millidegrees)) in (1..).zip(temperatures) {
        files.push((format!("{dir}/temp{n}_label"), format!("{label}\n")));
        files.push((format!("{dir}/temp{n}_input"), format!("{millidegrees}\n")));
    }
    files
}

/// Memory of a node, in the format of `meminfo`.
pub fn node_memory(node: u32, m: NodeMemory) -> Files {
    let line = |name: &str, kb: u64| format!("Node {node} {name}:{kb:>16} kB\n");
    let text = [
        line("MemTotal", m.total),
        line("MemFree", m.free),
        line("MemUsed", m.total - m.free),
        line("Active(anon)", m.anon / 2),
        line("FilePages", m.file),
        line("AnonPages", m.anon),
        line("Shmem", m.shmem),
        line("Slab", m.slab),
        format!("Node {node} HugePages_Total:     0\n"),
    ];
    vec![(format!("{NODE}/node{node}/meminfo"), text.concat())]
}

/// Allocation counters of a node: hit, miss, foreign, interleave_hit, local_node, other_node.
pub fn numastat(node: u32, [hit, miss, foreign, interleave, local, other]: [u64; 6]) -> Files {
    let text = format!(
        "numa_hit {hit}\nnuma_miss {miss}\nnuma_foreign {foreign}\ninterleave_hit {interleave}\n\
         local_node {local}\nother_node {other}\n"
    );
    vec![(format!("{NODE}/node{node}/numastat"), text)]
}

/// A node's pool of huge pages of `size_kb` kB each.
pub fn pool(node: u32, size_kb: u64, total: u64, free: u64) -> Files {
    let dir = format!("{NODE}/node{node}/hugepages/hugepages-{size_kb}kB");
    vec![
        (format!("{dir}/nr_hugepages"), format!("{total}\n")),
        (format!("{dir}/free_hugepages"), format!("{free}\n")),
        (format!("{dir}/surplus_hugepages"), "0\n".into()),
    ]
}

/// KVM's tracepoints in tracefs, with ids from 101 on; `format` is that of kvm_exit.
pub fn tracepoints(format: &str) -> Files {
    let names = [
        "exit",
        "userspace_exit",
        "vcpu_wakeup",
        "pio",
        "mmio",
        "inj_virq",
    ];
    let dir = "sys/kernel/tracing/events/kvm";
    let id = |(id, name): (u32, &str)| (format!("{dir}/kvm_{name}/id"), format!("{id}\n"));
    let ids = (101..).zip(names).map(id);
    ids.chain([(format!("{dir}/kvm_exit/format"), format.to_owned())])
        .collect()
}
