//! The reactors against a real nats-server, and against the payment simulator over real HTTP.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is how it fails")]

mod gateway;
mod running;
mod shop;
mod squeamish;
mod trail;

mod allocation;
mod allocation_rivals;
mod charges;
mod dead_letters;
mod deadlines;
mod gateway_faults;
mod messages;
mod poison;
mod reconcile;
mod redelivery;

mod process;
mod settings;
mod smtp;
mod webhooks;

use std::time::Duration;

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same, where something is only delivered again after the 30 s in which a killed instance could have reported back.
const PATIENCE_BEYOND_ACK_WAIT: Duration = Duration::from_secs(80);
/// Pause between two looks at what cannot be waited for otherwise.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Looks until there is something to see.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look().await {
                Some(seen) => return seen,
                None => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
