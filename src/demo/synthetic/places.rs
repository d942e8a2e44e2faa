//! Where vCPUs may run, and where each is at a moment.

use std::collections::HashMap;
use std::time::Duration;

use super::noise::mix;
use super::scenario::{Pin, Scenario, FIRSTS};

/// How long a vCPU that may move stays where it is.
const STAY: u64 = 420;

/// Where one vCPU may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// CPUs it may use.
    pub(super) allowed: Vec<u32>,
    /// Where in them it begins.
    first: usize,
    /// Those that move together have the same number.
    group: u64,
}

impl Place {
    /// The CPU it is on. All vCPUs of a group move at once and keep their distance, so that moving
    /// never crowds them.
    pub(super) fn cpu(&self, at: Duration) -> u32 {
        let turn = (at.as_secs() + mix(self.group) % STAY) / STAY;
        let n = self.first.wrapping_add(turn as usize) % self.allowed.len().max(1);
        self.allowed.get(n).copied().unwrap_or(0)
    }
}

/// The places of all vCPUs, VM by VM. VMs that have one list of CPUs share it evenly.
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
        Pin::Float => Place {
            allowed: cpus.to_vec(),
            first: rank,
            group: u64::from(cpus[0]),
        },
        Pin::Core => {
            let mut cores: Vec<u32> = cpus.iter().map(|cpu| cpu % FIRSTS).collect();
            cores.sort_unstable();
            cores.dedup();
            let core = cores[rank % cores.len()];
            Place {
                allowed: vec![core, core + FIRSTS],
                first: rank / cores.len(),
                group: u64::from(core),
            }
        }
    }
}

/// One or more CPUs, of which it uses the first.
pub(super) fn on(cpus: Vec<u32>) -> Place {
    Place {
        allowed: cpus,
        first: 0,
        group: 0,
    }
}
