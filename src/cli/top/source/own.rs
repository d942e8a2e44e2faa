//! Samples in this process, as `serve` does, without the sources that `top` does not show.

use std::sync::Arc;

use anyhow::Context;

use super::super::super::pipeline::{own_start_time, Pipeline};
use super::super::super::{hold_kernel_log, roots};
use super::{Opened, Source};
use crate::config::Config;
use crate::host::privileges;
use crate::sources::pmu::perf::Perf;
use crate::stop::Stop;
use crate::telemetry::Telemetry;

/// Starts a pipeline. The first tick is over when this returns.
pub(super) fn open(config: &Config, words: &str) -> anyhow::Result<Opened> {
    let config = quiet(config);
    privileges::raise_descriptor_limit();
    let roots = roots(&config.paths);
    hold_kernel_log(&config, &roots);
    // As in `serve`: before the first thread and before any probe.
    privileges::drop_all_but(&privileges::needed(config.sources.pt.enabled));
    let (telemetry, _) = Telemetry::new();
    let pipeline = Pipeline::new(&config, roots, Arc::new(Perf), own_start_time(), telemetry)?;
    let snapshots = pipeline.snapshots();
    let running = pipeline
        .start(&config.sampling, &Stop::default(), || ())
        .context("cannot start the sampler's threads")?;
    Ok(Opened {
        source: Source::Own(snapshots),
        words: words.to_owned(),
        running: Some(running),
    })
}

/// A short look at the host records no traces and creates no resctrl groups.
fn quiet(config: &Config) -> Config {
    let mut config = config.clone();
    config.sources.pt.enabled = false;
    config.sources.resctrl.create_groups = false;
    config
}
