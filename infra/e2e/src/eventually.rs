//! Awaiting a condition instead of sleeping.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// Pause before the second look; later ones take longer, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// After how long whoever waits is told on standard error what for, and how often again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Awaits something that ends by itself, saying from time to time on standard error that it has not ended yet.
pub async fn patiently<T>(what: &str, waited_for: impl Future<Output = T>) -> T {
    let mut waited_for = Box::pin(waited_for);
    let started = Instant::now();
    loop {
        if let Ok(done) = tokio::time::timeout(PATIENCE, &mut waited_for).await {
            return done;
        }
        eprintln!("still {what}, for {} s now", started.elapsed().as_secs());
    }
}

/// Looks until `look` gives a value, and returns that. Fails when `look` does, or with `what` when `deadline` has passed.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let ends = Instant::now() + deadline;
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(value) = look().await? {
            return Ok(value);
        }
        if Instant::now() >= ends {
            bail!("not within {} s: {what}", deadline.as_secs_f64());
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}
