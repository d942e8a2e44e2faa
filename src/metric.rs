//! A metric of the exporter's contract: a static value that the code which feeds it declares.
//!
//! `metrics!` declares the metrics of a source beside its code;
//! [`CATALOG`](crate::snapshot::CATALOG) is the concatenation of all lists.

use std::fmt;

mod buckets;
mod label;
mod value;

pub use buckets::Buckets;
pub use label::{Label, LabelValue};
pub use value::{FactValue, Value};

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Never decreases.
    Counter,
    /// May increase and decrease.
    Gauge,
    /// Facts in labels, with value 1.
    Info,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// Its name in OpenMetrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
            Self::Histogram => "histogram",
        }
    }
}

/// What a series is about: the labels that identify it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// A vCPU at a location.
    Placed,
    /// A vCPU.
    Vcpu,
    Vm,
    /// The host or a part of it.
    Host,
    Exporter,
}

/// Where a snapshot has the rows of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// In the columns and facts that sources feed.
    Fed,
    /// In the registry of the exporter's own metrics ([`crate::telemetry`]), not in a snapshot.
    Registry,
    /// In the VMs: names and facts.
    VmInfo,
    /// In the VMs: numbers of vCPUs.
    VmVcpus,
    /// In the vCPUs: where they run.
    Placement,
    /// In the topology.
    HostCpus,
    /// In the demand for each logical CPU: time.
    VcpuTimeByCpu,
    /// In the demand for each logical CPU: delay.
    VcpuDelayByCpu,
    SourceStates,
    PmuMode,
    /// In the scenario's name.
    Synthetic,
    SampleAge,
    /// In the time of the sample.
    SampleTimestamp,
    /// In the number of series.
    Series,
    /// In the series that the limit dropped.
    DroppedSeries,
    VisibilityGaps,
}

/// A metric of the exporter's contract.
#[derive(Debug)]
pub struct Metric {
    /// Full Prometheus name, with `_total` or `_info`.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What a series is about.
    pub(crate) keys: Keys,
    /// Labels besides those of `keys`.
    pub own_labels: &'static [&'static str],
    /// HELP text, without a final full stop.
    pub help: &'static str,
    /// The source that feeds it, as labelled in `kvm_exporter_source_up`; or `host` (the topology)
    /// or `self` (the exporter).
    pub source: &'static str,
    /// Where a snapshot has its rows.
    pub(crate) rows: Rows,
}

impl Keys {
    /// The labels that identify a series.
    pub(crate) const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Placed => &["vm", "vcpu", "package", "core", "numa_node"],
            Self::Vcpu => &["vm", "vcpu"],
            Self::Vm => &["vm"],
            Self::Host | Self::Exporter => &[],
        }
    }
}

/// Base units; a metric's name ends with its unit.
const UNITS: [&str; 4] = ["seconds", "bytes", "hertz", "celsius"];

impl Metric {
    /// A counter. Its name must end with `_total`, or it does not compile.
    pub(crate) const fn counter(
        name: &'static str,
        keys: Keys,
        own_labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        assert!(ends_with(name, "_total"), "a counter ends with _total");
        Self::new(name, Kind::Counter, keys, own_labels, help)
    }

    pub(crate) const fn gauge(
        name: &'static str,
        keys: Keys,
        own_labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        assert!(!ends_with(name, "_total") && !ends_with(name, "_info"));
        Self::new(name, Kind::Gauge, keys, own_labels, help)
    }

    /// Facts in labels. Its name must end with `_info`, or it does not compile.
    pub(crate) const fn info(
        name: &'static str,
        keys: Keys,
        own_labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        assert!(ends_with(name, "_info"), "an info metric ends with _info");
        Self::new(name, Kind::Info, keys, own_labels, help)
    }

    /// A histogram of durations.
    pub(crate) const fn histogram(
        name: &'static str,
        keys: Keys,
        own_labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        assert!(ends_with(name, "_seconds"), "durations are in seconds");
        Self::new(name, Kind::Histogram, keys, own_labels, help)
    }

    const fn new(
        name: &'static str,
        kind: Kind,
        keys: Keys,
        own_labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            keys,
            own_labels,
            help,
            source: "",
            rows: Rows::Fed,
        }
    }

    /// The metric with its source, which `metrics!` fills in.
    pub const fn from_source(self, source: &'static str) -> Self {
        Self { source, ..self }
    }

    /// The metric with rows that no source feeds.
    pub(crate) const fn rows(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// The labels that it may carry.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        let keys = self.keys.labels().iter();
        keys.chain(self.own_labels).copied()
    }

    /// Name of the metric family in OpenMetrics: without `_total` or `_info`.
    pub fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Info => self.name.strip_suffix("_info").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }

    /// Its base unit (`seconds`, `bytes`, `hertz`, `celsius`); empty if it has none.
    pub fn unit(&self) -> &'static str {
        let last = self.family().rsplit('_').next();
        let unit = UNITS.into_iter().find(|unit| last == Some(unit));
        unit.unwrap_or_default()
    }
}

/// A static metric is equal only to itself.
impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Metric {}

/// Compares the name.
impl PartialEq<str> for Metric {
    fn eq(&self, name: &str) -> bool {
        self.name == name
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn ends_with(name: &str, end: &str) -> bool {
    let (name, end) = (name.as_bytes(), end.as_bytes());
    if name.len() < end.len() {
        return false;
    }
    let mut n = 0;
    while n < end.len() {
        if name[name.len() - end.len() + n] != end[n] {
            return false;
        }
        n += 1;
    }
    true
}

/// Declares the metrics of a source as statics, and the list of them in exposition order. The list
/// belongs into [`CATALOG`](crate::snapshot::CATALOG); the compiler finds one that is not there.
macro_rules! metrics {
    ($list:ident of $source:literal: $($name:ident = $metric:expr;)+) => {
        $(pub(crate) static $name: $crate::metric::Metric = $metric.from_source($source);)+

        pub(crate) const $list: &[&$crate::metric::Metric] = &[$(&$name),+];
    };
}

pub(crate) use metrics;
