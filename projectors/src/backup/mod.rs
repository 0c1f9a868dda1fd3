//! `projectors log`: the log with its queues, timers and dead letters, copied into a folder and restored from there.
//!
//! The read models are not part of it, because they are folds of the log, and neither are snapshots of aggregates. What is copied when, and
//! why in this order, is written in `infra/adr/0024-backups-are-the-servers-own-snapshots.md`; what to do with it in
//! `docs/runbooks/disaster.md`.

mod copy;
mod folder;
mod manifest;
mod restore;

use std::time::Duration;

use event_store::{CopyError, JetStreamEventStore};
use telemetry::output::Output;

pub use copy::{BackUp, BackedUp, back_up};
pub use restore::{Restore, Restored, restore};

use crate::{
    failure::Failure,
    settings::{NatsAccess, SERVICE},
};

/// How long to wait for NATS before giving up.
const NATS_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Connects to a server that need not have a log.
async fn connect(nats: &NatsAccess) -> Result<JetStreamEventStore, Failure> {
    let store = JetStreamEventStore::connect(nats, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
    let connected = async {
        while !store.is_connected() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    };
    let connected = tokio::time::timeout(NATS_WAIT, connected).await;
    connected.map_err(|_| Failure::Away("waiting for the NATS server".to_owned()))?;
    Ok(store)
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            // A user without the right to ask is not answered either.
            CopyError::Unavailable { .. } => {
                Self::Away(format!("{error} (is NATS up, and the user the one of `projectors migrate`?)"))
            }
            CopyError::Refused { doing, reason } => Self::Other { doing, cause: format!("the server refuses: {reason}").into() },
        }
    }
}

/// What the commands print.
pub fn render(done: &(impl serde::Serialize + std::fmt::Display), output: Output) -> String {
    match output {
        Output::Json => serde_json::to_string(done).expect("a summary has string keys"),
        Output::Table => done.to_string(),
    }
}
