//! The `numa` source: distances between NUMA nodes, and the use of their memory.
//!
//! - `kvm_host_numa_distance{from,to}`: 10 is the node itself (ACPI SLIT)
//! - `kvm_host_numa_memory_bytes{numa_node,state}`: the states add up to the node's memory
//! - `kvm_host_hugepages{numa_node,size,state}`: pools of huge pages, in pages
//! - `kvm_host_numa_allocations_total{numa_node,outcome}`: pages allocated, since boot

use std::collections::HashMap;

use super::unreadable;
use crate::engine::total::Total;
use crate::engine::{Fact, Found, HostSource, Origin, Reason, ReasonCode, Source, SourceInfo};
use crate::host::memory::size_name;
use crate::host::nodes::{self, NodeMemory, Pool, OUTCOMES};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "numa":
    NUMA_DISTANCE = Metric::gauge("kvm_host_numa_distance", Keys::Host, &["from", "to"],
        "Distance between two NUMA nodes, from firmware; 10 is the node itself");
    NUMA_MEMORY = Metric::gauge("kvm_host_numa_memory_bytes", Keys::Host, &["numa_node", "state"],
        "Memory of a NUMA node by use: free, anon, shmem, file, slab, hugetlb (all pools), other; the sum is all its memory");
    NUMA_ALLOCATIONS = Metric::counter("kvm_host_numa_allocations_total", Keys::Host, &["numa_node", "outcome"],
        "Base pages allocated, by outcome: hit (requested from this node and served by it), miss (served by this node, requested from another), foreign (requested from this node, served by another), interleave_hit, local_node and other_node (served by this node to a task on this or another node)");
    HUGEPAGES = Metric::gauge("kvm_host_hugepages", Keys::Host, &["numa_node", "size", "state"],
        "Huge pages in a NUMA node's pools, by size: free and used");
}

/// Distances are omitted on hosts with more nodes than this: they grow with the square.
const MOST_NODES: usize = 64;

/// Reads the NUMA nodes in sysfs.
#[derive(Default)]
pub(super) struct Numa {
    /// Allocations of each node, in the order of [`OUTCOMES`].
    allocations: HashMap<u32, [Total; OUTCOMES.len()]>,
}

impl HostSource for Numa {
    fn read(&mut self, roots: &Roots, _topology: &Topology) -> Found {
        let numbers = nodes::numbers(roots);
        let Some(first) = numbers.first() else {
            return Found::nothing(no_nodes(roots));
        };
        let mut facts = Vec::new();
        if numbers.len() <= MOST_NODES {
            let of_node = |from: &u32| distances(roots, *from, &numbers);
            facts.extend(numbers.iter().flat_map(of_node));
        }
        let mut missing = None;
        for node in &numbers {
            let pools = nodes::pools(roots, *node);
            match nodes::memory(roots, *node) {
                Some(memory) => facts.extend(of_memory(*node, &memory, &pools)),
                None if node == first => missing = Some(no_memory(roots, *node)),
                // A node may have only CPUs.
                None => {}
            }
            facts.extend(pools.iter().flat_map(|pool| of_pool(*node, pool)));
            if let Some(allocated) = nodes::allocations(roots, *node) {
                let totals = self.allocations.entry(*node).or_default();
                for (total, now) in totals.iter_mut().zip(allocated) {
                    total.advance(now);
                }
                facts.extend(of_allocations(*node, totals));
            }
        }
        Found { facts, missing }
    }
}

fn distances(roots: &Roots, from: u32, numbers: &[u32]) -> Vec<Fact> {
    let distances = nodes::distances(roots, from).unwrap_or_default();
    // Distances can be attributed to nodes only if their number matches.
    let distances = distances
        .iter()
        .filter(|_| distances.len() == numbers.len());
    let one = |(to, distance): (&u32, &u64)| {
        let labels = [("from", from.into()), ("to", (*to).into())];
        Fact::int(&NUMA_DISTANCE, labels, *distance)
    };
    numbers.iter().zip(distances).map(one).collect()
}

fn of_memory(node: u32, memory: &NodeMemory, pools: &[Pool]) -> Vec<Fact> {
    let in_pools = pools.iter().map(|p| p.size.saturating_mul(p.total));
    let hugetlb = in_pools.fold(0, u64::saturating_add);
    let known = [
        ("free", memory.free),
        ("anon", memory.anon),
        ("shmem", memory.shmem),
        ("file", memory.file),
        ("slab", memory.slab),
        ("hugetlb", hugetlb),
    ];
    let sum = known
        .iter()
        .fold(0, |sum: u64, (_, n)| sum.saturating_add(*n));
    // The values are not read at one instant: if their sum exceeds the total, the rest is unknown.
    let other = memory.total.checked_sub(sum).map(|rest| ("other", rest));
    let one = |(state, bytes): (&'static str, u64)| {
        let labels = [("numa_node", node.into()), ("state", state.into())];
        Fact::int(&NUMA_MEMORY, labels, bytes)
    };
    known.into_iter().chain(other).map(one).collect()
}

fn of_pool(node: u32, pool: &Pool) -> [Fact; 2] {
    let states = [
        ("free", pool.free),
        ("used", pool.total.saturating_sub(pool.free)),
    ];
    states.map(|(state, pages)| {
        let labels = [
            ("numa_node", node.into()),
            ("size", size_name(pool.size).into()),
            ("state", state.into()),
        ];
        Fact::int(&HUGEPAGES, labels, pages)
    })
}

fn of_allocations(node: u32, totals: &[Total]) -> Vec<Fact> {
    let one = |(outcome, total): (&'static str, &Total)| {
        let labels = [("numa_node", node.into()), ("outcome", outcome.into())];
        Fact::int(&NUMA_ALLOCATIONS, labels, total.sum()).since(Origin::Boot)
    };
    OUTCOMES.into_iter().zip(totals).map(one).collect()
}

fn no_nodes(roots: &Roots) -> Reason {
    ReasonCode::NoNuma
        .reason(format!(
            "{} lists no NUMA node",
            nodes::directory(roots).display()
        ))
        .with_fix("use a kernel with CONFIG_NUMA=y, as distributions build it")
}

fn no_memory(roots: &Roots, node: u32) -> Reason {
    let path = nodes::directory(roots).join(format!("node{node}/meminfo"));
    let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "no memory sizes found");
    unreadable(&path, &error)
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "numa",
        needs: "NUMA nodes in sysfs (CONFIG_NUMA)",
        cost: "about 9 small files per node and period",
    },
    about: "The host's NUMA nodes, every 15 s. For the memory of each VM by node, see `memory`. Nodes without CPUs (CXL, HBM) are included. Allocations come from `numastat` (Documentation/admin-guide/numastat.rst of the kernel): `miss` increases when a node serves a request that another node had no memory for. All are 0 while the sysctl `vm.numa_stat` is 0.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().numa, Numa::default()),
};
