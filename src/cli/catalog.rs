//! `catalog`: every metric as Markdown (docs/METRICS.md is its output) or JSON.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::out;
use crate::metric::Metric;
use crate::snapshot::CATALOG;
use crate::sources::{rank, OF_HOST, OF_VMS};

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

/// What each source measures, in the order of the document. Sources that are not in `ORDER` follow
/// in the order of their list.
fn chapters() -> Vec<(&'static str, &'static str)> {
    const ORDER: &[&str] = &[
        "inventory",
        "sched",
        "pmu",
        "exits",
        "pt",
        "kvm_stat",
        "memory",
        "cgroup",
        "threads",
        "devices",
        "resctrl",
        "host",
        "host_cpu",
        "frequency",
        "thermal",
        "numa",
        "cpu_features",
        "kvm_parameters",
        "vulnerabilities",
        "system",
        "kernel_log",
    ];
    let listed = OF_VMS
        .iter()
        .chain(OF_HOST)
        .map(|source| (source.info.name, source.about));
    let others = [
        ("inventory", include_str!("catalog/inventory.md")),
        ("host", "The machine itself, from sysfs."),
    ];
    let mut all: Vec<_> = listed.chain(others).collect();
    all.sort_by_key(|(name, _)| rank(ORDER, name));
    all.push(("self", "The exporter itself."));
    all
}

const INTRO: &str = include_str!("catalog/intro.md");

/// The whole document, as in docs/METRICS.md.
fn markdown() -> String {
    let mut text = INTRO.to_owned();
    for (source, about) in chapters() {
        let metrics = CATALOG
            .iter()
            .copied()
            .filter(|metric| metric.source == source);
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
    let _ = write!(text, "\n## {source}\n\n{}\n\n", about.trim_ascii_end());
    text.push_str("| metric | type | unit | labels | help |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
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

/// One metric as JSON.
#[derive(Debug, Serialize)]
struct CatalogEntry {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    unit: &'static str,
    labels: Vec<&'static str>,
    source: &'static str,
    help: &'static str,
}

fn json() -> Vec<CatalogEntry> {
    let entry = |metric: &'static Metric| CatalogEntry {
        name: metric.name,
        kind: metric.kind.name(),
        unit: metric.unit(),
        labels: metric.labels().collect(),
        source: metric.source,
        help: metric.help,
    };
    CATALOG.iter().copied().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described_once() {
        let text = markdown();
        for metric in CATALOG.iter() {
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
