//! Memory of VMs: numa_stat of their cgroups, and counters of their processes. Formats captured
//! from QEMU 7.2 on Linux 6.18.

/// `memory.numa_stat` of a cgroup (version 2): bytes on node 0, 1, …
pub fn numa_stat(anon: &[u64], shmem: &[u64], anon_thp: &[u64]) -> String {
    let line = |name: &str, bytes: &[u64]| {
        let nodes = bytes.iter().enumerate();
        let nodes: String = nodes
            .map(|(node, bytes)| format!(" N{node}={bytes}"))
            .collect();
        format!("{name}{nodes}\n")
    };
    let none = vec![0; anon.len()];
    let text = [
        line("anon", anon),
        line("file", shmem),
        line("kernel_stack", &none),
        line("shmem", shmem),
        line("anon_thp", anon_thp),
        line("file_thp", &none),
        line("shmem_thp", &none),
    ];
    text.concat()
}

/// `memory.stat` of a cgroup (version 2) since Linux 6.12, shortened: bytes, then page table
/// entries marked by NUMA balancing, faults on these, and pages moved.
pub fn stat(anon: u64, [updates, faults, migrated]: [u64; 3]) -> String {
    format!(
        "anon {anon}\nfile 0\nkernel 20480\nshmem 0\npgfault 1200\npgmajfault 0\nnuma_pages_migrated {migrated}\n\
         numa_pte_updates {updates}\nnuma_hint_faults {faults}\npgdemote_kswapd 0\n"
    )
}

/// The lines of /proc/PID/status about resident memory (kB).
pub fn resident(anon: u64, shmem: u64, hugetlb: u64) -> String {
    format!(
        "RssAnon:\t{anon:8} kB\nRssFile:\t   18952 kB\nRssShmem:\t{shmem:8} kB\nHugetlbPages:\t{hugetlb:8} kB\n"
    )
}
