//! What is measured: one file (and folder) for each source, and the list of all sources.
//!
//! A source states what it needs and costs, declares its metrics and reads them. It implements an
//! interface of [`engine`](crate::engine), which calls it: [`VcpuSource`] in each tick,
//! [`VmSource`] at a period of its own. Sources about the host are `HostReader`s.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, Periodic};
use crate::engine::background::{Source, SourceReader, VmSource};
use crate::engine::{Columns, SourceInfo, VcpuSource};
use crate::host::roots::Roots;
use crate::metric::Metric;
use host::HostReader;
use pmu::counters::OpenCounters;

pub(crate) mod cgroup;
pub(crate) mod devices;
pub(crate) mod exits;
pub(crate) mod host;
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
    exits::KVM_STAT,
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
    /// Makes the source and adds it to the others of its scope.
    pub add: fn(&mut Add<'_>),
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
        for entry in OF_VMS.iter().chain(OF_HOST) {
            let (info, sources) = (entry.info, &mut sources);
            (entry.add)(&mut Add {
                info,
                setup,
                sources,
            });
        }
        sources
    }
}

/// Adds one source.
pub(crate) struct Add<'a> {
    info: SourceInfo,
    setup: &'a Setup<'a>,
    sources: &'a mut Sources,
}

impl<'a> Add<'a> {
    fn of_vcpus(&mut self, source: impl VcpuSource + 'static) {
        self.sources.of_vcpus.push(Box::new(source));
    }

    fn of_vm(&mut self, enabled: bool, period: Duration, source: impl VmSource + 'static) {
        self.background(enabled, period, SourceReader::Vm(Box::new(source)));
    }

    fn of_host<const SECONDS: u64>(
        &mut self,
        config: &Periodic<SECONDS>,
        mut reader: impl HostReader + 'static,
    ) {
        let roots = self.roots();
        let read = move |topology: &_| reader.read(&roots, topology);
        let reader = SourceReader::Host(Box::new(read));
        self.background(config.enabled, config.period, reader);
    }

    fn background(&mut self, enabled: bool, period: Duration, reader: SourceReader) {
        self.sources.background.push(Source {
            info: self.info,
            enabled,
            period,
            reader,
        });
    }

    fn config(&self) -> &'a config::Sources {
        &self.setup.config.sources
    }

    fn roots(&self) -> Arc<Roots> {
        self.setup.roots.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pmu::scripted::Scripted;

    #[test]
    fn each_background_source_can_be_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Arc::new(Roots::below(dir.path()));
        let counters: Arc<dyn OpenCounters> = Arc::new(Scripted::new());
        let enabled = |config: &Config| {
            let sources = Sources::new(&Setup {
                config,
                roots: &roots,
                counters: &counters,
                born_after: 0,
            });
            let sources = sources.background.into_iter();
            let enabled = sources.filter(|source| source.enabled);
            enabled.map(|source| source.info.name).collect::<Vec<_>>()
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
