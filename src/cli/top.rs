//! `top`: VMs and vCPUs of this host in a terminal, the worst first.
//!
//! Threads wait for keys, views and signals (events.rs). One loop passes them to the state
//! (state.rs), which does not know the terminal, and draws the state (screen.rs).

use std::io;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context};
use clap::Args;

use super::pipeline::Running;
use super::{log, out, CommonArgs};
use crate::config::LogLevel;
use column::Table;
use events::{Event, Events};
use screen::Appearance;
use source::{Address, Opened, Source};
use state::{Effect, State};
use terminal::Screen;

mod column;
mod events;
#[cfg(test)]
mod fixture;
mod history;
mod keys;
mod layout;
mod order;
mod plain;
mod safe;
mod screen;
pub(super) mod source;
mod state;
mod terminal;
mod words;

/// The screen is redrawn at least this often, because ages increase.
const REDRAW: Duration = Duration::from_secs(1);

/// Interval at which `--once` checks for rates, and the ticks after which it stops waiting.
const LOOK: Duration = Duration::from_millis(100);
const TICKS: u32 = 5;

const EXAMPLES: &str = "\
Examples:
  vcpu-exporter top                             VMs of this host, the worst first
  vcpu-exporter top --url http://kvm-07:9752    another host
  vcpu-exporter top --once                      one table, for scripts
";

/// Flags of `top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = format!("{EXAMPLES}\n{}", keys::text()))]
pub(super) struct TopArgs {
    /// Read from the exporter at http://HOST:PORT [default: the one at web.listen_address; if none
    /// answers, --sample]
    #[arg(long, value_name = "URL", value_parser = Address::parse, conflicts_with = "sample")]
    url: Option<Address>,
    /// Sample this host in this process, without an exporter; requires the same privileges as `serve`
    #[arg(long)]
    sample: bool,
    /// Print one table as plain text and exit (the default if standard output is not a terminal)
    #[arg(long)]
    once: bool,
    /// Start with the table of vCPUs instead of VMs
    #[arg(long)]
    vcpus: bool,
    /// Start with the table of VMs (the default)
    #[arg(long, hide = true, conflicts_with = "vcpus")]
    vms: bool,
    /// Seconds between refreshes
    #[arg(long, short, value_name = "SECONDS", default_value = "2", value_parser = state::delay)]
    delay: Duration,
}

pub(super) fn run(common: &CommonArgs, args: &TopArgs) -> anyhow::Result<()> {
    let on_screen = !args.once && terminal::is_there();
    let common = common.clone().quiet(LogLevel::Error);
    let config = common.config()?;
    // Messages would break up the screen, unless standard error goes elsewhere.
    if !on_screen || !io::IsTerminal::is_terminal(&io::stderr()) {
        log::init(config.log);
    }
    let Opened {
        source,
        words,
        running,
    } = source::open(&config, args.url.as_ref(), args.sample)?;
    let table = if args.vcpus { Table::Vcpus } else { Table::Vms };
    let state = State::new(words, table, args.delay);
    if on_screen {
        watch(state, source, running.as_ref())?
    } else {
        once(state, &source, config.sampling.tick)?
    }
    if let Some(running) = running {
        running.stop()?;
    }
    Ok(())
}

/// Prints one table. Rates need two ticks, so it may wait.
fn once(mut state: State, source: &Source, tick: Duration) -> anyhow::Result<()> {
    let patience = Instant::now() + tick * TICKS;
    let least = (tick / 2).as_secs_f64();
    let view = loop {
        match source.ask() {
            Ok(view) if view.window >= least => break view,
            Ok(view) if Instant::now() >= patience => break view,
            Err(trouble) if Instant::now() >= patience => return Err(trouble.into()),
            _ => thread::sleep(LOOK),
        }
    };
    let now = Instant::now();
    state.hear(Ok(view), now);
    out::print(&plain::page(&state, out::width(), now))
}

fn watch(state: State, source: Source, running: Option<&Running>) -> anyhow::Result<()> {
    let ended = running.map(Running::ended);
    let ended = async move {
        match ended {
            Some(ended) => ended.await,
            None => std::future::pending().await,
        }
    };
    let screen = Screen::take().context("cannot use the terminal")?;
    let events =
        events::start(source, state.delay, ended).context("cannot start the threads of top")?;
    follow(state, screen, &events)
}

/// Draws the state after each event until the user quits.
fn follow(mut state: State, mut screen: Screen, events: &Events) -> anyhow::Result<()> {
    let look = Appearance::of_environment();
    loop {
        screen
            .draw(|frame| screen::draw(frame, &mut state, look, Instant::now()))
            .context("cannot draw on the terminal")?;
        let first = match events.happened.recv_timeout(REDRAW) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // Handle all waiting events before drawing: a repeated key draws once.
        for event in std::iter::once(first).chain(events.happened.try_iter()) {
            if !take(event, &mut state, &mut screen, events)? {
                return Ok(());
            }
        }
    }
}

/// Handles an event; false quits.
fn take(
    event: Event,
    state: &mut State,
    screen: &mut Screen,
    events: &Events,
) -> anyhow::Result<bool> {
    match event {
        Event::Answer(answer) => {
            let answer = answer.map_err(|trouble| trouble.to_string());
            state.hear(answer, Instant::now());
        }
        Event::Resized => {}
        Event::Stop => return Ok(false),
        Event::Ended(thread) => bail!("the {thread} thread ended unexpectedly"),
        Event::Key(key) => {
            let action = keys::action(key, state.prompt.is_some());
            let effect = action.map_or(Effect::Nothing, |action| state.apply(action));
            match effect {
                Effect::Nothing => {}
                Effect::Quit => return Ok(false),
                Effect::Suspend => screen.suspend().context("cannot suspend")?,
                Effect::Ask(pace) => {
                    screen.clear().context("cannot draw on the terminal")?;
                    let _ = events.pace.send(pace);
                }
            }
        }
    }
    Ok(true)
}
