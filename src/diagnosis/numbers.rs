//! Measurements of a vCPU: deltas of its counters, and their ratios.

use super::{over, Numbers};
use crate::snapshot::delta::{Columns, Counter, Delta};
use crate::sources::{exits, pmu, sched};

/// Counters in the order of [`Raw::increase`].
const COUNTERS: [Counter; RAW] = [
    Counter::new(&sched::TIME),
    Counter::new(&sched::DELAY),
    Counter::new(&pmu::CYCLES).with("mode", "guest"),
    Counter::new(&pmu::INSTRUCTIONS).with("mode", "guest"),
    Counter::new(&pmu::CACHE_MISSES).with("mode", "guest"),
    Counter::new(&exits::EXITS),
    Counter::new(&sched::MIGRATIONS),
    Counter::new(&pmu::DRAM_LOADS)
        .with("mode", "guest")
        .with("target", "local"),
    Counter::new(&pmu::DRAM_LOADS)
        .with("mode", "guest")
        .with("target", "remote"),
    Counter::new(&pmu::PMU_ENABLED),
    Counter::new(&pmu::PMU_RUNNING),
];

const RAW: usize = 11;

/// The columns of these counters.
pub(super) struct Meter {
    columns: [Columns; RAW],
    seconds: f64,
}

/// Deltas of one vCPU or of several.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raw {
    increase: [Option<u64>; RAW],
}

impl Meter {
    pub(super) fn new(delta: &Delta<'_>) -> Self {
        Self {
            columns: COUNTERS.map(|counter| delta.columns(&counter)),
            seconds: delta.span().as_secs_f64(),
        }
    }

    /// The columns of CPU time.
    pub(super) fn time(&self) -> &Columns {
        &self.columns[0]
    }

    /// The deltas of vCPU `n`.
    pub(super) fn read(&self, delta: &Delta<'_>, n: usize) -> Raw {
        let increase = |columns: &Columns| delta.of_vcpu(n, columns);
        Raw {
            increase: self.columns.each_ref().map(increase),
        }
    }

    /// Rates and ratios of the deltas.
    pub(super) fn numbers(&self, raw: &Raw) -> Numbers {
        let [time, delay, cycles, instructions, misses, exits, migrations, local, remote, enabled, running] =
            raw.increase.map(|increase| increase.map(|n| n as f64));
        let rate = |increase: Option<f64>| over(increase?, self.seconds);
        let ratio = |part: Option<f64>, whole: Option<f64>| over(part?, whole?);
        let both = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Numbers {
            time: rate(time).map(|ns| ns / 1e9),
            delay: rate(delay).map(|ns| ns / 1e9),
            delay_ratio: ratio(delay, both(time, delay)),
            cpi: ratio(cycles, instructions),
            cache_mpki: ratio(misses, instructions).map(|misses| misses * 1e3),
            exits: rate(exits),
            migrations: rate(migrations),
            dram_remote: ratio(remote, both(local, remote)),
            counted: ratio(running, enabled).map(|ratio| ratio.min(1.0)),
        }
    }
}

impl std::iter::Sum for Raw {
    /// Adds what is known. Both parts of a ratio come from the same vCPUs.
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        all.fold(Self::default(), |mut sum, raw| {
            for (total, increase) in sum.increase.iter_mut().zip(raw.increase) {
                *total = add(*total, increase);
            }
            sum
        })
    }
}
