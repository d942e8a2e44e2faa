//! Memory by NUMA node: /proc/PID/numa_maps, and numa_stat of cgroup v2's memory and hugetlb
//! controllers (Documentation/admin-guide/cgroup-v2.rst).

use super::{decimal, hexadecimal, Nodes, MAX_NODES};

/// Resident memory of one mapping, a line of numa_maps (numa(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappingNodes {
    /// First address of the mapping.
    pub start: u64,
    /// Resident bytes per node, without empty nodes.
    pub nodes: Nodes,
}

/// Parses a line of numa_maps: `7f00 default anon=3 N0=2 N1=1 kernelpagesize_kB=4`. Nodes and the
/// page size, which comes last, are missing if nothing is resident (fs/proc/task_mmu.c,
/// `show_numa_map`). Returns `None` for nodes without a page size.
pub(crate) fn parse_numa_maps(line: &[u8]) -> Option<MappingNodes> {
    let mut words = line.split(|b| *b == b' ');
    let start = hexadecimal(words.next()?)?;
    // Neither the policy nor the path, whose spaces are escaped, looks like these words.
    let words: Vec<&[u8]> = words.collect();
    let page_size = words
        .iter()
        .find_map(|w| decimal(w.strip_prefix(b"kernelpagesize_kB=")?));
    let bytes = |pages: u64| pages.checked_mul(page_size?.checked_mul(1024)?);
    let mut nodes = Nodes::new();
    for (node, pages) in words.iter().filter_map(|word| of_node(word)) {
        nodes.insert(node, bytes(pages)?);
    }
    Some(MappingNodes { start, nodes })
}

/// `N1=42`.
fn of_node(word: &[u8]) -> Option<(u32, u64)> {
    let at = word.iter().position(|b| *b == b'=')?;
    let node = u32::try_from(decimal(word.get(1..at)?)?).ok()?;
    let taken = word.starts_with(b"N") && at > 1 && node < MAX_NODES;
    let value = decimal(word.get(at + 1..)?)?;
    taken.then_some((node, value))
}

/// Memory in `memory.numa_stat` that can be a guest's, bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NumaStat {
    /// Private anonymous memory.
    pub anon: Nodes,
    /// memfd, tmpfs and shared anonymous memory.
    pub shmem: Nodes,
    /// Page cache, including `shmem` and guest_memfd.
    pub file: Nodes,
    /// Memory of any kind that cannot be reclaimed: locked memory and all of guest_memfd
    /// (include/linux/pagemap.h, `mapping_set_unevictable`). `None` if the line is missing.
    pub(crate) unevictable: Option<Nodes>,
    /// Part of `anon` in transparent huge pages.
    pub anon_thp: Nodes,
    /// Part of `shmem` in transparent huge pages.
    pub shmem_thp: Nodes,
}

impl NumaStat {
    /// Page cache that is not shmem and cannot be reclaimed. In the cgroup of a VMM with a
    /// guest_memfd, these are its pages, which are charged as page cache (virt/kvm/guest_memfd.c,
    /// `kvm_gmem_get_folio`). Disk images in the page cache can be reclaimed and are excluded.
    pub(crate) fn guest_memfd(&self) -> Nodes {
        let of = |nodes: &Nodes, node: u32| nodes.get(&node).copied().unwrap_or(0);
        let nodes = self.file.iter().map(|(&node, &file)| {
            let pages = file.saturating_sub(of(&self.shmem, node));
            let locked = self.unevictable.as_ref().map(|all| of(all, node));
            (node, pages.min(locked.unwrap_or(pages)))
        });
        nodes.collect()
    }
}

/// Parses `memory.numa_stat` of cgroup v2: lines such as `anon N0=4096 N1=0`. `None` for any other
/// text, including cgroup v1's file of the same name, and if a node has no number: a sum without it
/// would be too small.
pub(crate) fn parse_numa_stat(text: &[u8]) -> Option<NumaStat> {
    // The outer `None` is a malformed line, the inner one no line of this name.
    let find = |name: &[u8]| {
        let mut lines = text.split(|b| *b == b'\n');
        let line = lines.find_map(|line| {
            let mut words = line.split(|b| *b == b' ');
            (words.next()? == name).then_some(words)
        });
        match line {
            Some(words) => Some(Some(words.map(of_node).collect::<Option<Nodes>>()?)),
            None => Some(None),
        }
    };
    Some(NumaStat {
        anon: find(b"anon")?.filter(|nodes| !nodes.is_empty())?,
        shmem: find(b"shmem")??,
        file: find(b"file")?.unwrap_or_default(),
        unevictable: find(b"unevictable")?,
        // A kernel without transparent huge pages has no such lines.
        anon_thp: find(b"anon_thp")?.unwrap_or_default(),
        shmem_thp: find(b"shmem_thp")?.unwrap_or_default(),
    })
}

/// Parses `hugetlb.SIZE.numa_stat` of cgroup v2: `total=4194304 N0=4194304 N1=0`, bytes.
pub(crate) fn parse_hugetlb_numa_stat(text: &[u8]) -> Option<Nodes> {
    let line = text.trim_ascii().strip_prefix(b"total=")?;
    // The first word is the total.
    line.split(|b| *b == b' ').skip(1).map(of_node).collect()
}

/// The page size (bytes) in the name of a file `hugetlb.2MB.numa_stat` (mm/hugetlb_cgroup.c,
/// `mem_fmt`).
pub(crate) fn hugetlb_page_size(file: &str) -> Option<u64> {
    let size = file.strip_prefix("hugetlb.")?.strip_suffix(".numa_stat")?;
    let units = [("KB", 10), ("MB", 20), ("GB", 30)];
    units.iter().find_map(|(unit, shift)| {
        let number = decimal(size.strip_suffix(unit)?.as_bytes())?;
        number.checked_mul(1 << shift)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_are_of_the_mappings_own_size() {
        let nodes = |text: &str| parse_numa_maps(text.as_bytes()).map(|m| (m.start, m.nodes));
        assert_eq!(
            nodes("7fc037e00000 default anon=1536 dirty=1536 active=512 N0=1024 N1=512 kernelpagesize_kB=4"),
            Some((0x7fc0_37e0_0000, Nodes::from([(0, 4 << 20), (1, 2 << 20)])))
        );
        assert_eq!(
            nodes("7f00 bind:0 file=/dev/hugepages/N9=9 huge dirty=3 N1=3 kernelpagesize_kB=2048"),
            Some((0x7f00, Nodes::from([(1, 6 << 20)])))
        );
        assert_eq!(nodes("7f00 default"), Some((0x7f00, Nodes::new())));
        for odd in [
            "",
            "xyz default N0=1",
            "7f00 default anon=3 N0=3",
            "7f00 default anon=3 N0=3 kernelpagesize_kB=x",
            "7f00 default N0=18446744073709551615 kernelpagesize_kB=4",
        ] {
            assert_eq!(nodes(odd), None, "{odd}");
        }
    }

    #[test]
    fn nodes_no_machine_has_are_left_out() {
        for word in ["N1024=1", "N=1", "N-1=1", "N1=", "N1=x", "M1=1", "=1"] {
            assert_eq!(of_node(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn cgroup_memory_is_split_by_kind() {
        let text = b"anon N0=8388608 N1=4096\nfile N0=1 N1=2\nkernel_stack N0=1 N1=1\n\
            shmem N0=0 N1=16384\nanon_thp N0=6291456 N1=0\nfile_thp N0=0 N1=0\nshmem_thp N0=0 N1=0\n";
        let stat = parse_numa_stat(text).unwrap();
        assert_eq!(stat.anon, Nodes::from([(0, 8 << 20), (1, 4096)]));
        assert_eq!(stat.shmem, Nodes::from([(0, 0), (1, 16384)]));
        assert_eq!(stat.anon_thp[&0], 6 << 20);
        assert_eq!(stat.unevictable, None);
        for odd in ["anon N0=1 N1=", "shmem N0=1 x", "file N0=-1", "anon_thp 5"] {
            let text = format!("{odd}\nanon N0=1 N1=1\nshmem N0=1 N1=1\n");
            assert_eq!(parse_numa_stat(text.as_bytes()), None, "{odd}");
        }
        // cgroup v1
        assert_eq!(
            parse_numa_stat(b"total=5 N0=5\nfile=1 N0=1\nanon=4 N0=4\n"),
            None
        );
    }

    #[test]
    fn guest_memfd_is_the_page_cache_that_cannot_be_reclaimed() {
        let lines = |unevictable: &str| {
            let text = format!(
                "anon N0=4096 N1=0\nfile N0=9000 N1=700\nshmem N0=1000 N1=700\n{unevictable}"
            );
            parse_numa_stat(text.as_bytes()).unwrap().guest_memfd()
        };
        assert_eq!(lines(""), Nodes::from([(0, 8000), (1, 0)]));
        let beside_a_disk = lines("unevictable N0=5000 N1=0\n");
        assert_eq!(beside_a_disk, Nodes::from([(0, 5000), (1, 0)]));
        let with_locked_memory = lines("unevictable N0=99999 N1=5000\n");
        assert_eq!(with_locked_memory, Nodes::from([(0, 8000), (1, 0)]));
    }

    #[test]
    fn cgroup_huge_pages_are_split_by_size() {
        let nodes = parse_hugetlb_numa_stat(b"total=4194304 N0=4194304 N1=0\n");
        assert_eq!(nodes, Some(Nodes::from([(0, 4 << 20), (1, 0)])));
        assert_eq!(hugetlb_page_size("hugetlb.2MB.numa_stat"), Some(2 << 20));
        assert_eq!(hugetlb_page_size("hugetlb.1GB.numa_stat"), Some(1 << 30));
        assert_eq!(hugetlb_page_size("hugetlb.64KB.numa_stat"), Some(64 << 10));
        for other in [
            "hugetlb.2MB.current",
            "memory.numa_stat",
            "hugetlb..numa_stat",
        ] {
            assert_eq!(hugetlb_page_size(other), None, "{other}");
        }
    }

    #[test]
    fn own_numa_maps_are_understood() {
        let Ok(text) = std::fs::read("/proc/self/numa_maps") else {
            println!("skipped: this kernel has no numa_maps");
            return;
        };
        let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let parsed: Option<Vec<_>> = lines.map(parse_numa_maps).collect();
        let resident: u64 = parsed.unwrap().iter().flat_map(|m| m.nodes.values()).sum();
        assert!(resident > 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_numa_maps(&text), parse_numa_stat(&text), parse_hugetlb_numa_stat(&text));
            let _ = hugetlb_page_size(&String::from_utf8_lossy(&text));
        }

        #[test]
        fn what_was_written_is_read(pages in prop::collection::btree_map(0u32..1024, 0u64..1 << 40, 0..5)) {
            let words: String = pages.iter().map(|(n, p)| format!(" N{n}={p}")).collect();
            let found = parse_numa_maps(format!("7f00 default{words} kernelpagesize_kB=4").as_bytes());
            let expected: Nodes = pages.iter().map(|(n, p)| (*n, p * 4096)).collect();
            prop_assert_eq!(found.unwrap().nodes, expected);
        }
    }
}
