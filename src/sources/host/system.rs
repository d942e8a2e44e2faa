//! The `system` source: kernel and microcode, SMT and isolated CPUs.
//!
//! - `kvm_host_info{kernel,microcode,cpu_model}`
//! - `kvm_host_smt_active`: 1 if the threads of a core are in use, else 0
//! - `kvm_host_cpu_isolated{cpu}`: 1 for a CPU excluded from the scheduler's load balancing
//!   (`isolcpus=`, or an isolated cpuset partition), else 0

use std::sync::Arc;

use super::{label, Found, HostReader};
use crate::engine::background::{Fact, FactValue};
use crate::engine::SourceInfo;
use crate::host::cpu_model::{field, first_block};
use crate::host::cpulist;
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "system":
    HOST_INFO = Metric::info("kvm_host_info", Keys::Host, &["kernel", "microcode", "cpu_model"],
        "Kernel release, microcode version and CPU model");
    SMT_ACTIVE = Metric::gauge("kvm_host_smt_active", Keys::Host, &[],
        "1 if SMT is active, else 0");
    CPU_ISOLATED = Metric::gauge("kvm_host_cpu_isolated", Keys::Host, &["cpu"],
        "1 for a logical CPU excluded from the scheduler's load balancing, else 0");
}

/// Reads kernel version, CPU model, SMT state and isolated CPUs.
pub struct System {
    roots: Arc<Roots>,
}

impl System {
    /// A reader below `roots`.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { roots }
    }

    fn sysfs(&self, file: &str) -> Option<String> {
        let dir = self.roots.sys.join("devices/system/cpu");
        self.roots.read_text(&dir.join(file)).ok()
    }

    fn versions(&self) -> Option<Fact> {
        let path = self.roots.proc.join("sys/kernel/osrelease");
        let kernel = self.roots.read_text(&path).ok();
        let block = first_block(&self.roots).unwrap_or_default();
        let of_cpu = |name| field(&block, name).map(str::to_owned);
        let known = [
            ("kernel", kernel),
            ("microcode", of_cpu("microcode")),
            ("cpu_model", of_cpu("model name")),
        ];
        let labels = known
            .into_iter()
            .filter_map(|(name, text)| Some((name, label(&text?).into())));
        let labels: Vec<_> = labels.collect();
        (!labels.is_empty()).then(|| Fact::new(&HOST_INFO, labels, FactValue::Int(1)))
    }

    fn smt(&self) -> Option<Fact> {
        let active: u64 = self.sysfs("smt/active")?.parse().ok()?;
        Some(Fact::new(&SMT_ACTIVE, [], FactValue::Int(active.min(1))))
    }

    fn isolated(&self, topology: &Topology) -> Option<Vec<Fact>> {
        let isolated = cpulist::parse(&self.sysfs("isolated")?)?;
        let one = |cpu: u32| {
            let value = FactValue::Int(u64::from(isolated.contains(&cpu)));
            Fact::new(&CPU_ISOLATED, [("cpu", cpu.into())], value)
        };
        Some(topology.cpus.iter().map(|cpu| one(cpu.id)).collect())
    }
}

impl HostReader for System {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "system",
            needs: "procfs and sysfs",
            cost: "4 small files per period",
        }
    }

    fn read(&mut self, topology: &Topology) -> Found {
        let facts = self.versions().into_iter().chain(self.smt());
        let isolated = self.isolated(topology).unwrap_or_default();
        Found {
            facts: facts.chain(isolated).collect(),
            missing: None,
        }
    }
}

/// The source in the list of all.
pub(crate) const ENTRY: Entry = Entry {
    name: "system",
    about: "Kernel, microcode, SMT and isolated CPUs, every minute.",
    metrics: &[METRICS],
    add: |setup, sources| sources.of_host(&setup.sources().system, System::new(setup.roots())),
};
