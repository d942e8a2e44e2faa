//! `top`: what every vCPU of this host does, in a terminal, as `top -H` shows threads.
//!
//! Threads wait for keys, views and signals (events.rs); one loop gives them to the state
//! (state.rs), which knows no terminal, and draws it (screen.rs).

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
use screen::Look;
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
mod source;
mod state;
mod terminal;
mod words;

/// Ages grow by themselves: the screen is drawn again after this, whatever happens.
const REDRAW: Duration = Duration::from_secs(1);

/// How often `--once` looks whether there are rates, and how many ticks it waits for them.
const LOOK: Duration = Duration::from_millis(100);
const TICKS: u32 = 5;

/// Flags of `top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = keys::text())]
pub(super) struct TopArgs {
    /// Exporter to ask, as http://HOST:PORT [default: the one at web.listen_address, else --sample]
    #[arg(long, value_name = "URL", value_parser = Address::parse, conflicts_with = "sample")]
    url: Option<Address>,
    /// Ask no exporter: read this host in this process, with the privileges that needs
    #[arg(long)]
    sample: bool,
    /// Print one table as plain text and end, as where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// Begin with the table of VMs
    #[arg(long)]
    vms: bool,
    /// Seconds between refreshes
    #[arg(long, short, value_name = "SECONDS", default_value = "2", value_parser = state::delay)]
    delay: Duration,
}

pub(super) fn run(common: &CommonArgs, args: &TopArgs) -> anyhow::Result<()> {
    let on_screen = !args.once && terminal::is_there();
    let common = common.clone().quiet(LogLevel::Error);
    let config = common.config()?;
    // Messages would tear the screen, unless they go elsewhere.
    if !on_screen || !io::IsTerminal::is_terminal(&io::stderr()) {
        log::init(config.log);
    }
    let Opened {
        source,
        words,
        running,
    } = source::open(&config, args.url.as_ref(), args.sample)?;
    let table = if args.vms { Table::Vms } else { Table::Vcpus };
    let state = State::new(words, table, args.delay);
    match on_screen {
        true => watch(state, source, running.as_ref())?,
        false => once(state, &source, config.sampling.tick)?,
    }
    if let Some(running) = running {
        running.stop()?;
    }
    Ok(())
}

/// Prints one table. Rates need a tick's time: just after the start it waits for them.
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
    let events = events::start(source, state.delay, ended).context("cannot start a thread")?;
    follow(state, screen, &events)
}

/// Shows what happens until somebody has seen enough.
fn follow(mut state: State, mut screen: Screen, events: &Events) -> anyhow::Result<()> {
    let look = Look::of_environment();
    loop {
        screen
            .draw(|frame| screen::draw(frame, &mut state, look, Instant::now()))
            .context("cannot draw")?;
        let first = match events.happened.recv_timeout(REDRAW) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // All that waits, before the next picture: keys that repeat draw once.
        for event in std::iter::once(first).chain(events.happened.try_iter()) {
            if !take(event, &mut state, &mut screen, events)? {
                return Ok(());
            }
        }
    }
}

/// Does what an event asks for; false ends it all.
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
        Event::Ended(thread) => bail!("the thread of {thread} has ended"),
        Event::Key(key) => {
            let action = keys::action(key, state.prompt.is_some());
            let effect = action.map_or(Effect::Nothing, |action| state.apply(action));
            match effect {
                Effect::Nothing => {}
                Effect::Quit => return Ok(false),
                Effect::Suspend => screen.suspend().context("cannot go to the shell")?,
                Effect::Ask(pace) => {
                    screen.clear().context("cannot draw")?;
                    let _ = events.pace.send(pace);
                }
            }
        }
    }
    Ok(true)
}
