//! `projectors migrate`: makes the streams and the schema, or brings them up to date.

use std::time::Duration;

use event_store::JetStreamEventStore;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::{
    failure::Failure,
    read_models::chain,
    settings::{Database, NatsAccess, SERVICE},
};

/// How long to wait for NATS and Postgres if the caller does not say, in seconds.
pub const WAIT_S_DEFAULT: u64 = 60;
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Sets up the streams with `replicas` copies, or as many as they have, and the schema, which the role `reader` may read then, waiting up to `wait` for servers that are not there yet. What is
/// to be done in Postgres takes as long as it takes.
///
/// Safe to repeat, and to run twice at once.
pub async fn migrate(
    nats: &NatsAccess,
    database: &Database,
    replicas: Option<usize>,
    reader: Option<&str>,
    wait: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + wait;
    let (streams, schema) = tokio::join!(set_up_streams(nats, replicas, deadline), migrate_schema(database, reader, deadline));
    // Both had their chance; both may have something to say.
    match (streams, schema) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(Failure::Away(streams)), Err(Failure::Away(schema))) => Err(Failure::Away(format!("{streams}; {schema}"))),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

async fn set_up_streams(nats: &NatsAccess, replicas: Option<usize>, deadline: Instant) -> Result<(), Failure> {
    let store = JetStreamEventStore::connect(nats, SERVICE).await.map_err(Failure::other("connect to NATS"))?;
    let mut last = "NATS does not answer".to_owned();
    loop {
        if store.is_connected() {
            match timeout_at(deadline, store.set_up(replicas)).await {
                Ok(Ok(replicas)) => {
                    info!(replicas, "the streams are set up");
                    return Ok(());
                }
                Ok(Err(error)) => last = chain(&error),
                Err(_) => return Err(Failure::Away(last)),
            }
        }
        pause(deadline, &last).await?;
    }
}

async fn migrate_schema(database: &Database, reader: Option<&str>, deadline: Instant) -> Result<(), Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match read_store::schema::migrate_for(&database.options, reader, left).await {
            Ok(()) => {
                info!(version = read_store::schema::version(), "the schema is up to date");
                return Ok(());
            }
            Err(error) if error.is_away() => pause(deadline, &chain(&error)).await?,
            Err(error) => return Err(Failure::other("migrate Postgres")(error)),
        }
    }
}

async fn pause(deadline: Instant, reason: &str) -> Result<(), Failure> {
    if Instant::now() + RETRY_PAUSE >= deadline {
        return Err(Failure::Away(reason.to_owned()));
    }
    tokio::time::sleep(RETRY_PAUSE).await;
    Ok(())
}
