//! How the exporter is set to watch a synthetic host.

use std::time::Duration;

use crate::config::{Config, EventSet, ExitReason, Sources};

/// The exporter's own periods are not made shorter than these, however fast the scenario runs.
const LEAST_TICK: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(250);
/// Nor the time between two recordings of a vCPU, which are the dearest to make and to read.
const LEAST_PT: Duration = Duration::from_secs(6);

/// Exit reasons counted apart: those that tell the scenarios' VMs apart.
const REASONS: [&str; 5] = [
    "ept_violation",
    "external_interrupt",
    "hlt",
    "io_instruction",
    "msr_write",
];

/// This configuration with every source on, and periods as much shorter as the scenario is faster.
/// Where to listen, whom to push to, what to log and how much to show stay as they are.
pub fn configuration(mut config: Config, speed: f64) -> Config {
    config.sampling.tick = shorter(Duration::from_secs(1), speed, LEAST_TICK);
    config.sampling.inventory = shorter(Duration::from_secs(5), speed, LEAST);
    config.sources = sources(speed);
    config
}

fn sources(speed: f64) -> Sources {
    let mut s = Sources::default();
    s.pmu.events = vec![EventSet::DramLoads];
    s.exits.reasons = REASONS.map(|name| ExitReason(name.to_owned())).into();
    s.pt.enabled = true;
    // Short, and often enough all the same: recording costs this host nothing.
    s.pt.window = Duration::from_micros(500);
    s.pt.max_duty = 0.5;
    s.pt.period = shorter(s.pt.period, speed, LEAST_PT);
    for period in [
        &mut s.cgroup.period,
        &mut s.kvm_stat.period,
        &mut s.memory.period,
        &mut s.threads.period,
        &mut s.devices.period,
        &mut s.resctrl.period,
        &mut s.frequency.period,
        &mut s.thermal.period,
        &mut s.numa.period,
        &mut s.cpu_features.period,
        &mut s.kvm_parameters.period,
        &mut s.vulnerabilities.period,
        &mut s.system.period,
        &mut s.kernel_log.period,
    ] {
        *period = shorter(*period, speed, LEAST);
    }
    s
}

fn shorter(period: Duration, speed: f64, least: Duration) -> Duration {
    period.div_f64(speed).max(least)
}
