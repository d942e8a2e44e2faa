//! `demo --synthetic`: a simulated host, measured by the real exporter.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use super::super::serve::{self, Serving};
use super::super::CommonArgs;
use super::DemoArgs;
use crate::config::Config;
use crate::demo::synthetic::{configuration, Host, Scenario};
use crate::host::roots::Roots;

/// Runs the demo until SIGINT or SIGTERM.
pub(in crate::cli) fn run(
    common: &CommonArgs,
    args: &DemoArgs,
    scenario: &str,
) -> anyhow::Result<ExitCode> {
    let scenario = Arc::new(Scenario::load(scenario)?);
    let speed = args.speed.unwrap_or(1.0);
    let config = configuration(common.start()?, speed);
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

/// Connects the simulated host to the exporter.
fn of_host(mut host: Host, scenario: String, config: Config) -> serve::Host {
    serve::Host {
        roots: Arc::new(Roots::below(host.root())),
        counters: host.counters(),
        recorder: host.recorder(),
        born_after: host.born_after(),
        synthetic: Some((
            scenario,
            Box::new(move |elapsed| match host.advance(elapsed) {
                Ok(happened) => happened.iter().for_each(|event| print(event)),
                Err(error) => tracing::error!(%error, "the synthetic host does not advance"),
            }),
        )),
        config,
    }
}

fn introduce(scenario: &Scenario, speed: f64, serving: &Serving) {
    let addr = serving.addr;
    print(&format!(
        "This host is SYNTHETIC: none of its VMs exists. Scenario {}, speed {speed}.\n\
         {}\n\nMetrics: http://{addr}/metrics\nStatus:  http://{addr}/\n\nEvents, in scenario time (Ctrl-C stops the demo):\n",
        scenario.name,
        scenario.about.trim(),
    ));
}

/// Ignores errors: a reader that left needs no output.
fn print(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
