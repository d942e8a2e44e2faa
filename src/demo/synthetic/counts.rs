//! What a vCPU's counters count, and their totals.

use super::model::BASE_HERTZ;
use super::rates::VcpuRates;

/// Totals by [`Counted`].
pub(super) type Counts = [f64; LEN];

/// PMU events, for guest and host each.
const PMU: usize = 8;
/// VMX exit reasons (SDM volume 3, appendix C), and their usual share of all exits.
const REASONS: [(u32, f64); 6] = [
    (1, 0.22),  // external interrupt
    (12, 0.26), // hlt
    (30, IO),   // I/O instruction
    (32, 0.35), // MSR write
    (48, 0.03), // EPT violation
    (52, 0.11), // preemption timer
];
/// Share of exits for port I/O.
const IO: f64 = 0.01;
/// Share of exits for other reasons.
const OTHER: f64 = 0.02;

const EXITS: usize = 2 * PMU;
const OTHERS: usize = EXITS + REASONS.len();
const EVENTS: usize = OTHERS + 1;
const LEN: usize = EVENTS + 5;

/// A simulated counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// Index of the PMU event in the order of [`pmu`], and whether it counts host mode.
    Pmu(usize, bool),
    Exits,
    /// Exits with this VMX reason.
    Reason(u32),
    /// KVM's tracepoints: userspace_exit, vcpu_wakeup, pio, mmio, inj_virq.
    Event(usize),
}

impl Counted {
    /// The counter's total.
    pub(super) fn total(self, counts: &Counts) -> f64 {
        match self {
            Self::Pmu(n, host) => counts[n + if host { PMU } else { 0 }],
            Self::Exits => counts[EXITS..=OTHERS].iter().sum(),
            Self::Reason(number) => match REASONS.iter().position(|(n, _)| *n == number) {
                Some(n) => counts[EXITS + n],
                None => 0.0,
            },
            Self::Event(n) => counts[EVENTS + n],
        }
    }
}

/// Adds what a vCPU counts in `time` seconds of CPU time.
pub(super) fn add(counts: &mut Counts, rates: &VcpuRates, time: f64) {
    let sides = [
        pmu(
            rates,
            time * (1.0 - rates.host),
            rates.cpi,
            rates.cache_mpki,
        ),
        // KVM's code is short, has many branches, and is mostly cached.
        pmu(rates, time * rates.host, 1.7, 3.0),
    ];
    for (total, more) in counts.iter_mut().zip(sides.as_flattened()) {
        *total += more * rates.running;
    }
    let exits = reasons(rates, time);
    for (total, more) in counts[EXITS..]
        .iter_mut()
        .zip(exits.iter().chain(&events(&exits)))
    {
        *total += more;
    }
}

/// Cycles, instructions, reference cycles, cache references and misses, branch misses, and loads
/// from local and remote DRAM.
fn pmu(rates: &VcpuRates, time: f64, cpi: f64, mpki: f64) -> [f64; PMU] {
    let cycles = time * rates.hertz;
    let instructions = cycles / cpi;
    let misses = instructions * mpki / 1000.0;
    // Two of three misses are loads that stall, the rest are prefetches and stores.
    let loads = misses * 0.66;
    [
        cycles,
        instructions,
        time * BASE_HERTZ,
        misses * 2.2 + instructions * 0.004,
        misses,
        instructions * 0.0025,
        loads * (1.0 - rates.remote),
        loads * rates.remote,
    ]
}

fn reasons(rates: &VcpuRates, time: f64) -> [f64; REASONS.len() + 1] {
    let usual = (rates.exits - rates.storm) * time;
    let mut exits = [usual * OTHER; REASONS.len() + 1];
    for (exits, (number, part)) in exits.iter_mut().zip(REASONS) {
        *exits = usual * part
            + if number == 30 {
                rates.storm * time
            } else {
                0.0
            };
    }
    exits
}

/// KVM's reactions to exits.
fn events(exits: &[f64]) -> [f64; 5] {
    let (interrupts, halts, io) = (exits[0], exits[1], exits[2]);
    [0.9 * io, halts, io, 0.1 * io, 0.02 * interrupts]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_add_up_to_all_exits() {
        assert!((REASONS.iter().map(|(_, part)| part).sum::<f64>() + OTHER - 1.0).abs() < 1e-9);
        let rates = VcpuRates {
            exits: 10_000.0,
            storm: 4000.0,
            cpi: 1.0,
            ..VcpuRates::default()
        };
        let mut counts = [0.0; LEN];
        add(&mut counts, &rates, 2.0);
        assert!((Counted::Exits.total(&counts) - 20_000.0).abs() < 1e-6);
        let io = Counted::Reason(30).total(&counts);
        assert!((io - 8000.0 - 120.0).abs() < 1e-6, "{io}");
    }
}
