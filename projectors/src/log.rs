//! The log, for commands that end.

use std::time::Duration;

use event_store::JetStreamEventStore;

use crate::{
    failure::Failure,
    settings::{NatsAccess, SERVICE},
};

/// How long to wait for NATS before giving up, in seconds.
const NATS_WAIT_S: u64 = 10;

/// Connects to the log; fails with [`Failure::Away`] if it is not there within some seconds.
pub async fn connect(nats: &NatsAccess) -> Result<JetStreamEventStore, Failure> {
    let store = JetStreamEventStore::connect(nats, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
    let mut reason = String::new();
    let ready = store.wait_until_ready(|waits_for| waits_for.clone_into(&mut reason));
    if tokio::time::timeout(Duration::from_secs(NATS_WAIT_S), ready).await.is_err() {
        return Err(Failure::Away(reason));
    }
    Ok(store)
}
