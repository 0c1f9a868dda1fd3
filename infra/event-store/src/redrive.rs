//! Asking a running reactor to handle an event once more.
//!
//! A request over core NATS to whichever instance has the reactor, answered by signs of life and then by what came of it. Nothing of
//! it is stored: what was asked for and not answered can be asked for again, since handling an event again is harmless.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use serde::{Deserialize, Serialize};

use crate::{JetStreamEventStore, ReadError, wire::STREAM, work_queue::WorkItem};

/// Pause after requests could not be subscribed to, before another attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// What follows from the event is in the log.
    Done,
    /// It was given up again.
    Failed {
        /// What went wrong, outermost first.
        error_chain: Vec<String>,
        /// How often it was tried this time.
        attempts: u64,
    },
    /// The instance could not do it now: an outside system is away, or the instance is ending.
    NotNow,
    /// No instance runs this reactor.
    NobodyThere,
    /// There was no sign of life for as long as one was waited for. It may still be done.
    NoAnswer,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    position: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum Answer {
    Working,
    Done,
    Failed { error_chain: Vec<String>, attempts: u64 },
    NotNow,
}

fn subject(reactor: &str) -> String {
    format!("redrive.{reactor}")
}

impl JetStreamEventStore {
    /// Has `reactor` handle the event at `position` again, and waits for what comes of it as long as there is a sign of life at least
    /// every `patience`.
    ///
    /// # Errors
    ///
    /// If the server is away.
    pub async fn redrive(&self, reactor: &str, position: u64, patience: Duration) -> Result<Redriven, ReadError> {
        let client = &self.connection.client;
        let unavailable = |error: String| ReadError::Unavailable(error);
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(error.to_string()))?;
        let request = serde_json::to_vec(&Request { position }).map_err(|error| unavailable(error.to_string()))?;
        let asked = client.publish_with_reply(subject(reactor), inbox, request.into()).await;
        asked.map_err(|error| unavailable(error.to_string()))?;
        loop {
            let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await else { return Ok(Redriven::NoAnswer) };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                return Ok(Redriven::NobodyThere);
            }
            match serde_json::from_slice(&answer.payload) {
                Ok(Answer::Working) => {}
                Ok(Answer::Done) => return Ok(Redriven::Done),
                Ok(Answer::Failed { error_chain, attempts }) => return Ok(Redriven::Failed { error_chain, attempts }),
                Ok(Answer::NotNow) => return Ok(Redriven::NotNow),
                Err(error) => tracing::debug!("an answer that cannot be read: {error}"),
            }
        }
    }
}

/// The event that somebody has asked for, and who that is.
pub(crate) struct Redrive {
    client: Client,
    reply: Subject,
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
}

impl Redrive {
    pub(crate) async fn working(&self) {
        self.answer(&Answer::Working).await;
    }

    pub(crate) async fn done(&self) {
        self.answer(&Answer::Done).await;
    }

    pub(crate) async fn not_now(&self) {
        self.answer(&Answer::NotNow).await;
    }

    pub(crate) async fn failed(&self, error_chain: Vec<String>, attempts: u64) {
        self.answer(&Answer::Failed { error_chain, attempts }).await;
    }

    async fn answer(&self, answer: &Answer) {
        answer_to(&self.client, &self.reply, answer).await;
    }
}

async fn answer_to(client: &Client, reply: &Subject, answer: &Answer) {
    let Ok(payload) = serde_json::to_vec(answer) else { return };
    if let Err(error) = client.publish(reply.clone(), payload.into()).await {
        tracing::debug!("answer who asked for an event: {error}");
    }
}

/// What a reactor is asked to handle again.
pub(crate) struct Redrives {
    store: JetStreamEventStore,
    reactor: &'static str,
    requests: Option<Subscriber>,
    /// The event that is being read for a request.
    reading: Option<BoxFuture<'static, Option<WorkItem>>>,
}

impl Redrives {
    pub(crate) fn new(store: JetStreamEventStore, reactor: &'static str) -> Self {
        Self { store, reactor, requests: None, reading: None }
    }

    /// The next event; can be dropped at any await without losing one.
    pub(crate) async fn next(&mut self) -> WorkItem {
        loop {
            if let Some(reading) = &mut self.reading {
                let item = reading.await;
                self.reading = None;
                if let Some(item) = item {
                    return item;
                }
            }
            let Some(requests) = &mut self.requests else {
                let client = &self.store.connection.client;
                // One of all instances gets a request.
                match client.queue_subscribe(subject(self.reactor), self.reactor.to_owned()).await {
                    Ok(requests) => self.requests = Some(requests),
                    Err(error) => {
                        tracing::debug!(reactor = self.reactor, "listen for events to handle again: {error}");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                continue;
            };
            match requests.next().await {
                Some(request) => self.reading = Some(Box::pin(read(self.store.clone(), request))),
                None => self.requests = None,
            }
        }
    }
}

/// The event that is asked for; who asks in vain is told so.
async fn read(store: JetStreamEventStore, request: Message) -> Option<WorkItem> {
    let client = store.connection.client.clone();
    let reply = request.reply?;
    let Request { position } = serde_json::from_slice(&request.payload).ok()?;
    let read = async {
        let stream = store.connection.jetstream.get_stream_no_info(STREAM).await.map_err(|error| error.to_string())?;
        stream.get_raw_message(position).await.map_err(|error| error.to_string())
    };
    match read.await {
        Ok(message) => {
            let redrive = Redrive { client, reply, subject: message.subject, payload: message.payload };
            Some(WorkItem::asked_for(position, redrive))
        }
        Err(error) => {
            let error_chain = vec![format!("read the event at position {position}"), error];
            answer_to(&client, &reply, &Answer::Failed { error_chain, attempts: 0 }).await;
            None
        }
    }
}
