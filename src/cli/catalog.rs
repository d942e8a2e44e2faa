//! `catalog`: every metric as Markdown (docs/METRICS.md is its output) or JSON.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::out;
use crate::snapshot::{Kind, Metric, CATALOG};

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

/// The sources in the order of the document, and what each tells.
const CHAPTERS: &[(&str, &str)] = &[
    ("inventory", include_str!("catalog/inventory.md").trim_ascii_end()),
    ("sched", "What the kernel's scheduler did with each vCPU thread: /proc/PID/task/TID/{stat,schedstat,sched,status}. Needs no privilege."),
    ("pmu", "Hardware counters of each vCPU thread, guest and host apart: perf_event_open(2). Needs `CAP_PERFMON` and a PMU; `vcpu-exporter check` says what this host has. The event sets branches, dtlb, stalled, dram_loads and topdown are counted where `sources.pmu.events` names them."),
    ("exits", "Why each vCPU left the guest, and what KVM did about it: tracepoints of KVM, counted on the vCPU's thread and not recorded. Needs tracefs (`CAP_DAC_READ_SEARCH`) and `CAP_PERFMON`. Each counted hit costs 0.2 to 0.5 µs, an exit itself a microsecond or more."),
    ("pt", include_str!("catalog/pt.md").trim_ascii_end()),
    ("kvm_stat", "What KVM counts for each VM anyway, from debugfs, every 15 s. Needs `CAP_DAC_READ_SEARCH` and a kernel that is not locked down."),
    ("memory", include_str!("catalog/memory.md").trim_ascii_end()),
    ("cgroup", "What the VM's control groups allow it and did to it: cgroup v1, v2 or both, every 15 s (`sources.cgroup.period`). `level` says on which groups a quota is set: `vcpu`, those of vCPU threads (libvirt's `<cputune><quota>`, nova's `quota:cpu_quota`); `vm`, the VM's own, which is the deepest that holds all its threads; `ancestor`, those above it (a pod, a slice), where other VMs may use the quota up too. Counters of a level add up the groups of that level which ever had a quota. Needs the host's hierarchies, no privilege; pressure needs cgroup v2's."),
    ("threads", include_str!("catalog/threads.md").trim_ascii_end()),
    ("devices", include_str!("catalog/devices.md").trim_ascii_end()),
    ("resctrl", "What each VM takes of caches and memory bandwidth, every 15 s: Intel RDT and AMD QoS, by the monitoring groups that hold one VM and nothing else. Needs resctrl mounted, and libvirt's groups or `sources.resctrl.create_groups`. Join `llc` with `kvm_host_cpu_info` to see who shares a cache."),
    ("host", "The machine itself, from sysfs."),
    ("frequency", "How fast each core runs, every 15 s. Needs a cpufreq driver."),
    ("thermal", "Throttling and temperature, every 15 s. Throttle counters are Intel's; temperatures are those of coretemp and k10temp."),
    ("numa", "The host's NUMA nodes, every 15 s. For where each VM's memory lives see `memory`."),
    ("cpu_features", "CPU features that matter to guests, as the kernel lists them, every 10 min. x86 only."),
    ("kvm_parameters", "How KVM's modules are set, every minute."),
    ("vulnerabilities", "What the CPU is vulnerable to, and the kernel's mitigations, every 10 min."),
    ("system", "Kernel, microcode, SMT and isolated CPUs, every minute."),
    ("kernel_log", "Lines of the kernel's log about machine checks and KVM, counted by kind, every 15 s. Needs `CAP_SYSLOG` at start, which is not kept, or `kernel.dmesg_restrict=0`."),
    ("self", "The exporter itself."),
];

const INTRO: &str = include_str!("catalog/intro.md");

/// The whole document.
fn markdown() -> String {
    let mut text = INTRO.to_owned();
    for (source, about) in CHAPTERS {
        let metrics = CATALOG.iter().filter(|metric| metric.source == *source);
        chapter(&mut text, source, about, metrics);
    }
    text
}

fn chapter<'a>(
    text: &mut String,
    source: &str,
    about: &str,
    metrics: impl Iterator<Item = &'a Metric>,
) {
    let _ = write!(text, "\n## {source}\n\n{about}\n\n");
    text.push_str("| metric | type | unit | labels | help |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            kind(metric.kind),
            metric.unit,
            labels(metric.labels),
            metric.help.replace('|', "\\|"),
        );
    }
}

/// The place labels, which come and go together.
const PLACE: [&str; 3] = ["package", "core", "numa_node"];

fn labels(labels: &[&str]) -> String {
    let placed = labels.contains(&"vm") && PLACE.iter().all(|label| labels.contains(label));
    let code = |label: &&str| match (placed, *label) {
        (true, "package") => Some("*place*".to_owned()),
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
    labels: &'static [&'static str],
    source: &'static str,
    help: &'static str,
}

fn json() -> Vec<Entry> {
    let entry = |metric: &Metric| Entry {
        name: metric.name,
        kind: kind(metric.kind),
        unit: metric.unit,
        labels: metric.labels,
        source: metric.source,
        help: metric.help,
    };
    CATALOG.iter().map(entry).collect()
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
    fn place_labels_are_one_word_on_vcpus_only() {
        assert_eq!(
            labels(&["vm", "vcpu", "package", "core", "numa_node", "mode"]),
            "`vm`, `vcpu`, *place*, `mode`"
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
