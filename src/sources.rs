//! What is measured: one file (and folder) for each source, and the list of all sources.
//!
//! A source states what it needs and costs, declares its metrics and reads them. It implements one
//! interface of [`engine::source`](crate::engine::source), which depends on its scope.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{self, Config};
use crate::discover::Inventory;
use crate::engine::source::Periodic;
use crate::engine::{Columns, Source, SourceInfo, ThreadedSource, VcpuSource};
use crate::host::roots::Roots;
use crate::metric::Metric;
use crate::telemetry::Telemetry;
use pmu::counters::OpenCounters;
use pt::RecordPt;

pub(crate) mod cgroup;
pub(crate) mod devices;
pub(crate) mod exits;
pub(crate) mod host;
pub mod kvm_stat;
pub mod memory;
pub mod pmu;
pub mod pt;
pub(crate) mod resctrl;
pub(crate) mod sched;
pub mod threads;

/// The sources about VMs and vCPUs, in the order in which they are read and listed. `sched` is
/// first: it reports where a thread runs and whether it ran.
pub(crate) const OF_VMS: &[Entry] = &[
    sched::ENTRY,
    pmu::ENTRY,
    exits::ENTRY,
    cgroup::ENTRY,
    kvm_stat::ENTRY,
    memory::ENTRY,
    threads::ENTRY,
    devices::ENTRY,
    resctrl::ENTRY,
    pt::ENTRY,
];

/// The sources about the host.
pub(crate) const OF_HOST: &[Entry] = &[
    host::cpu_time::ENTRY,
    host::frequency::ENTRY,
    host::thermal::ENTRY,
    host::numa::ENTRY,
    host::features::ENTRY,
    host::parameters::ENTRY,
    host::vulnerabilities::ENTRY,
    host::system::ENTRY,
    host::kernel_log::ENTRY,
    host::ksm::ENTRY,
];

/// Position of a source in an order that outputs have promised; the end, if it is not there.
pub(crate) fn rank(order: &[&str], name: &str) -> usize {
    let known = order.iter().position(|known| *known == name);
    known.unwrap_or(order.len())
}

/// One source of the list.
pub(crate) struct Entry {
    /// Name, requirements and cost.
    pub info: SourceInfo,
    /// What it measures: its chapter of docs/METRICS.md.
    pub about: &'static str,
    pub metrics: &'static [&'static [&'static Metric]],
    /// Makes the source.
    pub make: fn(&mut Make<'_>) -> Source,
}

/// What sources are made from.
pub struct Setup<'a> {
    /// The whole configuration.
    pub config: &'a Config,
    /// The host's file systems.
    pub roots: Arc<Roots>,
    /// Opens hardware counters and tracepoints.
    pub counters: Arc<dyn OpenCounters>,
    /// Records with Intel PT.
    pub recorder: Arc<dyn RecordPt>,
    /// A thread that started later than this (clock ticks since boot) is new: all that it did
    /// counts.
    pub born_after: u64,
    /// The latest inventory, for sources that have a thread of their own.
    pub inventory: Arc<ArcSwap<Inventory>>,
    /// The exporter's own metrics.
    pub telemetry: Telemetry,
}

/// What a source is made from, and what it declares.
pub(crate) struct Make<'a> {
    setup: &'a Setup<'a>,
    columns: Columns,
    pmu_mode: (&'static str, &'static str),
}

impl<'a> Make<'a> {
    fn config(&self) -> &'a config::Sources {
        &self.setup.config.sources
    }

    fn roots(&self) -> Arc<Roots> {
        self.setup.roots.clone()
    }
}

/// All sources, by scope.
pub struct Sources {
    /// Read in each tick for each vCPU, in this order.
    pub of_vcpus: Vec<Box<dyn VcpuSource>>,
    /// Read by the background collector.
    pub(crate) periodic: Vec<(SourceInfo, Periodic)>,
    /// Each has a thread of its own.
    pub(crate) threaded: Vec<Box<dyn ThreadedSource>>,
    /// The columns that the sources about vCPUs feed.
    pub columns: Columns,
    /// The mode of hardware counting, and the reason for its limits.
    pub pmu_mode: (&'static str, &'static str),
}

impl Sources {
    /// Makes all sources.
    pub fn new(setup: &Setup<'_>) -> Self {
        let mut make = Make {
            setup,
            columns: Columns::default(),
            pmu_mode: ("", ""),
        };
        let (mut of_vcpus, mut periodic, mut threaded) = (Vec::new(), Vec::new(), Vec::new());
        for entry in OF_VMS.iter().chain(OF_HOST) {
            match (entry.make)(&mut make) {
                Source::Vcpu(source) => of_vcpus.push(source),
                Source::Periodic(source) => periodic.push((entry.info, source)),
                Source::Threaded(source) => threaded.push(source),
            }
        }
        Self {
            of_vcpus,
            periodic,
            threaded,
            columns: make.columns,
            pmu_mode: make.pmu_mode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pmu::scripted::Scripted;
    use crate::sources::pt::scripted::ScriptedPt;

    #[test]
    fn each_background_source_can_be_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let enabled = |config: &Config| {
            let sources = Sources::new(&Setup {
                config,
                roots: Arc::new(Roots::below(dir.path())),
                counters: Arc::new(Scripted::new()),
                recorder: Arc::new(ScriptedPt::of_bytes(Vec::new())),
                born_after: 0,
                inventory: Arc::default(),
                telemetry: Telemetry::new().0,
            });
            let sources = sources.periodic.into_iter();
            let enabled = sources.filter(|(_, source)| source.enabled);
            enabled.map(|(info, _)| info.name).collect::<Vec<_>>()
        };
        let mut config = Config::default();
        let all = enabled(&config);
        assert_eq!(all.len(), 16, "{all:?}");
        let s = &mut config.sources;
        (s.cgroup.enabled, s.kvm_stat.enabled) = (false, false);
        (s.memory.enabled, s.threads.enabled) = (false, false);
        (s.devices.enabled, s.resctrl.enabled) = (false, false);
        (s.host_cpu.enabled, s.frequency.enabled) = (false, false);
        (s.thermal.enabled, s.numa.enabled) = (false, false);
        (s.cpu_features.enabled, s.kvm_parameters.enabled) = (false, false);
        (s.vulnerabilities.enabled, s.system.enabled) = (false, false);
        (s.kernel_log.enabled, s.ksm.enabled) = (false, false);
        assert_eq!(enabled(&config), [""; 0]);
    }
}
