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
        Progress::on(self, what.into(), events, Unit::Events)
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Events,
    Bytes,
}

impl Unit {
    fn template(self, total: u64) -> &'static str {
        match self {
            Self::Events => "{prefix} {wide_bar} {pos}/{len} events, {per_sec}, {eta} left",
            Self::Bytes if total == 0 => "{prefix} {spinner} {bytes}, {bytes_per_sec}",
            Self::Bytes => "{prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Bytes => "bytes",
        }
    }
}

/// The progress of one piece of work, in events or bytes.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    unit: Unit,
    events: Cell<u64>,
    bar: Option<ProgressBar>,
    logged_at: Cell<Instant>,
}

impl Progress {
    /// Of work that is done alone.
    pub(crate) fn new(what: impl Into<String>, events: u64) -> Self {
        Self::on(&Board::default(), what.into(), events, Unit::Events)
    }

    /// Of work that is done alone and counted in bytes; 0 if nobody knows how many there will be.
    pub(crate) fn in_bytes(what: impl Into<String>, bytes: u64) -> Self {
        Self::on(&Board::default(), what.into(), bytes, Unit::Bytes)
    }

    fn on(board: &Board, what: String, events: u64, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(unit.template(events));
            let bar = ProgressBar::new(events).with_prefix(what.clone());
            board.0.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        });
        Self { what, unit, events: Cell::new(events), bar, logged_at: Cell::new(Instant::now()) }
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
            let of = if events == 0 { String::new() } else { format!(" of {events}") };
            info!(position, events, "{} is at {position}{of} {}", self.what, self.unit.name());
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
