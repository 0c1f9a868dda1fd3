//! Reading the audit trail as it grows, once for all who listen.

use std::time::Duration;

use cqrs_es::Aggregate as _;
use domain::OrderId;
use domain::envelope::StoredEvent;
use domain::notification::{Notification, NotificationEvent};
use read_store::projections::ProjectionName;

use super::Live;
use crate::database::Database;
use crate::positions::Positions;
use crate::reads::{self, AuditRow};

/// Events of one statement.
const EVENTS_AT_ONCE: usize = 1_000;
/// Pause before a read that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Hands out what comes into the audit trail, for as long as it is polled. Reads nothing while nobody listens.
pub async fn follow(live: Live, database: Database, positions: Positions) {
    loop {
        let after = live.position().await;
        let up_to = positions.beyond(ProjectionName::Audit, after).await;
        match reads::trail(&database, after, up_to, EVENTS_AT_ONCE).await {
            Ok(rows) => {
                let reached = if rows.len() < EVENTS_AT_ONCE { up_to } else { rows.last().map_or(up_to, |row| row.position) };
                let events = rows.into_iter().filter_map(|row| Some((order_of(&row)?, row)));
                live.hand_out(after, events.collect(), reached);
            }
            Err(error) => {
                tracing::warn!("the trail cannot be followed, subscriptions wait: {error}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// The order that an event is about; `None` if it is about none.
fn order_of(row: &AuditRow) -> Option<OrderId> {
    match row.aggregate_type.as_str() {
        "order" | "payment" => row.aggregate_id.parse().ok(),
        Notification::TYPE => match StoredEvent::from_json(&row.bytes).ok()?.decode().ok()? {
            NotificationEvent::Sent(sent) => Some(sent.order_id),
            NotificationEvent::Failed(failed) => Some(failed.order_id),
        },
        _ => None,
    }
}
