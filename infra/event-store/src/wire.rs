//! Names and numbers that JetStream and we agree on.

use async_nats::{HeaderMap, header, header::HeaderName};
use uuid::Uuid;

const CONTENT_TYPE: HeaderName = HeaderName::from_static("Content-Type");

/// The one log.
pub const STREAM: &str = "EVENTS";
/// Scheduled messages; apart from the log because schedules and `discard: new` exclude each other.
pub const TIMER_STREAM: &str = "TIMERS";
/// What reactors gave up on.
pub const DEAD_LETTER_STREAM: &str = "DEAD_LETTERS";
/// Those of them that somebody has decided to leave at that.
pub const DISCARDED_LETTER_STREAM: &str = "DISCARDED_LETTERS";
/// The KV bucket of aggregate snapshots, disposable.
pub const SNAPSHOT_BUCKET: &str = "SNAPSHOTS";

/// The key in the metadata of a stream that is being restored, until all of it is there.
pub(crate) const RESTORING: &str = "contrail-restoring";

/// Most events of one transaction: JetStream's limit of an atomic batch.
pub const TRANSACTION_EVENTS_MAX: usize = 1_000;

/// Subjects of every event.
pub(crate) const EVENT_SUBJECTS: &str = "events.>";
/// Subjects of every timer.
pub(crate) const TIMER_SUBJECTS: &str = "timers.>";
/// Where the timers that are set for `purpose` are put when they are due, but for the aggregate's id.
pub(crate) fn due_timers(purpose: &str) -> String {
    format!("timers.due.{purpose}")
}

/// Whether a message with this subject is a timer.
pub(crate) fn is_timer(subject: &str) -> bool {
    subject.starts_with("timers.")
}

/// The header of a timer that tells its event's place in the log.
pub(crate) const POSITION: &str = "Contrail-Position";

/// Subjects of every dead letter.
pub(crate) const DEAD_LETTER_SUBJECTS: &str = "dead-letters.>";
/// Subjects of every discarded dead letter.
pub(crate) const DISCARDED_LETTER_SUBJECTS: &str = "discarded-letters.>";

/// An expectation on the subject's last sequence was not met.
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The same while another message on the subject is in flight (clustered, or a second expectation in a batch).
pub(crate) const WRONG_LAST_SEQUENCE_IN_FLIGHT: u64 = 10_164;
/// The leader has proposed a message with this id, and it is not decided yet what becomes of it.
pub(crate) const DUPLICATE_IN_PROCESS: u64 = 10_158;
/// The server has no room for more: it looks at that before anything else, so that nothing was stored.
pub(crate) const NO_RESOURCES: u64 = 10_023;
/// A batch holds a message id that was seen before.
pub(crate) const BATCH_DUPLICATE_ID: u64 = 10_201;

/// The server did not see every message of a batch.
pub(crate) const BATCH_INCOMPLETE: u64 = 10_176;
/// More batches are in flight than the server takes.
pub(crate) const BATCHES_TOO_MANY: u64 = 10_210;

/// The subject's last sequence in the server's description of [`WRONG_LAST_SEQUENCE`]; none if there is no message on it, or if the server
/// words it otherwise.
pub(crate) fn last_sequence(description: &str) -> Option<u64> {
    description.strip_prefix("wrong last sequence: ")?.parse().ok().filter(|sequence| *sequence > 0)
}

/// Type and id of the aggregate whose subject this is.
pub(crate) fn aggregate(subject: &str) -> Option<(&str, &str)> {
    subject.strip_prefix("events.")?.split_once('.')
}

/// The one subject of an aggregate's events.
pub(crate) fn subject(aggregate_type: &str, aggregate_id: &str) -> String {
    ["events", aggregate_type, aggregate_id].join(".")
}

/// Whether `id` can be a subject token, so that it neither splits the subject nor acts as a wildcard.
pub(crate) fn is_token(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() & !matches!(byte, b'.' | b'*' | b'>');
    // To the end in any case, so that many bytes are looked at in one instruction.
    !id.is_empty() & id.bytes().fold(true, |so_far, byte| so_far & is_allowed(byte))
}

/// The headers that every event carries. None names the stream: no other can have the subjects, and the server looks through
/// an event's headers a dozen times.
pub(crate) fn event_headers(event_id: Uuid) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, event_id.to_string());
    headers.insert(CONTENT_TYPE, domain::envelope::CONTENT_TYPE);
    headers
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_refusal_tells_where_the_subject_ends() {
        assert_eq!(last_sequence("wrong last sequence: 277899"), Some(277_899));
        for other in ["wrong last sequence: 0", "wrong last sequence", "wrong last sequence: ", "277899", ""] {
            assert_eq!(last_sequence(other), None, "{other:?}");
        }
        assert_eq!(aggregate(&subject("stock", "TEA-1")), Some(("stock", "TEA-1")));
    }

    /// `infra/catalogue` writes that document without this crate, to be built without everything that this one needs.
    #[test]
    fn the_catalogue_says_where_the_events_are() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events/asyncapi.json");
        let document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        for (aggregate_type, channel) in document["channels"].as_object().unwrap() {
            let id = channel["parameters"].as_object().unwrap().keys().next().unwrap();
            assert_eq!(channel["address"], subject(aggregate_type, &format!("{{{id}}}")));
        }
        assert!(document["info"]["description"].as_str().unwrap().contains(&format!("the JetStream stream `{STREAM}`")));
        let headers = document["components"]["messageTraits"]["stored"]["headers"]["properties"].as_object().unwrap();
        let written = event_headers(Uuid::nil());
        assert_eq!((headers.len(), headers.keys().all(|name| written.get(name.as_str()).is_some())), (written.len(), true));
    }
}
