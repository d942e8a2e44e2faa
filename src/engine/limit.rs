//! The series limit: if the exposition would exceed `limits.max_series`, detail is dropped in a
//! fixed order, and the dropped series are counted.
//!
//! The order is user-defined events, host mode, core, NUMA node. Identity and scheduling are never
//! dropped. Each step drops one detail of one owner's VMs: of the user with the most series, and
//! of root and the managers only when no user has detail left. So a user with very many vCPUs
//! costs no other owner any detail.
//! Detail returns after it has fitted for ten minutes with a fifth of the limit to spare; series
//! that come and go with the load of the host would be useless.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::Placement;
use crate::discover::Owner;
use crate::engine::reading::{Column, ColumnSet, Columns};
use crate::engine::vcpu_sampler::VcpuSampler;
use crate::host::label::label_values;

/// Hidden series keep their totals, up to this many times `max_series` numbers of 8 bytes. Above
/// that, the totals of dropped detail are forgotten, then the next placement detail is dropped.
const HELD_PER_SERIES: usize = 4;

/// How long detail must fit before it is restored.
pub(crate) const RESTORE_AFTER: Duration = Duration::from_secs(600);

label_values! {
    /// Detail that can be dropped, in this order: the `what` label.
    pub(crate) enum Detail {
        /// User-defined raw events.
        UserEvents = "user_events",
        /// `mode="host"` of the hardware counters.
        HostMode = "host_mode",
        /// The `package` and `core` labels.
        Core = "core",
        /// The `numa_node` label.
        NumaNode = "numa_node",
    }
}

/// The series limit and the detail it dropped.
#[derive(Debug)]
pub struct Limit {
    max_series: usize,
    ttl: Duration,
    placement: Placement,
    user_events: ColumnSet,
    host_mode: ColumnSet,
    /// Dropped detail of each owner's VMs, in order, each with the number of series it removed at
    /// the time of the drop.
    dropped: BTreeMap<Owner, Vec<(Detail, u64)>>,
    /// The same over all owners.
    sums: Vec<(Detail, u64)>,
    series: usize,
    /// Since when the detail that is restored next has fitted.
    fits_since: Option<Instant>,
}

/// Size of one owner's VMs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// Exposed series.
    series: usize,
    /// Numbers held, exposed or hidden.
    held: usize,
}

impl Limit {
    /// A limit that has dropped no detail yet.
    pub(crate) fn new(
        max_series: usize,
        ttl: Duration,
        placement: Placement,
        columns: &Columns,
    ) -> Self {
        let those = |test: fn(&Column) -> bool| {
            let columns = columns.placed.iter().enumerate();
            columns.fold(0, |set, (n, c)| set | ColumnSet::from(test(c)) << n)
        };
        Self {
            max_series,
            ttl,
            placement,
            user_events: columns.user_events,
            host_mode: those(|c| c.labels.iter().any(|(n, v)| *n == "mode" && v == "host")),
            dropped: BTreeMap::new(),
            sums: Vec::new(),
            series: 0,
            fits_since: None,
        }
    }

    /// Dropped detail over all owners, with the number of series removed at the time of each drop.
    pub(crate) fn dropped(&self) -> &[(Detail, u64)] {
        &self.sums
    }

    /// Number of exposed series at the last count.
    pub fn series(&self) -> usize {
        self.series
    }

    /// How long a series stays exposed after its last charge.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Applies the owner's dropped detail to a vCPU that is new or has a new owner.
    pub(crate) fn apply(&self, vcpu_sampler: &mut VcpuSampler) {
        let owner = vcpu_sampler.vm.owner;
        let set = |detail, set| {
            if self.is_dropped(owner, detail) {
                set
            } else {
                0
            }
        };
        vcpu_sampler.hidden =
            set(Detail::UserEvents, self.user_events) | set(Detail::HostMode, self.host_mode);
        vcpu_sampler.totals.set_placement(self.placement_of(owner));
    }

    /// Drops detail until all series fit, and restores detail that has fitted for long enough.
    /// `others` is the number of series that do not belong to vCPUs.
    pub(crate) fn enforce(
        &mut self,
        vcpu_samplers: &mut [VcpuSampler],
        others: usize,
        now: Instant,
    ) {
        let mut sizes = self.sizes(vcpu_samplers, now);
        self.dropped.retain(|owner, _| sizes.contains_key(owner));
        while let Some((owner, detail)) = self.next_loss(&sizes, others, vcpu_samplers) {
            self.dropped.entry(owner).or_default().push((detail, 0));
            self.apply_to(owner, vcpu_samplers);
            let after = self.size_of(owner, vcpu_samplers, now);
            let before = sizes.insert(owner, after).unwrap_or_default();
            let fewer = before.series.saturating_sub(after.series) as u64;
            if let Some((_, series)) = self.dropped.get_mut(&owner).and_then(|all| all.last_mut()) {
                *series = fewer;
            }
            tracing::warn!(
                %owner,
                detail = detail.label(),
                series = fewer,
                max_series = self.max_series,
                "dropped detail to stay within limits.max_series"
            );
        }
        self.series = total(&sizes, others).series;
        self.restore(&sizes, others, vcpu_samplers, now);
        let sums = Detail::ALL.into_iter().filter_map(|d| self.sum(d));
        self.sums = sums.collect();
    }

    /// The owner and detail to drop next; `None` if all series fit or nothing is left to drop.
    fn next_loss(
        &self,
        sizes: &BTreeMap<Owner, Size>,
        others: usize,
        vcpu_samplers: &mut [VcpuSampler],
    ) -> Option<(Owner, Detail)> {
        let all = total(sizes, others);
        let first = if all.series > self.max_series {
            Detail::UserEvents
        } else if all.held > self.most_held() && !self.forget(sizes, vcpu_samplers) {
            Detail::Core
        } else {
            return None;
        };
        let next = |owner| {
            let details = Detail::ALL.into_iter().filter(|detail| *detail >= first);
            details.into_iter().find(|d| self.can_drop(owner, *d))
        };
        let candidates = sizes
            .iter()
            .filter_map(|(o, size)| Some((*o, next(*o)?, size)));
        let first_to_lose = |(owner, _, size): &(Owner, Detail, &Size)| {
            (*owner != Owner::Host, size.series, size.held)
        };
        let loser = candidates.max_by_key(first_to_lose);
        loser.map(|(owner, detail, _)| (owner, detail))
    }

    fn most_held(&self) -> usize {
        self.max_series.saturating_mul(HELD_PER_SERIES)
    }

    /// Forgets the totals of dropped detail; returns whether there were any.
    fn forget(&self, sizes: &BTreeMap<Owner, Size>, vcpu_samplers: &mut [VcpuSampler]) -> bool {
        let before: usize = sizes.values().map(|size| size.held).sum();
        let mut after = 0;
        for sampler in vcpu_samplers {
            sampler.totals.forget_finer();
            let series = sampler.totals.series.iter();
            after += series.map(|series| series.totals.len()).sum::<usize>();
        }
        after < before
    }

    fn is_dropped(&self, owner: Owner, detail: Detail) -> bool {
        let dropped = self.dropped.get(&owner);
        dropped.is_some_and(|all| all.iter().any(|(d, _)| *d == detail))
    }

    fn can_drop(&self, owner: Owner, detail: Detail) -> bool {
        let exists = match detail {
            Detail::UserEvents => self.user_events != 0,
            Detail::HostMode => self.host_mode != 0,
            Detail::Core => self.placement < Placement::NumaNode,
            Detail::NumaNode => self.placement < Placement::None,
        };
        exists && !self.is_dropped(owner, detail)
    }

    /// The placement of an owner's VMs: as configured, or coarser.
    fn placement_of(&self, owner: Owner) -> Placement {
        if self.is_dropped(owner, Detail::NumaNode) {
            Placement::None
        } else if self.is_dropped(owner, Detail::Core) {
            Placement::NumaNode
        } else {
            self.placement
        }
    }

    fn apply_to(&self, owner: Owner, vcpu_samplers: &mut [VcpuSampler]) {
        let of_owner = vcpu_samplers.iter_mut().filter(|s| s.vm.owner == owner);
        of_owner.for_each(|sampler| self.apply(sampler));
    }

    /// Restores one detail that has fitted for long enough: the last that was dropped, of root and
    /// the managers first, then of the user with the fewest series.
    fn restore(
        &mut self,
        sizes: &BTreeMap<Owner, Size>,
        others: usize,
        vcpu_samplers: &mut [VcpuSampler],
        now: Instant,
    ) {
        let all = total(sizes, others);
        let first = self.dropped.iter().min_by_key(|(owner, _)| {
            let size = sizes.get(owner).copied().unwrap_or_default();
            (**owner != Owner::Host, size.series)
        });
        let next = first.and_then(|(owner, dropped)| Some((*owner, *dropped.last()?)));
        let room = self.max_series / 5 * 4;
        let fits = |(_, (_, series)): &(Owner, (Detail, u64))| {
            all.series.saturating_add(*series as usize) <= room && all.held <= self.most_held() / 2
        };
        let Some((owner, (detail, _))) = next.filter(fits) else {
            self.fits_since = None;
            return;
        };
        let since = *self.fits_since.get_or_insert(now);
        if now.saturating_duration_since(since) < RESTORE_AFTER {
            return;
        }
        self.fits_since = None;
        self.dropped.get_mut(&owner).and_then(Vec::pop);
        self.dropped.retain(|_, dropped| !dropped.is_empty());
        self.apply_to(owner, vcpu_samplers);
        self.series = total(&self.sizes(vcpu_samplers, now), others).series;
        tracing::info!(%owner, detail = detail.label(), "restored detail: it fits within limits.max_series again");
    }

    fn sum(&self, detail: Detail) -> Option<(Detail, u64)> {
        let all = self.dropped.values().flatten();
        let series = all.filter_map(|(d, series)| (*d == detail).then_some(*series));
        Some((detail, series.reduce(|a, b| a + b)?))
    }

    fn sizes(&self, vcpu_samplers: &[VcpuSampler], now: Instant) -> BTreeMap<Owner, Size> {
        let mut sizes: BTreeMap<Owner, Size> = BTreeMap::new();
        for of_one in vcpu_samplers.chunk_by(|a, b| a.vm.owner == b.vm.owner) {
            let size = sizes.entry(of_one[0].vm.owner).or_default();
            of_one.iter().for_each(|s| self.add_size(s, now, size));
        }
        sizes
    }

    fn size_of(&self, owner: Owner, vcpu_samplers: &[VcpuSampler], now: Instant) -> Size {
        let mut size = Size::default();
        let of_owner = vcpu_samplers.iter().filter(|s| s.vm.owner == owner);
        of_owner.for_each(|sampler| self.add_size(sampler, now, &mut size));
        size
    }

    fn add_size(&self, vcpu_sampler: &VcpuSampler, now: Instant, size: &mut Size) {
        let totals = &vcpu_sampler.totals;
        size.series += usize::from(totals.location.is_some());
        size.series += totals.known.count_ones() as usize;
        for (n, series) in totals.series.iter().enumerate() {
            size.held += series.totals.len();
            if totals.is_visible(n, self.ttl, now) {
                let known = totals.known_in(series) & !vcpu_sampler.hidden;
                size.series += known.count_ones() as usize;
            }
        }
    }
}

fn total(sizes: &BTreeMap<Owner, Size>, others: usize) -> Size {
    let series: usize = sizes.values().map(|size| size.series).sum();
    Size {
        series: series + others,
        held: sizes.values().map(|size| size.held).sum(),
    }
}

#[cfg(test)]
mod tests;
