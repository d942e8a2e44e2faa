//! `demo`: three tiny KVM guests and the exporter that measures them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::out;
use super::serve::Serving;
use crate::demo::guests::Guests;
use crate::snapshot::Snapshot;

pub(super) mod synthetic;
mod table;

use table::{clip, render, Screen};

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub(super) struct DemoArgs {
    /// Simulate a host: calm, troubles, incident, or a scenario file (YAML)
    #[arg(long, value_name = "SCENARIO")]
    synthetic: Option<String>,
    /// Run the scenario N times as fast; rates do not change [default: 1]
    #[arg(long, value_name = "N", requires = "synthetic", value_parser = speed)]
    speed: Option<f64>,
    /// Seed of the random noise [default: 1]
    #[arg(long, value_name = "N", requires = "synthetic")]
    seed: Option<u64>,
}

impl DemoArgs {
    /// Name or path of the scenario; `None` without `--synthetic`.
    pub(super) fn scenario(&self) -> Option<&str> {
        self.synthetic.as_deref()
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: Option<f64> = text.parse().ok();
    speed
        .filter(|speed| (0.01..=10_000.0).contains(speed))
        .ok_or_else(|| "expected a number from 0.01 to 10000".to_owned())
}

/// How often to look for a new snapshot: no tick is missed or shown twice.
const LOOK: Duration = Duration::from_millis(100);

/// Columns and rows of the table if the terminal's size is unknown.
const SIZE: (u16, u16) = (120, 1000);

/// Called by the exporter once, when it serves.
pub(super) type OnReady = Box<dyn FnOnce(Serving) + Send>;

/// Runs the demo: starts the guests, runs `serve`, and stops the guests when `serve` returns.
///
/// `serve` runs the exporter until SIGINT or SIGTERM, and calls its argument when it is ready.
pub(super) fn run(serve: impl FnOnce(OnReady) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let exe = std::env::current_exe().context("cannot find the path of this program")?;
    let guests = Guests::start(&exe)?;
    let introduction = introduction(&guests);
    let guests = Arc::new(Mutex::new(guests));
    let watched = Arc::clone(&guests);
    let (stop, stopped) = mpsc::channel();
    let on_ready: OnReady = Box::new(move |serving| {
        // Without the table, the exporter still serves.
        let drawing = thread::Builder::new().name("table".into()).spawn(move || {
            let _ = show(&introduction, &serving, &watched, &stopped);
        });
        if let Err(error) = drawing {
            tracing::warn!(%error, "cannot start a thread for the table; the exporter runs without it");
        }
    });
    let served = serve(on_ready);
    drop(stop);
    lock(&guests).stop();
    served?;
    if io::stderr().is_terminal() {
        // On a new line, after the ^C that the terminal prints.
        out::say_apart("stopped the demo and its guests");
    }
    Ok(ExitCode::SUCCESS)
}

/// A panic while the lock is held leaves the guests consistent, so ignore the poisoning.
fn lock(guests: &Mutex<Guests>) -> MutexGuard<'_, Guests> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

fn introduction(guests: &Guests) -> String {
    let lines = guests.iter().map(|guest| {
        let (name, pid, expect) = (guest.plan.name(), guest.ready.pid, guest.plan.expect);
        format!("  {name:<5} pid {pid:<8} {expect}\n")
    });
    lines.collect()
}

fn show(
    introduction: &str,
    serving: &Serving,
    guests: &Mutex<Guests>,
    stopped: &Receiver<()>,
) -> io::Result<()> {
    let mut out = io::stdout().lock();
    introduce(introduction, serving, &mut out)?;
    let mut screen = Screen::new(out.is_terminal());
    let mut ended = String::new();
    let mut prev: Option<Arc<Snapshot>> = None;
    while !is_over(stopped) {
        for guest in lock(guests).take_ended() {
            ended.push_str(&format!("{guest}\n"));
        }
        if screen.is_done() {
            out.write_all(std::mem::take(&mut ended).as_bytes())?;
            continue;
        }
        let Some(now) = serving.snapshots.load() else {
            continue;
        };
        match &prev {
            Some(prev) if prev.tick == now.tick => continue,
            // Without a vCPU the table is empty: the inventory has not found the guests yet.
            Some(prev) if !now.vcpus.is_empty() => {
                let (width, height) = size();
                let room = usize::from(height).saturating_sub(1 + ended.lines().count());
                let table = render(prev, &now, width);
                screen.show(&format!("{}{ended}", clip(&table, room)), &mut out)?;
                if screen.is_done() {
                    ended.clear();
                    writeln!(
                        out,
                        "\nRuns until Ctrl-C; the metrics are at the addresses above."
                    )?;
                }
            }
            _ => {}
        }
        prev = Some(now);
    }
    Ok(())
}

fn introduce(guests: &str, serving: &Serving, out: &mut impl Write) -> io::Result<()> {
    let addr = serving.addr;
    writeln!(out, "Three KVM guests run on this host:\n{guests}")?;
    writeln!(out, "Metrics: http://{addr}/metrics")?;
    writeln!(out, "Status:  http://{addr}/\n")?;
    writeln!(
        out,
        "All VMs of this host, each second. time: on a core; delay: ready to run, waiting for a core;\n\
         waits: went to sleep by itself; preempted: the scheduler took its core. Ctrl-C stops the demo.\n"
    )?;
    out.flush()
}

/// Waits for `LOOK`; true if the exporter has stopped.
fn is_over(stopped: &Receiver<()>) -> bool {
    !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout))
}

/// Columns and rows of the terminal, else [`SIZE`].
fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => SIZE,
    }
}
