//! The series limit: when the exposition would grow past `limits.max_series`, detail is given up
//! in a fixed order, and what was given up is counted.
//!
//! The order: user-defined events, host mode, core, NUMA node. Identity and scheduling stay
//! whatever it costs. What was given up stays so until the exporter starts anew: series that
//! come and go with the load of the host would be worth nothing.

use std::time::{Duration, Instant};

use super::reading::{Column, ColumnSet, Columns};
use super::slot::Slot;
use crate::config::Placement;

/// Cells that left the exposition keep their totals, up to this many times `max_series` numbers
/// (8 bytes each); beyond, the next placement detail is given up.
const HELD_PER_SERIES: usize = 4;

/// What can be given up, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// User-defined raw events.
    UserEvents,
    /// `mode="host"` of the hardware counters.
    HostMode,
    /// The `package` and `core` labels.
    Core,
    /// The `numa_node` label.
    NumaNode,
}

impl Detail {
    /// Everything that can be given up, in order.
    pub const ALL: [Detail; 4] = [
        Detail::UserEvents,
        Detail::HostMode,
        Detail::Core,
        Detail::NumaNode,
    ];

    /// Value of the `what` label.
    pub fn label(self) -> &'static str {
        match self {
            Detail::UserEvents => "user_events",
            Detail::HostMode => "host_mode",
            Detail::Core => "core",
            Detail::NumaNode => "numa_node",
        }
    }
}

/// The series limit and what it has cost so far.
#[derive(Debug)]
pub struct Limit {
    max_series: usize,
    ttl: Duration,
    placement: Placement,
    user_events: ColumnSet,
    host_mode: ColumnSet,
    /// What was given up, and how many series fewer that made when it happened.
    dropped: Vec<(Detail, u64)>,
    series: usize,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// Series in the exposition.
    series: usize,
    /// Numbers held, visible or not.
    held: usize,
}

impl Limit {
    /// No detail is given up yet.
    pub fn new(max_series: usize, ttl: Duration, placement: Placement, columns: &Columns) -> Self {
        let those = |test: fn(&Column) -> bool| {
            let columns = columns.placed.iter().enumerate();
            columns.fold(0, |set, (n, c)| set | ColumnSet::from(test(c)) << n)
        };
        Self {
            max_series,
            ttl,
            placement,
            user_events: those(|c| c.metric == "kvm_vcpu_pmu_event_total"),
            host_mode: those(|c| c.labels.iter().any(|(n, v)| *n == "mode" && v == "host")),
            dropped: Vec::new(),
            series: 0,
        }
    }

    /// The placement in force: as configured, or coarser.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Placed columns that left the exposition.
    pub fn hidden(&self) -> ColumnSet {
        let given_up = |detail| self.dropped.iter().any(|(d, _)| *d == detail);
        let set = |detail, set| if given_up(detail) { set } else { 0 };
        set(Detail::UserEvents, self.user_events) | set(Detail::HostMode, self.host_mode)
    }

    /// What was given up, and how many series that took away when it happened.
    pub fn dropped(&self) -> &[(Detail, u64)] {
        &self.dropped
    }

    /// Series in the exposition, as they were counted last.
    pub fn series(&self) -> usize {
        self.series
    }

    /// How long a cell stays in the exposition after it was last charged.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Gives up detail until what the slots show fits; `others` are the series that do not come
    /// from vCPUs.
    pub fn enforce(&mut self, slots: &mut [Slot], others: usize, now: Instant) {
        let most_held = self.max_series.saturating_mul(HELD_PER_SERIES);
        let mut size = self.size(slots, others, now);
        for detail in Detail::ALL {
            let too_many = size.series > self.max_series;
            let too_much = size.held > most_held && detail >= Detail::Core;
            if !(too_many || too_much) || !self.can_give_up(detail) {
                continue;
            }
            self.dropped.push((detail, 0));
            self.give_up(detail, slots);
            let after = self.size(slots, others, now);
            let fewer = size.series.saturating_sub(after.series) as u64;
            if let Some(last) = self.dropped.last_mut() {
                last.1 = fewer;
            }
            tracing::warn!(
                detail = detail.label(),
                series = fewer,
                max_series = self.max_series,
                "gave up detail to stay within limits.max_series"
            );
            size = after;
        }
        self.series = size.series;
    }

    fn can_give_up(&self, detail: Detail) -> bool {
        match detail {
            Detail::UserEvents => self.user_events & !self.hidden() != 0,
            Detail::HostMode => self.host_mode & !self.hidden() != 0,
            Detail::Core => self.placement < Placement::NumaNode,
            Detail::NumaNode => self.placement < Placement::None,
        }
    }

    fn give_up(&mut self, detail: Detail, slots: &mut [Slot]) {
        match detail {
            Detail::UserEvents | Detail::HostMode => return,
            Detail::Core => self.placement = Placement::NumaNode,
            Detail::NumaNode => self.placement = Placement::None,
        }
        for slot in slots {
            slot.account.coarsen(self.placement);
        }
    }

    fn size(&self, slots: &[Slot], others: usize, now: Instant) -> Size {
        let hidden = self.hidden();
        let mut size = Size {
            series: others,
            held: 0,
        };
        for account in slots.iter().map(|slot| &slot.account) {
            size.series += usize::from(account.whereabouts.is_some());
            size.series += account.known.count_ones() as usize;
            for (n, cell) in account.cells.iter().enumerate() {
                size.held += cell.totals.len();
                if account.is_visible(n, self.ttl, now) {
                    size.series += (account.known_in(cell) & !hidden).count_ones() as usize;
                }
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::fixture;
    use crate::sample::reading::{Reading, Scope, Unit};
    use std::sync::Arc;

    /// One vCPU that was on four cores of two nodes, with four placed columns: scheduling,
    /// guest cycles, host cycles and a user's event.
    fn setup() -> (Columns, Vec<Slot>) {
        let mut columns = Columns::default();
        let mode = |mode: &str| vec![("mode", mode.to_owned())];
        let all = [
            ("kvm_vcpu_time_seconds_total", Vec::new()),
            ("kvm_vcpu_cycles_total", mode("guest")),
            ("kvm_vcpu_cycles_total", mode("host")),
            ("kvm_vcpu_pmu_event_total", mode("guest")),
        ];
        let ids = all.map(|(metric, labels)| {
            columns.add(Column {
                metric,
                labels,
                unit: Unit::Count,
                scope: Scope::Placed,
            })
        });
        let vm = fixture::vm(1, 2, 3);
        let vcpu = vm.vcpus[0];
        let topology = crate::host::topology::Topology {
            cpus: (0..4)
                .map(|id| fixture::cpu(id, id as i32, id / 2))
                .collect(),
        };
        let mut slot = Slot::new(Arc::new(vm), vcpu, &columns);
        let mut reading = Reading::new(&columns, Arc::new(topology));
        for cpu in 0..4 {
            reading.clear();
            reading.cpu = Some(cpu);
            ids.iter().for_each(|id| reading.add(*id, 10));
            slot.account
                .charge(&reading, Placement::Core, Instant::now());
        }
        (columns, vec![slot])
    }

    /// What a limit gives up, and how many cells are left. The whole is 17 series: a placement
    /// and four columns at four places.
    fn enforce(max_series: usize) -> (Vec<(&'static str, u64)>, usize) {
        let (columns, mut slots) = setup();
        let ttl = Duration::from_secs(600);
        let mut limit = Limit::new(max_series, ttl, Placement::Core, &columns);
        limit.enforce(&mut slots, 0, Instant::now());
        limit.enforce(&mut slots, 0, Instant::now());
        let dropped = limit.dropped().iter().map(|(d, n)| (d.label(), *n));
        (dropped.collect(), slots[0].account.cells.len())
    }

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(enforce(17), (vec![], 4));
    }

    #[test]
    fn detail_is_given_up_in_order_and_no_more_than_needed() {
        let (user, host) = (("user_events", 4), ("host_mode", 4));
        assert_eq!(enforce(16), (vec![user], 4));
        assert_eq!(enforce(12), (vec![user, host], 4));
        assert_eq!(enforce(8), (vec![user, host, ("core", 4)], 2));
        let all = vec![user, host, ("core", 4), ("numa_node", 2)];
        assert_eq!(enforce(4), (all.clone(), 1));
        assert_eq!(enforce(1), (all, 1), "identity and scheduling stay");
    }

    #[test]
    fn totals_that_nobody_sees_are_bounded_too() {
        let (columns, mut slots) = setup();
        let mut limit = Limit::new(3, Duration::ZERO, Placement::Core, &columns);
        // Of the 16 numbers held only 4 are shown, and 12 may be held.
        limit.enforce(&mut slots, 0, Instant::now() + Duration::from_secs(1));
        assert_eq!(limit.placement(), Placement::NumaNode);
    }
}
