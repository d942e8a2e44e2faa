//! The `kvm_parameters` source: parameters of KVM's modules.
//!
//! Feeds `kvm_host_kvm_parameter_info{module,parameter,value}`: every readable parameter of `kvm`
//! and of the vendor's module, among them `halt_poll_ns`, `enable_pmu`, `nested`, `pt_mode`,
//! `ept`, `npt`, `avic` and `enable_mediated_pmu`. Values are the kernel's text: Y, N or a number.

use super::label;
use crate::engine::{Fact, Found, ReasonCode, Source, SourceInfo};
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
pub(super) fn read(roots: &Roots, _topology: &Topology) -> Found {
    let dir = roots.sys.join("module");
    let mut modules = roots.list(&dir).unwrap_or_default();
    modules.retain(|name| name == "kvm" || name.starts_with("kvm_"));
    modules.sort_unstable();
    let facts = modules.iter().flat_map(|module| of_module(roots, module));
    let facts: Vec<Fact> = facts.collect();
    let missing = facts.is_empty().then(|| {
        ReasonCode::NoKvm
            .reason(format!("{}/kvm has no readable parameter", dir.display()))
            .with_fix("load KVM: modprobe kvm_intel or kvm_amd")
    });
    Found { facts, missing }
}

fn of_module(roots: &Roots, module: &str) -> Vec<Fact> {
    let dir = roots.sys.join("module").join(module).join("parameters");
    let mut names = roots.list(&dir).unwrap_or_default();
    names.sort_unstable();
    names.truncate(MOST);
    let one = |name: &String| {
        let value = roots.read_text(&dir.join(name)).ok()?;
        let labels = [
            ("module", module.to_owned().into()),
            ("parameter", label(name).into()),
            ("value", label(&value).into()),
        ];
        Some(Fact::int(&KVM_PARAMETER_INFO, labels, 1))
    };
    names.iter().filter_map(one).collect()
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "kvm_parameters",
        needs: "KVM's modules in /sys/module",
        cost: "about 60 small files per period",
    },
    about: "Parameters of KVM's modules, every minute.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().kvm_parameters, read),
};
