//! The `system` source: kernel and microcode, SMT and isolated CPUs.
//!
//! - `kvm_host_info{kernel,microcode,cpu_model}`
//! - `kvm_host_smt_active`: 1 if the threads of a core are in use, else 0
//! - `kvm_host_cpu_isolated{cpu}`: 1 for a CPU excluded from the scheduler's load balancing
//!   (`isolcpus=`, or an isolated cpuset partition), else 0

use super::label;
use crate::engine::{Fact, Found, Source, SourceInfo};
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
pub(super) fn read(roots: &Roots, topology: &Topology) -> Found {
    let facts = versions(roots).into_iter().chain(smt(roots));
    let isolated = isolated(roots, topology).unwrap_or_default();
    facts.chain(isolated).collect::<Vec<_>>().into()
}

fn sysfs(roots: &Roots, file: &str) -> Option<String> {
    let dir = roots.sys.join("devices/system/cpu");
    roots.read_text(&dir.join(file)).ok()
}

fn versions(roots: &Roots) -> Option<Fact> {
    let path = roots.proc.join("sys/kernel/osrelease");
    let kernel = roots.read_text(&path).ok();
    let block = first_block(roots).unwrap_or_default();
    let of_cpu = |name| field(&block, name).map(str::to_owned);
    let known = [
        ("kernel", kernel),
        ("microcode", of_cpu("microcode")),
        ("cpu_model", of_cpu("model name")),
    ];
    let labels = known.into_iter();
    let labels = labels.filter_map(|(name, text)| Some((name, label(&text?).into())));
    let labels: Vec<_> = labels.collect();
    (!labels.is_empty()).then(|| Fact::int(&HOST_INFO, labels, 1))
}

fn smt(roots: &Roots) -> Option<Fact> {
    let active: u64 = sysfs(roots, "smt/active")?.parse().ok()?;
    Some(Fact::int(&SMT_ACTIVE, [], active.min(1)))
}

fn isolated(roots: &Roots, topology: &Topology) -> Option<Vec<Fact>> {
    let isolated = cpulist::parse(&sysfs(roots, "isolated")?)?;
    let one = |cpu: u32| {
        let is_isolated = isolated.contains(&cpu);
        Fact::int(&CPU_ISOLATED, [("cpu", cpu.into())], is_isolated.into())
    };
    Some(topology.cpus.iter().map(|cpu| one(cpu.id)).collect())
}

pub(crate) const ENTRY: Entry = Entry {
    info: SourceInfo {
        name: "system",
        needs: "procfs and sysfs",
        cost: "4 small files per period",
    },
    about: "Kernel, microcode, SMT and isolated CPUs, every minute.",
    metrics: &[METRICS],
    make: |with| Source::of_host(&with.config().system, read),
};
