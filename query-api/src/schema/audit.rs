//! The audit trail: every event of the log.

use std::fmt::Write as _;

use async_graphql::{Context, ID, InputObject, Json, Object};
use auth::Action;
use domain::envelope::StoredEvent;
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use super::node;
use super::query::caller;
use super::scalars::{Position, int};
use crate::error::{QueryError, in_utc};
use crate::reads::{AuditConditions, AuditRow};

/// One event of the log, as it is stored.
pub(super) struct AuditEvent(AuditRow);

impl From<AuditRow> for AuditEvent {
    fn from(row: AuditRow) -> Self {
        Self(row)
    }
}

/// One event of the log, as it is stored.
#[Object]
impl AuditEvent {
    /// The object's id among all objects. Opaque: hand it back as it is.
    pub(super) async fn id(&self) -> ID {
        node::audit_event_id(self.0.position)
    }

    /// Its place in the log, and its leaf of the audit tree: 1 for the first event.
    async fn position(&self) -> Position {
        Position::from_bigint(self.0.position)
    }

    /// Its own id, a UUID.
    async fn event_id(&self) -> ID {
        ID::from(self.0.event_id)
    }

    /// Its type, for example contrail.order.placed.v1.
    #[graphql(name = "type")]
    async fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// Which kind of aggregate it happened to: order, stock, payment or notification.
    async fn aggregate_type(&self) -> &str {
        &self.0.aggregate_type
    }

    /// Which aggregate it happened to: the order id, also of a payment; the SKU; the notification id.
    async fn aggregate_id(&self) -> &str {
        &self.0.aggregate_id
    }

    /// The aggregate's version after it: 1, 2, 3, …
    async fn version(&self) -> i32 {
        int(self.0.version)
    }

    /// When it was appended.
    async fn time(&self) -> OffsetDateTime {
        self.0.time
    }

    /// Who asked for it, as role:subject; null if nobody but the system did.
    async fn actor(&self) -> Option<&str> {
        self.0.actor.as_deref()
    }

    /// The story that it belongs to.
    async fn correlation_id(&self) -> Option<&str> {
        Some(&self.0.correlation_id)
    }

    /// The event that led to it; null if it began the story.
    async fn causation_id(&self) -> Option<&str> {
        self.0.causation_id.as_deref()
    }

    /// The W3C trace of the operation that appended it.
    async fn trace_id(&self) -> Option<&str> {
        self.0.trace_id.as_deref()
    }

    /// What happened, in the shape in which it was stored. Of a message that is no event, all its text.
    ///
    /// Not for operators.
    #[expect(clippy::unused_async, reason = "the Object macro wants every resolver to be asynchronous")]
    async fn data(&self, ctx: &Context<'_>) -> Result<Json<Box<RawValue>>, QueryError> {
        // An event is only here if it may be seen at all, so whose it is needs no second look.
        caller(ctx)?.whose(Action::ReadPayloads)?;
        let data = match StoredEvent::from_json(&self.0.bytes) {
            Ok(event) => event.data,
            Err(_) => to_raw_value(&String::from_utf8_lossy(&self.0.bytes)).map_err(QueryError::internal)?,
        };
        Ok(Json(data))
    }

    /// Its leaf hash in the audit tree, SHA-256(0x00 ‖ stored bytes) as in RFC 6962, in lower-case hex.
    async fn leaf_hash(&self) -> String {
        self.0.leaf_hash.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes everything");
            hex
        })
    }
}

/// Which events. A field that is left out excludes nothing; all that are given must hold.
#[derive(InputObject)]
pub(super) struct AuditFilter {
    /// Of this kind of aggregate: order, stock, payment or notification.
    aggregate_type: Option<String>,
    /// Of the aggregate of this id. Together with aggregateType this is fast on a log of any size.
    aggregate_id: Option<String>,
    /// Of this type, for example contrail.order.placed.v1.
    event_type: Option<String>,
    /// Of this story.
    correlation_id: Option<String>,
    /// Asked for by this actor, as role:subject.
    actor: Option<String>,
    /// At this position or later.
    from_position: Option<Position>,
    /// At this position or earlier.
    to_position: Option<Position>,
    /// Appended at this time or later.
    time_after: Option<OffsetDateTime>,
    /// Appended earlier than this.
    time_before: Option<OffsetDateTime>,
}

impl TryFrom<AuditFilter> for AuditConditions {
    type Error = QueryError;

    fn try_from(filter: AuditFilter) -> Result<Self, QueryError> {
        Ok(Self {
            aggregate_type: filter.aggregate_type,
            aggregate_id: filter.aggregate_id,
            event_type: filter.event_type,
            correlation_id: filter.correlation_id,
            actor: filter.actor,
            from_position: filter.from_position.map(Position::to_bigint),
            to_position: filter.to_position.map(Position::to_bigint),
            time_after: filter.time_after.map(in_utc).transpose()?,
            time_before: filter.time_before.map(in_utc).transpose()?,
        })
    }
}
