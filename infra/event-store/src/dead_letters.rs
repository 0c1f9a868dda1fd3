//! What a reactor gave up on, with all that somebody needs to put it right.

use async_nats::{HeaderMap, header, jetstream::publish::PublishAck};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{AppendError, JetStreamEventStore};

/// One event that one reactor could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Which reactor gave up.
    pub reactor: String,
    /// The event's place in the log.
    pub position: u64,
    /// The event's type, or `undecodable`.
    pub event_type: String,
    /// What went wrong, outermost first.
    pub error_chain: Vec<String>,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was given up.
    #[serde(with = "time::serde::rfc3339")]
    pub died_at: OffsetDateTime,
}

impl JetStreamEventStore {
    /// Keeps `letter`, once per reactor and position however often it is sent within the duplicate window. Returns
    /// when it is stored.
    pub async fn put_dead_letter(&self, letter: &DeadLetter) -> Result<(), AppendError> {
        let subject = format!("dead-letters.{}.{}", letter.reactor, letter.event_type);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, format!("{}-{}", letter.reactor, letter.position));
        headers.insert("Content-Type", "application/json");
        let payload = serde_json::to_vec(letter).map_err(|error| AppendError::Invalid(error.to_string()))?;
        let published = self.connection.jetstream.publish_with_headers(subject, headers, payload.into()).await;
        let acknowledged = match published {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(PublishAck { .. }) => Ok(()),
            Err(error) => {
                tracing::debug!("put a dead letter: {error}");
                Err(AppendError::Unavailable)
            }
        }
    }
}
