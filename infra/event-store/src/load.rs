//! Reading one aggregate: batched direct get, page by page.
//!
//! A direct get can be answered by a follower and be behind (DESIGN §3). For a decision that appends, optimistic
//! concurrency makes that harmless; for one that appends nothing, [`execute`](JetStreamEventStore::execute) asks the
//! leader whether the state was current.

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use cqrs_es::Aggregate;
use domain::{DecodeError, EventPayload, envelope::StoredEvent};
use futures::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    JetStreamEventStore,
    connection::REQUEST_TIMEOUT,
    transaction::Expected,
    wire::{self, STREAM},
};

/// Messages asked for in one direct get. A page ends earlier where the server's own limits say so.
const PAGE_MESSAGES_MAX: usize = 1_000;

/// How long a load goes on asking a server that does not answer.
const LOAD_DEADLINE: Duration = Duration::from_secs(6);
/// Pause before asking again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause before another look at an aggregate of which a follower was behind.
pub(crate) const STALE_PAUSE: Duration = Duration::from_millis(5);

/// An aggregate, and where in the log it ends.
#[derive(Clone, Debug, Default)]
pub struct Loaded<A> {
    /// The fold of its events; the default if it has none.
    pub aggregate: A,
    /// How many events it has.
    pub version: u64,
    /// The position of its last event; 0 if it has none.
    pub position: u64,
}

impl<A> Loaded<A> {
    /// The condition under which events decided on this state may be appended.
    pub fn expected(&self) -> Expected {
        Expected { version: self.version, position: self.position }
    }
}

impl<A: Aggregate> Loaded<A> {
    /// Folds in `events`, which were appended after this state, the last of them at `last_position`.
    pub fn advance(&mut self, events: &[A::Event], last_position: u64) {
        for event in events {
            self.aggregate.apply(event.clone());
        }
        self.version += events.len() as u64;
        self.position = last_position;
    }
}

/// One event and its place in the log.
#[derive(Clone, Debug)]
pub struct RecordedEvent {
    /// Its stream sequence.
    pub position: u64,
    /// What was stored.
    pub event: StoredEvent,
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server is away, has no leader, or does not answer in time.
    #[error("read the log: no answer from the server ({0})")]
    Unavailable(String),
    /// A position is missing: the log was tampered with or restored incompletely.
    #[error("read the log: position {expected} is missing, the next one is {found}")]
    Gap {
        /// The position that had to come.
        expected: u64,
        /// The position that came.
        found: u64,
    },
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The id cannot be a subject token, so no aggregate has it.
    #[error("{0:?} cannot be an aggregate's id")]
    InvalidId(String),
    /// A stored event cannot be read by this build.
    #[error("decode the event at position {position}")]
    Decode {
        /// Where it is.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An event's version is not the one that its place demands.
    #[error("the event at position {position} has version {found} where {expected} had to come")]
    Version {
        /// Where it is.
        position: u64,
        /// The version that its place demands.
        expected: u64,
        /// The version that it states.
        found: u64,
    },
}

impl JetStreamEventStore {
    /// The position of the last event, 0 if there is none. Answered by the leader.
    pub async fn head(&self) -> Result<u64, ReadError> {
        let stream = self.connection.jetstream.get_stream(STREAM).await;
        stream.map(|stream| stream.cached_info().state.last_sequence).map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    /// The aggregate `id`, folded from all its events; the default at version 0 if it has none.
    ///
    /// Starts from what this process folded last of it, and always asks the log for what follows.
    pub async fn load<A>(&self, id: &str) -> Result<Loaded<A>, LoadError>
    where
        A: Aggregate + Clone + 'static,
        A::Event: EventPayload,
    {
        let mut loaded = self.cache.recall(id);
        self.fold_onto(id, &mut loaded, u64::MAX).await?;
        self.cache.remember(id, &loaded);
        Ok(loaded)
    }

    /// Keeps `loaded`, the state of aggregate `id` after an append that the caller has made, so that the next load
    /// starts from it.
    pub fn remember<A: Aggregate + Clone + 'static>(&self, id: &str, loaded: &Loaded<A>) {
        self.cache.remember(id, loaded);
    }

    /// The aggregate `id` as it was right after its event number `version`, or as it is if it has fewer.
    pub async fn load_at<A>(&self, id: &str, version: u64) -> Result<Loaded<A>, LoadError>
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let mut loaded = Loaded { aggregate: A::default(), version: 0, position: 0 };
        self.fold_onto(id, &mut loaded, version).await?;
        Ok(loaded)
    }

    /// Every event of one aggregate, oldest first.
    pub async fn events_of(&self, aggregate_type: &str, id: &str) -> Result<Vec<RecordedEvent>, LoadError> {
        let mut events = Vec::new();
        self.for_each_event(aggregate_type, id, 1, |recorded| {
            events.push(recorded);
            Ok(true)
        })
        .await?;
        Ok(events)
    }

    /// Folds in what was appended to aggregate `id` since `loaded`, and returns whether anything was. The result is what
    /// the leader has at this moment, also where an ordinary load may be answered by a follower that is behind.
    pub async fn refresh<A>(&self, id: &str, loaded: &mut Loaded<A>) -> Result<bool, LoadError>
    where
        A: Aggregate + Clone + 'static,
        A::Event: EventPayload,
    {
        let before = loaded.version;
        let known = self.cache.recall(id);
        if known.version > loaded.version {
            *loaded = known;
        }
        let subject = wire::subject(A::TYPE, id);
        loop {
            self.fold_onto(id, loaded, u64::MAX).await?;
            if !self.connection.may_be_stale() || self.connection.is_current(&subject, loaded.expected()).await? {
                self.cache.remember(id, loaded);
                return Ok(loaded.version > before);
            }
            tokio::time::sleep(STALE_PAUSE).await;
        }
    }

    async fn fold_onto<A>(&self, id: &str, loaded: &mut Loaded<A>, version_max: u64) -> Result<(), LoadError>
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let from = loaded.position + 1;
        self.for_each_event(A::TYPE, id, from, |RecordedEvent { position, event }| {
            if loaded.version == version_max {
                return Ok(false);
            }
            let (expected, found) = (loaded.version + 1, event.metadata.version);
            if found != expected {
                return Err(LoadError::Version { position, expected, found });
            }
            let payload = event.decode().map_err(|source| LoadError::Decode { position, source })?;
            loaded.aggregate.apply(payload);
            loaded.version = expected;
            loaded.position = position;
            Ok(true)
        })
        .await
    }

    /// Hands the events of an aggregate from position `from` on to `each`, in order, until that returns `false`.
    async fn for_each_event(
        &self,
        aggregate_type: &str,
        id: &str,
        mut from: u64,
        mut each: impl FnMut(RecordedEvent) -> Result<bool, LoadError> + Send,
    ) -> Result<(), LoadError> {
        if !wire::is_token(id) || !wire::is_token(aggregate_type) {
            return Err(LoadError::InvalidId(id.to_owned()));
        }
        let subject = wire::subject(aggregate_type, id);
        loop {
            let page = self.page(&subject, from).await?;
            for (position, payload) in &page.messages {
                let event = StoredEvent::from_json(payload).map_err(|source| LoadError::Decode { position: *position, source })?;
                if !each(RecordedEvent { position: *position, event })? {
                    return Ok(());
                }
            }
            match page.messages.last() {
                Some((last, _)) if page.pending > 0 => from = last + 1,
                _ => return Ok(()),
            }
        }
    }

    /// One page, asked for again while the server is away, until the deadline.
    async fn page(&self, subject: &str, from: u64) -> Result<Page, ReadError> {
        let deadline = Instant::now() + LOAD_DEADLINE;
        loop {
            let page = self.connection.unless_reconnected(self.page_once(subject, from)).await;
            match page {
                Some(Ok(page)) => return Ok(page),
                Some(Err(error)) if Instant::now() + RETRY_PAUSE > deadline => return Err(error),
                Some(Err(_)) => tokio::time::sleep(RETRY_PAUSE).await,
                None => {}
            }
        }
    }

    async fn page_once(&self, subject: &str, from: u64) -> Result<Page, ReadError> {
        let unavailable = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        let inbox = self.connection.client.new_inbox();
        let mut answers = self.connection.client.subscribe(inbox.clone()).await.map_err(|error| unavailable(&error))?;
        let request = json!({ "seq": from, "next_by_subj": subject, "batch": PAGE_MESSAGES_MAX }).to_string();
        self.connection
            .client
            .publish_with_reply(format!("$JS.API.DIRECT.GET.{STREAM}"), inbox, request.into())
            .await
            .map_err(|error| unavailable(&error))?;
        let mut page = Page::default();
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let Ok(Some(answer)) = answer else { return Err(unavailable(&"timed out")) };
            // An event's payload could be empty; only the status tells the end of a page from an event.
            match answer.status {
                None => {
                    let headers = answer.headers.as_ref();
                    let Some(position) = number(headers, "Nats-Sequence") else {
                        return Err(unavailable(&"an answer without a sequence"));
                    };
                    page.messages.push((position, answer.payload));
                }
                // 204: the end of the page.
                Some(status) if status.as_u16() == 204 => {
                    page.pending = number(answer.headers.as_ref(), "Nats-Num-Pending").unwrap_or(0);
                    return Ok(page);
                }
                // 404: no event on the subject from there on.
                Some(StatusCode::NOT_FOUND) => return Ok(page),
                Some(status) => return Err(unavailable(&status)),
            }
        }
    }
}

#[derive(Default)]
struct Page {
    messages: Vec<(u64, Bytes)>,
    /// How many more the server has.
    pending: u64,
}

fn number(headers: Option<&HeaderMap>, name: &str) -> Option<u64> {
    headers?.get_last(name)?.as_str().parse().ok()
}
