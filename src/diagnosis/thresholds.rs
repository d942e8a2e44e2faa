//! Thresholds of causes: mixin/thresholds.json, from which rules and alerts are rendered too, so
//! that the page, `top` and Prometheus agree.

use std::sync::LazyLock;

use serde::Deserialize;

/// The thresholds that the exporter uses; rules and alerts have more.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Thresholds {
    /// A VM that uses fewer cores is judged only by its vCPUs' delay and its quota.
    pub(crate) vm_busy_cores: f64,
    /// A vCPU with less demand is idle: its delay ratio means little.
    pub(crate) vcpu_wanted_cores: f64,
    /// A VM runs on a node where it spends at least this share of its time; less is a thread in
    /// migration.
    pub(crate) node_time_share: f64,
    /// Shares and uses below this are omitted in a verdict.
    pub(crate) worth_naming: f64,
    /// A CPI is high if it exceeds the mean of its peers by this many sigmas (CPI2, Zhang et al.
    /// 2013)
    pub(crate) cpi_sigmas: f64,
    /// and by this factor, so that peers with almost equal CPI make no outliers.
    pub(crate) cpi_over_mean: f64,
    /// Least number of other busy VMs in a group of peers.
    pub(crate) cpi_peers: usize,
    /// Misses per 1000 instructions: at 100 cycles per miss, one cycle per instruction.
    pub(crate) cache_mpki: f64,
    /// A storm of cache misses exceeds the usual rate by this factor.
    pub(crate) cache_over_usual: f64,
    /// Estimated share of remote memory accesses.
    pub(crate) memory_remote: f64,
    /// The same, and that of a device, above what the spread of a VM over nodes explains.
    pub(crate) memory_remote_over_spread: f64,
    /// Share of a VM's vCPU time that is far from a device.
    pub(crate) device_remote: f64,
    /// Share of runnable time: where operators of VMware's CPU Ready start to investigate.
    pub(crate) delay: f64,
    /// Least share of runnable time; higher if the siblings wait too.
    pub(crate) starved: f64,
    /// A starved vCPU waits this many times as much as its siblings, relative to runnable time.
    pub(crate) starved_over_siblings: f64,
    /// Share of its CPU time.
    pub(crate) smt_shared: f64,
    /// Share of quota periods.
    pub(crate) quota_throttled: f64,
    /// Share of runnable time of the VM.
    pub(crate) quota_wait: f64,
    /// Share of time.
    pub(crate) package_throttled: f64,
    /// Per second of CPU time: 20 us between two exits.
    pub(crate) exits_per_cpu_second: f64,
}

const FILE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/mixin/thresholds.json"
));

/// The file is embedded, so a test ensures that it parses.
static THRESHOLDS: LazyLock<Thresholds> =
    LazyLock::new(|| serde_json::from_str(FILE).unwrap_or_default());

pub(crate) fn thresholds() -> &'static Thresholds {
    &THRESHOLDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_threshold_is_in_the_file() {
        serde_json::from_str::<Thresholds>(FILE).unwrap();
        assert!(thresholds().vm_busy_cores > 0.0);
    }
}
