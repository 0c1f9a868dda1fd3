//! `contrail.audit`, by position, and the histories of orders in it.

use std::collections::HashMap;

use async_graphql::dataloader::Loader;
use domain::envelope::StoredEvent;
use domain::order::OrderEvent;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::keyset::{Conditions, Sql, Table};
use crate::database::Database;
use crate::error::QueryError;
use crate::paging::{Direction, Key};

/// One event of the log.
#[derive(Clone, Debug, FromRow)]
pub struct AuditRow {
    /// Its place in the log.
    pub position: i64,
    /// Its id.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Which kind of aggregate.
    pub aggregate_type: String,
    /// Which aggregate.
    pub aggregate_id: String,
    /// The aggregate's version after it.
    pub version: i64,
    /// When it was appended.
    pub time: OffsetDateTime,
    /// Who asked.
    pub actor: Option<String>,
    /// The story that it belongs to.
    pub correlation_id: String,
    /// The event that led to it.
    pub causation_id: Option<String>,
    /// The trace of the operation that appended it.
    pub trace_id: Option<String>,
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// Its leaf of the audit tree.
    pub leaf_hash: Vec<u8>,
}

/// The position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuditKey(pub i64);

impl Key for AuditKey {
    const KIND: &'static str = "audit";

    fn to_text(&self) -> String {
        self.0.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl Table for AuditRow {
    type Key = AuditKey;

    const NAME: &'static str = "contrail.audit";
    const COLUMNS: &'static str = "position, event_id, event_type, aggregate_type, aggregate_id, version, time, actor, \
                                   correlation_id, causation_id, trace_id, bytes, leaf_hash";
    const FORWARDS: &'static str = "position";
    const BACKWARDS: &'static str = "position DESC";

    fn key(&self) -> AuditKey {
        AuditKey(self.position)
    }

    fn push_beyond(sql: &mut Sql, key: &AuditKey, direction: Direction, or_at: bool) {
        sql.push("position").push(direction.comparison(or_at)).push_bind(key.0);
    }
}

/// Which events. What is `None` excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditConditions {
    /// Of this kind of aggregate.
    pub aggregate_type: Option<String>,
    /// Of the aggregate of this id.
    pub aggregate_id: Option<String>,
    /// Of this type.
    pub event_type: Option<String>,
    /// Of this story.
    pub correlation_id: Option<String>,
    /// Asked for by this actor.
    pub actor: Option<String>,
    /// At this position or later.
    pub from_position: Option<i64>,
    /// At this position or earlier.
    pub to_position: Option<i64>,
    /// Appended then or later.
    pub time_after: Option<OffsetDateTime>,
    /// Appended earlier than this.
    pub time_before: Option<OffsetDateTime>,
}

impl Conditions for AuditConditions {
    fn push(&self, sql: &mut Sql) {
        let texts = [
            (" AND aggregate_type = ", &self.aggregate_type),
            (" AND aggregate_id = ", &self.aggregate_id),
            (" AND event_type = ", &self.event_type),
            (" AND correlation_id = ", &self.correlation_id),
            (" AND actor = ", &self.actor),
        ];
        for (condition, text) in texts {
            if let Some(text) = text {
                sql.push(condition).push_bind(text.clone());
            }
        }
        for (condition, position) in [(" AND position >= ", self.from_position), (" AND position <= ", self.to_position)] {
            if let Some(position) = position {
                sql.push(condition).push_bind(position);
            }
        }
        for (condition, time) in [(" AND time >= ", self.time_after), (" AND time < ", self.time_before)] {
            if let Some(time) = time {
                sql.push(condition).push_bind(time);
            }
        }
    }
}

/// Whether an order's history has it: an event of an order or of its payment.
pub fn is_of_history(event: &AuditRow) -> bool {
    matches!(event.aggregate_type.as_str(), "order" | "payment")
}

/// Whose order it is, as the event says that placed it; `None` of any other event.
pub fn customer_of(event: &AuditRow) -> Option<String> {
    let stored = StoredEvent::from_json(&event.bytes).ok()?;
    match stored.decode().ok()? {
        OrderEvent::Placed(placed) => Some(placed.customer.id.to_string()),
        _ => None,
    }
}

/// The first events of an order and its payment after a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HistoryOf {
    /// Which order.
    pub order_id: String,
    /// Only events after this position.
    pub after: i64,
    /// Only events up to this position.
    pub up_to: i64,
    /// How many at most.
    pub rows: i64,
}

/// Loads the histories of many orders with one statement, however many orders a page has.
#[derive(Clone, Debug)]
pub struct Histories {
    /// Where from.
    pub database: Database,
}

impl Loader<HistoryOf> for Histories {
    type Value = Vec<AuditRow>;
    type Error = QueryError;

    async fn load(&self, wanted: &[HistoryOf]) -> Result<HashMap<HistoryOf, Vec<AuditRow>>, QueryError> {
        let mut histories: HashMap<_, _> = wanted.iter().map(|wanted| (wanted.clone(), Vec::new())).collect();
        // Orders of one page ask for the same part of their histories, so this is one statement as a rule.
        let mut by_part: HashMap<(i64, i64, i64), Vec<&str>> = HashMap::new();
        for wanted in wanted {
            by_part.entry((wanted.after, wanted.up_to, wanted.rows)).or_default().push(&wanted.order_id);
        }
        for ((after, up_to, rows), order_ids) in by_part {
            let sql = format!(
                "SELECT event.* FROM unnest($1::text[]) AS wanted (order_id) CROSS JOIN LATERAL (
                     SELECT {} FROM contrail.audit
                     WHERE aggregate_type IN ('order', 'payment') AND aggregate_id = wanted.order_id
                         AND position > $2 AND position <= $3
                     ORDER BY position LIMIT $4
                 ) AS event ORDER BY event.position",
                AuditRow::COLUMNS
            );
            let (sql, order_ids) = (&sql, &order_ids);
            let read =
                |pool| async move { sqlx::query_as(sql).bind(order_ids).bind(after).bind(up_to).bind(rows).fetch_all(&pool).await };
            let events: Vec<AuditRow> = self.database.read(read).await?;
            for event in events {
                let wanted = HistoryOf { order_id: event.aggregate_id.clone(), after, up_to, rows };
                histories.entry(wanted).or_default().push(event);
            }
        }
        Ok(histories)
    }
}
