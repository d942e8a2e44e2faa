//! Sets up OTLP pushes for `serve` and `check`.

use std::sync::Arc;

use anyhow::Context;

use super::pipeline::own_start_time;
use crate::config::Config;
use crate::expose::otlp::{self, settings, Clock, Pusher, Pushing, Resource, Settings};
use crate::expose::App;
use crate::host::identity::Identity;
use crate::host::roots::Roots;

/// The fix if the system refuses a thread (EAGAIN of pthread_create(3)).
pub(super) const MORE_THREADS: &str =
    "raise the thread limit: TasksMax= of the unit, pids.max of the container, or ulimit -u";

/// An environment variable; one that is not UTF-8 counts as unset.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The endpoints from the configuration and the environment.
pub(super) fn endpoints(config: &Config) -> anyhow::Result<Vec<Settings>> {
    settings::resolve(&config.otlp, &env).context("cannot determine the OTLP endpoints")
}

/// Starts the thread that pushes the snapshots of `app`.
pub(super) fn start(
    config: &Config,
    endpoints: Vec<Settings>,
    roots: &Roots,
    app: &Arc<App>,
) -> anyhow::Result<Pushing> {
    let clock = Clock::new(own_start_time());
    let host = Identity::read(roots);
    let service = env("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
    let resource = Resource::new(&host, service, &config.otlp.resource);
    let pusher = |settings: Settings| {
        tracing::info!(
            endpoint = settings.url,
            interval = ?settings.interval,
            "pushing by OTLP"
        );
        Pusher::new(settings, resource.clone(), clock, Arc::clone(app))
    };
    let pushers = endpoints.into_iter().map(pusher).collect();
    let pushing = otlp::start(pushers);
    pushing.with_context(|| format!("cannot start the OTLP thread; {MORE_THREADS}"))
}
