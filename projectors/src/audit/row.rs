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
        if *self.leaf_hash != leaf_hash(&self.bytes) {
            return Some("leaf");
        }
        let (found, right) = (self.attributes.as_ref()?, Attributes::of(&self.bytes));
        let columns = [
            ("event_id", found.event_id == right.event_id),
            ("type", found.event_type == right.event_type),
            ("aggregate_type", found.aggregate_type == right.aggregate_type),
            ("aggregate_id", found.aggregate_id == right.aggregate_id),
            ("version", found.version == right.version),
            ("time", found.time == right.time),
            ("actor", found.actor == right.actor),
            ("correlation_id", found.correlation_id == right.correlation_id),
            ("causation_id", found.causation_id == right.causation_id),
            ("trace_id", found.trace_id == right.trace_id),
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
        let time = metadata.time;
        Self {
            event_id: metadata.event_id,
            event_type: metadata.event_type.into_owned(),
            aggregate_type: metadata.aggregate_type.into_owned(),
            aggregate_id: metadata.aggregate_id.into_owned(),
            version,
            time: time.replace_microsecond(time.microsecond()).unwrap_or(time),
            actor: metadata.actor.map(Into::into),
            correlation_id: metadata.correlation_id.into_owned(),
            causation_id: metadata.causation_id.map(Into::into),
            trace_id,
        }
    }
}
