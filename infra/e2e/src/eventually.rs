//! Awaiting a condition instead of sleeping.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// Pause before the second look; later ones take longer, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(100);

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
