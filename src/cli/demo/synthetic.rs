//! `demo --synthetic`: a host that does not exist, watched by the real exporter.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::super::serve::{self, Serving};
use super::super::CommonArgs;
use super::DemoArgs;
use crate::config::{Config, EventSet, ExitReason, Sources};
use crate::demo::synthetic::{Happening, Host, Scenario};
use crate::host::roots::Roots;

/// The exporter's own periods are not made shorter than these, however fast the scenario runs.
const LEAST_TICK: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(250);
/// Nor the time between two recordings of a vCPU.
const LEAST_PT: Duration = Duration::from_secs(6);

/// Exit reasons counted apart: those that tell the scenarios' VMs apart.
const REASONS: [&str; 5] = [
    "ept_violation",
    "external_interrupt",
    "hlt",
    "io_instruction",
    "msr_write",
];

/// Runs the demo until SIGINT or SIGTERM.
pub(in crate::cli) fn run(
    common: &CommonArgs,
    args: &DemoArgs,
    scenario: &str,
) -> anyhow::Result<ExitCode> {
    let scenario = Arc::new(Scenario::load(scenario)?);
    let speed = args.speed.unwrap_or(1.0);
    let config = scaled(common.start()?, speed);
    let seed = args.seed.unwrap_or(1);
    let host = Host::new(scenario.clone(), seed, speed, config.sampling.tick)
        .context("cannot write the synthetic host")?;
    let name = scenario.name.clone();
    let make = move |config| of_host(host, name, config);
    serve::run_host(config, make, |serving| {
        introduce(&scenario, speed, &serving)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is served of a synthetic host.
fn of_host(mut host: Host, scenario: String, config: Config) -> serve::Host {
    serve::Host {
        roots: Arc::new(Roots::below(host.root())),
        counters: host.counters(),
        recorder: host.recorder(),
        born_after: host.born_after(),
        synthetic: Some((
            scenario,
            Box::new(move |elapsed| match host.advance(elapsed) {
                Ok(happened) => tell(&happened),
                Err(error) => tracing::error!(%error, "the synthetic host stands still"),
            }),
        )),
        config,
    }
}

/// The configuration with every source on and periods as much shorter as the scenario is faster.
/// Where to listen, whom to push to, what to log and how much to show stay the user's.
pub(crate) fn scaled(mut config: Config, speed: f64) -> Config {
    let shorter = |period: Duration, least: Duration| period.div_f64(speed).max(least);
    config.sampling.tick = shorter(Duration::from_secs(1), LEAST_TICK);
    config.sampling.inventory = shorter(Duration::from_secs(5), LEAST);
    let mut s = Sources::default();
    s.pmu.events = vec![EventSet::DramLoads];
    s.exits.reasons = REASONS.map(|name| ExitReason(name.to_owned())).into();
    s.pt.enabled = true;
    s.pt.window = Duration::from_micros(500);
    s.pt.period = shorter(s.pt.period, LEAST_PT);
    // Recording costs this host nothing.
    s.pt.max_duty = 0.5;
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
        *period = shorter(*period, LEAST);
    }
    config.sources = s;
    config
}

fn introduce(scenario: &Scenario, speed: f64, serving: &Serving) {
    let addr = serving.addr;
    print(&format!(
        "This host is SYNTHETIC: none of its VMs exists. Scenario {}, {speed} times as fast as it is written.\n\
         {}\n\nMetrics: http://{addr}/metrics\nStatus:  http://{addr}/\n\nWhat happens, in the script's time; Ctrl-C ends it:\n",
        scenario.name,
        scenario.about.trim(),
    ));
}

fn tell(happened: &[Happening]) {
    happened.iter().for_each(|event| print(&event.to_string()));
}

/// Whoever does not listen any more misses it.
fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
