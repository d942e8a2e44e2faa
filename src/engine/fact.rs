//! Facts: what sources about VMs and the host find out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::discover::{Inventory, VmKey};
use crate::engine::{Reason, ReasonCode, SourceInfo, SourceState};
use crate::metric::{FactValue, Label, Metric};

/// A fact about a VM or the host: a sample of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// A metric of the VM or the host, and not of a vCPU.
    pub metric: &'static Metric,
    /// Labels besides `vm`; facts about the host have no `vm`.
    pub labels: Vec<Label>,
    /// In the unit of the metric, or in nanoseconds for seconds.
    pub value: FactValue,
    /// Where a counter started from 0; ignored for other types.
    pub origin: Origin,
}

impl Fact {
    /// A fact that counts from when the exporter first saw its subject.
    pub fn new(
        metric: &'static Metric,
        labels: impl IntoIterator<Item = Label>,
        value: FactValue,
    ) -> Self {
        Self {
            metric,
            labels: labels.into_iter().collect(),
            value,
            origin: Origin::Exporter,
        }
    }

    /// A fact with an integer.
    pub fn int(
        metric: &'static Metric,
        labels: impl IntoIterator<Item = Label>,
        value: u64,
    ) -> Self {
        Self::new(metric, labels, FactValue::Int(value))
    }

    /// The same with another origin of the count.
    #[must_use]
    pub fn since(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Where the count of a total started. OTLP uses it as the start time of the series, and reports
/// no increment for activity before the exporter started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The exporter counts, from when it first saw the VM or the host.
    #[default]
    Exporter,
    /// The kernel counts for the VM, from the start of the VM.
    Vm,
    /// The kernel counts for the host, or for a group that may be older than the VM: from boot at
    /// the earliest.
    Boot,
}

/// The facts about the host that a source found.
#[derive(Debug, Default)]
pub struct Found {
    /// All facts that are known.
    pub facts: Vec<Fact>,
    /// Why some facts are missing; without facts, why all are.
    pub missing: Option<Reason>,
}

impl Found {
    /// No facts, for this reason.
    pub fn nothing(reason: Reason) -> Self {
        Self {
            facts: Vec::new(),
            missing: Some(reason),
        }
    }

    /// The state of the source: without facts, it always has a reason.
    pub fn state(&self) -> SourceState {
        let no_data = || ReasonCode::NoData.reason("this machine's kernel reports no such data");
        match (self.facts.is_empty(), self.missing.clone()) {
            (true, reason) => SourceState::Down(reason.unwrap_or_else(no_data)),
            (false, Some(reason)) => SourceState::Degraded(reason),
            (false, None) => SourceState::Up,
        }
    }
}

impl From<Vec<Fact>> for Found {
    fn from(facts: Vec<Fact>) -> Self {
        let missing = None;
        Self { facts, missing }
    }
}

/// Facts of one background collector.
#[derive(Debug, Default)]
pub struct VmFacts {
    /// Facts of each VM, in separate lists that are replaced one by one.
    pub vms: HashMap<VmKey, Vec<Arc<[Fact]>>>,
    /// Facts of the host, one list per source.
    pub host: Vec<Arc<[Fact]>>,
    /// State of each source.
    pub sources: Vec<(SourceInfo, SourceState)>,
}

impl VmFacts {
    /// Number of series of the facts about the host and the VMs in `inventory`.
    pub(crate) fn count(&self, inventory: &Inventory) -> usize {
        let known = inventory.vms.iter().filter_map(|vm| self.vms.get(&vm.key));
        let facts = known.flatten().chain(&self.host);
        let facts = facts.flat_map(|facts| facts.iter());
        facts.map(|fact| fact.value.series()).sum()
    }
}
