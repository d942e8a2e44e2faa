//! The `kvm_parameters` source: parameters of KVM's modules.
//!
//! Feeds `kvm_host_kvm_parameter_info{module,parameter,value}`: every readable parameter of `kvm`
//! and of the vendor's module, among them `halt_poll_ns`, `enable_pmu`, `nested`, `pt_mode`,
//! `ept`, `npt`, `avic` and `enable_mediated_pmu`. Values are the kernel's text: Y, N or a number.

use std::sync::Arc;

use super::{label, Found, HostReader};
use crate::engine::background::{Fact, FactValue};
use crate::engine::{Reason, ReasonCode, SourceInfo};
use crate::host::roots::Roots;
use crate::host::topology::Topology;
use crate::metric::{metrics, Keys, Metric};
use crate::sources::Entry;

metrics! { METRICS of "kvm_parameters":
    KVM_PARAMETER_INFO = Metric::info("kvm_host_kvm_parameter_info", Keys::Host, &["module", "parameter", "value"],
        "Parameters of KVM's modules");
}

/// Maximum number of parameters per module; Linux 6.18 has about 40.
const MOST: usize = 128;

/// Reads /sys/module/kvm*/parameters.
pub struct KvmParameters {
    roots: Arc<Roots>,
}

impl KvmParameters {
    /// A reader of the module parameters below `roots`.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { roots }
    }

    fn of_module(&self, module: &str) -> Vec<Fact> {
        let dir = self.roots.sys.join("module").join(module);
        let dir = dir.join("parameters");
        let mut names = self.roots.list(&dir).unwrap_or_default();
        names.sort_unstable();
        names.truncate(MOST);
        let one = |name: &String| {
            let value = self.roots.read_text(&dir.join(name)).ok()?;
            let labels = [
                ("module", module.to_owned().into()),
                ("parameter", label(name).into()),
                ("value", label(&value).into()),
            ];
            let metric = &KVM_PARAMETER_INFO;
            Some(Fact::new(metric, labels, FactValue::Int(1)))
        };
        names.iter().filter_map(one).collect()
    }
}

impl HostReader for KvmParameters {
    fn info(&self) -> SourceInfo {
        SourceInfo {
            name: "kvm_parameters",
            needs: "KVM's modules in /sys/module",
            cost: "about 60 small files per period",
        }
    }

    fn read(&mut self, _topology: &Topology) -> Found {
        let dir = self.roots.sys.join("module");
        let mut modules = self.roots.list(&dir).unwrap_or_default();
        modules.retain(|name| name == "kvm" || name.starts_with("kvm_"));
        modules.sort_unstable();
        let facts = modules.iter().flat_map(|module| self.of_module(module));
        let facts: Vec<Fact> = facts.collect();
        let missing = facts.is_empty().then(|| {
            ReasonCode::NoKvm
                .reason(format!("{}/kvm has no readable parameter", dir.display()))
                .with_fix("load KVM: modprobe kvm_intel or kvm_amd")
        });
        Found { facts, missing }
    }
}

/// The source in the list of all.
pub(crate) const ENTRY: Entry = Entry {
    name: "kvm_parameters",
    about: "Parameters of KVM's modules, every minute.",
    metrics: &[METRICS],
    add: |setup, sources| {
        sources.of_host(
            &setup.sources().kvm_parameters,
            KvmParameters::new(setup.roots()),
        )
    },
};
