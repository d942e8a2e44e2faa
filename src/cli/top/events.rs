//! What happens: keys, views, signals, each from a thread of its own into one channel.

use std::future::Future;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, KeyEvent};

use super::source::{Source, Trouble};
use crate::cli::serve::told_to_stop;
use crate::expose::view::View;

/// Something that happened.
pub(super) enum Event {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    Answer(Box<Result<View, Trouble>>),
    /// SIGINT, SIGTERM, or the end of what samples.
    Stop,
    /// A thread has ended that should not: it panicked, or there is no terminal.
    Ended(&'static str),
}

/// Events, and where to say how often a view is wanted.
pub(super) struct Events {
    /// What happened.
    pub(super) happened: Receiver<Event>,
    /// How often a view is wanted; the next one at once. Never while it is `None`.
    pub(super) pace: Sender<Option<Duration>>,
}

/// So many may wait: who draws slowly gets no more.
const WAITING: usize = 16;

/// Starts the threads; none of them keeps the process from ending. `ended` resolves when what
/// samples has ended.
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
            // Where they cannot be caught they end the process, as they always do.
            if let Ok(told) = told_to_stop() {
                tokio::select! {
                    () = told => {}
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
    let ended = Ended(name, tell.clone());
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        let ended = ended;
        run(&ended.1);
    })?;
    Ok(())
}

/// Tells of the thread's end, however it ends.
struct Ended(&'static str, SyncSender<Event>);

impl Drop for Ended {
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

/// Waits until a view is wanted and says how often from then on; `None` when nobody wants any.
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
