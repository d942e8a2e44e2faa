//! `serve`: measures all VMs and serves their metrics until a signal.

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{signal, SignalKind};

use super::pipeline::{own_start_time, Pipeline};
use super::push::MORE_THREADS;
use super::CommonArgs;
use crate::config::Config;
use crate::expose::{http, App};
use crate::host::privileges;
use crate::host::roots::Roots;
use crate::snapshot::Handle;
use crate::sources::pmu::counters::OpenCounters;
use crate::sources::pmu::patient::Patient;
use crate::sources::pmu::perf::Perf;
use crate::sources::pt::{PerfPt, RecordPt};
use crate::stop::Stop;
use crate::telemetry::{Heartbeats, Telemetry};

/// The running exporter, passed to `on_ready`.
pub(super) struct Serving {
    /// The listening address, with the actual port if port 0 was configured.
    pub(super) addr: SocketAddr,
    /// The snapshots, for the demo's table.
    #[cfg_attr(not(feature = "demo"), allow(dead_code))]
    pub(super) snapshots: Handle,
}

/// The host that is measured: this machine or a synthetic one.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) roots: Arc<Roots>,
    pub(super) counters: Arc<dyn OpenCounters>,
    pub(super) recorder: Arc<dyn RecordPt>,
    /// Boot clock, in clock ticks: of a thread that started later, the exporter saw the whole life.
    pub(super) born_after: u64,
    /// For a synthetic host: the scenario's name, and the function that advances the host before
    /// each turn.
    pub(super) synthetic: Option<(String, Moves)>,
}

impl Host {
    /// This machine.
    fn own(config: Config) -> Self {
        let roots = super::roots(&config.paths);
        super::hold_kernel_log(&config, &roots);
        let counters = Patient::new(Arc::new(Perf), roots.clone());
        Self {
            config,
            roots,
            counters: Arc::new(counters),
            recorder: Arc::new(PerfPt),
            born_after: own_start_time(),
            synthetic: None,
        }
    }
}

/// Runs until SIGINT or SIGTERM. Calls `on_ready` when the first snapshot exists and the address
/// answers.
pub(super) fn run(args: &CommonArgs, on_ready: impl FnOnce(Serving)) -> anyhow::Result<()> {
    run_host(args.start()?, Host::own, on_ready)
}

/// Like [`run`], with the host that `make` creates from the configuration.
pub(super) fn run_host(
    config: Config,
    make: impl FnOnce(Config) -> Host,
    on_ready: impl FnOnce(Serving),
) -> anyhow::Result<()> {
    let endpoints = super::push::endpoints(&config)?;
    let limit = privileges::raise_descriptor_limit();
    tracing::debug!(?limit, "raised the soft limit of open files");
    let listener = listen(config.web.listen_address)?;
    let host = make(config);
    // Before the first thread starts, because threads inherit the capabilities; and before any
    // probe, so that sources work with what remains.
    let needed = privileges::needed(host.config.sources.pt.enabled);
    let dropped = privileges::drop_all_but(&needed);
    tracing::debug!(?dropped, "dropped unneeded capabilities");
    let (telemetry, registry) = Telemetry::new();
    let (config, roots) = (host.config.clone(), host.roots.clone());
    let (pipeline, moves) = pipeline(host, telemetry.clone())?;
    // One thread: `http::serve` starts threads for slow work, and a runtime with several threads
    // panics if one of them cannot be started.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the HTTP server")?;
    let serving = Serving {
        addr: listener.local_addr()?,
        snapshots: pipeline.snapshots(),
    };
    let app = Arc::new(App {
        snapshots: pipeline.snapshots(),
        telemetry,
        registry,
        max_age: max_age(&config),
    });
    let stop = Stop::default();
    let watchdog = watchdog(app.telemetry.heartbeats.clone());
    let running = match moves {
        None => pipeline.start(&config.sampling, &stop, watchdog),
        Some(moves) => pipeline.start_in_step(&config.sampling, &stop, moves, watchdog),
    };
    let running =
        running.with_context(|| format!("cannot start the sampler's threads; {MORE_THREADS}"))?;
    let pushing = super::push::start(&config, endpoints, &roots, &app)?;
    let (ended, pushes_ended) = (running.ended(), pushing.ended());
    let served = runtime.block_on(async {
        let signal = asked_to_stop()?;
        let over = async move {
            tokio::select! {
                () = signal => {}
                () = ended => {}
                () = pushes_ended => {}
            }
            // The threads stop while open requests finish.
            stop.stop();
        };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tracing::info!(address = %serving.addr, "serving");
        on_ready(serving);
        notify(&[NotifyState::Ready]);
        http::serve(listener, app, over).await
    });
    notify(&[NotifyState::Stopping]);
    let threads = running.stop();
    // After the sampler, to push its last snapshot.
    let pushed = pushing.stop();
    // Do not wait for unfinished requests.
    runtime.shutdown_background();
    served.with_context(|| format!("cannot start the HTTP server; {MORE_THREADS}"))?;
    threads?;
    Ok(pushed?)
}

type Moves = Box<dyn FnMut(Duration) + Send>;

/// The stages over a host, and the function that advances a synthetic host.
fn pipeline(host: Host, telemetry: Telemetry) -> anyhow::Result<(Pipeline, Option<Moves>)> {
    let pipeline = Pipeline::with_recorder(
        &host.config,
        host.roots,
        host.counters,
        host.recorder,
        host.born_after,
        telemetry,
    )?;
    Ok(match host.synthetic {
        None => (pipeline, None),
        Some((scenario, moves)) => (pipeline.synthetic(&scenario), Some(moves)),
    })
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        anyhow::anyhow!(
            "cannot listen on {address}: {error}; choose another address with --web.listen-address"
        )
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Maximum age of a sample: three ticks and 2 s, so that one slow tick does not count as stale.
fn max_age(config: &Config) -> Duration {
    config.sampling.tick * 3 + Duration::from_secs(2)
}

/// Resolves at the first SIGINT or SIGTERM. SIGHUP ends the program only in a terminal. For a
/// service it means "reload", which is not supported; exiting would leave the host without an
/// exporter, because systemd treats it as a clean exit (systemd.service(5), `SuccessExitStatus=`).
pub(super) fn asked_to_stop() -> std::io::Result<impl std::future::Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let in_terminal = std::io::stderr().is_terminal();
    Ok(async move {
        let name = loop {
            tokio::select! {
                _ = interrupt.recv() => break "SIGINT",
                _ = terminate.recv() => break "SIGTERM",
                _ = hangup.recv() => if in_terminal { break "SIGHUP" } else { tracing::warn!(
                    "SIGHUP ignored: reloading the configuration is not supported; restart the exporter"
                ) },
            }
        };
        tracing::info!(signal = name, "stopping");
    })
}

/// Feeds the systemd watchdog after each tick if the unit enables it and neither the sampler nor
/// discovery hangs.
fn watchdog(heartbeats: Heartbeats) -> impl Fn() + Send + 'static {
    let wanted = sd_notify::watchdog_enabled().is_some();
    move || {
        if wanted && heartbeats.vital_hang(Instant::now()).is_none() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
