//! Visits a snapshot metric by metric, in catalog order; every output is a visitor.
//!
//! Columns are looked up once per visit, so a sample costs its bytes and no search: each scrape
//! passes hundreds of thousands of samples through this code.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{ColumnRow, FactRow, Labels, Snapshot, SourceRow, Subject, VcpuRow, VmRow, CATALOG};
use crate::engine::reading::{ColumnSet, Unit};
use crate::engine::{Origin, SourceState};
use crate::metric::{Buckets, Metric, Rows};
use crate::telemetry::values::Registry;

pub use crate::metric::Value;

/// What a sample is about: in numbers, and as labels.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The vCPU, VM or host.
    pub subject: Subject,
    /// Labels of the row.
    pub labels: &'a Labels,
}

impl<'a> Row<'a> {
    /// A row about the host or the exporter.
    pub fn of_host(labels: &'a Labels) -> Self {
        let subject = Subject::Host;
        Self { subject, labels }
    }
}

/// Receives a snapshot, metric by metric.
pub trait Visitor {
    /// Starts a metric. Metrics without samples are not announced.
    fn metric(&mut self, metric: &'static Metric);
    /// A sample of the current metric; its labels are those of `row`, then those of `fixed`.
    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value);
    /// A sample of a fact, with the origin of its count.
    fn fact(&mut self, row: Row<'_>, value: Value, _origin: Origin) {
        self.sample(row, &Labels::default(), value);
    }
    /// A histogram of the current metric.
    fn histogram(&mut self, row: Row<'_>, buckets: &Buckets);
}

impl Snapshot {
    /// Passes the samples of all metrics to `visitor`, in catalog order.
    ///
    /// The sample's age is measured at `now`. Unknown values, and those that the series
    /// limit hides, are skipped.
    pub fn visit(&self, now: Instant, visitor: &mut impl Visitor) {
        let none = Labels::default();
        // The facts are in catalog order, as is this loop.
        let mut facts = &self.facts[..];
        for metric in CATALOG.iter().copied() {
            let mut family = Family {
                metric,
                announced: false,
                visitor: &mut *visitor,
            };
            match metric.rows {
                Rows::Fed => self.visit_columns(&mut family),
                Rows::VmInfo => {
                    let infos = self.vms.iter().map(|vm| vm.row(&vm.info));
                    infos.for_each(|row| family.one(row));
                }
                Rows::VmVcpus => self.vms.iter().for_each(|vm| {
                    let vcpus = vm.vcpus.len() as u64 + u64::from(vm.threadless);
                    family.sample(vm.row(&vm.labels), &none, Value::Int(vcpus));
                }),
                Rows::Placement => {
                    let places = self.vcpus.iter();
                    let places = places.filter_map(|vcpu| Some(vcpu.row(vcpu.placement.as_ref()?)));
                    places.for_each(|row| family.one(row));
                }
                Rows::HostCpus => {
                    let cpus = self.cpu_labels.iter();
                    cpus.for_each(|cpu| family.of_host(cpu, Value::Int(1)));
                }
                Rows::VcpuTimeByCpu => self.demand.iter().for_each(|cpu| {
                    family.of_host(&cpu.labels, Value::Nanoseconds(cpu.demand.time));
                }),
                Rows::VcpuDelayByCpu => self.demand.iter().for_each(|cpu| {
                    family.of_host(&cpu.labels, Value::Nanoseconds(cpu.demand.delay));
                }),
                Rows::SourceStates => self.sources.iter().for_each(|source| {
                    family.of_host(&source.labels, Value::Int(delivers(source)));
                }),
                Rows::PmuMode => {
                    let mode = self.pmu_mode.iter();
                    mode.for_each(|mode| family.of_host(mode, Value::Int(1)));
                }
                Rows::Synthetic => {
                    let scenario = self.synthetic.iter();
                    scenario.for_each(|_| family.of_host(&none, Value::Int(1)));
                }
                Rows::DroppedSeries => self.dropped.iter().for_each(|row| {
                    family.of_host(&row.labels, Value::Int(row.series));
                }),
                Rows::SampleAge => family.of_host(&none, Value::Nanoseconds(self.age_ns(now))),
                Rows::SampleTimestamp => {
                    family.of_host(&none, Value::Nanoseconds(unix_ns(self.taken)));
                }
                Rows::Series => family.of_host(&none, Value::Int(self.series_count as u64)),
                Rows::VisibilityGaps => {
                    let gaps = self.inventory.visibility_gaps.len() as u64;
                    family.of_host(&none, Value::Int(gaps));
                }
                // The registry has these.
                Rows::Registry => {}
            }
            while let Some((fact, rest)) = facts.split_first() {
                if fact.metric != metric {
                    break;
                }
                family.fact(fact);
                facts = rest;
            }
        }
    }

    /// Number of series about VMs and the host that [`visit`](Self::visit) passes: all except those
    /// of metrics with source `self`. It is the value of `kvm_exporter_series` and is bounded by
    /// `limits.max_series`; it is counted from the bit sets, without a visit.
    pub fn count_series(&self) -> usize {
        let placements = self.vcpus.iter().filter(|v| v.placement.is_some()).count();
        let in_series: usize = self.series.iter().map(|c| ones(c.known)).sum();
        let in_vcpus: usize = self.vcpus.iter().map(|v| ones(v.known)).sum();
        2 * self.vms.len()
            + placements
            + self.cpu_labels.len()
            + 2 * self.demand.len()
            + in_series
            + in_vcpus
            + self.facts.iter().map(|f| f.value.series()).sum::<usize>()
    }

    /// Age of the snapshot in nanoseconds; 0 if `now` is earlier.
    fn age_ns(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.taken_mono);
        u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Samples of a metric that sources feed through columns.
    fn visit_columns<V: Visitor>(&self, family: &mut Family<'_, V>) {
        let placed = picks(&self.placed, family.metric);
        if !placed.is_empty() {
            let totals = self.series_totals.chunks_exact(self.placed.len());
            let mut rows = self.series.iter().zip(totals);
            for vcpu in &self.vcpus {
                for (series, totals) in rows.by_ref().take(vcpu.series.len()) {
                    family.row(vcpu.row(&series.labels), series.known, totals, &placed);
                }
            }
        }
        let per_vcpu = picks(&self.per_vcpu, family.metric);
        if !per_vcpu.is_empty() {
            let values = self.vcpu_values.chunks_exact(self.per_vcpu.len());
            for (vcpu, values) in self.vcpus.iter().zip(values) {
                family.row(vcpu.row(&vcpu.labels), vcpu.known, values, &per_vcpu);
            }
        }
    }
}

/// Passes the exporter's own metrics to `visitor`.
pub fn visit_own(registry: &Registry, visitor: &mut impl Visitor) {
    for (metric, values) in registry.iter() {
        let mut family = Family {
            metric,
            announced: false,
            visitor: &mut *visitor,
        };
        values.read(&mut |labels, value| {
            let labels = Labels::new(labels);
            let row = Row::of_host(&labels);
            family.announce();
            match value.sample() {
                Ok(value) => family.visitor.sample(row, &Labels::default(), value),
                Err(buckets) => family.visitor.histogram(row, buckets),
            }
        });
    }
}

/// A column that feeds a metric.
struct Pick<'a> {
    index: usize,
    bit: ColumnSet,
    column: &'a ColumnRow,
}

/// The columns that feed `metric`.
fn picks<'a>(columns: &'a [ColumnRow], metric: &Metric) -> Vec<Pick<'a>> {
    let numbered = columns.iter().enumerate();
    let feeding = numbered.filter(|(_, column)| column.metric == metric);
    let pick = |(index, column)| Pick {
        index,
        bit: bit(index),
        column,
    };
    feeding.map(pick).collect()
}

/// Bit of column `index`; 0 beyond the width of the set, so such a column is never known.
fn bit(index: usize) -> ColumnSet {
    u32::try_from(index)
        .ok()
        .and_then(|n| 1u128.checked_shl(n))
        .unwrap_or(0)
}

fn ones(set: ColumnSet) -> usize {
    set.count_ones() as usize
}

impl VmRow {
    fn row<'a>(&self, labels: &'a Labels) -> Row<'a> {
        let subject = Subject::Vm(self.key);
        Row { subject, labels }
    }
}

impl VcpuRow {
    fn row<'a>(&self, labels: &'a Labels) -> Row<'a> {
        let subject = Subject::Vcpu(self.vm, self.vcpu);
        Row { subject, labels }
    }
}

/// 1 unless the source is down.
fn delivers(source: &SourceRow) -> u64 {
    match source.state {
        SourceState::Up | SourceState::Degraded(_) => 1,
        SourceState::Down(_) => 0,
    }
}

/// Nanoseconds since the Unix epoch, valid until the year 2554; 0 before 1970.
pub(crate) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A metric during the visit: announced with its first sample.
struct Family<'a, V> {
    metric: &'static Metric,
    announced: bool,
    visitor: &'a mut V,
}

impl<V: Visitor> Family<'_, V> {
    #[inline]
    fn sample(&mut self, row: Row<'_>, fixed: &Labels, value: Value) {
        self.announce();
        self.visitor.sample(row, fixed, value);
    }

    #[inline]
    fn announce(&mut self) {
        if !self.announced {
            self.announced = true;
            self.visitor.metric(self.metric);
        }
    }

    fn fact(&mut self, fact: &FactRow) {
        self.announce();
        let row = Row {
            subject: fact.subject,
            labels: &fact.labels,
        };
        match fact.value.sample() {
            Ok(value) => self.visitor.fact(row, value, fact.origin),
            Err(buckets) => self.visitor.histogram(row, buckets),
        }
    }

    /// A sample about the host or the exporter.
    fn of_host(&mut self, labels: &Labels, value: Value) {
        self.sample(Row::of_host(labels), &Labels::default(), value);
    }

    /// An info sample: value 1.
    fn one(&mut self, row: Row<'_>) {
        self.sample(row, &Labels::default(), Value::Int(1));
    }

    /// The metric's samples of one series or vCPU.
    #[inline]
    fn row(&mut self, row: Row<'_>, known: ColumnSet, values: &[u64], picks: &[Pick<'_>]) {
        for pick in picks {
            if known & pick.bit == 0 {
                continue;
            }
            if let Some(&raw) = values.get(pick.index) {
                let value = match pick.column.unit {
                    Unit::Count => Value::Int(raw),
                    Unit::Nanoseconds => Value::Nanoseconds(raw),
                };
                self.sample(row, &pick.column.labels, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Visitor for Seen {
        fn metric(&mut self, metric: &'static Metric) {
            self.0.push(metric.name.to_owned());
        }

        fn sample(&mut self, row: Row<'_>, _: &Labels, value: Value) {
            let labels = row.labels.text();
            self.0.push(format!("  {{{labels}}} {value:?}"));
        }

        fn histogram(&mut self, row: Row<'_>, buckets: &Buckets) {
            let (labels, counts) = (row.labels.text(), buckets.iter().map(|(_, n)| n));
            let counts: Vec<u64> = counts.collect();
            self.0
                .push(format!("  {{{labels}}} {counts:?} {}", buckets.sum()));
        }
    }

    #[test]
    fn every_kind_of_own_metric_is_visited() {
        let (telemetry, registry) = Telemetry::new();
        telemetry.ticks.inc_by(7);
        telemetry.tick_cpu.inc_by(0.25);
        telemetry.tick_duration.observe(0.000_2);
        telemetry.tick_duration.observe(0.02);
        telemetry.tick_duration.observe(100.0);
        let labels = [("path", "/metrics".into()), ("code", 200.into())];
        telemetry.http_requests.get_or_create(labels).inc();
        let mut seen = Seen::default();
        visit_own(&registry, &mut seen);
        let after = |metric: &str| {
            let at = seen.0.iter().position(|line| line == metric).unwrap();
            seen.0[at + 1].clone()
        };
        assert_eq!(after("kvm_exporter_ticks_total"), "  {} Int(7)");
        assert_eq!(
            after("kvm_exporter_tick_cpu_seconds_total"),
            "  {} Float(0.25)"
        );
        assert_eq!(
            after("kvm_exporter_http_requests_total"),
            "  {path=\"/metrics\",code=\"200\"} Int(1)"
        );
        let duration = after("kvm_exporter_tick_duration_seconds");
        assert_eq!(
            duration,
            "  {} [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1] 100020200000"
        );
        assert!(after("kvm_exporter_build_info").ends_with("Int(1)"));
        let unused = "kvm_exporter_read_errors_total";
        assert!(!seen.0.iter().any(|line| line == unused), "no samples");
    }

    proptest! {
        #[test]
        fn seconds_are_the_nearest_float(ns: u64, high in 0u64..4_000_000_000) {
            for ns in [ns, high * 1_000_000_000 + ns % 1_000_000_000] {
                let exact = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
                prop_assert_eq!(Value::Nanoseconds(ns).as_f64(), exact.parse::<f64>().unwrap());
            }
        }
    }
}
