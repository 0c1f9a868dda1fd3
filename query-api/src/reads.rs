//! The SQL. Everything here takes the database, reads, and returns rows; nothing knows GraphQL.

mod keyset;

mod as_of;
mod audit;
mod inventory;
mod orders;
mod orders_by_id;

pub use as_of::{EventsOf, Moment, Skipped, events_of, fold, order_as_of};
pub use audit::{AuditConditions, AuditKey, AuditRow, Histories, HistoryOf, customer_of, is_of_history};
pub use inventory::{StockConditions, StockKey, StockRow};
pub use keyset::{Conditions, Ends, Slice, Sql, Table, page};
pub use orders::{ByPlacing, ByUpdate, OrderConditions, OrderKey, OrderRow};
pub use orders_by_id::OrdersById;

use read_store::projections::{self, Projection};

use crate::database::Database;
use crate::error::QueryError;

/// The order of that id, as it is now. For many callers at the same time there is [`OrdersById`].
pub async fn order(database: &Database, order_id: &str) -> Result<Option<OrderRow>, QueryError> {
    let sql = "SELECT view_id, placed_at, payload FROM contrail.orders WHERE view_id = $1";
    database.read(|pool| async move { sqlx::query_as(sql).bind(order_id).fetch_optional(&pool).await }).await
}

/// The stock of that SKU, as it is now.
pub async fn stock_item(database: &Database, sku: &str) -> Result<Option<StockRow>, QueryError> {
    let sql = "SELECT view_id, payload FROM contrail.inventory WHERE view_id = $1";
    database.read(|pool| async move { sqlx::query_as(sql).bind(sku).fetch_optional(&pool).await }).await
}

/// The event at that position of the log.
pub async fn audit_event(database: &Database, position: i64) -> Result<Option<AuditRow>, QueryError> {
    let sql = format!("SELECT {} FROM contrail.audit WHERE position = $1", AuditRow::COLUMNS);
    let sql = sql.as_str();
    database.read(|pool| async move { sqlx::query_as(sql).bind(position).fetch_optional(&pool).await }).await
}

/// The events of the log after a position and up to another, by position, so many at most.
pub async fn trail(database: &Database, after: i64, up_to: i64, rows_max: usize) -> Result<Vec<AuditRow>, QueryError> {
    let sql = format!(
        "SELECT {} FROM contrail.audit WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
        AuditRow::COLUMNS
    );
    let (sql, rows_max) = (sql.as_str(), i64::try_from(rows_max).unwrap_or(i64::MAX));
    let read = |pool| async move { sqlx::query_as(sql).bind(after).bind(up_to).bind(rows_max).fetch_all(&pool).await };
    database.read(read).await
}

/// Whether the history of an order, as [`Histories`] loads it, has an event at `position` or earlier.
pub async fn has_history_up_to(database: &Database, order_id: &str, position: i64) -> Result<bool, QueryError> {
    let sql = "SELECT EXISTS (
                   SELECT FROM contrail.audit
                   WHERE aggregate_type IN ('order', 'payment') AND aggregate_id = $1 AND position <= $2
               )";
    database.read(|pool| async move { sqlx::query_scalar(sql).bind(order_id).bind(position).fetch_one(&pool).await }).await
}

/// Every projection.
pub async fn projections(database: &Database) -> Result<Vec<Projection>, QueryError> {
    database.read(|pool| async move { projections::all(&pool).await }).await
}

/// A row of a test, which is only known by its position.
#[cfg(test)]
pub(crate) fn row(position: i64) -> AuditRow {
    AuditRow {
        position,
        event_id: uuid::Uuid::nil(),
        event_type: String::new(),
        aggregate_type: String::new(),
        aggregate_id: String::new(),
        version: 1,
        time: time::OffsetDateTime::UNIX_EPOCH,
        actor: None,
        correlation_id: String::new(),
        causation_id: None,
        trace_id: None,
        bytes: Vec::new(),
        leaf_hash: Vec::new(),
    }
}
