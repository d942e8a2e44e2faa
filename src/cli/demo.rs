//! `demo`: three tiny real KVM guests, watched by the real exporter.

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
use crate::demo::guests::{Guest, Guests};
use crate::demo::table::{clip, render, Screen};
use crate::snapshot::Snapshot;

pub(super) mod synthetic;

/// Arguments of `demo`.
#[derive(Debug, Clone, Args)]
pub(super) struct DemoArgs {
    /// Watch a synthetic host that follows this scenario: calm, troubles, incident, or the path of
    /// a YAML file
    #[arg(long, value_name = "SCENARIO")]
    synthetic: Option<String>,
    /// Run the scenario so many times as fast; rates stay what they are [default: 1]
    #[arg(long, value_name = "N", requires = "synthetic", value_parser = speed)]
    speed: Option<f64>,
    /// Another number makes other noise [default: 1]
    #[arg(long, value_name = "N", requires = "synthetic")]
    seed: Option<u64>,
}

impl DemoArgs {
    /// The scenario that is asked for.
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

/// How often it looks for a new snapshot: often enough not to show a tick twice or miss one.
const LOOK: Duration = Duration::from_millis(100);

/// Columns and rows of the table where the terminal does not tell its own, or there is none.
const SIZE: (u16, u16) = (120, 1000);

/// Called once by the exporter when it serves.
pub(super) type OnReady = Box<dyn FnOnce(Serving) + Send>;

/// Runs the demo: starts the guests, runs `serve`, and ends the guests when it has returned.
///
/// `serve` runs the exporter until SIGINT or SIGTERM and calls what it is given when it is ready.
pub(super) fn run(serve: impl FnOnce(OnReady) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let exe = std::env::current_exe().context("cannot find this program to run it again")?;
    let guests = Guests::start(&exe)?;
    let introduction = introduction(&guests);
    let guests = Arc::new(Mutex::new(guests));
    let watched = Arc::clone(&guests);
    let (stop, stopped) = mpsc::channel();
    let on_ready: OnReady = Box::new(move |serving| {
        // Without a terminal to draw on the exporter is still worth running.
        let drawing = thread::Builder::new().name("table".into()).spawn(move || {
            let _ = show(&introduction, &serving, &watched, &stopped);
        });
        if let Err(error) = drawing {
            tracing::warn!(%error, "no live table: cannot start a thread");
        }
    });
    let served = serve(on_ready);
    drop(stop);
    lock(&guests).stop();
    served?;
    if io::stderr().is_terminal() {
        // On a line of its own, not behind the ^C that the terminal shows.
        out::say_apart("the demo and its guests have ended");
    }
    Ok(ExitCode::SUCCESS)
}

/// Nothing under the lock leaves the guests half changed.
fn lock(guests: &Mutex<Guests>) -> MutexGuard<'_, Guests> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

fn introduction(guests: &Guests) -> String {
    let lines = guests.iter().map(|guest| {
        let Guest { plan, ready, .. } = guest;
        format!(
            "  {:<5} pid {:<8} {}\n",
            plan.name(),
            ready.pid,
            plan.expect
        )
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
            // A table without any vCPU says nothing: the inventory has yet to find the guests.
            Some(prev) if !now.vcpus.is_empty() => {
                let (width, height) = size();
                let room = usize::from(height).saturating_sub(1 + ended.lines().count());
                let table = render(prev, &now, width);
                screen.show(&format!("{}{ended}", clip(&table, room)), &mut out)?;
                if screen.is_done() {
                    ended.clear();
                    writeln!(
                        out,
                        "\nIt goes on until it is told to stop; see the addresses above."
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
        "Every VM of this host, second by second. time: on a core; delay: ready to run, but waiting\n\
         for a core; waits: it gave its core up; preempted: it had to. Ctrl-C ends it all.\n"
    )?;
    out.flush()
}

/// Waits a little, and says whether the exporter has ended.
fn is_over(stopped: &Receiver<()>) -> bool {
    !matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout))
}

/// Columns and rows of the terminal.
fn size() -> (u16, u16) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => SIZE,
    }
}
