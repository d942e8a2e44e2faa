//! Keys, views and signals: one thread for each sends events into one channel.

use std::future::Future;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, KeyEvent};

use super::source::{NoView, Source};
use crate::cli::serve::asked_to_stop;
use crate::diagnosis::View;

pub(super) enum Event {
    Key(KeyEvent),
    /// The terminal was resized.
    Resized,
    Answer(Box<Result<View, NoView>>),
    /// SIGINT, SIGTERM, or the end of the sampler.
    Stop,
    /// A thread ended unexpectedly: it panicked, or the terminal is gone.
    Ended(&'static str),
}

/// The events, and the channel that sets the refresh interval.
pub(super) struct Events {
    /// Events of all threads.
    pub(super) happened: Receiver<Event>,
    /// Interval of views; setting it requests one immediately. `None` pauses.
    pub(super) pace: Sender<Option<Duration>>,
}

/// Capacity of the channel. Senders block while it is full.
const WAITING: usize = 16;

/// Starts the threads; none of them delays the end of the process. `ended` resolves when the
/// sampler has ended.
pub(super) fn start(
    source: Source,
    delay: Duration,
    ended: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<Events> {
    let (tell, happened) = mpsc::sync_channel(WAITING);
    let (pace, paces) = mpsc::channel();
    spawn("views", &tell, move |tell| {
        views(&source, delay, &paces, tell)
    })?;
    spawn("keys", &tell, keys)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    spawn("signals", &tell, move |tell| {
        runtime.block_on(async {
            // If signals cannot be caught, they end the process by default.
            if let Ok(signal) = asked_to_stop() {
                tokio::select! {
                    () = signal => {}
                    () = ended => {}
                }
                let _ = tell.send(Event::Stop);
            }
        });
    })?;
    Ok(Events { happened, pace })
}

fn spawn(
    name: &'static str,
    tell: &SyncSender<Event>,
    run: impl FnOnce(&SyncSender<Event>) + Send + 'static,
) -> std::io::Result<()> {
    let ended = EndNotice(name, tell.clone());
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        let ended = ended;
        run(&ended.1);
    })?;
    Ok(())
}

/// Reports when the thread exits, also by a panic.
struct EndNotice(&'static str, SyncSender<Event>);

impl Drop for EndNotice {
    fn drop(&mut self) {
        let _ = self.1.send(Event::Ended(self.0));
    }
}

fn views(
    source: &Source,
    delay: Duration,
    paces: &Receiver<Option<Duration>>,
    tell: &SyncSender<Event>,
) {
    let mut pace = Some(delay);
    loop {
        if tell.send(Event::Answer(Box::new(source.ask()))).is_err() {
            return;
        }
        pace = match wait(pace, paces) {
            Some(pace) => pace,
            None => return,
        };
    }
}

/// Waits until the next view is due and returns the interval to use from then on; `None` if the
/// receiver of views is gone.
fn wait(pace: Option<Duration>, paces: &Receiver<Option<Duration>>) -> Option<Option<Duration>> {
    let mut pace = pace;
    loop {
        let said = match pace {
            Some(delay) => paces.recv_timeout(delay),
            None => paces.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        pace = match said {
            Ok(None) => None,
            Ok(some) => return Some(some),
            Err(RecvTimeoutError::Timeout) => return Some(pace),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
    }
}

fn keys(tell: &SyncSender<Event>) {
    while let Ok(event) = event::read() {
        let event = match event {
            event::Event::Key(key) => Event::Key(key),
            event::Event::Resize(..) => Event::Resized,
            _ => continue,
        };
        if tell.send(event).is_err() {
            return;
        }
    }
}
