//! The memory of a [`FakeHost`]'s VMs in smaps, numa_maps and status of their processes and
//! numa_stat of their cgroups. Formats are from QEMU 7.2 on Linux 6.18.

use super::files::memory::{numa_stat, resident};
use super::FakeHost;

/// One mapping of a VMM.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Empty for anonymous memory.
    pub path: &'a str,
    /// Length in bytes.
    pub size: u64,
    /// Resident bytes on node 0, 1, …
    pub nodes: &'a [u64],
    /// Page size; above 4096 the mapping is in hugetlbfs.
    pub page_size: u64,
    /// Bytes in transparent huge pages.
    pub thp: u64,
    /// Part of `thp` with a NUMA hint, which smaps omits on Linux 6.1 to 6.4.
    pub hinted: u64,
    /// Marked like guest RAM of QEMU.
    pub dont_fork: bool,
}

impl<'a> Block<'a> {
    /// QEMU's default guest RAM, fully resident.
    pub fn ram(nodes: &'a [u64]) -> Self {
        Self {
            path: "",
            size: nodes.iter().sum(),
            nodes,
            page_size: 4096,
            thp: 0,
            hinted: 0,
            dont_fork: true,
        }
    }

    /// Memory of the VMM itself.
    pub fn own(nodes: &'a [u64]) -> Self {
        Self {
            dont_fork: false,
            ..Self::ram(nodes)
        }
    }

    fn resident(&self) -> u64 {
        self.nodes.iter().sum()
    }

    fn is_huge(&self) -> bool {
        self.page_size > 4096
    }

    fn smaps(&self, start: u64) -> String {
        let (shared, inode) = match self.path {
            "" => ("p", 0),
            _ => ("s", 1000 + (start >> 32)),
        };
        let resident = (self.resident() - self.hinted) >> 10;
        let (base, huge) = if self.is_huge() {
            (0, resident)
        } else {
            (resident, 0)
        };
        format!(
            "{start:x}-{:x} rw-{shared} 00000000 00:01 {inode:<26} {}\n\
             Size:           {:8} kB\nKernelPageSize: {:8} kB\nMMUPageSize:    {:8} kB\n\
             Rss:            {base:8} kB\nPss:            {base:8} kB\nAnonHugePages:  {:8} kB\n\
             ShmemPmdMapped:        0 kB\nFilePmdMapped:         0 kB\nShared_Hugetlb:        0 kB\n\
             Private_Hugetlb:{huge:8} kB\nTHPeligible:           0\nVmFlags: rd wr mr mw me {}ac \n",
            start + self.size,
            self.path,
            self.size >> 10,
            self.page_size >> 10,
            self.page_size >> 10,
            (self.thp - self.hinted) >> 10,
            if self.dont_fork { "dc " } else { "" },
        )
    }

    fn numa_maps(&self, start: u64) -> String {
        let pages = |bytes: &u64| bytes / self.page_size;
        let nodes = self.nodes.iter().enumerate();
        let nodes: String = nodes
            .filter(|(_, bytes)| **bytes > 0)
            .map(|(node, bytes)| format!(" N{node}={}", pages(bytes)))
            .collect();
        let file = match self.path {
            "" => String::new(),
            path => format!(" file={}", path.replace(' ', "\\040")),
        };
        let all = self.resident() / self.page_size;
        format!(
            "{start:x} default{file}{} dirty={all} active=0{nodes} kernelpagesize_kB={}\n",
            if self.is_huge() { " huge" } else { "" },
            self.page_size >> 10,
        )
    }
}

impl FakeHost {
    /// Sets all mappings of a process, 1 TiB apart.
    pub fn memory(&self, pid: i32, blocks: &[Block<'_>]) -> &Self {
        let placed = (1u64..).map(|n| n << 40).zip(blocks);
        let text = |of: fn(&Block<'_>, u64) -> String| -> String {
            placed
                .clone()
                .map(|(start, block)| of(block, start))
                .collect()
        };
        self.file(
            format!("proc/{pid}/smaps"),
            text(|block, start| block.smaps(start)),
        );
        self.file(
            format!("proc/{pid}/numa_maps"),
            text(|block, start| block.numa_maps(start)),
        );
        let sum = |which: fn(&Block<'_>) -> bool| -> u64 {
            let all = blocks.iter().filter(|block| which(block));
            all.map(|b| b.resident()).sum::<u64>() >> 10
        };
        let anon = sum(|b| !b.is_huge() && b.path.is_empty());
        let shmem = sum(|b| !b.is_huge() && !b.path.is_empty());
        let before = std::fs::read_to_string(self.path(format!("proc/{pid}/status"))).unwrap();
        let others = before.lines().filter(|line| !line.starts_with("Rss"));
        let others = others.filter(|line| !line.starts_with("Hugetlb"));
        let mut status: String = others.map(|line| format!("{line}\n")).collect();
        status += &resident(anon, shmem, sum(|b| b.is_huge()));
        self.file(format!("proc/{pid}/status"), status)
    }

    /// `memory.numa_stat` of a cgroup (version 2): bytes on node 0, 1, …
    pub fn memory_cgroup(
        &self,
        path: &str,
        anon: &[u64],
        shmem: &[u64],
        anon_thp: &[u64],
    ) -> &Self {
        self.file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory\n");
        self.file(
            format!("sys/fs/cgroup/{path}/memory.numa_stat"),
            numa_stat(anon, shmem, anon_thp),
        )
    }
}
