//! NUMA nodes of the machine from sysfs: distances, memory and huge pages.
//!
//! Files: Documentation/ABI/stable/sysfs-devices-node; drivers/base/node.c writes `meminfo`.

use super::key_value;
use super::memory::{self, MAX_NODES};
use super::roots::Roots;

/// Memory of one node by use, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeMemory {
    /// Total memory, without what firmware and the kernel image took at boot.
    pub total: u64,
    /// Free memory (MemFree).
    pub free: u64,
    /// Mapped anonymous memory of processes: guest RAM of most VMs.
    pub anon: u64,
    /// Shared memory and tmpfs, including guest RAM in a memfd.
    pub shmem: u64,
    /// Page cache without `shmem`.
    pub file: u64,
    /// Slab objects of the kernel.
    pub slab: u64,
}

/// Huge pages of one size on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Page size, bytes.
    pub size: u64,
    /// Pages in the pool, used and free.
    pub total: u64,
    /// Free pages.
    pub free: u64,
}

/// Node numbers, ascending.
pub(crate) fn numbers(roots: &Roots) -> Vec<u32> {
    let names = roots.list(&directory(roots)).unwrap_or_default();
    let number = |name: &String| name.strip_prefix("node")?.parse().ok();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.retain(|node| *node < MAX_NODES);
    numbers.sort_unstable();
    numbers
}

/// Directory of the nodes.
pub(crate) fn directory(roots: &Roots) -> std::path::PathBuf {
    roots.sys.join("devices/system/node")
}

/// Distances of a node to all nodes, in the order of [`numbers`]; `None` if unknown.
pub(crate) fn distances(roots: &Roots, node: u32) -> Option<Vec<u64>> {
    let path = directory(roots).join(format!("node{node}/distance"));
    let text = roots.read_text(&path).ok()?;
    let numbers = text.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().ok()
}

/// Memory of a node; `None` if unknown.
pub(crate) fn memory(roots: &Roots, node: u32) -> Option<NodeMemory> {
    let path = directory(roots).join(format!("node{node}/meminfo"));
    parse_meminfo(&roots.read(&path).ok()?)
}

/// Parses a node's `meminfo`: `Node 0 MemTotal:  1234 kB`.
pub(crate) fn parse_meminfo(text: &[u8]) -> Option<NodeMemory> {
    let field = |name: &str| {
        text.split(|b| *b == b'\n').find_map(|line| {
            let line = line.strip_prefix(b"Node ")?;
            let (_, rest) = split(line, b' ')?;
            let (key, value) = split(rest, b':')?;
            (key == name.as_bytes()).then(|| memory::kilobytes(value))?
        })
    };
    let shmem = field("Shmem")?;
    Some(NodeMemory {
        total: field("MemTotal")?,
        free: field("MemFree")?,
        anon: field("AnonPages")?,
        shmem,
        file: field("FilePages")?.saturating_sub(shmem),
        slab: field("Slab")?,
    })
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let n = text.iter().position(|b| *b == at)?;
    Some((&text[..n], &text[n + 1..]))
}

/// Values of the `outcome` label, in the order of [`allocations`].
pub(crate) const OUTCOMES: [&str; 6] = [
    "hit",
    "miss",
    "foreign",
    "interleave_hit",
    "local_node",
    "other_node",
];

/// Pages allocated by the node since boot, by outcome (Documentation/admin-guide/numastat.rst);
/// `None` if `numastat` is missing or incomplete.
pub(crate) fn allocations(roots: &Roots, node: u32) -> Option<[u64; OUTCOMES.len()]> {
    let path = directory(roots).join(format!("node{node}/numastat"));
    parse_numastat(&roots.read_text(&path).ok()?)
}

fn parse_numastat(text: &str) -> Option<[u64; OUTCOMES.len()]> {
    let keys = [
        "numa_hit",
        "numa_miss",
        "numa_foreign",
        "interleave_hit",
        "local_node",
        "other_node",
    ];
    key_value::values(text, keys)
}

/// Huge page pools of a node, ascending by page size.
pub(crate) fn pools(roots: &Roots, node: u32) -> Vec<Pool> {
    let dir = directory(roots).join(format!("node{node}/hugepages"));
    let names = roots.list(&dir).unwrap_or_default();
    let pool = |name: &String| {
        let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let number = |file: &str| roots.number(&dir.join(name).join(file));
        Some(Pool {
            size: size.parse::<u64>().ok()?.checked_mul(1024)?,
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?,
        })
    };
    let mut pools: Vec<Pool> = names.iter().filter_map(pool).collect();
    pools.sort_unstable_by_key(|pool| pool.size);
    pools
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From Linux 6.18, shortened.
    const MEMINFO: &[u8] = b"Node 1 MemTotal:       24684092 kB\n\
        Node 1 MemFree:         1823408 kB\nNode 1 MemUsed:        22860684 kB\n\
        Node 1 Active(anon):       1636 kB\nNode 1 FilePages:      19500000 kB\n\
        Node 1 AnonPages:       1769712 kB\nNode 1 Shmem:             21356 kB\n\
        Node 1 Slab:             700000 kB\nNode 1 HugePages_Total:     0\n";

    #[test]
    fn memory_is_split_by_use() {
        let expected = NodeMemory {
            total: 24_684_092 << 10,
            free: 1_823_408 << 10,
            anon: 1_769_712 << 10,
            shmem: 21_356 << 10,
            file: (19_500_000 - 21_356) << 10,
            slab: 700_000 << 10,
        };
        assert_eq!(parse_meminfo(MEMINFO), Some(expected));
        assert_eq!(parse_meminfo(b"Node 0 MemTotal: 5 kB\n"), None);
        let pages = String::from_utf8_lossy(MEMINFO).replace("1823408 kB", "1823408");
        assert_eq!(parse_meminfo(pages.as_bytes()), None, "no unit");
    }

    #[test]
    fn allocations_are_known_by_all_outcomes_or_not_at_all() {
        let text = "numa_hit 24800386\nnuma_miss 5\nnuma_foreign 6\ninterleave_hit 1134\n\
                    local_node 24800380\nother_node 11\n";
        let all = [24_800_386, 5, 6, 1134, 24_800_380, 11];
        assert_eq!(parse_numastat(text), Some(all));
        for text in ["", "numa_hit 5\n", &text.replace("miss 5", "miss +5")] {
            assert_eq!(parse_numastat(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_meminfo(&text);
            let _ = parse_numastat(&String::from_utf8_lossy(&text));
        }
    }
}
