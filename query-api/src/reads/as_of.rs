//! An order as it was: its events up to a place in the log, folded like the read model folds them.

use cqrs_es::{Aggregate as _, View as _};
use domain::DecodeError;
use domain::envelope::StoredEvent;
use domain::notification::Notification;
use domain::order::Order;
use domain::payment::Payment;
use read_store::views::{OrderView, envelope};
use time::OffsetDateTime;

use super::{AuditRow, order};
use crate::database::Database;
use crate::error::QueryError;

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Right after the event at this position.
    Position(i64),
    /// After the last event of the order that was appended at this time or earlier.
    Time(OffsetDateTime),
}

/// Most events of one order. The state machine of orders allows some dozens, so this is only ever met by a fault.
const ORDER_EVENTS_MAX: i64 = 10_000;

/// The events of one of the aggregates $1. One aggregate at a time, because then only the index of aggregates and positions will do; a
/// condition on all of them at once is also met, in a plan made while the table was small, by reading the whole trail in its order.
const OF_EACH: &str = "FROM unnest($1::text[]) AS wanted (aggregate_id) CROSS JOIN LATERAL (
                           SELECT * FROM contrail.audit
                           WHERE aggregate_id = wanted.aggregate_id AND aggregate_type IN ('order', 'payment', 'notification')";

/// Holds of an event that the read model of orders has not been made to go past. What is to be what it was, or will be, goes past the same.
const IS_NOT_SKIPPED: &str =
    "NOT EXISTS (SELECT FROM contrail.skips AS skip WHERE skip.projection = 'orders' AND skip.position = audit.position)";

/// Which events are about an order: its own, its payment's, and those of its notifications.
#[derive(Clone, Debug)]
pub struct EventsOf {
    /// The order's, which is also its payment's, and its notifications'.
    aggregate_ids: Vec<String>,
}

impl EventsOf {
    /// Of that order and its payment, not of its notifications. Needs no read model of orders.
    pub fn history(order_id: String) -> Self {
        Self { aggregate_ids: vec![order_id] }
    }

    /// Of that order, and the position of the last of them that the read model has, 0 if it has none. The events of notifications do not name
    /// their order where one could search for it; the read model does.
    pub async fn order(database: &Database, order_id: &str) -> Result<(Self, u64), QueryError> {
        let now = order(database, order_id).await?.map(|now| now.view).unwrap_or_default();
        let notification_ids = now.notifications.into_iter().map(|notification| notification.id);
        Ok((Self { aggregate_ids: [order_id.to_owned()].into_iter().chain(notification_ids).collect() }, now.position))
    }
}

/// The order as it was at that moment, by the audit trail, and up to which position that is; `None` if it was not yet placed.
pub async fn order_as_of(database: &Database, order_id: &str, moment: Moment) -> Result<Option<(OrderView, i64)>, QueryError> {
    let (events, _) = EventsOf::order(database, order_id).await?;
    let up_to = match moment {
        Moment::Position(position) => position,
        Moment::Time(time) => {
            // A state that was, even if the clocks of two writers differ: everything up to the last event of that time.
            let sql = format!(
                "SELECT coalesce(max(event.position), 0) {OF_EACH} AND time <= $2 ORDER BY position DESC LIMIT 1) AS event"
            );
            let (sql, ids) = (&sql, &events.aggregate_ids);
            database.read(|pool| async move { sqlx::query_scalar(sql).bind(ids).bind(time).fetch_one(&pool).await }).await?
        }
    };
    let mut view = OrderView::default();
    for event in &events_of(database, &events, Skipped::LeftOut, 0, up_to).await? {
        fold(&mut view, event).map_err(QueryError::internal)?;
    }
    Ok((view.version > 0).then_some((view, up_to)))
}

/// Whether those events are among the ones asked for that the read model of orders goes past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// They are: the trail has them.
    Included,
    /// They are not: the read model is not made of them.
    LeftOut,
}

/// These events, after a position and up to another, by position.
pub async fn events_of(
    database: &Database,
    events: &EventsOf,
    skipped: Skipped,
    after: i64,
    up_to: i64,
) -> Result<Vec<AuditRow>, QueryError> {
    let which = match skipped {
        Skipped::Included => "true",
        Skipped::LeftOut => IS_NOT_SKIPPED,
    };
    let sql = format!(
        "SELECT event.* {OF_EACH} AND position > $2 AND position <= $3 AND {which} ORDER BY position LIMIT {ORDER_EVENTS_MAX}) AS event
         ORDER BY event.position LIMIT {ORDER_EVENTS_MAX}"
    );
    let (sql, ids) = (&sql, &events.aggregate_ids);
    database.read(|pool| async move { sqlx::query_as(sql).bind(ids).bind(after).bind(up_to).fetch_all(&pool).await }).await
}

/// Folds an event of an order, its payment or a notification, as the read model does.
pub fn fold(view: &mut OrderView, row: &AuditRow) -> Result<(), DecodeError> {
    let position = u64::try_from(row.position).unwrap_or_default();
    let event = StoredEvent::from_json(&row.bytes)?;
    match row.aggregate_type.as_str() {
        Order::TYPE => view.update(&envelope::<Order>(position, &event)?),
        Payment::TYPE => view.update(&envelope::<Payment>(position, &event)?),
        Notification::TYPE => view.update(&envelope::<Notification>(position, &event)?),
        // The statement asks for these three alone.
        _ => {}
    }
    Ok(())
}
