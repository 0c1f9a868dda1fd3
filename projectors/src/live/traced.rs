//! What a projection tells the traces of the events that it has applied.

use std::time::Duration;

use event_store::{LogMessage, STREAM};
use memchr::memmem;
use telemetry::trace::{self, Kind, Span, TraceContext};

/// How a `traceparent` stands among the attributes of an event: nothing within a text can look like this, and the attributes come before
/// the data.
const ATTRIBUTE: &[u8] = br#""traceparent":""#;
/// How long its value is.
const VALUE_BYTES: usize = 55;

/// Records that `messages` were applied together by `projection` in the last `duration`: for each of their traces, and for the batch.
pub(super) fn applied(projection: &'static str, messages: &[LogMessage], duration: Duration) {
    if !trace::is_on() {
        return;
    }
    let contexts = || messages.iter().filter_map(|message| Some((message.position, context_of(&message.bytes)?)));
    let batch = Span::of_many(Kind::Internal, "apply batch", contexts().map(|(_, context)| context))
        .for_the_last(duration)
        .with("contrail.projection", projection)
        .with("messaging.batch.message_count", i64::try_from(messages.len()).unwrap_or(i64::MAX));
    drop(batch);
    for (position, context) in contexts() {
        let span = Span::after(Kind::Consumer, "process EVENTS", Some(context))
            .for_the_last(duration)
            .with("messaging.system", "nats")
            .with("messaging.destination.name", STREAM)
            .with("messaging.operation.type", "process")
            .with("messaging.consumer.group.name", projection)
            .with_display("contrail.event.position", position);
        drop(span);
    }
}

/// The context that an event carries, found without reading the rest of it.
fn context_of(bytes: &[u8]) -> Option<TraceContext> {
    let value_at = memmem::find(bytes, ATTRIBUTE)? + ATTRIBUTE.len();
    TraceContext::parse(std::str::from_utf8(bytes.get(value_at..value_at + VALUE_BYTES)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_context_is_found_among_its_attributes() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = format!(r#"{{"id":"x","actor":"\"traceparent\":\"no","traceparent":"{traceparent}","data":{{}}}}"#);
        assert_eq!(context_of(event.as_bytes()), TraceContext::parse(traceparent));
        assert_eq!(context_of(br#"{"traceparent":"00-4bf9"}"#), None);
        assert_eq!(context_of(b"{}"), None);
    }
}
