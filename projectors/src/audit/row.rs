//! One event of the trail, with what the table and the exports repeat of it.

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::merkle::leaf_hash;
use crate::read_models::attributes;

/// One event.
#[derive(Clone, Debug)]
pub(super) struct TrailRow {
    pub(super) position: u64,
    pub(super) leaf_hash: Bytes,
    /// Empty if only leaves were asked for.
    pub(super) bytes: Bytes,
    /// None if not all columns were asked for.
    pub(super) attributes: Option<Attributes>,
}

impl TrailRow {
    /// The first column, by its name in exports, that is not what the event's bytes say.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        if *self.leaf_hash == leaf_hash(&self.bytes) { self.contradicting_attribute() } else { Some("leaf") }
    }

    /// As [`contradiction`](Self::contradiction), of a row whose leaf is known to be right.
    pub(super) fn contradicting_attribute(&self) -> Option<&'static str> {
        let found = self.attributes.as_ref()?;
        let (right, version) = attributes(&self.bytes);
        let columns = [
            ("event_id", found.event_id == right.event_id),
            ("type", *found.event_type == *right.event_type),
            ("aggregate_type", *found.aggregate_type == *right.aggregate_type),
            ("aggregate_id", *found.aggregate_id == *right.aggregate_id),
            ("version", found.version == version),
            ("time", found.time == to_the_microsecond(right.time)),
            ("actor", found.actor.as_deref() == right.actor.as_deref()),
            ("correlation_id", *found.correlation_id == *right.correlation_id),
            ("causation_id", found.causation_id.as_deref() == right.causation_id.as_deref()),
            ("trace_id", found.trace_id.as_deref() == right.trace_id()),
        ];
        columns.into_iter().find(|(_, is_right)| !is_right).map(|(column, _)| column)
    }
}

/// What the table repeats of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) event_id: Uuid,
    pub(super) event_type: String,
    pub(super) aggregate_type: String,
    pub(super) aggregate_id: String,
    pub(super) version: i64,
    /// To the microsecond.
    pub(super) time: OffsetDateTime,
    pub(super) actor: Option<String>,
    pub(super) correlation_id: String,
    pub(super) causation_id: Option<String>,
    pub(super) trace_id: Option<String>,
}

impl Attributes {
    /// What is repeated of an event that is stored as `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (metadata, version) = attributes(bytes);
        let trace_id = metadata.trace_id().map(str::to_owned);
        let time = to_the_microsecond(metadata.time);
        Self {
            event_id: metadata.event_id,
            event_type: metadata.event_type.into_owned(),
            aggregate_type: metadata.aggregate_type.into_owned(),
            aggregate_id: metadata.aggregate_id.into_owned(),
            version,
            time,
            actor: metadata.actor.map(Into::into),
            correlation_id: metadata.correlation_id.into_owned(),
            causation_id: metadata.causation_id.map(Into::into),
            trace_id,
        }
    }
}

/// A time as the table has it.
fn to_the_microsecond(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_microsecond(time.microsecond()).unwrap_or(time)
}
