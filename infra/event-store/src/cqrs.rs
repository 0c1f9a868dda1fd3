//! [`cqrs_es::EventStore`] on the log, so that an aggregate also works with [`cqrs_es::CqrsFramework`].

use std::collections::HashMap;

use cqrs_es::{Aggregate, AggregateContext, AggregateError, EventEnvelope, EventStore};
use domain::{EventPayload, SnapshotState, envelope::Metadata};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{AppendError, EventContext, Expected, JetStreamEventStore, LoadError, Loaded, RecordedEvent, Transaction};

/// The keys of [`EventEnvelope::metadata`]: given to `execute_with_metadata`, they become CloudEvents attributes; all
/// of them are there on events that were loaded.
pub const METADATA_KEYS: [&str; 6] = ["correlation_id", "causation_id", "actor", "traceparent", "position", "time"];

/// An aggregate between its load and its commit.
#[derive(Debug)]
pub struct JetStreamContext<A> {
    id: String,
    aggregate: A,
    expected: Expected,
}

impl<A: Aggregate> AggregateContext<A> for JetStreamContext<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

impl<A: SnapshotState> EventStore<A> for JetStreamEventStore {
    type AC = JetStreamContext<A>;

    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let recorded = self.events_of(A::TYPE, aggregate_id).await.map_err(load_error)?;
        recorded.into_iter().map(envelope).collect()
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Self::AC, AggregateError<A::Error>> {
        let loaded: Loaded<A> = self.load(aggregate_id).await.map_err(load_error)?;
        let expected = loaded.expected();
        Ok(JetStreamContext { id: aggregate_id.to_owned(), aggregate: loaded.aggregate, expected })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Self::AC,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let event_context = event_context(&metadata);
        let mut transaction = Transaction::new();
        transaction.push::<A>(&context.id, context.expected, &events, &event_context);
        self.append(transaction).await.map_err(|error| match error {
            AppendError::Conflict { .. } => AggregateError::AggregateConflict,
            AppendError::Unavailable | AppendError::Overloaded => AggregateError::DatabaseConnectionError(Box::new(error)),
            AppendError::Invalid(_) | AppendError::Refused { .. } => AggregateError::UnexpectedError(Box::new(error)),
        })?;
        let first_version = usize::try_from(context.expected.version).unwrap_or(usize::MAX).saturating_add(1);
        Ok(events
            .into_iter()
            .zip(first_version..)
            .map(|(payload, sequence)| EventEnvelope {
                aggregate_id: context.id.clone(),
                sequence,
                payload,
                metadata: metadata.clone(),
            })
            .collect())
    }
}

fn envelope<A>(recorded: RecordedEvent) -> Result<EventEnvelope<A>, AggregateError<A::Error>>
where
    A: Aggregate,
    A::Event: EventPayload,
{
    let RecordedEvent { position, event } = recorded;
    let payload = event.decode().map_err(|error| AggregateError::DeserializationError(Box::new(error)))?;
    let Metadata { aggregate_id, version, correlation_id, causation_id, actor, traceparent, time, .. } = event.metadata;
    let values = [
        Some(correlation_id),
        causation_id,
        actor,
        traceparent,
        Some(position.to_string()),
        time.format(&time::format_description::well_known::Rfc3339).ok(),
    ];
    let metadata = METADATA_KEYS.iter().zip(values).filter_map(|(key, value)| Some(((*key).to_owned(), value?)));
    let sequence = usize::try_from(version).unwrap_or(usize::MAX);
    Ok(EventEnvelope { aggregate_id, sequence, payload, metadata: metadata.collect() })
}

#[expect(clippy::disallowed_methods, reason = "the edge: cqrs-es has no place for a time or a fresh correlation id")]
fn event_context(metadata: &HashMap<String, String>) -> EventContext {
    EventContext {
        source: "/contrail/cqrs-es",
        event_id: None,
        correlation_id: metadata.get("correlation_id").cloned().unwrap_or_else(|| Uuid::now_v7().to_string()),
        causation_id: metadata.get("causation_id").cloned(),
        actor: metadata.get("actor").cloned(),
        traceparent: metadata.get("traceparent").cloned(),
        time: OffsetDateTime::now_utc(),
    }
}

fn load_error<E: std::error::Error>(error: LoadError) -> AggregateError<E> {
    match error {
        LoadError::Read(_) => AggregateError::DatabaseConnectionError(Box::new(error)),
        LoadError::Decode { .. } => AggregateError::DeserializationError(Box::new(error)),
        LoadError::InvalidId(_) | LoadError::Version { .. } => AggregateError::UnexpectedError(Box::new(error)),
    }
}
