//! What is appended in one piece.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::Subject;
use bytes::Bytes;
use cqrs_es::Aggregate;
use domain::{EventPayload, envelope::Metadata};
use telemetry::trace::{self, TraceContext};
use time::OffsetDateTime;
use uuid::{Builder, Uuid};

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
    pub(crate) subject: Subject,
    /// Stands for the subject where a collision costs time only.
    pub(crate) subject_hash: u64,
    pub(crate) event_id: Uuid,
    /// The subject's expected last position; set on the first event of each subject, as JetStream asks of a batch.
    pub(crate) expected: Option<u64>,
    pub(crate) payload: Bytes,
    /// The trace that it belongs to, on the first event of each aggregate, if that is recorded.
    pub(crate) trace: Option<TraceContext>,
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
        let subject = Subject::from(wire::subject(A::TYPE, id));
        let subject_hash = hash_of(&subject);
        let trace = context.traceparent.as_deref().filter(|_| trace::is_on()).and_then(TraceContext::parse);
        for (event, version) in events.iter().zip(expected.version + 1..) {
            let is_first = version == expected.version + 1;
            let event_id = context.event_id.filter(|_| is_first).unwrap_or_else(new_id);
            let metadata = Metadata {
                event_id,
                event_type: EventPayload::event_type(event),
                source: context.source,
                aggregate_id: id,
                time: context.time,
                aggregate_type: A::TYPE,
                version,
                correlation_id: &context.correlation_id,
                causation_id: context.causation_id.as_deref(),
                actor: context.actor.as_deref(),
                traceparent: context.traceparent.as_deref(),
            };
            self.events.push(PreparedEvent {
                subject: subject.clone(),
                subject_hash,
                event_id,
                expected: is_first.then_some(expected.position),
                payload: metadata.to_json_with(event).into(),
                trace: trace.filter(|_| is_first),
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

/// What a subject is known by in the appender.
pub(crate) fn hash_of(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish()
}

/// A UUID v7 for what nobody named.
///
/// Its random bits are drawn from the system once for each process and then spread by a counter (Steele's SplitMix64): a
/// system call for each event would be a twentieth of what appending it costs.
#[expect(clippy::disallowed_methods, reason = "the edge where an event that nobody named gets its id")]
pub(crate) fn new_id() -> Uuid {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static SEEDS: LazyLock<[u64; 2]> = LazyLock::new(|| [Uuid::now_v7(), Uuid::now_v7()].map(|id| id.as_u64_pair().1));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let [low, high] = SEEDS.map(|seed| spread(seed, number).to_be_bytes());
    let random = [low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7], high[0], high[1]];
    Builder::from_unix_timestamp_millis(u64::try_from(since_1970.as_millis()).unwrap_or(0), &random).into_uuid()
}

/// The output of the generator that began with `seed`, after `number` others.
fn spread(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn new_ids_are_of_version_7_and_all_different() {
        let ids: HashSet<_> = (0..100_000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 100_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
    }
}
