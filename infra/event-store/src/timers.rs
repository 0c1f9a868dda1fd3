//! Events that come again at a given time: JetStream's scheduled messages (NATS ADR-51).
//!
//! A timer is the stored event itself, kept by the server until it is due and then put where a queue hands it out like any other.
//! It survives restarts of everything. The server looks every 250 ms at the earliest, and fires at once what has been due while it was down.
//! What has fired stays where the queue hands it out until it was handled, and is removed some seconds later, together with others.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::MissedTickBehavior;

use crate::{
    AppendError, JetStreamEventStore,
    wire::{self, TIMER_STREAM},
};

/// How often handled timers are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Timers that are on their way to the server at the same time.
const SET_AT_ONCE: usize = 64;

/// One event that shall come again.
#[derive(Clone, Debug)]
pub struct Timer {
    /// What for; part of the subject, so that an aggregate can have one timer for each purpose.
    pub purpose: &'static str,
    /// The aggregate. Setting its timer again replaces the one that is set.
    pub aggregate_id: String,
    /// When.
    pub due_at: OffsetDateTime,
    /// The event's place in the log.
    pub position: u64,
    /// The stored event.
    pub event: Bytes,
}

impl JetStreamEventStore {
    /// Sets `timers`, and returns when all of them are stored. One that is due already fires at once.
    ///
    /// # Errors
    ///
    /// If one could not be stored; then some may be, and setting all again is harmless.
    pub async fn set_timers(&self, timers: &[Timer]) -> Result<(), AppendError> {
        let setting = timers.iter().cloned().map(|timer| {
            let store = self.clone();
            async move { store.set_timer(&timer).await }
        });
        futures::stream::iter(setting).buffer_unordered(SET_AT_ONCE).try_collect().await
    }

    async fn set_timer(&self, timer: &Timer) -> Result<(), AppendError> {
        let Timer { purpose, aggregate_id, due_at, position, event } = timer;
        if !wire::is_token(aggregate_id) {
            return Err(AppendError::Invalid(format!("{aggregate_id:?} cannot have a timer")));
        }
        let due_at = due_at.format(&Rfc3339).map_err(|error| AppendError::Invalid(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Schedule", format!("@at {due_at}"));
        headers.insert("Nats-Schedule-Target", format!("{}.{aggregate_id}", wire::due_timers(purpose)));
        headers.insert(wire::POSITION, position.to_string());
        headers.insert("Content-Type", domain::envelope::CONTENT_TYPE);
        let subject = format!("timers.{purpose}.{aggregate_id}");
        let published = self.connection.jetstream.publish_with_headers(subject, headers, event.clone()).await;
        let stored = match published {
            Ok(acknowledgement) => acknowledgement.await.map(drop),
            Err(error) => Err(error),
        };
        stored.map_err(|error| {
            tracing::debug!("set a timer: {error}");
            AppendError::Unavailable
        })
    }
}

/// Removes, again and again, the timers for `purpose` that the queue `name` has handled. With several instances each does it, to no harm.
pub(crate) async fn sweep(store: JetStreamEventStore, name: &'static str, purpose: &'static str) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept = 0;
    loop {
        ticks.tick().await;
        match sweep_after(&store, name, purpose, swept).await {
            Ok(up_to) => swept = up_to,
            // The server is away, or has no such queue yet.
            Err(error) => tracing::debug!(queue = name, "remove handled timers: {error}"),
        }
    }
}

/// Returns up to where they are removed.
async fn sweep_after(store: &JetStreamEventStore, name: &str, purpose: &str, swept: u64) -> Result<u64, async_nats::Error> {
    let stream = store.connection.jetstream.get_stream_no_info(TIMER_STREAM).await?;
    // Everything up to there was acknowledged, without a gap.
    let handled = stream.consumer_info(name).await?.ack_floor.stream_sequence;
    if handled > swept {
        stream.purge().filter(format!("{}.*", wire::due_timers(purpose))).sequence(handled + 1).await?;
    }
    Ok(handled)
}
