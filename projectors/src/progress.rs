//! How far a long command is: a bar on a terminal, a log line now and then elsewhere. On stderr either way.

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

/// How often a log line says how far it is.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Where the progress of work that is done side by side is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(MultiProgress);

impl Board {
    /// Shows a further piece of work.
    pub(crate) fn add(&self, what: impl Into<String>, events: u64) -> Progress {
        Progress::on(self, what.into(), events)
    }
}

/// The progress of one piece of work, in events.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    events: Cell<u64>,
    bar: Option<ProgressBar>,
    logged_at: Cell<Instant>,
}

impl Progress {
    /// Of work that is done alone.
    pub(crate) fn new(what: impl Into<String>, events: u64) -> Self {
        Self::on(&Board::default(), what.into(), events)
    }

    fn on(board: &Board, what: String, events: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} events, {per_sec}, {eta} left");
            let bar = ProgressBar::new(events).with_prefix(what.clone());
            board.0.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        });
        Self { what, events: Cell::new(events), bar, logged_at: Cell::new(Instant::now()) }
    }

    /// It goes on from `position`, and not from the beginning.
    pub(crate) fn begin_at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.reset_eta();
        }
    }

    /// It is at `position`, which is also how many events are done.
    pub(crate) fn at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if self.logged_at.get().elapsed() >= LOG_INTERVAL {
            self.logged_at.set(Instant::now());
            let events = self.events.get();
            info!(position, events, "{} is at {position} of {events} events", self.what);
        }
    }

    /// There is more to do than was thought.
    pub(crate) fn extend_to(&self, events: u64) {
        if events > self.events.get() {
            self.events.set(events);
            if let Some(bar) = &self.bar {
                bar.set_length(events);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
