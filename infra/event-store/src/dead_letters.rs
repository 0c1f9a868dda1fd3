//! What a reactor gave up on, with all that somebody needs to put it right.

use std::{collections::BTreeMap, error::Error, fmt, time::Duration};

use async_nats::{
    HeaderMap, header,
    jetstream::{
        consumer::{AckPolicy, PullConsumer, pull},
        stream::DeleteMessageErrorKind,
    },
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    AppendError, JetStreamEventStore, ReadError,
    wire::{DEAD_LETTER_STREAM, DEAD_LETTER_SUBJECTS},
};

/// JetStream's codes for a sequence that has no message (any more).
const SEQUENCE_NOT_FOUND: [u64; 2] = [10_043, 10_057];
/// Letters that are asked for at a time.
const LISTED_AT_ONCE: usize = 256;
/// When the server forgets a consumer whose user has died amid a list.
const LISTING_LIFETIME: Duration = Duration::from_secs(30);

/// One event that one reactor could not handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Which reactor gave up.
    pub reactor: String,
    /// The event's place in the log.
    pub position: u64,
    /// The event's type, or `undecodable`.
    pub event_type: String,
    /// Which aggregate the event is of, if its envelope can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate_id: Option<String>,
    /// Which story it is part of, if its envelope can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// What went wrong, outermost first.
    pub error_chain: Vec<String>,
    /// How often it was tried.
    pub attempts: u64,
    /// How often it was redriven, in vain.
    #[serde(default)]
    pub redrives: u64,
    /// When it was given up for the first time; absent in letters that were written before this was kept.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub first_died_at: Option<OffsetDateTime>,
    /// When it was given up, for the last time.
    #[serde(with = "time::serde::rfc3339")]
    pub died_at: OffsetDateTime,
}

impl DeadLetter {
    /// What it is called: the same for the same reactor and event, however often that was given up.
    pub fn id(&self) -> String {
        format!("{}-{}", self.reactor, self.position)
    }

    fn subject(&self, prefix: &str) -> String {
        // Whatever somebody has called an event, its letter must have a subject.
        let token = |text: &str| {
            let is_allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_');
            let token: String = text.chars().map(|char| if is_allowed(char) { char } else { '_' }).collect();
            if token.is_empty() { "_".to_owned() } else { token }
        };
        let event_type: Vec<_> = self.event_type.split('.').map(token).collect();
        format!("{prefix}.{}.{}", token(&self.reactor), event_type.join("."))
    }
}

/// A dead letter as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLetter {
    /// The letter as it was written last.
    pub letter: DeadLetter,
    /// Where it is kept: more than once, if it was given up again after the server had forgotten the first time, or if whoever
    /// replaced it did not come to the end.
    sequences: Vec<u64>,
}

/// A dead letter that somebody has decided is none of anybody's business any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DiscardedLetter<'a> {
    #[serde(flatten)]
    letter: DeadLetter,
    reason: &'a str,
    #[serde(with = "time::serde::rfc3339")]
    discarded_at: OffsetDateTime,
}

impl JetStreamEventStore {
    /// Keeps `letter`, once per reactor and position however often it is sent within the duplicate window. Returns
    /// when it is stored.
    pub async fn put_dead_letter(&self, letter: &DeadLetter) -> Result<(), AppendError> {
        let message_id = match letter.redrives {
            0 => letter.id(),
            redrives => format!("{}-{redrives}", letter.id()),
        };
        self.put_letter(letter.subject("dead-letters"), message_id, letter).await
    }

    /// Every dead letter, in the order of their positions.
    pub async fn dead_letters(&self) -> Result<Vec<KeptLetter>, ReadError> {
        let stream = self.connection.jetstream.get_stream_no_info(DEAD_LETTER_STREAM).await.map_err(unavailable)?;
        let config = pull::Config {
            filter_subject: DEAD_LETTER_SUBJECTS.to_owned(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            inactive_threshold: LISTING_LIFETIME,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(unavailable)?;
        let letters = list(&consumer).await;
        // Whoever lists them again and again does not leave a heap of consumers. Where this fails, the server removes it by itself.
        let _ = stream.delete_consumer(&consumer.cached_info().name).await;
        letters
    }

    /// How many messages each reactor's dead letters are.
    pub async fn count_dead_letters(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        let stream = self.connection.jetstream.get_stream_no_info(DEAD_LETTER_STREAM).await.map_err(unavailable)?;
        let mut subjects = stream.info_with_subjects(DEAD_LETTER_SUBJECTS).await.map_err(unavailable)?;
        let mut counts = BTreeMap::new();
        while let Some(subject) = subjects.next().await {
            let (subject, messages) = subject.map_err(unavailable)?;
            let Some(reactor) = subject.split('.').nth(1) else { continue };
            *counts.entry(reactor.to_owned()).or_default() += messages as u64;
        }
        Ok(counts)
    }

    /// Replaces `kept` by `letter`, which is about the same event and reactor. Should this be cut short, the letter is there all the same.
    pub async fn replace_dead_letter(&self, kept: &KeptLetter, letter: &DeadLetter) -> Result<(), AppendError> {
        self.put_dead_letter(letter).await?;
        self.remove_dead_letter(kept).await
    }

    /// Removes `kept`: what it is about was put right.
    pub async fn remove_dead_letter(&self, kept: &KeptLetter) -> Result<(), AppendError> {
        let stream = self.connection.jetstream.get_stream_no_info(DEAD_LETTER_STREAM).await.map_err(not_kept)?;
        for sequence in &kept.sequences {
            match stream.delete_message(*sequence).await {
                Ok(_) => {}
                // Somebody else was faster.
                Err(error) if is_gone(error.kind()) => {}
                Err(error) => return Err(not_kept(error)),
            }
        }
        Ok(())
    }

    /// Takes `kept` out of the dead letters and keeps it, with the reason, among the discarded ones.
    pub async fn discard_dead_letter(&self, kept: &KeptLetter, reason: &str, at: OffsetDateTime) -> Result<(), AppendError> {
        let letter = kept.letter.clone();
        let (subject, id) = (letter.subject("discarded-letters"), letter.id());
        let message_id = format!("{id}-{}", kept.sequences.last().copied().unwrap_or_default());
        self.put_letter(subject, message_id, &DiscardedLetter { letter, reason, discarded_at: at }).await?;
        self.remove_dead_letter(kept).await
    }

    async fn put_letter(&self, subject: String, message_id: String, letter: &impl Serialize) -> Result<(), AppendError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message_id);
        headers.insert("Content-Type", "application/json");
        let payload = serde_json::to_vec(letter).map_err(|error| AppendError::Invalid(error.to_string()))?;
        let published = self.connection.jetstream.publish_with_headers(subject, headers, payload.into()).await;
        match published {
            Ok(acknowledgement) => acknowledgement.await.map(drop).map_err(not_kept),
            Err(error) => Err(not_kept(error)),
        }
    }
}

/// What the consumer hands out, each letter once.
async fn list(consumer: &PullConsumer) -> Result<Vec<KeptLetter>, ReadError> {
    let mut letters: BTreeMap<(u64, String), KeptLetter> = BTreeMap::new();
    let mut pending = consumer.cached_info().num_pending;
    while pending > 0 {
        let batch = consumer.fetch().max_messages(LISTED_AT_ONCE).messages();
        let mut batch = batch.await.map_err(unavailable)?;
        let mut is_empty = true;
        while let Some(message) = batch.next().await {
            let message = message.map_err(unavailable)?;
            let info = message.info().map_err(unavailable)?;
            let sequence = info.stream_sequence;
            (pending, is_empty) = (info.pending, false);
            let letter: DeadLetter = match serde_json::from_slice(&message.payload) {
                Ok(letter) => letter,
                Err(error) => {
                    tracing::warn!(sequence, "a dead letter cannot be read: {error}");
                    continue;
                }
            };
            let earlier = letters.remove(&(letter.position, letter.reactor.clone()));
            let mut sequences = earlier.map(|kept| kept.sequences).unwrap_or_default();
            sequences.push(sequence);
            letters.insert((letter.position, letter.reactor.clone()), KeptLetter { letter, sequences });
        }
        // Somebody may have removed what was counted.
        if is_empty {
            break;
        }
    }
    Ok(letters.into_values().collect())
}

fn is_gone(kind: DeleteMessageErrorKind) -> bool {
    matches!(kind, DeleteMessageErrorKind::JetStream(error) if SEQUENCE_NOT_FOUND.contains(&error.error_code().0))
}

fn unavailable(error: impl fmt::Display) -> ReadError {
    ReadError::Unavailable(error.to_string())
}

fn not_kept(error: impl Error) -> AppendError {
    tracing::debug!("change the dead letters: {error}");
    AppendError::Unavailable
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn whatever_an_event_is_called_its_letter_has_a_subject() {
        let subject = |event_type: &str| {
            let letter = DeadLetter {
                reactor: "payments".to_owned(),
                position: 7,
                event_type: event_type.to_owned(),
                aggregate_id: None,
                correlation_id: None,
                error_chain: Vec::new(),
                attempts: 1,
                redrives: 0,
                first_died_at: None,
                died_at: datetime!(2026-11-21 12:00 UTC),
            };
            letter.subject("dead-letters")
        };
        assert_eq!(subject("contrail.order.placed.v1"), "dead-letters.payments.contrail.order.placed.v1");
        for (event_type, tokens) in [("", "_"), ("..", "_._._"), ("a b>*\r\n", "a_b____"), ("größe", "gr__e")] {
            assert_eq!(subject(event_type), format!("dead-letters.payments.{tokens}"));
        }
    }

    #[test]
    fn a_letter_of_an_older_build_is_read() {
        let json = r#"{"reactor":"payments","position":5,"event_type":"contrail.order.stock_reserved.v1","error_chain":["x"],"attempts":2,
            "died_at":"2026-11-20T12:00:00Z"}"#;
        let letter: DeadLetter = serde_json::from_str(json).expect("it has all that there was");
        assert_eq!((letter.id().as_str(), letter.redrives, letter.aggregate_id), ("payments-5", 0, None));
    }
}
