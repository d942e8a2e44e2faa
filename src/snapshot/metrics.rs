//! All metrics: the lists of the sources, in exposition order; and the metrics whose rows a
//! snapshot has itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::engine::demand;
use crate::metric::{metrics, Keys, Metric, Rows};
use crate::sources::{rank, Entry, OF_HOST, OF_VMS};
use crate::telemetry;

/// All metrics, in exposition order.
pub static CATALOG: LazyLock<Vec<&'static Metric>> = LazyLock::new(|| {
    let of_exporter = [
        EXPORTER,
        telemetry::METRICS,
        telemetry::heartbeats::METRICS,
        telemetry::REQUESTS,
        telemetry::otlp::METRICS,
        telemetry::process::METRICS,
    ];
    let parts: [&[_]; 5] = [
        &[INVENTORY, PLACEMENT],
        &lists(OF_VMS),
        &[TOPOLOGY, demand::METRICS],
        &lists(OF_HOST),
        &of_exporter,
    ];
    parts.concat().concat()
});

/// The order in which sources are exposed. Others follow in the order of their list.
const ORDER: &[&str] = &[
    "sched", "pmu", "memory", "cgroup", "threads", "devices", "exits", "pt", "kvm_stat", "resctrl",
];

/// The metrics of these sources, in the order of exposition.
fn lists(sources: &'static [Entry]) -> Vec<&'static [&'static Metric]> {
    let mut sources: Vec<&Entry> = sources.iter().collect();
    sources.sort_by_key(|source| rank(ORDER, source.info.name));
    let lists = sources.into_iter().flat_map(|source| source.metrics);
    lists.copied().collect()
}

metrics! { INVENTORY of "inventory":
    VM_INFO = Metric::info("kvm_vm_info", Keys::Vm, &["uuid", "vmm", "manager", "openstack_project", "openstack_project_id", "openstack_flavor", "openstack_name", "kubevirt_namespace", "kubevirt_name", "kubevirt_pod_uid", "proxmox_id", "name_source"],
        "Facts about a VM; join on vm").rows(Rows::VmInfo);
    VM_VCPUS = Metric::gauge("kvm_vm_vcpus", Keys::Vm, &[],
        "Current vCPUs of the VM, including those whose thread is unknown").rows(Rows::VmVcpus);
}

metrics! { PLACEMENT of "sched":
    PLACEMENT_INFO = Metric::info("kvm_vcpu_placement_info", Keys::Vcpu, &["cpu", "package", "core", "numa_node"],
        "Location of the vCPU thread at the end of the last tick").rows(Rows::Placement);
}

metrics! { TOPOLOGY of "host":
    HOST_CPU_INFO = Metric::info("kvm_host_cpu_info", Keys::Host, &["cpu", "package", "core", "numa_node", "die_id", "cluster_id", "core_type", "llc", "online"],
        "Logical CPUs of the host and their location; die_id and cluster_id from the kernel, absent if the kernel has none").rows(Rows::HostCpus);
}

metrics! { EXPORTER of "self":
    SOURCE_UP = Metric::gauge("kvm_exporter_source_up", Keys::Exporter, &["source", "reason"],
        "1 while a source delivers data, even in part, else 0; reason is the cause of missing data").rows(Rows::SourceStates);
    PMU_MODE = Metric::gauge("kvm_exporter_pmu_mode", Keys::Exporter, &["mode", "reason"],
        "Hardware counting that this host allows: full, host_only, software or off; reason is the cause").rows(Rows::PmuMode);
    SYNTHETIC = Metric::gauge("kvm_exporter_synthetic", Keys::Exporter, &[],
        "1 if the host is synthetic and follows a scenario; absent on a real host").rows(Rows::Synthetic);
    SAMPLE_AGE = Metric::gauge("kvm_exporter_sample_age_seconds", Keys::Exporter, &[],
        "Age of the latest sample at the scrape").rows(Rows::SampleAge);
    SAMPLE_TIMESTAMP = Metric::gauge("kvm_exporter_sample_timestamp_seconds", Keys::Exporter, &[],
        "Unix time of the latest sample").rows(Rows::SampleTimestamp);
    SERIES = Metric::gauge("kvm_exporter_series", Keys::Exporter, &[],
        "Series about VMs and the host in the exposition").rows(Rows::Series);
    DROPPED_SERIES = Metric::gauge("kvm_exporter_dropped_series", Keys::Exporter, &["what"],
        "Series currently dropped because of limits.max_series, by dropped detail; counted at the time of the drop").rows(Rows::DroppedSeries);
    BLIND_SPOTS = Metric::gauge("kvm_exporter_blind_spots", Keys::Exporter, &[],
        "Visibility gaps: processes and VMs that discovery could not examine; the status page and the check command list them").rows(Rows::VisibilityGaps);
}

/// The metric with this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    CATALOG.iter().copied().find(|metric| metric.name == name)
}

/// Position of a metric in [`CATALOG`], from a hash map: facts look it up thousands of times per
/// tick.
pub fn position(metric: &'static Metric) -> usize {
    static POSITIONS: LazyLock<HashMap<usize, usize>> = LazyLock::new(|| {
        let addresses = CATALOG.iter().copied().map(address);
        addresses.zip(0..).collect()
    });
    POSITIONS
        .get(&address(metric))
        .copied()
        .unwrap_or(CATALOG.len())
}

fn address(metric: &'static Metric) -> usize {
    std::ptr::from_ref(metric) as usize
}
