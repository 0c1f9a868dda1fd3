//! What a reactor appends belongs to the story of the event that it reacts to.

use domain::envelope::Metadata;
use event_store::EventContext;
use time::OffsetDateTime;

/// The context of what `reactor` appends at `time` because of the event `cause`.
pub(crate) fn caused_by(cause: &Metadata, reactor: &Identity, time: OffsetDateTime) -> EventContext {
    EventContext {
        source: reactor.source,
        event_id: None,
        correlation_id: cause.correlation_id.clone(),
        causation_id: Some(cause.event_id.to_string()),
        actor: Some(reactor.actor.to_owned()),
        traceparent: cause.traceparent.clone(),
        time,
    }
}

/// How a reactor signs what it appends.
#[derive(Debug)]
pub(crate) struct Identity {
    /// CloudEvents `source`.
    pub(crate) source: &'static str,
    /// The `actor`.
    pub(crate) actor: &'static str,
}
