//! What is wrong now, and why: rates and ratios of the last seconds, placement, causes compared with
//! their thresholds, and verdicts in words. The status page, `/api/view` and `top` show it.
//!
//! It is computed from two snapshots ([`Handle::window`]) when a client asks. Slow sources are read
//! every 15 s or less often; their rates (quota, throttling, I/O threads) cover the last half
//! minute to minute.
//!
//! `None` means unknown, never 0. Ratios are from 0 to 1. Times are seconds per second, which is
//! cores.

use std::time::{Instant, UNIX_EPOCH};

use crate::snapshot::delta::Delta;
use crate::snapshot::{Handle, Labels, Snapshot};
use crate::telemetry::{REVISION, VERSION};

pub(crate) mod cause;
mod host;
mod judge;
mod known;
mod numbers;
mod observe;
mod peers;
mod sources;
mod suspect;
pub(crate) mod thresholds;
mod verdict;
mod view;
mod vm;
mod words;

pub use cause::Cause;
pub(crate) use cause::CauseView;
pub(crate) use sources::{Dropped, SourceView};
pub(crate) use verdict::percent;
pub(crate) use view::{CoreView, HostView, NodeView, ThreadView, VmView};
pub(crate) use view::{DeviceView, NodeShare, PlaceView, Push, Tenant, VcpuView};
pub use view::{Numbers, View};
pub(crate) use words::Mention;

impl View {
    /// The view of the latest snapshot; `None` before the first tick.
    pub fn latest(snapshots: &Handle, now: Instant) -> Option<Self> {
        let newest = || snapshots.load().map(|newest| (newest.clone(), newest));
        let (base, newest) = snapshots.window().or_else(newest)?;
        Some(Self::new(&base, &newest, now))
    }

    /// The view of `newest` with rates since `base`; without rates if they are the same snapshot.
    pub fn new(base: &Snapshot, newest: &Snapshot, now: Instant) -> Self {
        let delta = Delta::new(base, newest);
        let machine = host::HostDelta::new(newest, &delta);
        let mut vms = vm::vms(newest, &delta, &machine);
        let nodes = machine.nodes(&vms);
        let mut host = machine.host();
        host.judge(&vms, &machine.cores);
        judge::judge(&mut vms, &nodes, &machine.cores, host.is_full());
        let since = newest.taken.duration_since(UNIX_EPOCH).unwrap_or_default();
        let pmu_mode = newest.pmu_mode.as_ref();
        let gaps = newest.inventory.visibility_gaps.iter();
        Self {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            synthetic: newest.synthetic.as_deref().map(str::to_owned),
            taken: since.as_secs_f64(),
            age: now
                .saturating_duration_since(newest.taken_mono)
                .as_secs_f64(),
            tick: newest.tick,
            window: delta.span().as_secs_f64(),
            host,
            nodes,
            vms,
            sources: newest.sources.iter().map(SourceView::new).collect(),
            pmu_mode: pmu_mode.and_then(|labels| owned(labels, "mode")),
            visibility_gaps: gaps.map(ToString::to_string).collect(),
            dropped: newest.dropped.iter().map(Dropped::new).collect(),
        }
    }
}

/// A label's value.
fn owned(labels: &Labels, name: &str) -> Option<String> {
    labels.get(name).map(str::to_owned)
}

/// A quotient; `None` if `whole` is 0.
fn over(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Sum of the known values; `None` if all are unknown.
fn sum(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values.into_iter().flatten().reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests;
