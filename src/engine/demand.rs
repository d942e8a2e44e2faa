//! Demand of all vCPUs for each logical CPU: time on it, and delay before it.
//!
//! A vCPU's own counters are per core. These totals separate the threads of a core, at two numbers
//! per CPU for any number of vCPUs.

use crate::engine::reading::{ColumnId, Columns, Reading};
use crate::metric::{metrics, Keys, Metric, Rows};

metrics! { METRICS of "sched":
    TIME_BY_CPU = Metric::counter("kvm_host_cpu_vcpu_time_seconds_total", Keys::Host, &["cpu", "package", "core", "numa_node"],
        "Time of all vCPUs on the logical CPU; each vCPU's time of a tick is counted at the CPU where it runs at the end of the tick").rows(Rows::VcpuTimeByCpu);
    DELAY_BY_CPU = Metric::counter("kvm_host_cpu_vcpu_delay_seconds_total", Keys::Host, &["cpu", "package", "core", "numa_node"],
        "Delay of the vCPUs on the logical CPU (runnable but waiting); delay plus time is their demand").rows(Rows::VcpuDelayByCpu);
}

/// Totals of all logical CPUs.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Positions of time and delay among the placed columns.
    columns: Option<[usize; 2]>,
    /// Indexed by CPU number.
    totals: Vec<OfCpu>,
    known: bool,
}

/// Totals of one logical CPU, in nanoseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct OfCpu {
    /// Time that vCPUs ran on it.
    pub time: u64,
    /// Delay of the vCPUs that ran on it at the end of a tick.
    pub delay: u64,
}

impl Demand {
    /// Empty totals, fed by these columns.
    pub(crate) fn new(columns: &Columns) -> Self {
        Self {
            columns: columns.demand.and_then(placed),
            ..Self::default()
        }
    }

    /// Adds one vCPU's tick to the CPU where it runs now.
    pub(crate) fn charge(&mut self, reading: &Reading) {
        let (Some([time, delay]), Some(cpu)) = (self.columns, reading.cpu) else {
            return;
        };
        let (deltas, added) = reading.placed();
        if added >> time & 1 == 0 {
            return;
        }
        let cpu = cpu as usize;
        if cpu >= self.totals.len() {
            // Skip a CPU number that the topology does not have.
            let last = reading.topology.cpus.last();
            let last = last.map_or(0, |cpu| cpu.id as usize);
            if cpu > last {
                return;
            }
            self.totals.resize(last + 1, OfCpu::default());
        }
        let total = &mut self.totals[cpu];
        total.time = total.time.saturating_add(deltas[time]);
        total.delay = total.delay.saturating_add(deltas[delay]);
        self.known = true;
    }

    /// Totals of this CPU; `None` until the time of any vCPU is known.
    pub(crate) fn on_cpu(&self, cpu: u32) -> Option<OfCpu> {
        let total = self.totals.get(cpu as usize).copied();
        self.known.then(|| total.unwrap_or_default())
    }

    /// Number of series for this many CPUs.
    pub(crate) fn series(&self, cpus: usize) -> usize {
        2 * cpus * usize::from(self.known)
    }
}

fn placed([time, delay]: [ColumnId; 2]) -> Option<[usize; 2]> {
    Some([time.placed()?, delay.placed()?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fixture;
    use crate::engine::reading::{Column, ColumnId, Scope, Unit};
    use crate::host::topology::Topology;
    use std::sync::Arc;

    fn columns() -> (Columns, [ColumnId; 3]) {
        let mut columns = Columns::default();
        let mut add = || {
            columns.add(Column {
                metric: &TIME_BY_CPU,
                labels: Vec::new(),
                unit: Unit::Nanoseconds,
                scope: Scope::Placed,
            })
        };
        let ids = [add(), add(), add()];
        columns.demand = Some([ids[2], ids[1]]);
        (columns, ids)
    }

    #[test]
    fn vcpus_add_up_on_the_cpu_where_they_are_found() {
        let (columns, [slices, delay, time]) = columns();
        let cpus = (0..4).map(|cpu| fixture::cpu(cpu, cpu as i32 % 2, 0));
        let topology = Topology {
            cpus: cpus.collect(),
        };
        let mut reading = Reading::new(&columns, Arc::new(topology));
        let mut demand = Demand::new(&columns);
        assert_eq!((demand.on_cpu(2), demand.series(4)), (None, 0));
        let mut charge = |cpu, ran: Option<[u64; 2]>| {
            reading.clear();
            reading.cpu = cpu;
            reading.add(slices, 1);
            if let Some([t, d]) = ran {
                reading.add(time, t);
                reading.add(delay, d);
            }
            demand.charge(&reading);
        };
        charge(Some(2), None);
        charge(None, Some([1000, 1000]));
        charge(Some(2), Some([5, 7]));
        charge(Some(2), Some([10, 0]));
        charge(Some(3), Some([1, 1]));
        // A CPU that the topology does not have yet.
        charge(Some(9), Some([1, 1]));
        let of = |time, delay| Some(OfCpu { time, delay });
        assert_eq!(
            [0, 2, 3].map(|cpu| demand.on_cpu(cpu)),
            [of(0, 0), of(15, 7), of(1, 1)]
        );
        assert_eq!(demand.series(4), 8);
    }
}
