//! Location and page sizes of the memory of a process or cgroup: parsers of
//! /proc/PID/{status,smaps,numa_maps} and of cgroup v2's numa_stat files.
//!
//! `status` and the cgroup files are counters of the kernel and cheap to read. Each read of `smaps`
//! and `numa_maps` walks page tables, so these are read with [`text::lines`], which can stop
//! between two reads.

use std::collections::BTreeMap;

use super::number::{decimal, hexadecimal};
use super::thread::after;

pub(crate) mod numa;
pub(crate) mod smaps;
pub(crate) mod text;

/// Bytes on each NUMA node.
pub(crate) type Nodes = BTreeMap<u32, u64>;

/// Number of accepted nodes: the largest `CONFIG_NODES_SHIFT` is 10 (arch/x86/Kconfig).
pub(crate) const MAX_NODES: u32 = 1 << 10;

/// Resident memory of a process from `status` (proc_pid_status(5)), bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Resident {
    /// `RssAnon`
    pub anon: u64,
    /// `RssFile`: page cache, for example the program and its libraries.
    pub file: u64,
    /// `RssShmem`: memfd, tmpfs and shared anonymous memory.
    pub shmem: u64,
    /// `HugetlbPages`, not included in the other fields; 0 on a kernel without hugetlbfs.
    pub hugetlb: u64,
}

impl Resident {
    /// Sum of all kinds.
    pub(crate) fn all(self) -> u64 {
        let kinds = [self.anon, self.file, self.shmem, self.hugetlb];
        kinds
            .iter()
            .fold(0, |sum: u64, kind| sum.saturating_add(*kind))
    }
}

/// Parses resident memory in a `status`. `None` for a process without memory (a kernel thread, a
/// zombie), and before Linux 4.5, which did not distinguish the kinds.
pub(crate) fn parse_resident(status: &[u8]) -> Option<Resident> {
    let field = |name: &str| kilobytes(after(status, name.as_bytes())?);
    Some(Resident {
        anon: field("RssAnon:")?,
        file: field("RssFile:")?,
        shmem: field("RssShmem:")?,
        hugetlb: field("HugetlbPages:").unwrap_or(0),
    })
}

/// Parses `  1234 kB` to bytes.
pub(super) fn kilobytes(text: &[u8]) -> Option<u64> {
    let number = text.trim_ascii().strip_suffix(b"kB")?;
    decimal(number.trim_ascii())?.checked_mul(1024)
}

/// A page size as in the `backing` label: `4k`, `2m`, `1g`.
pub(crate) fn size_name(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b % (1 << 30) == 0 => format!("{}g", b >> 30),
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}m", b >> 20),
        b => format!("{}k", b >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A QEMU 7.2 guest with 64 MiB on Linux 6.18.
    const STATUS: &[u8] =
        b"Name:\tqemu-system-x86\nVmHWM:\t   34996 kB\nVmRSS:\t   34996 kB\nRssAnon:\t   16044 kB\n\
          RssFile:\t   18952 kB\nRssShmem:\t       0 kB\nVmSwap:\t       0 kB\nHugetlbPages:\t    2048 kB\n";

    #[test]
    fn resident_memory_is_split_by_kind() {
        let expected = Resident {
            anon: 16044 << 10,
            file: 18952 << 10,
            shmem: 0,
            hugetlb: 2 << 20,
        };
        assert_eq!(parse_resident(STATUS), Some(expected));
        assert_eq!(parse_resident(b"Name:\tkthreadd\nThreads:\t1\n"), None);
    }

    #[test]
    fn page_sizes_have_short_names() {
        let names = [4 << 10, 64 << 10, 2 << 20, 32 << 20, 1 << 30, 16 << 30].map(size_name);
        assert_eq!(names, ["4k", "64k", "2m", "32m", "1g", "16g"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_resident(&text), decimal(&text), hexadecimal(&text), kilobytes(&text));
        }
    }
}
