//! What a reactor appends belongs to the story of the event that it reacts to.

use domain::envelope::Metadata;
use event_store::{EventContext, STREAM};
use telemetry::trace::{self, Span, TraceContext};
use time::OffsetDateTime;

/// The context of what `reactor` appends at `time` because of the event `cause`, and the span of appending it, which is to be kept until
/// that has come to an end.
pub(crate) fn caused_by(cause: &Metadata, reactor: &Identity, time: OffsetDateTime) -> (EventContext, Span) {
    caused_within(trace::current(), cause, reactor, time)
}

/// The same, as part of the operation with the context `operation`.
pub(crate) fn caused_within(
    operation: Option<TraceContext>,
    cause: &Metadata,
    reactor: &Identity,
    time: OffsetDateTime,
) -> (EventContext, Span) {
    let sending = Span::send(STREAM, operation);
    let context = EventContext {
        source: reactor.source,
        event_id: None,
        correlation_id: cause.correlation_id.clone(),
        causation_id: Some(cause.event_id.to_string()),
        actor: Some(reactor.actor.to_owned()),
        traceparent: sending.traceparent().or_else(|| cause.traceparent.clone()),
        time,
    };
    (context, sending)
}

/// How a reactor signs what it appends.
#[derive(Debug)]
pub(crate) struct Identity {
    /// CloudEvents `source`.
    pub(crate) source: &'static str,
    /// The `actor`.
    pub(crate) actor: &'static str,
}
