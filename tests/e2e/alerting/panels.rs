//! Every query of every panel has data on a host where all of it happened.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::Scene;

/// Queries that have no data here: dashboard, panel, refId and why.
const EXCEPTIONS: [(&str, &str, &str, &str); 9] = [
    (
        "kvm-vm",
        "Why is it slow?",
        "D",
        "some cause is known of every VM",
    ),
    (
        "kvm-fleet",
        "Machine checks and memory errors",
        "A",
        "no machine check happens",
    ),
    ("kvm-host", "Huge page pools", "A", "the host has no pool"),
    (
        "kvm-host",
        "Huge page pools in use",
        "A",
        "the host has no pool",
    ),
    (
        "kvm-host",
        "Missed ticks and read errors",
        "B",
        "no read fails",
    ),
    (
        "kvm-host",
        "OTLP pushes by outcome",
        "A",
        "no receiver is configured",
    ),
    (
        "kvm-host",
        "OTLP data points not delivered",
        "A",
        "no receiver is configured",
    ),
    (
        "kvm-vm",
        "Pressure (PSI)",
        "A",
        "the cgroups of the host have no PSI",
    ),
    (
        "kvm-vm",
        "Topdown of the guest",
        "A",
        "the event set is off",
    ),
];

/// One query of one panel.
struct Query {
    dashboard: String,
    panel: String,
    reference: String,
    expr: String,
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} / {} / {}",
            self.dashboard, self.panel, self.reference
        )
    }
}

/// Asks everything of the time up to `end`. Says which queries have no data, and which exceptions have.
pub(super) fn shown(scene: &Scene, end: Duration) -> Vec<String> {
    let queries = queries();
    assert!(queries.len() > 50, "{}", queries.len());
    let vms = vms_in_trouble(scene);
    let mut failures = Vec::new();
    let mut excused: BTreeSet<&(&str, &str, &str, &str)> = BTreeSet::new();
    for query in &queries {
        let exception = EXCEPTIONS.iter().find(|(dashboard, panel, reference, _)| {
            *dashboard == query.dashboard && *panel == query.panel && *reference == query.reference
        });
        excused.extend(exception);
        match (has_data(scene, query, &vms, end), exception) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => failures.push(format!("{query}: has data, and so is no exception")),
            (false, None) => failures.push(format!("{query}: no data: {}", query.expr)),
        }
    }
    let stale = EXCEPTIONS
        .iter()
        .filter(|exception| !excused.contains(exception));
    failures.extend(stale.map(|exception| format!("no such query: {exception:?}")));
    println!(
        "panels: {} queries, {} of them excused",
        queries.len(),
        excused.len()
    );
    failures
}

fn queries() -> Vec<Query> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let files = fs::read_dir(folder).expect("dashboards");
    let paths: BTreeSet<_> = files.map(|file| file.expect("a file").path()).collect();
    let of_file = |path: PathBuf| {
        let text = fs::read_to_string(path).expect("text");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        of_panels(dashboard["uid"].as_str().expect("a uid"), &dashboard)
    };
    paths.into_iter().flat_map(of_file).collect()
}

/// The queries of the panels of a dashboard, or of a collapsed row.
fn of_panels(dashboard: &str, holder: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for panel in list(holder, "panels") {
        queries.extend(list(&panel, "targets").iter().map(|target| Query {
            dashboard: dashboard.to_owned(),
            panel: text(&panel["title"]),
            reference: text(&target["refId"]),
            expr: text(&target["expr"]),
        }));
        queries.extend(of_panels(dashboard, &panel));
    }
    queries
}

/// VMs that something happened to: a panel about a cause shows it for one of them.
fn vms_in_trouble(scene: &Scene) -> Vec<String> {
    let vms = &scene.scenario.vms;
    let hit = scene
        .scenario
        .troubles
        .iter()
        .flat_map(|trouble| &trouble.vms);
    let names: BTreeSet<_> = hit.map(|vm| vms[*vm].domain.clone()).collect();
    names.into_iter().collect()
}

/// Whether there is data at any time of the run, for any of these VMs.
fn has_data(scene: &Scene, query: &Query, vms: &[String], end: Duration) -> bool {
    let about_a_vm = query.expr.contains("$vm");
    let vms = if about_a_vm { vms } else { &vms[..1] };
    let (from, to) = (scene.begun, scene.unix(end));
    // What looks back over all of it is dear, and has data for long.
    let points = if query.expr.contains("$__range") {
        10.0
    } else {
        200.0
    };
    let step = (to - from) / points;
    vms.iter().any(|vm| {
        let expr = substituted(&query.expr, scene, vm, (to - from, step));
        let data = scene.prometheus().range(&expr, from, to, step);
        !data.is_empty()
    })
}

/// The query as Grafana would send it for one VM and its first vCPU, of a time that is so long and drawn in such steps.
fn substituted(expr: &str, scene: &Scene, vm: &str, (range, step): (f64, f64)) -> String {
    let milliseconds = |seconds: f64| format!("{:.0}ms", seconds * 1e3);
    let expr = expr
        .replace("$__range", &milliseconds(range))
        .replace("$__interval", &milliseconds(step))
        .replace("$cluster", ".*")
        .replace("$vcpu", "0")
        .replace("$vm", vm)
        .replace("$job", "vcpu-exporter")
        .replace("$instance", scene.exporter.address());
    // `$1` is label_replace's.
    let unknown = expr
        .split('$')
        .skip(1)
        .find(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(unknown, None, "a variable nobody knows");
    expr
}
