//! What is measured: one file (and folder) for each source, and the list of all sources.
//!
//! A source states what it needs and costs, declares its metrics and reads them. It implements an
//! interface of [`engine`](crate::engine), which calls it: [`VcpuSource`] in each tick,
//! [`VmSource`] and [`HostSource`](crate::engine::background::HostSource) at a period of its own.

use std::sync::Arc;

use crate::config::{self, Config, Periodic};
use crate::engine::background::{Source, VmSource};
use crate::engine::{Columns, VcpuSource};
use crate::host::roots::Roots;
use crate::metric::Metric;
use host::{HostReader, Reporting};
use pmu::counters::OpenCounters;

pub mod cgroup;
pub mod devices;
pub mod exits;
pub mod host;
pub mod memory;
pub mod pmu;
pub mod pt;
pub mod resctrl;
pub mod sched;
pub mod threads;

/// The sources about VMs and vCPUs, in the order in which they are read and listed. `sched` is
/// first: it reports where a thread runs and whether it ran.
pub(crate) const OF_VMS: &[Entry] = &[
    sched::ENTRY,
    pmu::ENTRY,
    exits::ENTRY,
    cgroup::ENTRY,
    exits::KVM_STAT,
    memory::ENTRY,
    threads::ENTRY,
    devices::ENTRY,
    resctrl::ENTRY,
    pt::ENTRY,
];

/// The sources about the host.
pub(crate) const OF_HOST: &[Entry] = &[
    host::CPU_TIME,
    host::FREQUENCY,
    host::THERMAL,
    host::NUMA,
    host::CPU_FEATURES,
    host::KVM_PARAMETERS,
    host::VULNERABILITIES,
    host::SYSTEM,
    host::KERNEL_LOG,
    host::KSM,
];

/// Position of a source in an order that outputs have promised; the end, if it is not there.
pub(crate) fn rank(order: &[&str], name: &str) -> usize {
    let known = order.iter().position(|known| *known == name);
    known.unwrap_or(order.len())
}

/// One source of the list.
pub(crate) struct Entry {
    /// The `source` label.
    pub name: &'static str,
    /// What it measures: its chapter of docs/METRICS.md.
    pub about: &'static str,
    /// All its metrics.
    pub metrics: &'static [&'static [&'static Metric]],
    /// Makes the source and adds it to the others of its scope.
    pub add: fn(&Setup<'_>, &mut Sources),
}

/// What sources are made from.
pub struct Setup<'a> {
    /// The whole configuration.
    pub config: &'a Config,
    /// The host's file systems.
    pub roots: &'a Arc<Roots>,
    /// Opens hardware counters and tracepoints.
    pub counters: &'a Arc<dyn OpenCounters>,
    /// A thread that started later than this (clock ticks since boot) is new: all that it did
    /// counts.
    pub born_after: u64,
}

/// All sources, by scope.
#[derive(Default)]
pub struct Sources {
    /// Read in each tick for each vCPU, in this order.
    pub of_vcpus: Vec<Box<dyn VcpuSource>>,
    /// Read by the background collector.
    pub background: Vec<Source>,
    /// The columns that the sources about vCPUs feed.
    pub columns: Columns,
    /// The mode of hardware counting, and the reason for its limits.
    pub pmu_mode: (&'static str, &'static str),
}

impl Sources {
    /// Makes all sources.
    pub fn new(setup: &Setup<'_>) -> Self {
        let mut sources = Self::default();
        for source in OF_VMS.iter().chain(OF_HOST) {
            (source.add)(setup, &mut sources);
        }
        sources
    }

    fn of_vm(&mut self, source: impl VmSource + 'static) {
        self.background.push(Source::Vm(Box::new(source)));
    }

    fn of_host<const SECONDS: u64>(
        &mut self,
        config: &Periodic<SECONDS>,
        reader: impl HostReader + 'static,
    ) {
        let source = Reporting::new(config, reader);
        self.background.push(Source::Host(Box::new(source)));
    }
}

impl Setup<'_> {
    fn sources(&self) -> &config::Sources {
        &self.config.sources
    }

    fn roots(&self) -> Arc<Roots> {
        self.roots.clone()
    }
}
