//! The exporter's configuration for a synthetic host.

use std::time::Duration;

use crate::config::{Config, EventSet, ExitReason, Sources};

/// Shortest period of the exporter, whatever the speed.
const LEAST_TICK: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(250);
/// Shortest time between two recordings of a vCPU, which are the most expensive to generate and to
/// decode.
const LEAST_PT: Duration = Duration::from_secs(6);

/// Exit reasons with their own series: those in which the scenarios' VMs differ.
const REASONS: [&str; 5] = [
    "ept_violation",
    "external_interrupt",
    "hlt",
    "io_instruction",
    "msr_write",
];

/// Enables all sources and divides the periods by the speed. Address, OTLP endpoints, logging and
/// limits stay as configured.
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
    // Short but frequent: recording does not slow this host down.
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
        &mut s.host_cpu.period,
        &mut s.frequency.period,
        &mut s.thermal.period,
        &mut s.numa.period,
        &mut s.cpu_features.period,
        &mut s.kvm_parameters.period,
        &mut s.vulnerabilities.period,
        &mut s.system.period,
        &mut s.kernel_log.period,
        &mut s.ksm.period,
    ] {
        *period = shorter(*period, speed, LEAST);
    }
    s
}

fn shorter(period: Duration, speed: f64, least: Duration) -> Duration {
    period.div_f64(speed).max(least)
}
