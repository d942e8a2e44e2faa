//! CPUs that vCPUs may use, and the CPU of each at a time.

use std::collections::HashMap;
use std::time::Duration;

use super::noise::mix;
use super::scenario::{node_of, Pin, Scenario, FIRSTS};

/// Time that a floating vCPU stays on a CPU, seconds.
const STAY: u64 = 420;

/// The same for a vCPU that floats over both packages: it is on each in every five minutes.
const STAY_OF_TWO: u64 = 30;

/// Placement of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// CPUs it may use.
    pub(super) allowed: Vec<u32>,
    /// Index of its first CPU.
    first: usize,
    /// Number of list entries that it moves by.
    stride: usize,
    stay: u64,
    /// vCPUs that move together have the same group.
    group: u64,
}

impl Place {
    /// The vCPU's CPU. All vCPUs of a group move at the same time and keep their distance, so that
    /// they never share a CPU because of a move.
    pub(super) fn cpu(&self, at: Duration) -> u32 {
        let turn = (at.as_secs() + mix(self.group) % self.stay) / self.stay;
        let turn = (turn as usize).wrapping_mul(self.stride);
        let n = self.first.wrapping_add(turn) % self.allowed.len().max(1);
        self.allowed.get(n).copied().unwrap_or(0)
    }
}

/// Placement of all vCPUs, by VM. VMs with the same list of CPUs divide it evenly.
pub(super) fn places(scenario: &Scenario) -> Vec<Vec<Place>> {
    let mut taken: HashMap<&[u32], usize> = HashMap::new();
    let mut all = Vec::new();
    for vm in &scenario.vms {
        let first = taken.entry(&vm.cpus).or_default();
        let ranks = *first..*first + vm.vcpus as usize;
        all.push(ranks.clone().map(|n| place(&vm.cpus, vm.pin, n)).collect());
        *first = ranks.end;
    }
    all
}

fn place(cpus: &[u32], pin: Pin, rank: usize) -> Place {
    match pin {
        Pin::Cpu => on(vec![cpus[rank % cpus.len()]]),
        Pin::Float => float(cpus, rank),
        Pin::Core => {
            let mut cores: Vec<u32> = cpus.iter().map(|cpu| cpu % FIRSTS).collect();
            cores.sort_unstable();
            cores.dedup();
            let core = cores[rank % cores.len()];
            Place {
                first: rank / cores.len(),
                group: u64::from(core),
                ..on(vec![core, core + FIRSTS])
            }
        }
    }
}

fn float(cpus: &[u32], rank: usize) -> Place {
    let place = Place {
        first: rank,
        group: u64::from(cpus[0]),
        ..on(cpus.to_vec())
    };
    let nodes = cpus.iter().map(|cpu| node_of(*cpu));
    if nodes.clone().min() == nodes.max() {
        place
    } else {
        // Far from the previous CPU, and over time on all CPUs.
        Place {
            stride: coprime(cpus.len(), cpus.len() * 618 / 1000),
            stay: STAY_OF_TWO,
            ..place
        }
    }
}

/// The smallest number from `least` on that is coprime to `n`.
fn coprime(n: usize, least: usize) -> usize {
    let divisor = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut all = least.max(1)..=n.max(2);
    all.find(|m| divisor(n, *m) == 1).unwrap_or(1)
}

/// Placement on the first of these CPUs.
pub(super) fn on(cpus: Vec<u32>) -> Place {
    Place {
        allowed: cpus,
        first: 0,
        stride: 1,
        stay: STAY,
        group: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn vcpu_that_floats_over_both_packages_is_on_each_half_of_the_time() {
        let all: Vec<u32> = (0..112).collect();
        let on_1 = |rank: usize, from: u64| {
            let place = place(&all, Pin::Float, rank);
            let at = (0..30).map(|n| place.cpu(Duration::from_secs(from + 10 * n)));
            at.filter(|cpu| node_of(*cpu) == 1).count()
        };
        for rank in [0, 1, 27, 28, 55, 111] {
            for from in [0, 300, 3600, 7777] {
                // Of 30 samples in five minutes.
                let n = on_1(rank, from);
                assert!((9..=21).contains(&n), "{rank} at {from}: {n}");
            }
        }
        let at_once =
            (0..112).map(|rank| place(&all, Pin::Float, rank).cpu(Duration::from_secs(999)));
        assert_eq!(
            at_once.collect::<BTreeSet<_>>().len(),
            112,
            "none shares a CPU"
        );
        let place = place(&all, Pin::Float, 5);
        let in_the_end = (0..112 * 30).map(|s| place.cpu(Duration::from_secs(s)));
        assert_eq!(
            in_the_end.collect::<BTreeSet<_>>().len(),
            112,
            "it is everywhere"
        );
    }
}
