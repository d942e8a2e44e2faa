//! All metrics: the lists of the sources, in exposition order; and the metrics whose rows a
//! snapshot has itself.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::engine::demand;
use crate::metric::{metrics, Keys, Metric, Rows};
use crate::sources::{rank, Entry, OF_HOST, OF_VMS};
use crate::telemetry;

/// All metrics, in exposition order.
pub static CATALOG: [&Metric; COUNT] = concatenated();

const PARTS: &[Part] = &[
    Part::Lists(&[INVENTORY, PLACEMENT]),
    Part::Sources(OF_VMS),
    Part::Lists(&[TOPOLOGY, demand::METRICS]),
    Part::Sources(OF_HOST),
    Part::Lists(&[
        EXPORTER,
        telemetry::METRICS,
        telemetry::heartbeats::METRICS,
        telemetry::REQUESTS,
        telemetry::otlp::METRICS,
        telemetry::process::METRICS,
    ]),
];

/// The order in which sources are exposed. Others follow in the order of their list.
const ORDER: &[&str] = &[
    "sched", "pmu", "memory", "cgroup", "threads", "devices", "exits", "pt", "kvm_stat", "resctrl",
];

enum Part {
    Lists(&'static [&'static [&'static Metric]]),
    Sources(&'static [Entry]),
}

const COUNT: usize = put_all(None);

const fn concatenated() -> [&'static Metric; COUNT] {
    let mut all = [&VM_INFO; COUNT];
    put_all(Some(&mut all));
    all
}

/// Puts all metrics in order, if there is room for them, and counts them.
const fn put_all(mut all: Option<&mut [&'static Metric]>) -> usize {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        match PARTS[part] {
            Part::Lists(lists) => count = put(&mut all, count, lists),
            Part::Sources(sources) => {
                let mut place = 0;
                while place <= ORDER.len() {
                    let mut n = 0;
                    while n < sources.len() {
                        if rank(ORDER, sources[n].name) == place {
                            count = put(&mut all, count, sources[n].metrics);
                        }
                        n += 1;
                    }
                    place += 1;
                }
            }
        }
        part += 1;
    }
    count
}

/// Puts these metrics after the first `count`, and returns the new count.
const fn put(
    all: &mut Option<&mut [&'static Metric]>,
    mut count: usize,
    lists: &[&[&'static Metric]],
) -> usize {
    let mut list = 0;
    while list < lists.len() {
        let mut n = 0;
        while n < lists[list].len() {
            if let Some(all) = all {
                all[count] = lists[list][n];
            }
            count += 1;
            n += 1;
        }
        list += 1;
    }
    count
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
    CATALOG.into_iter().find(|metric| metric.name == name)
}

/// Position of a metric in [`CATALOG`], from a hash map: facts look it up thousands of times per
/// tick.
pub fn position(metric: &'static Metric) -> usize {
    static POSITIONS: LazyLock<HashMap<usize, usize>> = LazyLock::new(|| {
        let addresses = CATALOG.into_iter().map(address);
        addresses.zip(0..).collect()
    });
    POSITIONS.get(&address(metric)).copied().unwrap_or(COUNT)
}

fn address(metric: &'static Metric) -> usize {
    std::ptr::from_ref(metric) as usize
}
