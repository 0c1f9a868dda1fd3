//! The wire protocol of appending: one attempt to publish events, and looking for them afterwards.

use std::{collections::HashMap, pin::pin};

use async_nats::{
    HeaderMap, Message, Request, RequestError, RequestErrorKind, Subject, header,
    jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream},
};
use futures::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    ReadError,
    connection::{Connection, REQUEST_TIMEOUT},
    page,
    transaction::{PreparedEvent, new_id},
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
    Conflict {
        /// Whether something else on the same subject was on its way, which may come to nothing.
        may_pass: bool,
        /// Where the aggregate ends that was expected to end elsewhere, if the server says so. It does not say which one that is.
        end: Option<u64>,
    },
    /// The server refused for a reason of its own. Nothing was appended.
    Refused { code: u64, description: String },
    /// No answer, or one that does not say.
    Lost,
}

/// What the log holds where a transaction's events would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// These very events, the first of them here.
    Ours {
        /// Where the first event is.
        first_position: u64,
    },
    /// Another event, so that these cannot be appended any more.
    Others {
        /// Which of them has another one in its place.
        index: usize,
    },
    /// Nothing yet.
    Nothing,
}

impl Connection {
    /// Publishes `events` all or none: one as a plain publish, several as an atomic batch.
    pub(crate) async fn publish(&self, events: &[&PreparedEvent]) -> Outcome {
        // In its place from the start: what goes through the time limits by value is copied each time, and this is large.
        let answer = pin!(self.send(events));
        Outcome::of(self.in_time(answer).await)
    }

    /// Begins a batch of which it is not known yet what all belongs to it.
    pub(crate) fn open_batch(&self) -> OpenBatch<'_> {
        OpenBatch::new(self)
    }

    async fn send(&self, events: &[&PreparedEvent]) -> Result<Message, RequestError> {
        match events {
            [] => Err(RequestError::new(RequestErrorKind::Other)),
            [event] => self.request(event, event_headers(event)).await,
            [first @ .., last] => {
                let mut batch = OpenBatch::new(self);
                batch.send(first.iter().copied()).await?;
                batch.send_last(last).await
            }
        }
    }

    async fn request(&self, event: &PreparedEvent, headers: HeaderMap) -> Result<Message, RequestError> {
        let request = Request::new().payload(event.payload.clone()).headers(headers).timeout(None);
        self.client.send_request(event.subject.clone(), request).await
    }

    /// Waits for `answer`, but not beyond a reconnect or a new leader, and not for ever: while the connection is broken, even handing over what
    /// is to be sent can take as long as that lasts.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(REQUEST_TIMEOUT, self.unless_interrupted(answer)).await.ok().flatten()
    }

    /// What became of a transaction, by the leader's account.
    ///
    /// It is there as a whole or not at all, so its first event answers for all of them. Where there is nothing yet, one
    /// of its other aggregates may have moved on.
    ///
    /// Boxed, since few ask: else it would take four fifths of the memory that every append takes, and moves.
    pub(crate) fn look<'a>(&'a self, events: &'a [PreparedEvent]) -> BoxFuture<'a, Result<Found, ReadError>> {
        self.look_at(events).boxed()
    }

    async fn look_at(&self, events: &[PreparedEvent]) -> Result<Found, ReadError> {
        let found = self.find(&events[0]).await?;
        let others: Vec<_> = events.iter().enumerate().skip(1).filter(|(_, event)| event.expected.is_some()).collect();
        if found != Found::Nothing || others.is_empty() {
            return Ok(found);
        }
        // A follower may answer this and be behind; what it has seen is there all the same.
        let subjects: Vec<_> = others.iter().map(|(_, event)| event.subject.as_str()).collect();
        let positions = self.last_positions(&subjects).await?;
        for (index, event) in others {
            if positions.get(event.subject.as_str()).copied() <= event.expected {
                continue;
            }
            match self.find(event).await? {
                Found::Ours { first_position } => return Ok(Found::Ours { first_position: first_position - index as u64 }),
                Found::Others { .. } => return Ok(Found::Others { index }),
                Found::Nothing => {}
            }
        }
        Ok(Found::Nothing)
    }

    /// The subject of the message at `position` by the leader's account, if there is one and it can be asked: when the server refuses a batch, it
    /// says where the aggregate ends that is at fault, but not which one it is. Boxed, as [`look`](Self::look) is.
    pub(crate) fn subject_at(&self, position: u64) -> BoxFuture<'_, Option<Subject>> {
        let asked = async move {
            let stream = self.stream().await.ok()?;
            let message = self.in_time(stream.get_raw_message(position)).await?.ok()?;
            Some(message.subject)
        };
        asked.boxed()
    }

    /// What follows the position that `event`, the first of its aggregate in a transaction, expects on its subject.
    ///
    /// The stored bytes are compared, not the id alone: two rivals with the same request can have derived the same id.
    /// Boxed, as [`look`](Self::look) is.
    pub(crate) fn find<'a>(&'a self, event: &'a PreparedEvent) -> BoxFuture<'a, Result<Found, ReadError>> {
        let asked = async move {
            let from = event.expected.unwrap_or(0) + 1;
            let stream = self.stream().await?;
            let asked = self.in_time(stream.get_first_raw_message_by_subject(&event.subject, from)).await;
            match asked.ok_or_else(no_answer)? {
                Ok(message) if message.payload == event.payload => Ok(Found::Ours { first_position: message.sequence }),
                Ok(_) => Ok(Found::Others { index: 0 }),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Found::Nothing),
                Err(error) => Err(ReadError::Unavailable(error.to_string())),
            }
        };
        asked.boxed()
    }

    /// Where the aggregate ends by the leader's own account; 0 if it has no event. Boxed, as [`look`](Self::look) is.
    pub(crate) fn end_at_leader<'a>(&'a self, subject: &'a str) -> BoxFuture<'a, Result<u64, ReadError>> {
        let asked = async move {
            let stream = self.stream().await?;
            let asked = self.in_time(stream.get_last_raw_message_by_subject(subject)).await;
            match asked.ok_or_else(no_answer)? {
                Ok(message) => Ok(message.sequence),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(0),
                Err(error) => Err(ReadError::Unavailable(error.to_string())),
            }
        };
        asked.boxed()
    }

    /// The last position on each of `subjects` that has one. May be behind where a follower answers.
    pub(crate) async fn last_positions(&self, subjects: &[&str]) -> Result<HashMap<String, u64>, ReadError> {
        let mut positions = HashMap::with_capacity(subjects.len());
        for some in subjects.chunks(SUBJECTS_ASKED_MAX) {
            let (mut asked, mut patience) = (some.to_vec(), self.read_patience());
            loop {
                let answered = self.in_time(timeout(patience, self.ask_last_positions(&asked, &mut positions))).await;
                match answered.ok_or_else(no_answer)? {
                    Ok(Ok(0)) => break,
                    Ok(answered) => {
                        answered?;
                    }
                    // Perhaps the next one whom it reaches is quicker.
                    Err(_) if patience < REQUEST_TIMEOUT => {
                        patience *= 2;
                        continue;
                    }
                    Err(_) => return Err(no_answer()),
                }
                let before = asked.len();
                asked.retain(|subject| !positions.contains_key(*subject));
                if asked.len() == before {
                    return Err(ReadError::Unavailable("an answer that leaves everything open".to_owned()));
                }
            }
        }
        Ok(positions)
    }

    /// Returns how many more of `subjects` have a message: an answer ends where the messages, which come along, are as much as the
    /// server lets pend for one client (`max_pending`, 64 MB by default).
    async fn ask_last_positions(&self, subjects: &[&str], positions: &mut HashMap<String, u64>) -> Result<u64, ReadError> {
        let request = json!({ "multi_last": subjects }).to_string();
        let mut inbox = self.direct_get_many(request.into()).await?;
        let more = loop {
            let answer = inbox.next().await?;
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
                Some(204) => break page::number(answer.headers.as_ref(), "Nats-Num-Pending").unwrap_or(0),
                // None of the subjects has a message.
                Some(404) => break 0,
                Some(status) => return Err(ReadError::Unavailable(status.to_string())),
            }
        };
        self.inboxes.put_back(inbox);
        Ok(more)
    }

    async fn stream(&self) -> Result<Stream<()>, ReadError> {
        let stream = self.jetstream.get_stream_no_info(STREAM).await;
        stream.map_err(|error| ReadError::Unavailable(error.to_string()))
    }
}

/// An atomic batch on its way: the server stages each event when it comes, and commits them all with the last one.
///
/// What is staged and never committed is dropped by the server after a while, as if it had never been sent.
pub(crate) struct OpenBatch<'a> {
    connection: &'a Connection,
    id: String,
    sent: usize,
    /// Why it can no longer be committed.
    failure: Option<Outcome>,
}

impl<'a> OpenBatch<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { connection, id: batch_id(), sent: 0, failure: None }
    }

    /// How many events were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Sends more events. If that fails, or takes too long, the batch comes to nothing, as [`commit`](Self::commit) will say.
    pub(crate) async fn stage(&mut self, events: impl Iterator<Item = &PreparedEvent>) {
        if self.failure.is_some() {
            return;
        }
        let connection = self.connection;
        let failure = match connection.in_time(pin!(self.send(events))).await {
            Some(Ok(())) => return,
            Some(Err(error)) => Outcome::of(Some(Err(error))),
            None => Outcome::Lost,
        };
        self.failure = Some(failure);
    }

    /// Sends the last event, and waits until the server has committed all of them, or none.
    pub(crate) async fn commit(mut self, last: &PreparedEvent) -> Outcome {
        match self.failure.take() {
            Some(failure) => failure,
            None => Outcome::of(self.connection.in_time(pin!(self.send_last(last))).await),
        }
    }

    async fn send(&mut self, events: impl Iterator<Item = &PreparedEvent>) -> Result<(), RequestError> {
        for event in events {
            self.sent += 1;
            let headers = batch_headers(event, &self.id, self.sent);
            self.connection.client.publish_with_headers(event.subject.clone(), headers, event.payload.clone()).await?;
        }
        Ok(())
    }

    async fn send_last(&self, event: &PreparedEvent) -> Result<Message, RequestError> {
        let mut headers = batch_headers(event, &self.id, self.sent + 1);
        headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
        self.connection.request(event, headers).await
    }
}

fn no_answer() -> ReadError {
    ReadError::Unavailable("the connection broke, or it took too long".to_owned())
}

#[derive(Deserialize)]
struct Answer {
    error: Option<ErrorAnswer>,
    #[serde(rename = "seq")]
    position: Option<u64>,
    #[serde(default)]
    duplicate: bool,
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
    /// What an answer says, or that none came.
    fn of(answer: Option<Result<Message, RequestError>>) -> Self {
        match answer {
            Some(Ok(answer)) => Self::read(&answer),
            Some(Err(error)) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
                Self::Refused { code: 0, description: error.to_string() }
            }
            Some(Err(error)) => {
                tracing::debug!("the log's answer was lost: {error}");
                Self::Lost
            }
            None => Self::Lost,
        }
    }

    fn read(answer: &Message) -> Self {
        let Ok(answer) = serde_json::from_slice::<Answer>(&answer.payload) else { return Self::Lost };
        match answer {
            Answer { error: Some(error), .. } => match error.err_code {
                wire::WRONG_LAST_SEQUENCE => Self::Conflict { may_pass: false, end: wire::last_sequence(&error.description) },
                wire::BATCH_DUPLICATE_ID => Self::Conflict { may_pass: false, end: None },
                wire::WRONG_LAST_SEQUENCE_IN_FLIGHT | wire::DUPLICATE_IN_PROCESS => Self::Conflict { may_pass: true, end: None },
                // The server did not see the whole batch (a reconnect in its middle), or has too many in flight: it can be
                // sent again, as a new batch.
                wire::BATCH_INCOMPLETE | wire::BATCHES_TOO_MANY => Self::Lost,
                // A full disk is not emptied within a deadline.
                wire::NO_RESOURCES => Self::Refused { code: error.err_code, description: error.description },
                // No leader at the moment, more than the server can take in, and the like: worth another try.
                _ if matches!(error.code, 429 | 503) => {
                    tracing::debug!("the log cannot take it now: {} ({})", error.description, error.err_code);
                    Self::Lost
                }
                code => Self::Refused { code, description: error.description },
            },
            // Seen before: by us, when an earlier answer was lost, or by a rival with the same request.
            Answer { duplicate: true, .. } => Self::Conflict { may_pass: false, end: None },
            Answer { position: Some(position), .. } => Self::Appended { last_position: position },
            Answer { position: None, .. } => Self::Lost,
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

/// A batch gets a new id on every attempt: the server may still hold the remains of the last one. It is stored with each of
/// the batch's events, so half of a UUID has to do: the server knows 50 at a time.
fn batch_id() -> String {
    format!("{:016x}", new_id().as_u64_pair().1)
}

#[cfg(test)]
mod tests {
    use async_nats::Subject;
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn answered(answer: &Value) -> Outcome {
        let payload = Bytes::from(answer.to_string());
        let subject = Subject::from("_INBOX.x");
        Outcome::read(&Message { subject, reply: None, payload, headers: None, status: None, description: None, length: 0 })
    }

    fn failed(code: u64, err_code: u64) -> Outcome {
        answered(&json!({ "error": { "code": code, "err_code": err_code, "description": "why" }, "stream": "EVENTS", "seq": 0 }))
    }

    #[test]
    fn what_is_not_decided_yet_may_pass() {
        for in_flight in [wire::WRONG_LAST_SEQUENCE_IN_FLIGHT, wire::DUPLICATE_IN_PROCESS] {
            assert!(matches!(failed(400, in_flight), Outcome::Conflict { may_pass: true, end: None }), "{in_flight}");
        }
        assert!(matches!(failed(400, wire::BATCH_DUPLICATE_ID), Outcome::Conflict { may_pass: false, .. }));
        assert!(matches!(failed(503, 10_008), Outcome::Lost), "no leader");
    }

    #[test]
    fn a_full_log_refuses() {
        let Outcome::Refused { code, description } = failed(503, wire::NO_RESOURCES) else { panic!("it may pass, it says") };
        assert_eq!((code, description.as_str()), (10_023, "why"));
    }
}
