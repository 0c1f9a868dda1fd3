//! The wire protocol of appending: one attempt to publish events, and looking for them afterwards.

use std::collections::HashMap;

use async_nats::{
    HeaderMap, Message, Request, RequestErrorKind, header,
    jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Expected, ReadError,
    connection::{Connection, REQUEST_TIMEOUT},
    transaction::PreparedEvent,
    wire::{self, STREAM},
};

/// Subjects asked for in one request for last positions; the server answers no more than 1,024.
const SUBJECTS_ASKED_MAX: usize = 512;

/// What one attempt came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All of it is in the log, this being the last position.
    Appended { last_position: u64 },
    /// An expectation was not met, or a message id was seen before. Nothing was appended by this attempt.
    Conflict,
    /// The server refused for a reason of its own. Nothing was appended.
    Refused { code: u64, description: String },
    /// No answer, or one that does not say.
    Lost,
}

impl Connection {
    /// Publishes `events` all or none: one as a plain publish, several as an atomic batch.
    pub(crate) async fn publish(&self, events: &[&PreparedEvent]) -> Outcome {
        let (first, last) = match events {
            [] => return Outcome::Lost,
            [event] => return self.request(event, event_headers(event)).await,
            [first @ .., last] => (first, last),
        };
        let batch_id = batch_id();
        for (event, sequence) in first.iter().zip(1_usize..) {
            let headers = batch_headers(event, &batch_id, sequence);
            let published = self.client.publish_with_headers(event.subject.clone(), headers, event.payload.clone());
            if let Err(error) = published.await {
                tracing::debug!("publish a batch's message: {error}");
                return Outcome::Lost;
            }
        }
        let mut headers = batch_headers(last, &batch_id, events.len());
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        self.request(last, headers).await
    }

    async fn request(&self, event: &PreparedEvent, headers: HeaderMap) -> Outcome {
        let request = Request::new().payload(event.payload.clone()).headers(headers).timeout(Some(REQUEST_TIMEOUT));
        let answer = self.unless_reconnected(self.client.send_request(event.subject.clone(), request)).await;
        let Some(answer) = answer else { return Outcome::Lost };
        match answer {
            Ok(answer) => Outcome::read(&answer),
            Err(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
                Outcome::Refused { code: 0, description: error.to_string() }
            }
            Err(error) => {
                tracing::debug!("the log's answer was lost: {error}");
                Outcome::Lost
            }
        }
    }

    /// The position of `event`, the first of its aggregate in a transaction, if it is in the log, by the leader's account.
    ///
    /// A transaction is there as a whole or not at all, so its first event answers for all of them. The stored bytes are
    /// compared, not the id alone: two rivals with the same request can have derived the same id.
    pub(crate) async fn find(&self, event: &PreparedEvent) -> Result<Option<u64>, ReadError> {
        let from = event.expected.unwrap_or(0) + 1;
        let stream = self.stream().await?;
        let asked = self.unless_reconnected(stream.get_first_raw_message_by_subject(&event.subject, from)).await;
        match asked.ok_or_else(reconnected)? {
            Ok(message) => Ok((message.payload == event.payload).then_some(message.sequence)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    /// Whether `expected` is where the aggregate ends by the leader's own account.
    pub(crate) async fn is_current(&self, subject: &str, expected: Expected) -> Result<bool, ReadError> {
        let stream = self.stream().await?;
        let asked = self.unless_reconnected(stream.get_last_raw_message_by_subject(subject)).await;
        match asked.ok_or_else(reconnected)? {
            Ok(message) => Ok(message.sequence == expected.position),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(expected.position == 0),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    /// The last position on each of `subjects` that has one. May be behind where a follower answers.
    pub(crate) async fn last_positions(&self, subjects: &[&str]) -> Result<HashMap<String, u64>, ReadError> {
        let mut positions = HashMap::with_capacity(subjects.len());
        for some in subjects.chunks(SUBJECTS_ASKED_MAX) {
            let asked = self.unless_reconnected(self.ask_last_positions(some, &mut positions)).await;
            asked.ok_or_else(reconnected)??;
        }
        Ok(positions)
    }

    async fn ask_last_positions(&self, subjects: &[&str], positions: &mut HashMap<String, u64>) -> Result<(), ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(|error| unavailable(&error))?;
        let request = json!({ "multi_last": subjects }).to_string();
        self.client
            .publish_with_reply(format!("$JS.API.DIRECT.GET.{STREAM}"), inbox, request.into())
            .await
            .map_err(|error| unavailable(&error))?;
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let Ok(Some(answer)) = answer else { return Err(unavailable(&"timed out")) };
            match answer.status.map(|status| status.as_u16()) {
                None => {
                    let headers = answer.headers.as_ref();
                    let subject = headers.and_then(|headers| headers.get_last(header::NATS_SUBJECT));
                    let position = headers.and_then(|headers| headers.get_last(header::NATS_SEQUENCE));
                    let position = position.and_then(|position| position.as_str().parse().ok());
                    if let (Some(subject), Some(position)) = (subject, position) {
                        positions.insert(subject.as_str().to_owned(), position);
                    }
                }
                // 204: the end of the answers; 404: none of the subjects has a message.
                Some(204 | 404) => return Ok(()),
                Some(status) => return Err(unavailable(&status)),
            }
        }
    }

    async fn stream(&self) -> Result<Stream<()>, ReadError> {
        let stream = self.jetstream.get_stream_no_info(STREAM).await;
        stream.map_err(|error| ReadError::Unavailable(error.to_string()))
    }
}

fn reconnected() -> ReadError {
    ReadError::Unavailable("the connection broke".to_owned())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Error {
        error: ErrorAnswer,
    },
    Ack {
        #[serde(rename = "seq")]
        position: u64,
        #[serde(default)]
        duplicate: bool,
    },
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Outcome {
    fn read(answer: &Message) -> Self {
        match serde_json::from_slice(&answer.payload) {
            Ok(Answer::Ack { position, duplicate: false }) => Self::Appended { last_position: position },
            // Seen before: by us, when an earlier answer was lost, or by a rival with the same request.
            Ok(Answer::Ack { duplicate: true, .. }) => Self::Conflict,
            Ok(Answer::Error { error }) => match error.err_code {
                wire::WRONG_LAST_SEQUENCE | wire::WRONG_LAST_SEQUENCE_IN_FLIGHT | wire::BATCH_DUPLICATE_ID => Self::Conflict,
                // The server did not see the whole batch (a reconnect in its middle), or has too many in flight: it can be
                // sent again, as a new batch.
                wire::BATCH_INCOMPLETE | wire::BATCHES_TOO_MANY => Self::Lost,
                // No leader at the moment, and the like: worth another try.
                _ if error.code == 503 => Self::Lost,
                code => Self::Refused { code, description: error.description },
            },
            Err(_) => Self::Lost,
        }
    }
}

fn event_headers(event: &PreparedEvent) -> HeaderMap {
    let mut headers = wire::event_headers(event.event_id);
    if let Some(position) = event.expected {
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, position.to_string());
    }
    headers
}

fn batch_headers(event: &PreparedEvent, batch_id: &str, sequence: usize) -> HeaderMap {
    let mut headers = event_headers(event);
    headers.insert(header::NATS_BATCH_ID, batch_id);
    headers.insert(header::NATS_BATCH_SEQUENCE, sequence.to_string());
    headers
}

/// A batch gets a new id on every attempt: the server may still hold the remains of the last one.
#[expect(clippy::disallowed_methods, reason = "an id on the wire that no decision depends on")]
fn batch_id() -> String {
    Uuid::now_v7().simple().to_string()
}
