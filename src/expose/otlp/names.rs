//! OTLP names and units, derived from the metric. The standard translation from OTLP to Prometheus
//! names (OpenTelemetry specification, "Prometheus and OpenMetrics compatibility"; Prometheus'
//! otlptranslator) restores the name on `/metrics`.
//!
//! The translation replaces each dot by `_`, appends the unit's word if it is missing, and appends
//! `_total` to a monotonic sum. So OTLP names omit these parts. Dots separate the namespace
//! (`kvm.vcpu.ref_cycles`). A unit is a UCUM code or, in braces, a word for what is counted, which
//! the translation drops. A gauge never has the unit `1`, because the translation would append
//! `_ratio`.

use std::borrow::Cow;

use crate::metric::{Kind, Metric};

/// Units of metrics and their UCUM codes.
const UCUM: [(&str, &str); 4] = [
    ("seconds", "s"),
    ("bytes", "By"),
    ("hertz", "Hz"),
    ("celsius", "Cel"),
];

/// The metric's name in OTLP.
pub fn name(metric: &Metric) -> String {
    let stem = stem(metric);
    // kvm_vcpu_ref_cycles has two levels of namespace, process_open_fds has one.
    let dots = if stem.starts_with("kvm_") { 2 } else { 1 };
    stem.replacen('_', ".", dots)
}

/// The metric's unit in OTLP; empty if it has none.
pub fn unit(metric: &Metric) -> Cow<'static, str> {
    if let Some((_, code)) = UCUM.iter().find(|(word, _)| *word == metric.unit()) {
        return Cow::Borrowed(code);
    }
    let last = stem(metric).rsplit('_').next().unwrap_or_default();
    match singular(last) {
        Some(thing) if metric.kind != Kind::Info => Cow::Owned(format!("{{{thing}}}")),
        _ => Cow::Borrowed(""),
    }
}

/// The name without the parts that the translation appends.
fn stem(metric: &Metric) -> &'static str {
    let name = match metric.kind {
        Kind::Counter => metric.name.strip_suffix("_total").unwrap_or(metric.name),
        Kind::Gauge | Kind::Info | Kind::Histogram => metric.name,
    };
    let bare = name.strip_suffix(metric.unit()).unwrap_or(name);
    bare.trim_end_matches('_')
}

/// The singular of a plural; `None` if the word is not a plural.
fn singular(word: &str) -> Option<&str> {
    if word == "series" {
        return Some(word);
    }
    let hissing = ["sses", "ches", "xes", "shes"];
    if hissing.iter().any(|end| word.ends_with(end)) {
        word.strip_suffix("es")
    } else {
        word.strip_suffix('s')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::metrics::find;

    #[test]
    fn names_have_dots_and_units_are_ucum() {
        for (metric, expected, code) in [
            ("kvm_vcpu_time_seconds_total", "kvm.vcpu.time", "s"),
            (
                "kvm_vcpu_ref_cycles_total",
                "kvm.vcpu.ref_cycles",
                "{cycle}",
            ),
            (
                "kvm_vcpu_cache_misses_total",
                "kvm.vcpu.cache_misses",
                "{miss}",
            ),
            ("kvm_vcpu_branches_total", "kvm.vcpu.branches", "{branch}"),
            ("kvm_vcpu_pmu_event_total", "kvm.vcpu.pmu_event", ""),
            ("kvm_vm_vcpus", "kvm.vm.vcpus", "{vcpu}"),
            ("kvm_vm_info", "kvm.vm.info", ""),
            ("kvm_vm_cpu_weight", "kvm.vm.cpu_weight", ""),
            ("kvm_vm_memory_bytes", "kvm.vm.memory", "By"),
            ("kvm_exporter_series", "kvm.exporter.series", "{series}"),
            (
                "kvm_exporter_tick_duration_seconds",
                "kvm.exporter.tick_duration",
                "s",
            ),
            ("process_cpu_seconds_total", "process.cpu", "s"),
            ("process_open_fds", "process.open_fds", "{fd}"),
        ] {
            let metric = find(metric).unwrap();
            assert_eq!((name(metric).as_str(), &*unit(metric)), (expected, code));
        }
    }
}
