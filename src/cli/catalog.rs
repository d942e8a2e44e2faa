//! `catalog`: every metric as Markdown (docs/METRICS.md is its output) or JSON.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::out;
use crate::metric::{Kind, Metric};
use crate::snapshot::CATALOG;

/// Flags of `catalog`.
#[derive(Debug, Clone, Args)]
pub(super) struct CatalogArgs {
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Markdown,
    Json,
}

pub(super) fn run(args: &CatalogArgs) -> anyhow::Result<()> {
    match args.format {
        Format::Markdown => out::print(&markdown()),
        Format::Json => out::print_json(&json()),
    }
}

/// The sources in the order of the document, and what each measures.
const CHAPTERS: &[(&str, &str)] = &[
    ("inventory", include_str!("catalog/inventory.md").trim_ascii_end()),
    ("sched", "Scheduling of each vCPU thread: /proc/PID/task/TID/{stat,schedstat,sched,status}. Needs no privilege."),
    ("pmu", "Hardware counters of each vCPU thread, guest and host separately: perf_event_open(2). Needs `CAP_PERFMON` and a PMU; `vcpu-exporter check` reports what this host has. The event sets branches, dtlb, stalled, dram_loads and topdown are counted only if `sources.pmu.events` lists them."),
    ("exits", "VM exits of each vCPU and how KVM handled them: tracepoints of KVM, counted on the vCPU's thread, not recorded. Needs tracefs (`CAP_DAC_READ_SEARCH`) and `CAP_PERFMON`. Each counted event costs 0.2 to 0.5 µs; an exit itself costs a microsecond or more."),
    ("pt", include_str!("catalog/pt.md").trim_ascii_end()),
    ("kvm_stat", "KVM's own counters of each VM, from debugfs, every 15 s. Needs `CAP_DAC_READ_SEARCH` and a kernel that is not locked down."),
    ("memory", include_str!("catalog/memory.md").trim_ascii_end()),
    ("cgroup", "Limits, throttling and pressure of the VM's cgroups: cgroup v1, v2 or both, every 15 s (`sources.cgroup.period`). `level` is the level of the groups with the quota: `vcpu`, groups of vCPU threads (libvirt's `<cputune><quota>`, nova's `quota:cpu_quota`); `vm`, the VM's own group, which is the deepest that holds all its threads; `ancestor`, groups above it (a pod, a slice), where other VMs may also use the quota. Counters of a level are the sum over the groups of that level that ever had a quota. Needs the host's cgroup hierarchies, no privilege. Pressure and NUMA balancing need cgroup v2; NUMA balancing also needs the memory controller and Linux 6.12 (commit f77f0c751478)."),
    ("threads", include_str!("catalog/threads.md").trim_ascii_end()),
    ("devices", include_str!("catalog/devices.md").trim_ascii_end()),
    ("resctrl", "Cache occupancy and memory bandwidth of each VM, every 15 s: Intel RDT and AMD QoS, from monitoring groups that hold one VM and nothing else. Needs resctrl mounted, and libvirt's groups or `sources.resctrl.create_groups`. Join `llc` with `kvm_host_cpu_info` to see which VMs share a cache."),
    ("host", "The machine itself, from sysfs."),
    ("host_cpu", include_str!("catalog/host_cpu.md").trim_ascii_end()),
    ("frequency", "Frequency of each core, every 15 s. Needs a cpufreq driver."),
    ("thermal", "Throttling and temperature, every 15 s. Throttle counters exist on Intel; temperatures come from coretemp and k10temp."),
    ("numa", "The host's NUMA nodes, every 15 s. For the memory of each VM by node, see `memory`. Nodes without CPUs (CXL, HBM) are included. Allocations come from `numastat` (Documentation/admin-guide/numastat.rst of the kernel): `miss` increases when a node serves a request that another node had no memory for. All are 0 while the sysctl `vm.numa_stat` is 0."),
    ("cpu_features", "CPU features that matter to guests, from the kernel's list, every 10 min. x86 only."),
    ("kvm_parameters", "Parameters of KVM's modules, every minute."),
    ("vulnerabilities", "Vulnerabilities of the CPU, and the kernel's mitigations, every 10 min."),
    ("system", "Kernel, microcode, SMT and isolated CPUs, every minute."),
    ("kernel_log", "Lines of the kernel log about machine checks and KVM, counted by kind, every 15 s. Needs `CAP_SYSLOG` at start (dropped afterwards) or `kernel.dmesg_restrict=0`."),
    ("self", "The exporter itself."),
];

const INTRO: &str = include_str!("catalog/intro.md");

/// The whole document, as in docs/METRICS.md.
fn markdown() -> String {
    let mut text = INTRO.to_owned();
    for (source, about) in CHAPTERS {
        let metrics = CATALOG
            .into_iter()
            .filter(|metric| metric.source == *source);
        chapter(&mut text, source, about, metrics);
    }
    text
}

fn chapter(
    text: &mut String,
    source: &str,
    about: &str,
    metrics: impl Iterator<Item = &'static Metric>,
) {
    let _ = write!(text, "\n## {source}\n\n{about}\n\n");
    text.push_str("| metric | type | unit | labels | help |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            kind(metric.kind),
            metric.unit(),
            labels(&metric.labels().collect::<Vec<_>>()),
            metric.help.replace('|', "\\|"),
        );
    }
}

/// The location labels, which are present or absent together.
const LOCATION: [&str; 3] = ["package", "core", "numa_node"];

fn labels(labels: &[&str]) -> String {
    let located = labels.contains(&"vm") && LOCATION.iter().all(|label| labels.contains(label));
    let code = |label: &&str| match (located, *label) {
        (true, "package") => Some("*location*".to_owned()),
        (true, "core" | "numa_node") => None,
        (_, label) => Some(format!("`{label}`")),
    };
    labels
        .iter()
        .filter_map(code)
        .collect::<Vec<_>>()
        .join(", ")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Info => "info",
        Kind::Histogram => "histogram",
    }
}

/// One metric as JSON.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    unit: &'static str,
    labels: Vec<&'static str>,
    source: &'static str,
    help: &'static str,
}

fn json() -> Vec<Entry> {
    let entry = |metric: &'static Metric| Entry {
        name: metric.name,
        kind: kind(metric.kind),
        unit: metric.unit(),
        labels: metric.labels().collect(),
        source: metric.source,
        help: metric.help,
    };
    CATALOG.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_once() {
        let text = markdown();
        for metric in CATALOG {
            let row = format!("| `{}` | ", metric.name);
            assert_eq!(text.matches(&row).count(), 1, "{}", metric.name);
        }
    }

    #[test]
    fn location_labels_are_one_word_on_vcpus_only() {
        assert_eq!(
            labels(&["vm", "vcpu", "package", "core", "numa_node", "mode"]),
            "`vm`, `vcpu`, *location*, `mode`"
        );
        assert_eq!(
            labels(&["cpu", "package", "core", "numa_node"]),
            "`cpu`, `package`, `core`, `numa_node`"
        );
    }

    #[test]
    fn json_describes_every_metric() {
        let value = serde_json::to_value(json()).unwrap();
        assert_eq!(value.as_array().unwrap().len(), CATALOG.len());
        assert_eq!(value[0]["name"], "kvm_vm_info");
        assert_eq!(value[0]["type"], "info");
    }
}
