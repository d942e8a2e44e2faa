//! When each alert fired.

use std::collections::BTreeMap;

use super::{Scene, EVALUATION};

/// One alert that fired for a while. Times are the scenario's, in its seconds.
#[derive(Debug, Clone)]
pub(super) struct Episode {
    /// With `alertname`, without `alertstate`.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) from: f64,
    pub(super) to: f64,
}

impl Episode {
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether it has these labels among others.
    pub(super) fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == value)
    }

    /// Whether Alertmanager may have kept it back for one of the others (deploy/stack/alertmanager.yml).
    pub(super) fn is_inhibited_by(&self, other: &Episode) -> bool {
        let same = |name| self.label(name) == other.label(name);
        let about_the_host = matches!(
            (self.label("alertname"), other.label("alertname")),
            (
                "KvmVmCpuDelayHigh"
                    | "KvmVmCpuDelayCritical"
                    | "KvmVcpuStarved"
                    | "KvmCoreOvercommitted"
                    | "KvmHostImbalanced",
                "KvmHostCpuSaturated"
            ) | ("KvmCoreOvercommitted", "KvmHostImbalanced")
        );
        let critical = self.label("alertname") == "KvmVmCpuDelayHigh"
            && other.label("alertname") == "KvmVmCpuDelayCritical"
            && same("vm");
        (about_the_host || critical)
            && ["cluster", "job", "instance"].into_iter().all(same)
            && self.from <= other.to
            && other.from <= self.to
    }
}

impl std::fmt::Display for Episode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let told = ["job", "instance", "alertname", "severity"];
        let labels = self
            .labels
            .iter()
            .filter(|(name, _)| !told.contains(&name.as_str()));
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let name = self.label("alertname");
        let (from, to) = (minutes(self.from), minutes(self.to));
        write!(f, "{name}{{{}}} from {from} to {to}", labels.join(","))
    }
}

/// `12.5m`
pub(super) fn minutes(seconds: f64) -> String {
    format!("{:.1}m", seconds / 60.0)
}

/// All that fired so far, by beginning.
///
/// Where rules are evaluated late a sample or two are missing: only a longer gap ends an episode.
pub(super) fn fired(scene: &Scene) -> Vec<Episode> {
    let gap = 3.5 * EVALUATION.as_secs_f64();
    let mut all = Vec::new();
    for series in scene
        .prometheus()
        .samples("ALERTS{alertstate=\"firing\"}[1h]")
    {
        let mut labels = series.labels;
        labels.retain(|name, _| name != "alertstate" && name != "__name__");
        let mut last = f64::NEG_INFINITY;
        for (at, _) in series.samples {
            let at = scene.time(at);
            if at - last > gap {
                all.push(Episode {
                    labels: labels.clone(),
                    from: at,
                    to: at,
                });
            }
            last = at;
            if let Some(episode) = all.last_mut() {
                episode.to = at;
            }
        }
    }
    all.sort_by(|a, b| a.from.total_cmp(&b.from));
    all
}
