//! The progress bar of a load, on a terminal.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use super::{Counts, Load, watch::Watch};

const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// As wide as the terminal is, and never wider.
const TEMPLATE: &str = "{spinner:.cyan} {elapsed:>4} {bar:24.green/black.bright} {pos}/{len} settled  {wide_msg}";

pub(super) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn start(load: &Load, orders: u64) -> Self {
        let is_shown = load.shows_progress && stderr().is_terminal();
        let bar = is_shown.then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed");
            ProgressBar::new(orders).with_style(style)
        });
        Self { bar }
    }

    /// Draws until every order has come to its end. Dropped before, it leaves the terminal clean.
    pub(super) async fn follow(&self, watch: &Watch) {
        let Some(bar) = &self.bar else { return };
        let mut rate = Rate::default();
        while !watch.is_done() {
            let counts = watch.counters().now();
            bar.set_position(counts.settled());
            bar.set_message(message(counts, rate.update(counts)));
            bar.tick();
            sleep(REDRAW_INTERVAL).await;
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

fn message(counts: Counts, (placed_per_s, settled_per_s): (f64, f64)) -> String {
    let Counts { placed, confirmed, rejected, cancelled } = counts;
    format!(
        "{settled_per_s:.0}/s: {confirmed} confirmed, {rejected} rejected, {cancelled} cancelled; {placed} placed, {placed_per_s:.0}/s"
    )
}

/// Rates that follow the load quickly and do not flicker.
#[derive(Default)]
struct Rate {
    last: Counts,
    placed_per_s: f64,
    settled_per_s: f64,
}

impl Rate {
    fn update(&mut self, counts: Counts) -> (f64, f64) {
        /// The weight of the newest interval.
        const WEIGHT: f64 = 0.1;
        let per_s = |now: u64, before: u64| super::as_f64(now.saturating_sub(before)) / REDRAW_INTERVAL.as_secs_f64();
        self.placed_per_s += WEIGHT * (per_s(counts.placed, self.last.placed) - self.placed_per_s);
        self.settled_per_s += WEIGHT * (per_s(counts.settled(), self.last.settled()) - self.settled_per_s);
        self.last = counts;
        (self.placed_per_s, self.settled_per_s)
    }
}
