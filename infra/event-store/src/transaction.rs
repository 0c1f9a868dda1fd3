//! What is appended in one piece.

use bytes::Bytes;
use cqrs_es::Aggregate;
use domain::{
    EventPayload,
    envelope::{Metadata, StoredEvent},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::wire;

/// Who appends, when, and as part of which story.
#[derive(Clone, Debug)]
pub struct EventContext {
    /// CloudEvents `source`, for example `/contrail/command-api`.
    pub source: &'static str,
    /// The id of the first event, where a client request determines it; the others, and without it all, get a UUID v7.
    pub event_id: Option<Uuid>,
    /// The story that the events belong to.
    pub correlation_id: String,
    /// The event that led to these; none if they begin the story.
    pub causation_id: Option<String>,
    /// Who asked, as `role:subject`.
    pub actor: Option<String>,
    /// W3C trace context of the operation.
    pub traceparent: Option<String>,
    /// When, by the caller's clock.
    pub time: OffsetDateTime,
}

/// Where an aggregate's events are expected to end: the condition under which more are appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its version: how many events it has.
    pub version: u64,
    /// The position of its last event; 0 if it has none.
    pub position: u64,
}

impl Expected {
    /// An aggregate that has no events yet.
    pub const NEW: Self = Self { version: 0, position: 0 };
}

/// Events of one or more aggregates that are appended all or none.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub(crate) events: Vec<PreparedEvent>,
}

/// One message, ready to be published.
#[derive(Clone, Debug)]
pub(crate) struct PreparedEvent {
    pub(crate) subject: String,
    pub(crate) event_id: Uuid,
    /// The subject's expected last position; set on the first event of each subject, as JetStream asks of a batch.
    pub(crate) expected: Option<u64>,
    pub(crate) payload: Bytes,
}

impl Transaction {
    /// A transaction without events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `events` to the end of aggregate `id`, on condition that it ends where `expected` says.
    ///
    /// Each aggregate may be added once; a second time its condition could not hold, and the transaction is refused
    /// with [`AppendError::Invalid`](crate::AppendError::Invalid) when it is appended.
    pub fn push<A>(&mut self, id: &str, expected: Expected, events: &[A::Event], context: &EventContext)
    where
        A: Aggregate,
        A::Event: EventPayload,
    {
        let subject = wire::subject(A::TYPE, id);
        for (event, version) in events.iter().zip(expected.version + 1..) {
            let is_first = version == expected.version + 1;
            let event_id = context.event_id.filter(|_| is_first).unwrap_or_else(new_event_id);
            let stored = StoredEvent {
                metadata: Metadata {
                    event_id,
                    event_type: EventPayload::event_type(event).to_owned(),
                    source: context.source.to_owned(),
                    aggregate_id: id.to_owned(),
                    time: context.time,
                    aggregate_type: A::TYPE.to_owned(),
                    version,
                    correlation_id: context.correlation_id.clone(),
                    causation_id: context.causation_id.clone(),
                    actor: context.actor.clone(),
                    traceparent: context.traceparent.clone(),
                },
                data: event.to_data(),
            };
            self.events.push(PreparedEvent {
                subject: subject.clone(),
                event_id,
                expected: is_first.then_some(expected.position),
                payload: stored.to_json().into(),
            });
        }
    }

    /// Adds what `other` has after what this has.
    pub fn extend(&mut self, other: Self) {
        self.events.extend(other.events);
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has no events; appending it then does nothing.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge where an event that nobody named gets its id")]
fn new_event_id() -> Uuid {
    Uuid::now_v7()
}
