//! Inhibition (deploy/stack/alertmanager.yml) in a real Alertmanager: within a host, not across clusters whose hosts have
//! equal names.

use std::collections::BTreeMap;

use crate::alertmanager::{Alertmanager, Known};
use crate::prometheus::is_installed;
use crate::run::eventually;

/// One pair for each rule, in their order: the alert that inhibits, and the alert that is inhibited.
const PAIRS: [(&str, &str); 6] = [
    ("KvmVmCpuDelayCritical", "KvmVmCpuDelayHigh"),
    ("KvmHostCpuSaturated", "KvmVcpuStarved"),
    ("KvmHostImbalanced", "KvmCoreOvercommitted"),
    ("KvmExporterAbsent", "KvmVmExitStorm"),
    ("KvmExportersDown", "KvmExporterDown"),
    ("KvmExporterSampleTooOld", "KvmVmCpiAbovePeers"),
];

#[test]
fn inhibition_stays_within_a_cluster() {
    let rules = include_str!("../../../deploy/stack/alertmanager.yml");
    assert_eq!(rules.matches("- source_matchers:").count(), PAIRS.len());
    if !is_installed("prometheus-alertmanager") {
        return;
    }
    let alertmanager = Alertmanager::start();
    // Each pair has a job of its own, so that no other pair inhibits it.
    let jobs: Vec<String> = (0..PAIRS.len()).map(|n| format!("pair-{n}")).collect();
    let mut alerts = Vec::new();
    for ((source, target), job) in PAIRS.iter().zip(&jobs) {
        alerts.push(alert(source, "east", job));
        alerts.push(alert(target, "east", job));
        alerts.push(alert(target, "west", job));
    }
    alertmanager.fire(&alerts);
    let mut targets = PAIRS.map(|(_, target)| target);
    targets.sort_unstable();
    // Until it has all alerts, one that inhibits may be missing.
    let known = eventually(|| {
        let known = alertmanager.known();
        (inhibited(&known, "east") == targets).then_some(known)
    });
    let known = known.unwrap_or_else(|| alertmanager.known());
    assert_eq!(inhibited(&known, "east"), targets);
    assert_eq!(inhibited(&known, "west"), Vec::<&str>::new());
}

fn alert<'a>(name: &'a str, cluster: &'a str, job: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut labels = BTreeMap::from([("alertname", name), ("cluster", cluster), ("job", job)]);
    // This one is about many hosts.
    if name != "KvmExportersDown" {
        labels.extend([("instance", "kvm-01"), ("vm", "db-1")]);
    }
    labels
}

/// Names of the alerts of a cluster that are inhibited, sorted.
fn inhibited<'a>(known: &'a [Known], cluster: &str) -> Vec<&'a str> {
    let of = known.iter().filter(|alert| alert.is_inhibited);
    let of = of.filter(|alert| alert.labels["cluster"] == cluster);
    let mut names: Vec<&str> = of.map(|alert| alert.labels["alertname"].as_str()).collect();
    names.sort_unstable();
    names
}
